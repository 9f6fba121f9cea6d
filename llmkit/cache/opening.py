"""The process's shared caches: one for the settings, one for each URL that somebody names."""

from __future__ import annotations

from typing import Any, Final

from llmkit.cache.base import LLMCache
from llmkit.cache.memory import MemoryCache
from llmkit.errors import ConfigurationError, InvalidRequestError
from llmkit.settings import Settings, check_settings, get_settings

__all__ = ["cache_result", "clear_cache", "close_caches", "generation", "get_cache", "open_cache"]

# No ProcessLocal: every cache survives a fork by itself, and a child may begin with what its parent
# had in memory. setdefault is atomic, so threads that come together get one object.
_opened: dict[tuple[Any, ...], LLMCache] = {}
_forgotten: list[None] = []

_REDIS: Final = (
    *("redis", "rediss", "unix", "redis+cluster", "rediss+cluster"),
    *("redis+sentinel", "rediss+sentinel"),
)


def get_cache(settings: Settings | None = None) -> LLMCache:
    """Gives the cache that all of this process shares.

    Args:
        settings: Whose `cache_url`, `cache_namespace`, `cache_ttl` and `cache_max_entries` to use;
            None takes the process's. Whether calls use the cache at all, `cache_enabled`, is for
            them to ask.

    Returns:
        Memory alone, or in front of the cache at `cache_url`; the same object for equal settings.
        An SQLite file that isn't there is made at its first use, and its folder, too; when that
        fails, the log says so, and memory goes on alone.

    Raises:
        InvalidRequestError: These are no settings.
        ConfigurationError: The URL can't be read, or needs an extra that isn't installed.
    """
    settings = get_settings() if settings is None else check_settings(settings)
    return _open(settings.cache_url, settings)


def open_cache(
    given: LLMCache | str | bool | None, settings: Settings | None = None
) -> LLMCache | None:
    """Gives the cache that somebody named.

    Args:
        given: A cache; a URL, as in LLMKIT_CACHE_URL, for memory in front of what is there; None or
            True for the process's own, as the settings say; False for none.
        settings: For all else; None takes the process's.

    Returns:
        The cache, the same object for the same URL and settings; None for no cache.

    Raises:
        InvalidRequestError: It is none of these.
        ConfigurationError: The URL can't be read, or needs an extra that isn't installed.
    """
    if given is None or given is True:
        return get_cache(settings)
    if given is False:
        return None
    if isinstance(given, LLMCache):
        return given
    if isinstance(given, str):
        return _open(given, settings or get_settings())
    raise InvalidRequestError(
        f"cache: expected an LLMCache, a URL, True or False, not {type(given).__name__}"
    )


def cache_result(key: str, value: Any, ttl: float | None = None) -> bool:
    """Keeps a value in the process's cache.

    Args:
        key: Its key.
        value: Any JSON value.
        ttl: Seconds that it lives; None takes CACHE_TTL.

    Returns:
        Whether it was kept.

    Raises:
        InvalidRequestError: The value is no JSON value, or the time no positive number.
        ConfigurationError: As in `get_cache`.
    """
    return get_cache().set(key, value, ttl)


def clear_cache() -> bool:
    """Removes everything from the process's cache, in memory and in the store behind it.

    Only what is in this application's namespace (LLMKIT_CACHE_NAMESPACE) goes.

    Returns:
        Whether all is gone; False when the store can't be reached, or took too long.

    Raises:
        ConfigurationError: As in `get_cache`.
    """
    return get_cache().clear()


def generation() -> int:
    """Returns how often the shared caches were forgotten: what was got before is then outdated."""
    return len(_forgotten)


def close_caches() -> None:
    """Closes and forgets all shared caches; `get_cache` makes new ones. Clears nothing in stores.

    For tests, and for an application that wants its memory back.
    """
    _forgotten.append(None)
    while _opened:
        _, cache = _opened.popitem()
        cache.close()


def _open(url: str | None, settings: Settings) -> LLMCache:
    ttl, namespace = settings.cache_ttl, settings.cache_namespace
    place = (url, namespace, ttl, settings.cache_max_entries)
    cache = _opened.get(place)
    if cache is None:
        near = MemoryCache(settings.cache_max_entries, ttl=ttl)
        cache = _opened.setdefault(place, near if url is None else _behind(near, url, namespace))
    return cache


def _behind(near: MemoryCache, url: str, namespace: str) -> LLMCache:
    from llmkit.cache.two_level import TwoLevelCache

    scheme, found, rest = url.partition("://")
    if scheme.lower() == "sqlite":
        path = rest.removeprefix("/")
        if not path or path == rest:
            raise ConfigurationError(
                "a cache's URL: expected sqlite:///file.db or sqlite:////folder/file.db"
            )
        if path == ":memory:":
            raise ConfigurationError(
                "a cache's URL: expected a file after sqlite:///; without any URL it is in memory"
            )
        if "?" in path:
            raise ConfigurationError("a cache's URL: expected no options after sqlite:///file.db")
        from llmkit.cache.sqlite_cache import SQLiteCache

        return TwoLevelCache(near, SQLiteCache(path, namespace, ttl=near.ttl))
    if not found or scheme.lower() not in _REDIS:
        raise ConfigurationError(
            f"a cache's URL: expected {', '.join(f'{each}://…' for each in _REDIS)} or sqlite:///…"
        )
    from llmkit.cache.redis_cache import RedisCache

    return TwoLevelCache(near, RedisCache(url, namespace, ttl=near.ttl))
