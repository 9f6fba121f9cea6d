"""Cached replies: a model's answers under the keys of their requests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from llmkit.cache.allowance import Allowance
from llmkit.cache.base import Found, LLMCache
from llmkit.cache.guarded import guarded
from llmkit.cache.keys import request_key
from llmkit.cache.leases import UNKEPT, Answered, answer_once
from llmkit.cache.memory import MemoryCache
from llmkit.cache.stored_reply import Facts, from_text, from_value, hit_of, read_value, to_text
from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.request import Request, check_seconds
from llmkit.request.checks import check_switch
from llmkit.settings import get_settings
from llmkit.streams import ChunkSource
from llmkit.types import Chunk, Completion

__all__ = [
    "CacheUse",
    "ReplyCache",
    "may_be_kept",
    "read_cache_use",
    "replay",
    "reply_cache",
]

Mode = Literal["use", "refresh", "off"]

# Seconds for which other processes are told that an answer was not kept.
_UNKEPT_TTL = 2.0


class CacheUse(NamedTuple):
    """How one call uses the cache.

    Attributes:
        mode: "use" takes a cached answer and keeps a fresh one, "refresh" only keeps, "off" does
            neither.
        ttl: Seconds for which a fresh answer is kept; None takes the cache's default.
        stale_ttl: Seconds for which it is kept after that, in case every model fails; 0: none.
        truncated: Whether an answer that was cut off at `max_tokens` is kept, and taken.
    """

    mode: Mode = "use"
    ttl: float | None = None
    stale_ttl: float = 0.0
    truncated: bool = False


_MODES: dict[object, Mode] = {True: "use", False: "off", "refresh": "refresh"}
_USUAL: Final = CacheUse()
_OFF: Final = CacheUse("off")


def read_cache_use(
    use_cache: object = True,
    cache_ttl: object = None,
    stale_ttl: object = None,
    cache_truncated: object = None,
) -> CacheUse:
    """Reads what a user typed.

    Args:
        use_cache: True, False, or "refresh" for a fresh answer that replaces the cached one.
        cache_ttl: Seconds for which a fresh answer is kept; None takes the cache's default.
        stale_ttl: Seconds for which it is kept after that, to be used when every model fails; None
            or 0 for none.
        cache_truncated: Whether an answer that was cut off at `max_tokens` is kept, and taken; None
            for no.

    Returns:
        What it means.

    Raises:
        InvalidRequestError: Something can't be meant; says what was expected.
    """
    if cache_ttl is None and stale_ttl is None and cache_truncated is None:
        if use_cache is True:
            return _USUAL
        if use_cache is False:
            return _OFF
    if not isinstance(use_cache, bool | str) or use_cache not in _MODES:
        raise InvalidRequestError(
            f"use_cache={brief(use_cache)}: expected True, False or 'refresh'"
        )
    ttl = check_seconds("cache_ttl", cache_ttl)
    kept = 0.0
    if stale_ttl is not None and (stale_ttl != 0 or isinstance(stale_ttl, bool)):
        kept = check_seconds("stale_ttl", stale_ttl) or 0.0
    truncated = check_switch("cache_truncated", cache_truncated)
    return CacheUse(_MODES[use_cache], ttl, kept, bool(truncated))


class ReplyCache:
    """A model's answers, each asked for once. Safe for threads, signals and forks.

    Args:
        store: Where they are kept.
        namespace: What sets this application's keys apart; None takes the settings'.
    """

    def __init__(self, store: LLMCache, namespace: str | None = None) -> None:
        self.store = guarded(store)
        self.namespace = get_settings().cache_namespace if namespace is None else namespace
        near = getattr(store, "l1", store)
        self._memory = near if type(near) is MemoryCache else None

    def key_of(self, request: Request, *, provider: str, address: str) -> str | None:
        """Gives a request's key; None when its answer is not to be cached. See `request_key`."""
        return request_key(request, provider=provider, address=address, namespace=self.namespace)

    def near(self, key: str | None, use: CacheUse = _USUAL) -> Completion | None:
        """Looks for an answer where that needs no input, no output and no wait: in memory.

        Args:
            key: The request's key; None finds nothing.
            use: Whether a truncated one will do.

        Returns:
            The answer, which belongs to the caller; None when there is none.
        """
        if key is None:
            return None
        memory = self._memory
        if memory is None:
            return _wanted(self.store.read_near(key), use)
        # What `read_near` does, without decoding what few look at.
        entry = memory.fetch(key)
        if entry is None or memory.clock() >= entry.expires_at:
            return None
        hit = from_text(entry.text)
        if hit is None or _unwanted(hit.finish_reason, use):
            return None
        memory.count("hits")
        return hit

    def find(
        self, key: str | None, allowance: Allowance | None = None, use: CacheUse = _USUAL
    ) -> Completion | None:
        """Looks for an answer in all levels, without joining a flight.

        Args:
            key: The request's key; None finds nothing.
            allowance: What the call may spend on shared caches; None for the usual.
            use: Whether a truncated one will do.

        Returns:
            The answer, which belongs to the caller; None when there is none.
        """
        return None if key is None else _wanted(self.store.read(key, allowance=allowance), use)

    def find_stale(
        self, key: str | None, allowance: Allowance | None = None, use: CacheUse = _USUAL
    ) -> Completion | None:
        """Looks for an answer that may have expired, for a call whose models have all failed.

        Args:
            key: The request's key; None finds nothing.
            allowance: What the call may spend on shared caches; None for the usual.
            use: Whether a truncated one will do.

        Returns:
            The answer; None when there is none. If it has expired, its `.cached` is "stale", and
            its warnings say since when.
        """
        if key is None:
            return None
        found = self.store.read(key, stale=True, allowance=allowance)
        reply = _wanted(found, use)
        if reply is not None and found is not None and found.stale:
            reply.cached = "stale"
            reply.warnings = (_said_of_stale(found.expires_at), *reply.warnings)
        return reply

    def answer(
        self,
        key: str | None,
        use: CacheUse,
        fresh: Callable[[], Completion],
        allowance: Allowance | None = None,
    ) -> Completion:
        """Gives the answer to a request, asking for it only if nobody has and nobody does.

        Args:
            key: The request's key; None means that its answer is not to be cached.
            use: How the call uses the cache.
            fresh: Asks the model; what it costs should be in the answer already.
            allowance: What the call may spend on shared caches; None for the usual.

        Returns:
            The answer, which belongs to the caller. One that was not asked for by this call has
            `.cached`, its cost as `.saved_cost`, a `.cost` of 0 and no attempts.

        Raises:
            CallInterrupted: The Scope ended while another call's answer was awaited.
            BaseException: What `fresh` raised, also in another call, if the error lies in the
                request itself.
        """
        if key is None or use.mode == "off":
            return fresh()
        allowance = allowance or Allowance()
        if use.mode == "refresh":
            reply = fresh()
            self.keep(key, reply, use, allowance)
            return reply
        mine: list[Completion] = []

        def read(value: Any) -> Facts | None:
            facts = read_value(value)
            return None if facts is None or _unwanted(facts.finish_reason, use) else facts

        def ask() -> Answered:
            reply = fresh()
            mine.append(reply)
            return Answered(self._keep(key, reply, use, allowance), None)

        found, level = answer_once(self.store, key, read, ask, allowance)
        if mine:
            return mine[-1]
        if level is not None:
            return hit_of(found, level)
        # What another call has just been given, if it could be written down at all.
        shared = None if found is None else from_text(found)
        return fresh() if shared is None else shared

    def keep(
        self,
        key: str | None,
        reply: Completion,
        use: CacheUse,
        allowance: Allowance | None = None,
    ) -> bool:
        """Keeps an answer, if it is one to be kept.

        A refresh whose answer isn't kept drops the old one: the next call would get what its user
        has asked to be replaced.

        Args:
            key: The request's key; None keeps nothing.
            reply: The answer.
            use: For how long, and whether it is a refresh.
            allowance: What the call may spend on shared caches; None for the usual.

        Returns:
            Whether it is kept.
        """
        if key is None or use.mode == "off" or reply.cached is not None:
            return False
        text = to_text(reply) if may_be_kept(reply, use.truncated) else None
        if text is not None and self._write(key, text, use, allowance):
            return True
        if use.mode == "refresh":
            self.store.discard(key, allowance)
        return False

    def _keep(self, key: str, reply: Completion, use: CacheUse, allowance: Allowance) -> str | None:
        """Keeps an answer if it is one to be kept, and returns its text for those who wait."""
        text = to_text(reply)
        if text is not None and may_be_kept(reply, use.truncated):
            self._write(key, text, use, allowance)
        elif (
            self.store.shared
            and not use.stale_ttl
            # What is there, other calls may still use: an expired answer, or a truncated one.
            and self.store.read(key, stale=True, allowance=allowance) is None
        ):
            self.store.write(key, UNKEPT, ttl=_UNKEPT_TTL, allowance=allowance)
        return text

    def _write(self, key: str, text: str, use: CacheUse, allowance: Allowance | None) -> bool:
        return self.store.write_text(
            key, text, ttl=use.ttl, stale_ttl=use.stale_ttl, allowance=allowance
        )


def reply_cache(store: LLMCache, namespace: str) -> ReplyCache:
    """Returns the answers that all callers of a store share, so that they share flights, too.

    Args:
        store: The store.
        namespace: What sets this application's keys apart.
    """
    caches: dict[str, ReplyCache] = vars(store).setdefault("_reply_caches", {})
    return caches.get(namespace) or caches.setdefault(namespace, ReplyCache(store, namespace))


def may_be_kept(reply: Completion, truncated: bool = False) -> bool:
    """Whether an answer is one to be given again: whole, not empty, not filtered, not a hit.

    One that calls tools is not: it is a turn of a conversation, and its calls are to be made once.

    Args:
        reply: The answer.
        truncated: Whether one that was cut off at `max_tokens` will do.
    """
    return (
        (reply.finish_reason == "stop" or (truncated and reply.finish_reason == "length"))
        and bool(reply.text)
        and not reply.tool_calls
        and reply.cached is None
    )


def _unwanted(finish_reason: object, use: CacheUse) -> bool:
    """Whether a cached answer is a truncated one, and the call has not asked for such."""
    return finish_reason == "length" and not use.truncated


def _wanted(found: Found | None, use: CacheUse) -> Completion | None:
    reply = None if found is None else from_value(found.value, found.level)
    return None if reply is None or _unwanted(reply.finish_reason, use) else reply


def _said_of_stale(expired_at: float) -> str:
    try:
        moment = datetime.fromtimestamp(expired_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):  # a foreign entry's
        moment = "some time ago"
    return f"no model could be asked: this is a cached answer that expired, {moment}"


# A replayed answer comes in at most so many chunks, none of them shorter than so many characters.
_CHUNKS = 8
_SHORTEST = 80


def replay(reply: Completion) -> ChunkSource:
    """Hands an answer out as a stream.

    Args:
        reply: The answer.

    Yields:
        Its text, in a few chunks.

    Returns:
        The answer.
    """
    step = max(_SHORTEST, -(-len(reply.text) // _CHUNKS))
    for begin in range(0, len(reply.text), step):
        yield Chunk(reply.text[begin : begin + step])
    return reply
