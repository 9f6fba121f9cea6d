"""The settings of llmkit: the one place that reads the environment and the `.env` file.

A setting is looked for under `LLMKIT_NAME` and `NAME` in the environment, then under the same two
names in the file `.env` of the working directory; some only under the prefixed name, because the
bare one belongs to the host application. The first that isn't empty counts. Nothing is read at
import, and nothing from `.env` is written into `os.environ`.
"""

from __future__ import annotations

import os.path
import sys
from collections.abc import Callable, Mapping
from typing import Any

from llmkit.errors import InvalidRequestError
from llmkit.log import MaskedMapping, holds_key, shown
from llmkit.settings import readers
from llmkit.settings.fields import SettingsBase, field, read_found

__all__ = ["Key", "Settings", "check_settings", "get_settings", "reload_settings"]

PROVIDERS = ("openai", "anthropic", "gemini")

Key = str | Callable[[], str]
"""An API key, or a callable that returns the one to use now (rotation)."""


class _UpperCase:
    """The upper-case names, for type checkers; `SettingsBase.__getattr__` answers to them."""

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
    CACHE_DIR: str | None
    OPENAI_CONNECTION_POOL_SIZE: int
    ANTHROPIC_CONNECTION_POOL_SIZE: int
    GEMINI_CONNECTION_POOL_SIZE: int
    OPENAI_API_BASE: str | None
    ANTHROPIC_API_BASE: str | None
    GEMINI_API_BASE: str | None


class Settings(SettingsBase, _UpperCase):
    """What llmkit was told by arguments, the environment and `.env`; never changes once made.

    `Settings(openai_api_key="sk-…", request_timeout=20)` takes what it is given, and everything
    else as `get_settings()` does: from the environment, then `.env`, then the default. None as an
    argument means the default, whatever the environment says. Each setting can also be read by its
    upper-case name (`settings.REQUEST_TIMEOUT`). No repr shows a key or a URL's password. A pickle
    holds the arguments without those; all else is read anew where it is unpickled.

    Attributes:
        primary_llm: The model for calls that name none; None leaves it to the keys there are.
        fallback_llm: The models to ask when the first fails, in their order; a call that names
            `fallbacks=` asks those instead.
        enabled_models: What `list_available_models` lists, retired models included; None means all
            that are not retired.
        openai_api_key: OpenAI's key, or a callable that returns it; None when there is none. In
            the same way `anthropic_api_key` and `gemini_api_key` (or GOOGLE_API_KEY).
        request_timeout: Seconds for one whole call; 120.
        connect_timeout: Seconds for reaching a server; 5. A handshake takes far below one second;
            5 leave room for two lost packets, which are sent again after 1 and 3 seconds.
        llm_retry_max_attempts: Tries after the first, for each model; 3.
        cache_enabled: Whether answers are cached by calls that don't say `use_cache`; True.
        cache_ttl: Seconds that a cached answer lives; 3600.
        cache_max_entries: Answers that the memory cache holds; 1000.
        cache_url: The second cache: `redis://…`, `rediss://…`, `unix://…`, `redis+cluster://…`,
            `redis+sentinel://…` (see `RedisCache`) or `sqlite:///…`; None means memory only. From
            LLMKIT_CACHE_URL only.
        cache_namespace: What sets this application's entries apart from those of others in the
            same cache; `llmkit`. From LLMKIT_CACHE_NAMESPACE only.
        log_content: Whether prompts and answers may be logged; False. Only those that a content
            filter refused ever are (see `llmkit.content_policy`). From LLMKIT_LOG_CONTENT only.
        models_file: A file with further models; None means none. From LLMKIT_MODELS_FILE only.
        cache_dir: The directory for what llmkit downloads; None means the user's own, see
            `cache_directory`. From LLMKIT_CACHE_DIR only.
        openai_connection_pool_size: Connections at a time; 100. Also `anthropic_…`, `gemini_…`.
        openai_api_base: The address of the API; None means the vendor's own. Also `anthropic_…`,
            `gemini_…`.

    Raises:
        ConfigurationError: A value can't be read; says which, and what was expected.
        TypeError: There is no setting of that name.
    """

    __slots__ = ()

    primary_llm: str | None = field(readers.NAME, default=None)
    fallback_llm: tuple[str, ...] = field(readers.NAMES, default=())
    enabled_models: tuple[str, ...] | None = field(readers.NAMES, default=None)
    openai_api_key: Key | None = field(readers.KEY, default=None)
    anthropic_api_key: Key | None = field(readers.KEY, default=None)
    gemini_api_key: Key | None = field(readers.KEY, default=None, also="GOOGLE_API_KEY")
    request_timeout: float = field(readers.WAIT, default=120.0)
    connect_timeout: float = field(readers.WAIT, default=5.0)
    llm_retry_max_attempts: int = field(readers.RETRIES, default=3)
    cache_enabled: bool = field(readers.SWITCH, default=True)
    cache_ttl: float = field(readers.AGE, default=3600.0)
    cache_max_entries: int = field(readers.COUNT, default=1000)
    cache_url: str | None = field(readers.CACHE, default=None, bare=False)
    cache_namespace: str = field(readers.WORD, default="llmkit", bare=False)
    log_content: bool = field(readers.SWITCH, default=False, bare=False)
    models_file: str | None = field(readers.WORD, default=None, bare=False)
    cache_dir: str | None = field(readers.WORD, default=None, bare=False)
    openai_connection_pool_size: int = field(readers.COUNT, default=100)
    anthropic_connection_pool_size: int = field(readers.COUNT, default=100)
    gemini_connection_pool_size: int = field(readers.COUNT, default=100)
    openai_api_base: str | None = field(readers.WEB, default=None)
    anthropic_api_base: str | None = field(readers.WEB, default=None)
    gemini_api_base: str | None = field(readers.WEB, default=None)

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
            read_found(readers.KEY, found)
        return found.value if found else None

    def cache_directory(self) -> str:
        """Says where llmkit keeps what it downloads; the directory need not exist.

        Returns:
            `cache_dir`, or else a directory `llmkit` where the user's caches are: XDG_CACHE_HOME or
            ~/.cache, ~/Library/Caches on macOS, LOCALAPPDATA on Windows.
        """
        if self.cache_dir is not None:
            return os.path.expanduser(self.cache_dir)
        if sys.platform == "darwin":
            base = "~/Library/Caches"
        elif sys.platform == "win32":
            base = self.variable("LOCALAPPDATA") or "~/AppData/Local"
        else:
            base = self.variable("XDG_CACHE_HOME") or "~/.cache"
        return os.path.join(os.path.expanduser(base), "llmkit")

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
        return str(found) if found else None

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
        from llmkit.settings import proxies  # urllib.request, needed only by who connects

        return proxies.proxy_for(url)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = {
            name: value
            for name, value in self._values.items()
            if self._sources[name] == "argument" and shown(name, value) == repr(value)
        }
        return _unpickled, (arguments,)


def _unpickled(arguments: dict[str, Any]) -> Settings:
    return Settings(**arguments) if arguments else get_settings()


def check_settings(settings: object) -> Settings:
    """Checks what a user gave as `settings=`: Settings, rather than a dict, say, or Django's.

    Raises:
        InvalidRequestError: It is something else.
    """
    if isinstance(settings, Settings):
        return settings
    raise InvalidRequestError(
        f"settings: expected llmkit.Settings(…), got {type(settings).__name__}"
    )


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
