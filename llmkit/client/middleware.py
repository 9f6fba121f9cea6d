"""Middleware: a user's own functions around every call of a Client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.request import Message, Request
from llmkit.scope import CallInterrupted, Scope
from llmkit.types import Chunk, Completion

if TYPE_CHECKING:
    from llmkit.streams import ChunkSource, Stream

__all__ = ["Middleware", "as_stream", "check_middleware", "run_through"]

R = TypeVar("R")

# middleware(request, call_next) -> what call_next(request) returned, or an own Completion. A plain
# function type: one that handles streams, too, sees a Stream in place of the Completion.
Middleware = Callable[[Request, Callable[[Request], Any]], Any]


def check_middleware(middleware: Sequence[Middleware]) -> tuple[Middleware, ...]:
    """Checks what a user gave as middleware.

    Args:
        middleware: Functions, the first one outermost.

    Raises:
        InvalidRequestError: It is no sequence of functions.
    """
    if callable(middleware) or isinstance(middleware, str):
        raise InvalidRequestError("middleware= expects a list of functions")
    for each in middleware:
        if not callable(each):
            raise InvalidRequestError(f"middleware has {brief(each)}: expected functions")
    return tuple(middleware)


def run_through(
    middleware: Sequence[Middleware],
    request: Request,
    call: Callable[[Request], R],
    kinds: tuple[type, ...],
    timeout: float | None,
) -> R:
    """Makes a call through middleware, under one time-out.

    Args:
        middleware: The functions, the first one outermost.
        request: What is asked.
        call: Makes the call itself.
        kinds: What may come back.
        timeout: Seconds for everything together; None sets no limit.

    Returns:
        What the outermost function returned.

    Raises:
        InvalidRequestError: One changed the model, or returned something else.
        LLMError: The call failed, or the time was over.
    """

    def innermost(changed: Request) -> R:
        return call(_checked(changed, request.model))

    chain: Callable[[Request], Any] = innermost
    for each in reversed(middleware):
        chain = _around(each, chain, kinds)
    with Scope(timeout).entered():
        try:
            result: R = chain(request)
        except CallInterrupted as interruption:  # a middleware waited for something in the Scope
            raise interruption.to_error(model=request.model) from None
    return result


def as_stream(reply: Completion) -> Stream:
    """Returns a middleware's own answer to a call that streams as the stream that was asked for."""
    from llmkit.streams import Stream

    def source() -> ChunkSource:
        yield from ()
        return reply

    return Stream(
        source(),
        first=Chunk(reply.text) if reply.text else None,
        ended=None if reply.text else reply,
        scope=Scope(),
        idle_timeout=None,
        describe=lambda error: error,
        on_end=lambda outcome: None,
    )


def _checked(changed: object, model: str) -> Request:
    """Checks the request that a middleware passes on."""
    if not isinstance(changed, Request):
        raise InvalidRequestError(
            f"call_next was given {brief(changed)}, expected the request, as it came or changed by "
            "dataclasses.replace",
            model=model,
        )
    if changed.model != model:
        raise InvalidRequestError(
            "middleware can't change the model of a call: that is chosen already", model=model
        )
    messages = tuple(changed.messages)
    for each in messages:
        if not isinstance(each, Message):
            raise InvalidRequestError(
                f"middleware put {brief(each)} among the messages, expected a llmkit.Message",
                model=model,
            )
    return changed if messages is changed.messages else replace(changed, messages=messages)


def _around(
    each: Middleware, call_next: Callable[[Request], Any], kinds: tuple[type, ...]
) -> Callable[[Request], Any]:
    def run(request: Request) -> Any:
        result = each(request, call_next)
        if not isinstance(result, kinds):
            name = getattr(each, "__qualname__", repr(each))
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise InvalidRequestError(
                f"the middleware {name} returned {brief(result)}, expected a {expected}: return "
                "what call_next(request) returned",
                model=request.model,
            )
        return result

    return run
