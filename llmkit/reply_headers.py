"""Who is told the headers of each HTTP reply, such as those that say what is left of a rate limit.

The transport tells them here, whatever becomes of the reply, and knows nothing of who listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from llmkit.log import get_logger

__all__ = ["heard_by", "tell"]

Listener = Callable[[Mapping[str, str]], object]

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("llmkit_reply_listeners", default=())


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Has a function told the headers of every reply that comes in a block, errors included.

    Don't `yield` inside the block: until the generator goes on, it would hear its caller's replies.

    Args:
        listener: Given the headers by their lower-case names, as soon as they are there.
    """
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def tell(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Tells whoever listens the headers of a reply.

    Args:
        headers: Names and values, as they came.
    """
    listeners = _listeners.get()
    if not listeners:
        return
    known = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    for listener in listeners:
        try:
            listener(known)
        except Exception:  # a listener's bug must not cost an answer that is paid for
            get_logger("reply_headers").exception("listener %r failed", listener)
