"""The settings of llmkit: the one place that reads the environment and the `.env` file.

A setting is looked for under `LLMKIT_NAME` and `NAME` in the environment, then under the same two
names in the file `.env` of the working directory; some only under the prefixed name, because the
bare one belongs to the host application. The first that isn't empty counts. Nothing is read at
import, and nothing from `.env` is written into `os.environ`.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self, dataclass_transform

from llmkit.errors import ConfigurationError
from llmkit.log import MaskedMapping, holds_key, mask, redact, shown

__all__ = ["Key", "Settings", "get_settings", "mask", "reload_settings"]

PREFIX = "LLMKIT_"
PROVIDERS = ("openai", "anthropic", "gemini")

Key = str | Callable[[], str]
"""An API key, or a callable that returns the one to use now (rotation)."""

Reader = Callable[[Any], Any]  # raises ValueError, TypeError or OverflowError; None means not set


def _text(raw: Any) -> str | None:
    if not isinstance(raw, str):
        raise TypeError
    return raw.strip() or None


def _url(*schemes: str) -> Reader:
    def read(raw: Any) -> str | None:
        url = _text(raw)
        start = (url or "").lower()
        if url and (not start.startswith(schemes) or start in schemes):
            raise ValueError
        if url and url.split() != [url] and not start.startswith("sqlite:"):  # a path may
            raise ValueError
        return url

    return read


def _key(raw: Any) -> Any:
    if callable(raw):
        return raw
    key = _text(raw)
    if key and not all("!" <= character <= "~" and character not in "\"'" for character in key):
        raise ValueError
    return key


def _names(raw: Any) -> tuple[str, ...] | None:
    if isinstance(raw, str):
        names = tuple(name.strip() for name in raw.split(",") if name.strip())
        if raw.strip() and not names:
            raise ValueError
        return names or None
    if not isinstance(raw, list | tuple) or not all(_text(name) for name in raw):
        raise TypeError
    return tuple(name.strip() for name in raw)


def _switch(raw: Any) -> bool:
    word = str(raw).strip().lower()
    if word not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError
    return word in ("1", "true", "yes", "on")


def _seconds(longest: float) -> Reader:
    def read(raw: Any) -> float:
        seconds = float(raw)
        if isinstance(raw, bool) or not 0 < seconds <= longest:
            raise ValueError
        return seconds

    return read


def _whole(least: int) -> Reader:
    def read(raw: Any) -> int:
        number = int(raw) if isinstance(raw, str) else operator.index(raw)
        if isinstance(raw, bool) or number < least:
            raise ValueError
        return number

    return read


_NAME = (_text, "a model's name")
_NAMES = (_names, "model names, separated by commas")
_KEY = (_key, "a key of printable ASCII characters without spaces, line breaks and quotes")
_WEB = (_url("http://", "https://"), "a URL that starts with http:// or https://")
_CACHE = (_url("redis://", "rediss://", "sqlite:///"), "redis://…, rediss://… or sqlite:///…")
_WAIT = (_seconds(1e6), "a number of seconds above 0, at most 1000000")
_AGE = (_seconds(1e9), "a number of seconds above 0, at most 1e9 (CACHE_ENABLED=false: no cache)")
_COUNT = (_whole(1), "a whole number, 1 or more")
_RETRIES = (_whole(0), "a whole number, 0 or more")
_SWITCH = (_switch, "true or false (or 1, 0, yes, no, on, off)")
_WORD = (_text, "a text")


class _Found(NamedTuple):
    value: str
    origin: str
    variable: str


class _Variables:
    """An environment and the values of a `.env` file, searched as one."""

    __slots__ = ("_places",)

    def __init__(self, environ: Mapping[str, str], file: Mapping[str, str | None]) -> None:
        self._places = (("environment", environ), (".env", file))

    @classmethod
    def of_process(cls) -> _Variables:
        if not os.path.isfile(".env"):
            return cls(os.environ, {})
        from dotenv import dotenv_values

        try:
            return cls(os.environ, dotenv_values(".env", interpolate=False, encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        # Outside the handler, since a decoding error carries the file's content.
        raise ConfigurationError(f"The file .env in the working directory can't be read: {why}.")

    def find(self, name: str, *, bare: bool = True) -> _Found | None:
        for origin, values in self._places:
            for variable in (PREFIX + name, name) if bare else (PREFIX + name,):
                value = (values.get(variable) or "").strip()
                if value:
                    return _Found(value, origin, variable)
        return None


def _check(reader: tuple[Reader, str], raw: Any, written: str, *, secret: bool) -> Any:
    """Reads a value; the error names it as it was written, and shows it unless it is secret."""
    read, expected = reader
    try:
        return read(raw)
    except (ValueError, TypeError, OverflowError):
        problem = "can't be used" if secret else f"is {redact(repr(raw))[:80]}"
    raise ConfigurationError(f"{written} {problem}; expected {expected}.")


def _check_found(reader: tuple[Reader, str], found: _Found, *, secret: bool) -> Any:
    return _check(reader, found.value, f"{found.variable} (from {found.origin})", secret=secret)


class _Field:
    """One setting: how it is read, and its value when nobody gives it."""

    def __init__(
        self, reader: tuple[Reader, str], default: Any, bare: bool, also: str | None
    ) -> None:
        self.reader, self.default, self.bare, self.also = reader, default, bare, also

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, settings: _Base | None, owner: type) -> Any:
        return self if settings is None else settings._values[self.name]

    def __set__(self, settings: object, value: object) -> NoReturn:
        raise AttributeError("settings don't change; .replace(...) makes a changed copy")

    def find(self, variables: _Variables) -> tuple[Any, str]:
        found = variables.find(self.name.upper(), bare=self.bare)
        if found is None and self.also:
            found = variables.find(self.also)
        if found is None:
            return self.default, "default"
        value = _check_found(self.reader, found, secret=holds_key(self.name))
        return value, f"{found.origin} {found.variable}"

    def accept(self, raw: Any) -> Any:
        if raw is not None:
            written = f"The argument {self.name}"
            raw = _check(self.reader, raw, written, secret=holds_key(self.name))
        return self.default if raw is None else raw


def _field(
    reader: tuple[Reader, str], *, default: Any = None, bare: bool = True, also: str | None = None
) -> Any:
    return _Field(reader, default, bare, also)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(_field,))
class _Base:
    """Fills, shows, compares and copies the fields that the subclass declares."""

    __slots__ = ("_sources", "_values", "_variables")
    _sources: dict[str, str]
    _values: Mapping[str, Any]
    _variables: _Variables

    def __init__(self, **values: Any) -> None:
        self._variables = _Variables.of_process()
        given = self._accepted(values)
        read = {n: f.find(self._variables) for n, f in self._fields().items() if n not in given}
        self._keep(
            {name: given[name] if name in given else read[name][0] for name in self._fields()},
            {name: read[name][1] if name in read else "argument" for name in self._fields()},
        )

    @classmethod
    def _fields(cls) -> dict[str, _Field]:
        return {name: field for name, field in vars(cls).items() if isinstance(field, _Field)}

    @classmethod
    def _accepted(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        fields = cls._fields()
        if unknown := [name for name in values if name not in fields]:
            raise TypeError(f"there is no setting {unknown[0]!r}; there are {', '.join(fields)}")
        return {name: fields[name].accept(value) for name, value in values.items()}

    def _keep(self, values: Mapping[str, Any], sources: dict[str, str]) -> None:
        self._values, self._sources = MaskedMapping(values), sources

    if not TYPE_CHECKING:  # type checkers know the names in _UpperCase and refuse all others

        def __getattr__(self, name: str) -> Any:
            if name.isupper() and name.lower() in self._values:
                return self._values[name.lower()]
            raise AttributeError(f"there is no setting {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{n}={shown(n, v)}' for n, v in self._values.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Base) and self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple(self._values.values()))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = {
            name: value
            for name, value in self._values.items()
            if self._sources[name] == "argument" and shown(name, value) == repr(value)
        }
        return _unpickled, (arguments,)


def _unpickled(arguments: dict[str, Any]) -> Settings:
    return Settings(**arguments) if arguments else get_settings()


class _UpperCase:
    """The upper-case names, for type checkers; `_Base.__getattr__` answers to them."""

    __slots__ = ()
    PRIMARY_LLM: str | None
    FALLBACK_LLM: tuple[str, ...]
    ENABLED_MODELS: tuple[str, ...] | None
    OPENAI_API_KEY: Key | None
    ANTHROPIC_API_KEY: Key | None
    GEMINI_API_KEY: Key | None
    REQUEST_TIMEOUT: float
    CONNECT_TIMEOUT: float
    LLM_RETRY_MAX_ATTEMPTS: int
    CACHE_ENABLED: bool
    CACHE_TTL: float
    CACHE_MAX_ENTRIES: int
    CACHE_URL: str | None
    CACHE_NAMESPACE: str
    LOG_CONTENT: bool
    MODELS_FILE: str | None
    OPENAI_CONNECTION_POOL_SIZE: int
    ANTHROPIC_CONNECTION_POOL_SIZE: int
    GEMINI_CONNECTION_POOL_SIZE: int
    OPENAI_API_BASE: str | None
    ANTHROPIC_API_BASE: str | None
    GEMINI_API_BASE: str | None


class Settings(_Base, _UpperCase):
    """What llmkit was told by arguments, the environment and `.env`; never changes once made.

    `Settings(openai_api_key="sk-…", request_timeout=20)` takes what it is given, and everything
    else as `get_settings()` does: from the environment, then `.env`, then the default. None as an
    argument means the default, whatever the environment says. Each setting can also be read by its
    upper-case name (`settings.REQUEST_TIMEOUT`). No repr shows a key or a URL's password. A pickle
    holds the arguments without those; all else is read anew where it is unpickled.

    Attributes:
        primary_llm: The model for calls that name none; None leaves it to the keys there are.
        fallback_llm: The models to try after the first, in their order.
        enabled_models: The only models that may be used; None means all.
        openai_api_key: OpenAI's key, or a callable that returns it; None when there is none. In
            the same way `anthropic_api_key` and `gemini_api_key` (or GOOGLE_API_KEY).
        request_timeout: Seconds for one whole call; 120.
        connect_timeout: Seconds for reaching a server; 5. A handshake takes far below one second;
            5 leave room for two lost packets, which are sent again after 1 and 3 seconds.
        llm_retry_max_attempts: Tries after the first, for each model; 3.
        cache_enabled: Whether answers are cached; True.
        cache_ttl: Seconds that a cached answer lives; 3600.
        cache_max_entries: Answers that the memory cache holds; 1000.
        cache_url: The second cache, `redis://…`, `rediss://…` or `sqlite:///…`; None means memory
            only. From LLMKIT_CACHE_URL only.
        cache_namespace: What sets this application's entries apart from those of others in the
            same cache; `llmkit`. From LLMKIT_CACHE_NAMESPACE only.
        log_content: Whether prompts and answers may be logged. From LLMKIT_LOG_CONTENT only.
        models_file: A file with further models; None means none. From LLMKIT_MODELS_FILE only.
        openai_connection_pool_size: Connections at a time; 100. Also `anthropic_…`, `gemini_…`.
        openai_api_base: The address of the API; None means the vendor's own. Also `anthropic_…`,
            `gemini_…`.

    Raises:
        ConfigurationError: A value can't be read; says which, and what was expected.
        TypeError: There is no setting of that name.
    """

    __slots__ = ()

    primary_llm: str | None = _field(_NAME, default=None)
    fallback_llm: tuple[str, ...] = _field(_NAMES, default=())
    enabled_models: tuple[str, ...] | None = _field(_NAMES, default=None)
    openai_api_key: Key | None = _field(_KEY, default=None)
    anthropic_api_key: Key | None = _field(_KEY, default=None)
    gemini_api_key: Key | None = _field(_KEY, default=None, also="GOOGLE_API_KEY")
    request_timeout: float = _field(_WAIT, default=120.0)
    connect_timeout: float = _field(_WAIT, default=5.0)
    llm_retry_max_attempts: int = _field(_RETRIES, default=3)
    cache_enabled: bool = _field(_SWITCH, default=True)
    cache_ttl: float = _field(_AGE, default=3600.0)
    cache_max_entries: int = _field(_COUNT, default=1000)
    cache_url: str | None = _field(_CACHE, default=None, bare=False)
    cache_namespace: str = _field(_WORD, default="llmkit", bare=False)
    log_content: bool = _field(_SWITCH, default=False, bare=False)
    models_file: str | None = _field(_WORD, default=None, bare=False)
    openai_connection_pool_size: int = _field(_COUNT, default=100)
    anthropic_connection_pool_size: int = _field(_COUNT, default=100)
    gemini_connection_pool_size: int = _field(_COUNT, default=100)
    openai_api_base: str | None = _field(_WEB, default=None)
    anthropic_api_base: str | None = _field(_WEB, default=None)
    gemini_api_base: str | None = _field(_WEB, default=None)

    @property
    def LLM_PROVIDERS_CONFIG(self) -> Mapping[str, Mapping[str, Any]]:
        """For each of openai, anthropic, gemini: "api_key", "api_base", "connection_pool_size"."""
        parts = ("api_key", "api_base", "connection_pool_size")
        return MaskedMapping(
            {
                provider: MaskedMapping(
                    {part: getattr(self, f"{provider}_{part}") for part in parts}
                )
                for provider in PROVIDERS
            }
        )

    def replace(self, **changes: Any) -> Settings:
        """Makes a changed copy.

        Args:
            **changes: Settings by their lower-case names; None means the default.

        Returns:
            New settings; nothing is read anew for those that aren't named.

        Raises:
            ConfigurationError: A value can't be read.
            TypeError: There is no setting of that name.
        """
        copy = Settings.__new__(Settings)
        copy._variables = self._variables
        copy._keep(
            {**self._values, **self._accepted(changes)},
            {**self._sources, **dict.fromkeys(changes, "argument")},
        )
        return copy

    def api_key(self, provider: str) -> Key | None:
        """Gives a provider's key.

        Args:
            provider: The provider's name. For others than openai, anthropic and gemini the
                variable is the name in upper case with `_API_KEY` (`GROQ_API_KEY`).

        Returns:
            The key, or the callable that was given for it; None when there is none.

        Raises:
            ConfigurationError: The variable can't be a key.
        """
        if provider.lower() in PROVIDERS:
            return self._values[f"{provider.lower()}_api_key"]  # type: ignore[no-any-return]
        return self.variable(f"{provider.upper().replace('-', '_')}_API_KEY")

    def variable(self, name: str) -> str | None:
        """Reads one more variable: the environment as it is now, then `.env` as it was read.

        Args:
            name: The variable's bare name; its `LLMKIT_` form wins. One that ends in `_KEY` or
                `_TOKEN` is checked as a key.

        Returns:
            The value without surrounding blanks; None when it isn't set or empty.

        Raises:
            ConfigurationError: The variable can't be a key.
        """
        found = self._variables.find(name)
        if found and holds_key(name):
            _check_found(_KEY, found, secret=True)
        return found.value if found else None

    def source(self, name: str) -> str | None:
        """Says where a setting or a further variable came from.

        Args:
            name: A setting in lower or upper case, or a variable's name.

        Returns:
            "argument", "default", or the place and the variable as it was written there, such as
            "environment LLMKIT_REQUEST_TIMEOUT" or ".env OPENAI_API_KEY"; None when not set.
        """
        if name.lower() in self._sources:
            return self._sources[name.lower()]
        found = self._variables.find(name)
        return f"{found.origin} {found.variable}" if found else None

    def proxy_for(self, url: str) -> str | None:
        """Says which proxy the environment wants for a URL, read at each call.

        Args:
            url: The URL to be called.

        Returns:
            The proxy's URL by HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, `http://` put before one
            without a scheme; None for a direct connection, or when NO_PROXY (names, addresses,
            networks such as 10.0.0.0/8, `*`) exempts the host.

        Raises:
            ConfigurationError: The URL can't be read.
        """
        from urllib.request import getproxies, proxy_bypass

        scheme, host, port = _check((_address, "http(s)://host…"), url, "The URL", secret=False)
        proxies = getproxies()
        proxy = (proxies.get(scheme) or proxies.get("all") or "").strip()
        if not proxy or proxy_bypass(f"{host}:{port}") or _exempt(host, proxies.get("no", "")):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"


def _address(url: str) -> tuple[str, str, int]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _exempt(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host in a way that urllib doesn't know."""
    from ipaddress import ip_address, ip_network

    for entry in no_proxy.lower().split(","):
        entry = entry.strip().strip("[]")
        if entry == "*" or (entry.startswith("*.") and host.endswith(entry[1:])):
            return True
        try:
            if ip_address(host) in ip_network(entry, strict=False):
                return True
        except ValueError:  # a name, not an address
            continue
    return False


_shared: dict[str, Settings] = {}


def get_settings() -> Settings:
    """Gives the settings of this process.

    Returns:
        The settings as they were when first asked for, or at the last `reload_settings()`.

    Raises:
        ConfigurationError: A variable can't be read (first call only).
    """
    # setdefault is atomic: threads that come here together all get one object, and there is no
    # lock that a fork could leave locked.
    return _shared.get("settings") or _shared.setdefault("settings", Settings())


def reload_settings() -> Settings:
    """Reads the environment and `.env` again, for every later `get_settings()`.

    For tests that set variables and for long-running applications that get new ones. Settings
    handed out before don't change.

    Returns:
        The new settings.

    Raises:
        ConfigurationError: A variable can't be read; the settings in use stay.
    """
    settings = _shared["settings"] = Settings()
    return settings
