"""What a vendor's error says, taken out of its SDK's exception, or out of a stream."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from llmkit.adapters.content_filters import as_mapping, category_of_error

__all__ = ["VendorError", "retry_after"]

# Seconds. Nobody means a longer pause: it is a point in time, say, or a clock that is wrong.
LONGEST_PAUSE = 30 * 86400.0


class VendorError(NamedTuple):
    """What a vendor's error says, taken out of its SDK's exception, or out of a stream.

    Attributes:
        kinds: The names of the exception's class and of its bases; () for an error inside a
            stream.
        status: The HTTP status; None without one.
        words: The vendor's own words for it: code, type, status, reason.
        message: The vendor's text.
        headers: The reply's headers.
        request_id: The vendor's id of the request; None when it gave none.
        retry_delay: Seconds to wait, where the body says so; None where it doesn't.
        category: Why the content was refused, where the body names a category; else None.
    """

    kinds: tuple[str, ...] = ()
    status: int | None = None
    words: tuple[str, ...] = ()
    message: str = ""
    headers: Mapping[str, str] = MappingProxyType({})
    request_id: str | None = None
    retry_delay: float | None = None
    category: str | None = None

    @classmethod
    def from_exception(cls, error: BaseException) -> VendorError:
        """Reads an SDK's exception, whichever of them it is."""
        response = getattr(error, "response", None)
        headers = getattr(response, "headers", None)
        status = getattr(error, "status_code", getattr(error, "code", None))
        # OpenAI's `body` is the inner object; Anthropic's and Google's (`details`) are whole.
        body = getattr(error, "body", getattr(error, "details", None))
        return cls.from_body(
            body,
            kinds=tuple(kind.__name__ for kind in type(error).__mro__),
            status=status if isinstance(status, int) else getattr(response, "status_code", None),
            message=str(getattr(error, "message", None) or error),
            headers={} if headers is None else headers,
            request_id=getattr(error, "request_id", None),
        )

    @classmethod
    def from_body(cls, body: object, message: str = "", **facts: Any) -> VendorError:
        """Reads the JSON of an error, in the shape of any of the three vendors.

        Args:
            body: The JSON.
            message: The text where the JSON has none.
            **facts: The other fields.
        """
        if isinstance(body, list) and len(body) == 1:
            body = body[0]
        inner = as_mapping(body).get("error")
        error = as_mapping(inner) or as_mapping(body)
        if isinstance(inner, str):  # as routers and small servers say it
            message = message or inner
        # Google's details are a list of objects, Anthropic's one object.
        details = error.get("details")
        rows = [as_mapping(row) for row in (details if isinstance(details, list) else [details])]
        words = [error.get("code"), error.get("type"), error.get("status")]
        words += [row.get(key) for row in rows for key in ("error_code", "reason")]
        # OpenRouter's code is the status, and its message the same for all: its own word, and
        # those of the vendor behind it, stand here.
        metadata = as_mapping(error.get("metadata"))
        words.append(metadata.get("error_type"))
        said, behind = error.get("message"), metadata.get("raw")
        if isinstance(said, str) and isinstance(behind, str):
            said = f"{said}: {behind}"
        # Inside a stream or a reply of status 200, Google and OpenRouter give the status here.
        number = error.get("code")
        if not facts.get("status") and isinstance(number, int) and 400 <= number <= 599:
            facts["status"] = number
        delays = (_delay(row.get("retryDelay")) for row in rows)
        return cls(
            words=tuple(word for word in words if isinstance(word, str)),
            message=said if isinstance(said, str) and said else message,
            retry_delay=next((delay for delay in delays if delay is not None), None),
            category=category_of_error(error),
            **facts,
        )


def retry_after(error: VendorError, now: float | None = None) -> float | None:
    """Returns the seconds that a vendor asks to wait.

    Args:
        error: The error, with its reply's headers.
        now: Seconds since the epoch; None takes the clock.

    Returns:
        Seconds, not negative, from `retry-after-ms`, `retry-after` (seconds or a date), or the
        body; None when the vendor does not say, or says nothing that can be meant.
    """
    milliseconds = _number(error.headers.get("retry-after-ms"), per_second=1000.0)
    if milliseconds is not None:
        return milliseconds
    asked = error.headers.get("retry-after")
    seconds = _number(asked)
    if seconds is None and asked:
        moment = _moment(asked)
        if moment is not None:
            seconds = max(0.0, moment - (time.time() if now is None else now))
    if seconds is None or seconds > LONGEST_PAUSE:
        return error.retry_delay
    return seconds


def _moment(date: str) -> float | None:
    import datetime
    import email.utils  # loads sockets and calendars: not with every `import llmkit.adapters`

    try:
        moment = email.utils.parsedate_to_datetime(date)
        if moment.tzinfo is None:  # HTTP's dates are in GMT, whether they say so or not
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def _delay(value: object) -> float | None:
    """Reads a duration as Google writes it, such as "26.5s"."""
    return _number(value.removesuffix("s") if isinstance(value, str) else value)


def _number(value: object, per_second: float = 1.0) -> float | None:
    """Reads a pause in seconds; None where it is nothing that can be meant."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value) / per_second
    except (ValueError, OverflowError):
        return None
    return seconds if 0.0 <= seconds <= LONGEST_PAUSE else None  # NaN compares false
