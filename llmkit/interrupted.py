"""CallInterrupted: what ends a blocked operation, on its way up to the edge of llmkit."""

from __future__ import annotations

from llmkit.errors import ErrorCode, LLMError

__all__ = ["CallInterrupted"]


class CallInterrupted(BaseException):
    """Ends a blocked operation on its way up to the edge of llmkit; users never see it.

    Args:
        code: What the caller will be told.
        message: Why, in words for the caller.
        retryable: Whether a second try may help; None takes what the code says.
    """

    def __init__(self, code: ErrorCode, message: str, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable

    def to_error(self, *, provider: str | None = None, model: str | None = None) -> LLMError:
        """Makes the error to raise in this exception's place.

        Args:
            provider: The provider that was asked; None when none was, or nobody knows here.
            model: The model that was asked; None likewise.

        Returns:
            The error of the class that belongs to the code.
        """
        # The frames that were cut are an SDK's: their variables hold headers and keys, and some of
        # them this very exception, so that both would wait for the garbage collector.
        self.__traceback__ = None
        return LLMError.of_code(
            self.code, self.message, provider=provider, model=model, retryable=self.retryable
        )
