"""What each vendor's error means: hand-written tables from status, body and class to ErrorCode.

Status and the vendor's own words decide, compared whole: a field's name inside a message must not
turn a wrong request into a rate limit. Texts are looked at last, for what vendors say in no other
way. Every exception class that an SDK exports has its row, which a test holds, so that an upgrade
which adds one is noticed; the only catch-all is for 5xx.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmkit.adapters.content_filters import FILTER_TEXT
from llmkit.adapters.vendor_error import VendorError, retry_after
from llmkit.errors import ErrorCode, LLMError

__all__ = [
    "ANTHROPIC_CLASSES",
    "BY_STATUS",
    "GEMINI_CLASSES",
    "HTTPX_CLASSES",
    "OPENAI_CLASSES",
    "classify",
    "to_llm_error",
]

# A class that says nothing by itself: its status and body do.
BY_STATUS = None

_Classes = Mapping[str, ErrorCode | None]

# Raw errors of the HTTP client: the SDKs let them through while a body is read.
HTTPX_CLASSES: _Classes = {
    "HTTPError": ErrorCode.LLM_CONNECTION_ERROR,
    "RequestError": ErrorCode.LLM_CONNECTION_ERROR,
    "TransportError": ErrorCode.LLM_CONNECTION_ERROR,
    "TimeoutException": ErrorCode.LLM_TIMEOUT,
    "ConnectTimeout": ErrorCode.LLM_CONNECTION_ERROR,
    "ReadTimeout": ErrorCode.LLM_TIMEOUT,
    "WriteTimeout": ErrorCode.LLM_TIMEOUT,
    "PoolTimeout": ErrorCode.LLM_TIMEOUT,
    "NetworkError": ErrorCode.LLM_CONNECTION_ERROR,
    "ConnectError": ErrorCode.LLM_CONNECTION_ERROR,
    "ReadError": ErrorCode.LLM_CONNECTION_ERROR,
    "WriteError": ErrorCode.LLM_CONNECTION_ERROR,
    "CloseError": ErrorCode.LLM_CONNECTION_ERROR,
    "ProxyError": ErrorCode.LLM_CONNECTION_ERROR,
    "ProtocolError": ErrorCode.LLM_CONNECTION_ERROR,
    "RemoteProtocolError": ErrorCode.LLM_CONNECTION_ERROR,
    "LocalProtocolError": ErrorCode.INVALID_REQUEST,
    "UnsupportedProtocol": ErrorCode.CONFIGURATION_ERROR,
    "InvalidURL": ErrorCode.CONFIGURATION_ERROR,
    "DecodingError": ErrorCode.LLM_PROVIDER_ERROR,
    "TooManyRedirects": ErrorCode.LLM_PROVIDER_ERROR,
    "HTTPStatusError": BY_STATUS,
    "CookieConflict": ErrorCode.LLM_PROVIDER_ERROR,
    "StreamError": ErrorCode.LLM_PROVIDER_ERROR,
    "StreamClosed": ErrorCode.LLM_PROVIDER_ERROR,
    "StreamConsumed": ErrorCode.LLM_PROVIDER_ERROR,
    "ResponseNotRead": ErrorCode.LLM_PROVIDER_ERROR,
    "RequestNotRead": ErrorCode.LLM_PROVIDER_ERROR,
    "SSEError": ErrorCode.LLM_PROVIDER_ERROR,
}

OPENAI_CLASSES: _Classes = {
    "OpenAIError": ErrorCode.CONFIGURATION_ERROR,
    "APIError": BY_STATUS,
    "APIStatusError": BY_STATUS,
    "APITimeoutError": ErrorCode.LLM_TIMEOUT,
    "APIConnectionError": ErrorCode.LLM_CONNECTION_ERROR,
    "APIResponseValidationError": ErrorCode.LLM_PROVIDER_ERROR,
    "BadRequestError": BY_STATUS,
    "AuthenticationError": BY_STATUS,
    "OAuthError": ErrorCode.AUTHENTICATION_ERROR,
    "PermissionDeniedError": BY_STATUS,
    "NotFoundError": BY_STATUS,
    "ConflictError": BY_STATUS,
    "UnprocessableEntityError": BY_STATUS,
    "RateLimitError": BY_STATUS,
    "InternalServerError": BY_STATUS,
    "LengthFinishReasonError": ErrorCode.LLM_RESPONSE_FORMAT,
    "ContentFilterFinishReasonError": ErrorCode.LLM_CONTENT_FILTER,
    "InvalidWebhookSignatureError": ErrorCode.LLM_PROVIDER_ERROR,
    "WebSocketQueueFullError": ErrorCode.LLM_CONNECTION_ERROR,
    "WebSocketConnectionClosedError": ErrorCode.LLM_CONNECTION_ERROR,
}

ANTHROPIC_CLASSES: _Classes = {
    "AnthropicError": ErrorCode.CONFIGURATION_ERROR,
    "APIError": BY_STATUS,
    "APIStatusError": BY_STATUS,
    "APITimeoutError": ErrorCode.LLM_TIMEOUT,
    "APIConnectionError": ErrorCode.LLM_CONNECTION_ERROR,
    "APIResponseValidationError": ErrorCode.LLM_PROVIDER_ERROR,
    "APIWebhookValidationError": ErrorCode.LLM_PROVIDER_ERROR,
    "BadRequestError": BY_STATUS,
    "AuthenticationError": BY_STATUS,
    "PaymentRequiredError": ErrorCode.LLM_QUOTA_EXCEEDED,
    "PermissionDeniedError": BY_STATUS,
    "NotFoundError": BY_STATUS,
    "RequestTimeoutError": BY_STATUS,
    "ConflictError": BY_STATUS,
    "PreconditionFailedError": BY_STATUS,
    "ContentTooLargeError": BY_STATUS,
    "RequestTooLargeError": BY_STATUS,
    "UnprocessableEntityError": BY_STATUS,
    "RateLimitError": BY_STATUS,
    "RequestHeaderFieldsTooLargeError": BY_STATUS,
    "ClientClosedRequestError": BY_STATUS,
    "InternalServerError": BY_STATUS,
    "HTTPNotImplementedError": BY_STATUS,
    "ServiceUnavailableError": BY_STATUS,
    "GatewayTimeoutError": BY_STATUS,
    "OverloadedError": BY_STATUS,
    "ClaudeCodeKeyCreatorNotMemberError": ErrorCode.PERMISSION_DENIED,
    "ClaudeCodeVersionTooOldError": BY_STATUS,
    "CMEKContextUnavailableError": BY_STATUS,
    "CMEKKeyDisabledError": ErrorCode.PERMISSION_DENIED,
    "CMEKKeyNetworkBlockedError": ErrorCode.PERMISSION_DENIED,
    "CMEKKeyUnreachableError": BY_STATUS,
    "OrganizationOnHoldError": ErrorCode.PERMISSION_DENIED,
    "OrganizationTypeNotSupportedError": ErrorCode.PERMISSION_DENIED,
    "ParentOrganizationRequiredError": ErrorCode.PERMISSION_DENIED,
    "RequestBodyEncodingInvalidError": BY_STATUS,
    "RequestBodyEncodingUnsupportedError": BY_STATUS,
    "RequestBodyTooLargeAfterDecodingError": BY_STATUS,
    "LinkedOrganizationBillingUnavailableError": ErrorCode.LLM_QUOTA_EXCEEDED,
    "LinkedOrganizationSpendLimitReachedError": ErrorCode.LLM_QUOTA_EXCEEDED,
    "SandboxEgressRestrictedError": ErrorCode.PERMISSION_DENIED,
    "ContractSpendLimitReachedError": ErrorCode.LLM_QUOTA_EXCEEDED,
    "EnforcedSpendLimitReachedError": ErrorCode.LLM_QUOTA_EXCEEDED,
    "RampLimitExceededError": ErrorCode.LLM_RATE_LIMIT,
    "DeadlineExceededError": ErrorCode.LLM_TIMEOUT,
    "RetryableError": ErrorCode.LLM_PROVIDER_ERROR,
    "CredentialsError": ErrorCode.AUTHENTICATION_ERROR,
    "IdentityTokenFileError": ErrorCode.AUTHENTICATION_ERROR,
    "WorkloadIdentityError": ErrorCode.AUTHENTICATION_ERROR,
}

GEMINI_CLASSES: _Classes = {
    "APIError": BY_STATUS,
    "ClientError": BY_STATUS,
    "ServerError": BY_STATUS,
    "UnknownFunctionCallArgumentError": ErrorCode.INVALID_REQUEST,
    "UnsupportedFunctionError": ErrorCode.INVALID_REQUEST,
    "FunctionInvocationError": ErrorCode.INVALID_REQUEST,
    "UnknownApiResponseError": ErrorCode.LLM_PROVIDER_ERROR,
    "ContinuationInterruptedError": ErrorCode.LLM_PROVIDER_ERROR,
    "EphemeralTokenAPIKeyError": ErrorCode.AUTHENTICATION_ERROR,
    # pydantic's, when a parameter does not fit the SDK's types.
    "ValidationError": ErrorCode.INVALID_REQUEST,
}

# The vendors' own words (OpenAI's `code` and `type`, Anthropic's `error.type`, Google's `status`
# and `reason`) that say more than the status, whatever the status is. They are compared whole and
# in small letters: what speaks a vendor's protocol for it does not always keep its case.
_TELLING_WORDS = {
    "insufficient_quota": ErrorCode.LLM_QUOTA_EXCEEDED,
    "billing_not_active": ErrorCode.LLM_QUOTA_EXCEEDED,
    "billing_hard_limit_reached": ErrorCode.LLM_QUOTA_EXCEEDED,
    "billing_error": ErrorCode.LLM_QUOTA_EXCEEDED,
    "contract_spend_limit_reached": ErrorCode.LLM_QUOTA_EXCEEDED,
    "enforced_spend_limit_reached": ErrorCode.LLM_QUOTA_EXCEEDED,
    "context_length_exceeded": ErrorCode.LLM_CONTEXT_LENGTH,
    "exceed_context_size_error": ErrorCode.LLM_CONTEXT_LENGTH,
    "model_context_window_exceeded": ErrorCode.LLM_CONTEXT_LENGTH,
    "content_filter": ErrorCode.LLM_CONTENT_FILTER,
    "content_policy_violation": ErrorCode.LLM_CONTENT_FILTER,
    "refusal": ErrorCode.LLM_CONTENT_FILTER,
    "model_not_found": ErrorCode.MODEL_NOT_FOUND,
    "invalid_api_key": ErrorCode.AUTHENTICATION_ERROR,
    "api_key_invalid": ErrorCode.AUTHENTICATION_ERROR,
}

_STATUSES = {
    400: ErrorCode.INVALID_REQUEST,
    401: ErrorCode.AUTHENTICATION_ERROR,
    402: ErrorCode.LLM_QUOTA_EXCEEDED,
    403: ErrorCode.PERMISSION_DENIED,
    404: ErrorCode.MODEL_NOT_FOUND,
    405: ErrorCode.INVALID_REQUEST,
    406: ErrorCode.INVALID_REQUEST,
    407: ErrorCode.CONFIGURATION_ERROR,
    408: ErrorCode.LLM_TIMEOUT,
    409: ErrorCode.INVALID_REQUEST,
    410: ErrorCode.MODEL_NOT_FOUND,
    411: ErrorCode.INVALID_REQUEST,
    412: ErrorCode.INVALID_REQUEST,
    413: ErrorCode.INVALID_REQUEST,
    414: ErrorCode.INVALID_REQUEST,
    415: ErrorCode.INVALID_REQUEST,
    422: ErrorCode.INVALID_REQUEST,
    425: ErrorCode.LLM_PROVIDER_ERROR,
    429: ErrorCode.LLM_RATE_LIMIT,
    431: ErrorCode.INVALID_REQUEST,
    451: ErrorCode.PERMISSION_DENIED,
    499: ErrorCode.LLM_CANCELLED,
}

# Words that say what kind of error it is where there is no status, as inside a stream.
_KINDS = {
    "invalid_request_error": ErrorCode.INVALID_REQUEST,
    "invalid_argument": ErrorCode.INVALID_REQUEST,
    "failed_precondition": ErrorCode.INVALID_REQUEST,
    "out_of_range": ErrorCode.INVALID_REQUEST,
    "request_too_large": ErrorCode.INVALID_REQUEST,
    "authentication_error": ErrorCode.AUTHENTICATION_ERROR,
    "unauthenticated": ErrorCode.AUTHENTICATION_ERROR,
    "permission_error": ErrorCode.PERMISSION_DENIED,
    "permission_denied": ErrorCode.PERMISSION_DENIED,
    "not_found_error": ErrorCode.MODEL_NOT_FOUND,
    "not_found": ErrorCode.MODEL_NOT_FOUND,
    "rate_limit_error": ErrorCode.LLM_RATE_LIMIT,
    "rate_limit_exceeded": ErrorCode.LLM_RATE_LIMIT,
    "resource_exhausted": ErrorCode.LLM_RATE_LIMIT,
    "timeout_error": ErrorCode.LLM_TIMEOUT,
    "deadline_exceeded": ErrorCode.LLM_TIMEOUT,
    "overloaded_error": ErrorCode.LLM_PROVIDER_ERROR,
    "server_error": ErrorCode.LLM_PROVIDER_ERROR,
    "api_error": ErrorCode.LLM_PROVIDER_ERROR,
    "unavailable": ErrorCode.LLM_PROVIDER_ERROR,
    "internal": ErrorCode.LLM_PROVIDER_ERROR,
    "cancelled": ErrorCode.LLM_CANCELLED,
}

# Said in no other way: Anthropic's and Google's full windows ("prompt is too long: 200001 tokens >
# 200000 maximum", "The input token count (5000000) exceeds the maximum number of tokens allowed"),
# and the same from compatible servers.
_CONTEXT_TEXT = re.compile(
    r"prompt is too long|maximum context length|input token count \(?\d+\)? exceeds"
    r"|exceeds? the (?:available|model'?s)? ?context (?:size|window|length)",
    re.IGNORECASE,
)

_ADVICE = {
    ErrorCode.AUTHENTICATION_ERROR: "check the key",
    ErrorCode.LLM_QUOTA_EXCEEDED: "check the account's plan and billing",
    ErrorCode.LLM_CONTEXT_LENGTH: "shorten the prompt, or use a model with a larger window",
}


def classify(error: VendorError, classes: _Classes) -> ErrorCode | None:
    """Finds an error's code.

    Args:
        error: The error.
        classes: The SDK's exception classes.

    Returns:
        The code; None when no row fits.
    """
    # A class deep inside an SDK counts as its nearest base that has a row.
    rows = {**HTTPX_CLASSES, **classes}
    kind = next((kind for kind in error.kinds if kind in rows), None)
    by_class = None if kind is None else rows[kind]
    if by_class is not None:
        return by_class
    if error.category is not None:
        return ErrorCode.LLM_CONTENT_FILTER
    words = [word.lower() for word in error.words]
    for word in words:
        if word in _TELLING_WORDS:
            return _TELLING_WORDS[word]
    if error.status in (None, 200, 400, 413, 422):
        if _CONTEXT_TEXT.search(error.message):
            return ErrorCode.LLM_CONTEXT_LENGTH
        if FILTER_TEXT.search(error.message):
            return ErrorCode.LLM_CONTENT_FILTER
    if error.status in _STATUSES:
        return _STATUSES[error.status]
    if error.status is not None and error.status >= 500:
        return ErrorCode.LLM_PROVIDER_ERROR
    for word in words:
        if word in _KINDS:
            return _KINDS[word]
    if kind is not None or not error.kinds:
        # No row for its status (a redirect, say) or its words: the vendor failed somehow.
        return ErrorCode.LLM_PROVIDER_ERROR
    return None


def to_llm_error(
    error: VendorError, classes: _Classes, *, provider: str, model: str, successor: str | None
) -> LLMError | None:
    """Says a vendor's error in llmkit's words.

    Args:
        error: The error.
        classes: The SDK's exception classes.
        provider: Who was asked.
        model: Which model.
        successor: What the registry would use instead of the model; None when it doesn't say.

    Returns:
        The error to raise; None when the error is not one that a vendor's SDK raises.
    """
    code = classify(error, classes)
    if code is None:
        return None
    message = error.message.strip()[:1000]
    advice = _ADVICE.get(code)
    if code is ErrorCode.MODEL_NOT_FOUND and successor is not None:
        advice = f"its successor is {successor}"
    if error.status is not None and 300 <= error.status < 400:
        advice = "redirects are not followed; set the API base to the final address"
    # A status below 500 that has no row: whatever it means, the same request would get it again.
    unlisted = (
        error.status is not None and 200 < error.status < 500 and error.status not in _STATUSES
    )
    facts = {"category": _category(error)} if code is ErrorCode.LLM_CONTENT_FILTER else {}
    return LLMError.of_code(
        code,
        (message or "the vendor gave no reason") + (f" - {advice}" if advice else ""),
        provider=provider,
        model=model,
        status=error.status,
        request_id=error.request_id,
        retry_after=retry_after(error),
        retryable=False if unlisted else None,
        **facts,
    )


def _category(error: VendorError) -> str | None:
    """Returns the vendor's most specific word for why it refused a content."""
    if error.category is not None:
        return error.category
    for word in error.words:
        if _TELLING_WORDS.get(word.lower()) is ErrorCode.LLM_CONTENT_FILTER:
            return word
    said = FILTER_TEXT.search(error.message)
    return None if said is None else next(filter(None, said.groups()))
