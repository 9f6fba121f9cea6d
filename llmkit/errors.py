"""Every error that llmkit raises on purpose.

One tree; each class has one `ErrorCode`, and retry and fallback decide by the code:

    LLMError
    ├── ConfigurationError      a key, an extra or a setting is missing or unreadable
    ├── InvalidRequestError     the request is wrong; raised before any network where possible
    │   └── ContextLengthError  the prompt does not fit the model's window
    ├── AuthenticationError     the key was refused
    ├── PermissionDeniedError   the key may not do this
    ├── ModelNotFoundError      no such model, here or at the vendor
    ├── RateLimitError          too many requests for now
    ├── QuotaExceededError      the account's money or quota is used up
    ├── LLMTimeoutError         the time given is over (also a TimeoutError)
    ├── APIConnectionError      the vendor could not be reached (also a ConnectionError)
    ├── ProviderError           5xx, overloaded, or a reply that cannot be read
    ├── StreamInterruptedError  a stream broke after text was handed out
    ├── ContentFilterError      the vendor refused the content
    ├── ResponseFormatError     the answer does not have the asked form
    ├── CircuitOpenError        the model failed so often that it is not asked for a while
    ├── BudgetExceededError     the call does not fit the budget
    ├── CancelledError          the call was cancelled
    └── AllModelsFailedError    every model of a chain or race failed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

__all__ = [
    "APIConnectionError",
    "AllModelsFailedError",
    "Attempt",
    "AuthenticationError",
    "BudgetExceededError",
    "CancelledError",
    "CircuitOpenError",
    "ConfigurationError",
    "ContentFilterError",
    "ContextLengthError",
    "ErrorCode",
    "InvalidRequestError",
    "LLMError",
    "LLMTimeoutError",
    "ModelNotFoundError",
    "PermissionDeniedError",
    "ProviderError",
    "QuotaExceededError",
    "RateLimitError",
    "ResponseFormatError",
    "StreamInterruptedError",
]


class ErrorCode(StrEnum):
    """What went wrong, as a string; one member for each error class."""

    AUTHENTICATION_ERROR = "AUTHENTICATION_ERROR"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    LLM_RATE_LIMIT = "LLM_RATE_LIMIT"
    LLM_QUOTA_EXCEEDED = "LLM_QUOTA_EXCEEDED"
    LLM_TIMEOUT = "LLM_TIMEOUT"
    LLM_CONNECTION_ERROR = "LLM_CONNECTION_ERROR"
    INVALID_REQUEST = "INVALID_REQUEST"
    LLM_CONTEXT_LENGTH = "LLM_CONTEXT_LENGTH"
    LLM_CONTENT_FILTER = "LLM_CONTENT_FILTER"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    LLM_PROVIDER_ERROR = "LLM_PROVIDER_ERROR"
    LLM_STREAM_INTERRUPTED = "LLM_STREAM_INTERRUPTED"
    LLM_RESPONSE_FORMAT = "LLM_RESPONSE_FORMAT"
    LLM_CIRCUIT_OPEN = "LLM_CIRCUIT_OPEN"
    LLM_BUDGET_EXCEEDED = "LLM_BUDGET_EXCEEDED"
    LLM_CANCELLED = "LLM_CANCELLED"
    LLM_ALL_MODELS_FAILED = "LLM_ALL_MODELS_FAILED"
    CONFIGURATION_ERROR = "CONFIGURATION_ERROR"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"{value!r} is no error code; there are {', '.join(cls)}")


# A second try of the same request can help with these, and with nothing else.
RETRYABLE_CODES = frozenset(
    {
        ErrorCode.LLM_RATE_LIMIT,
        ErrorCode.LLM_TIMEOUT,
        ErrorCode.LLM_CONNECTION_ERROR,
        ErrorCode.LLM_PROVIDER_ERROR,
    }
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP request that a call made, successful or not.

    Attributes:
        model: The model that was asked, by its bare name.
        provider: Its provider.
        code: What went wrong, or None when the attempt gave the answer.
        status: The HTTP status of a failure, or None when there was none (or no failure).
        wait: Seconds waited before this attempt; 0.0 for the first.
        duration: Seconds that the attempt took.
        request_id: The vendor's id of the request, or None when it sent none.
    """

    model: str
    provider: str
    code: ErrorCode | None
    status: int | None
    wait: float
    duration: float
    request_id: str | None


class LLMError(Exception):
    """Base of all errors of llmkit.

    Pickles whole, so that it crosses process pools; the vendor's own error, when there is one,
    is the `__cause__` (which pickling leaves behind, as it does for every exception).

    Args:
        message: What happened and what to do.
        code: An `ErrorCode` or its string; None takes the class's own.
        provider: The provider that was asked; None when none was.
        model: The model that was asked; None when none was.
        status: The HTTP status; None without an HTTP answer.
        request_id: The vendor's id of the request; None when unknown.
        retry_after: Seconds that the vendor asks to wait; None when it did not say.
        retryable: Whether the same request may succeed later; None takes what the code says.
        attempts: The HTTP requests made so far.
    """

    default_code: ClassVar[ErrorCode] = ErrorCode.LLM_PROVIDER_ERROR

    def __init__(
        self,
        message: str = "",
        *,
        code: ErrorCode | str | None = None,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else ErrorCode(code)
        self.provider = provider
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = self.code in RETRYABLE_CODES if retryable is None else retryable
        self.attempts: tuple[Attempt, ...] = tuple(attempts)

    def __str__(self) -> str:
        where = ":".join(part for part in (self.provider, self.model) if part)
        status = f" (HTTP {self.status})" if self.status else ""
        return f"{where}: {self.message}{status}" if where else f"{self.message}{status}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r}, code={self.code.value!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_error, (type(self), self.message), self.__dict__

    @classmethod
    def of_code(cls, code: ErrorCode | str, message: str, **facts: Any) -> LLMError:
        """Builds the error class that belongs to a code.

        Args:
            code: The code, or its string.
            message: What happened and what to do.
            **facts: The other arguments of `LLMError`.

        Returns:
            An instance of the subclass whose code this is.
        """
        return _CLASS_OF_CODE[ErrorCode(code)](message, **facts)


def _restore_error(kind: type[LLMError], message: str) -> LLMError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    return error


class ConfigurationError(LLMError):
    """A key, an extra or a setting is missing or can't be read; says which, and how to mend it."""

    default_code = ErrorCode.CONFIGURATION_ERROR


class InvalidRequestError(LLMError):
    """The request itself is wrong; sending it again would not help."""

    default_code = ErrorCode.INVALID_REQUEST


class ContextLengthError(InvalidRequestError):
    """The prompt (and the answer asked for) doesn't fit the model's context window."""

    default_code = ErrorCode.LLM_CONTEXT_LENGTH


class AuthenticationError(LLMError):
    """The vendor refused the key."""

    default_code = ErrorCode.AUTHENTICATION_ERROR


class PermissionDeniedError(LLMError):
    """The key is known to the vendor, but it may not do this."""

    default_code = ErrorCode.PERMISSION_DENIED


class ModelNotFoundError(LLMError):
    """There is no such model, in the registry or at the vendor."""

    default_code = ErrorCode.MODEL_NOT_FOUND


class RateLimitError(LLMError):
    """Too many requests or tokens for now; `.retry_after` says how long, if the vendor did."""

    default_code = ErrorCode.LLM_RATE_LIMIT


class QuotaExceededError(LLMError):
    """The account's money or quota is used up; waiting a little does not help."""

    default_code = ErrorCode.LLM_QUOTA_EXCEEDED


class LLMTimeoutError(LLMError, TimeoutError):
    """The time that was given is over."""

    default_code = ErrorCode.LLM_TIMEOUT


class APIConnectionError(LLMError, ConnectionError):
    """The vendor could not be reached, or the connection broke."""

    default_code = ErrorCode.LLM_CONNECTION_ERROR


class ProviderError(LLMError):
    """The vendor failed: 5xx, overloaded, or a reply that can't be read."""

    default_code = ErrorCode.LLM_PROVIDER_ERROR


class StreamInterruptedError(LLMError):
    """A stream broke after some of its text was handed out.

    Args:
        message: What happened and what to do.
        partial_text: The text that had arrived.
        **facts: The other arguments of `LLMError`.

    Attributes:
        partial_text: The text that had arrived.
    """

    default_code = ErrorCode.LLM_STREAM_INTERRUPTED

    def __init__(self, message: str = "", *, partial_text: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.partial_text = partial_text


class ContentFilterError(LLMError):
    """The vendor, or a filter of one's own, refused to answer because of the content.

    An answer of which something came is a `Completion` whose finish reason is "content_filter".

    Args:
        message: What happened and what to do.
        category: The vendor's own word for the reason; None when it gave none.
        **facts: The other arguments of `LLMError`.

    Attributes:
        category: The vendor's own word for the reason, the most specific that it said, several
            joined by ", "; None when it gave none.
    """

    default_code = ErrorCode.LLM_CONTENT_FILTER

    def __init__(self, message: str = "", *, category: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.category = category


class ResponseFormatError(LLMError):
    """The answer does not have the form that was asked for."""

    default_code = ErrorCode.LLM_RESPONSE_FORMAT


class CircuitOpenError(LLMError):
    """The model failed so often lately that it is not asked; `.retry_after` is the time left."""

    default_code = ErrorCode.LLM_CIRCUIT_OPEN


class BudgetExceededError(LLMError):
    """The call doesn't fit what is left of the budget; nothing was spent."""

    default_code = ErrorCode.LLM_BUDGET_EXCEEDED


class CancelledError(LLMError):
    """The call was cancelled from elsewhere."""

    default_code = ErrorCode.LLM_CANCELLED


class AllModelsFailedError(LLMError):
    """Every model of a chain or race failed.

    Args:
        message: What happened and what to do.
        errors: Each model's error, in the order of the models.
        **facts: The other arguments of `LLMError`.

    Attributes:
        errors: Each model's error, in the order of the models.
    """

    default_code = ErrorCode.LLM_ALL_MODELS_FAILED

    def __init__(self, message: str = "", *, errors: Sequence[LLMError] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.errors: tuple[LLMError, ...] = tuple(errors)

    def __str__(self) -> str:
        causes = "".join(f"\n  - {error}" for error in self.errors)
        return super().__str__() + causes


_CLASS_OF_CODE: dict[ErrorCode, type[LLMError]] = {
    kind.default_code: kind
    for kind in (
        ConfigurationError,
        InvalidRequestError,
        ContextLengthError,
        AuthenticationError,
        PermissionDeniedError,
        ModelNotFoundError,
        RateLimitError,
        QuotaExceededError,
        LLMTimeoutError,
        APIConnectionError,
        ProviderError,
        StreamInterruptedError,
        ContentFilterError,
        ResponseFormatError,
        CircuitOpenError,
        BudgetExceededError,
        CancelledError,
        AllModelsFailedError,
    )
}
