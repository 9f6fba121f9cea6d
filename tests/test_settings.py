from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, strategies as st

from llmkit import settings as module
from llmkit.errors import ConfigurationError
from llmkit.log import mask
from llmkit.settings import Settings, get_settings, reload_settings

KEY = "sk-proj-Zm9vYmFy0123456789abcd"
FIELDS = tuple(Settings._fields())


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine and no .env file reaches a test."""
    for name in os.environ:
        bare = name.removeprefix("LLMKIT_")
        ours = bare.lower() in FIELDS or name.startswith("LLMKIT_")
        if ours or bare == "GOOGLE_API_KEY" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_shared", {})


def dotenv(content: str) -> None:
    """Writes the .env file of the working directory."""
    Path(".env").write_text(content, encoding="utf-8")


# --- where a value comes from --------------------------------------------------------------------


def test_defaults_hold_in_an_empty_environment() -> None:
    """The documented defaults are the real ones."""
    settings = get_settings()
    assert settings.primary_llm is None
    assert settings.fallback_llm == ()
    assert settings.enabled_models is None
    assert settings.request_timeout == 120.0
    assert settings.connect_timeout == 5.0
    assert settings.llm_retry_max_attempts == 3
    assert settings.cache_enabled is True
    assert (settings.cache_ttl, settings.cache_max_entries) == (3600.0, 1000)
    assert (settings.cache_url, settings.cache_namespace) == (None, "llmkit")
    assert settings.log_content is False
    assert settings.gemini_connection_pool_size == 100
    assert settings.source("request_timeout") == "default"


def test_order_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment beats .env, and within each the prefixed name beats the bare one."""
    expected = [("LLMKIT_PRIMARY_LLM", "environment"), ("PRIMARY_LLM", "environment")]
    expected += [("LLMKIT_PRIMARY_LLM", ".env"), ("PRIMARY_LLM", ".env")]
    dotenv("LLMKIT_PRIMARY_LLM=c\nPRIMARY_LLM=d\n")
    monkeypatch.setenv("LLMKIT_PRIMARY_LLM", "a")
    monkeypatch.setenv("PRIMARY_LLM", "b")
    seen = [reload_settings()]
    monkeypatch.delenv("LLMKIT_PRIMARY_LLM")
    seen.append(reload_settings())
    monkeypatch.delenv("PRIMARY_LLM")
    seen.append(reload_settings())
    dotenv("PRIMARY_LLM=d\n")
    seen.append(reload_settings())
    assert [settings.primary_llm for settings in seen] == ["a", "b", "c", "d"]
    assert [settings.source("PRIMARY_LLM") for settings in seen] == [
        f"{place} {variable}" for variable, place in expected
    ]


def test_dotenv_is_read_as_it_is_and_never_exported() -> None:
    """A .env value stays literal, may follow a byte order mark, and stays out of os.environ."""
    before = dict(os.environ)
    dotenv(f'\ufeffexport OPENAI_API_KEY="{KEY}"\nMODELS=x\nPRIMARY_LLM=a-${{MODELS}}\nEMPTY\n')
    settings = get_settings()
    assert settings.openai_api_key == KEY
    assert settings.primary_llm == "a-${MODELS}"
    assert settings.variable("EMPTY") is None
    assert dict(os.environ) == before


def test_unreadable_dotenv_is_an_error_without_its_content() -> None:
    """A .env file in another encoding is reported, and no error carries its bytes."""
    Path(".env").write_bytes(b"OPENAI_API_KEY=sk-\xff\xfe\n")
    with pytest.raises(ConfigurationError, match=r"\.env .*UTF-8") as caught:
        get_settings()
    assert caught.value.__context__ is None


def test_a_directory_named_dotenv_is_no_file() -> None:
    """A directory called .env (a virtual environment) does no harm."""
    Path(".env").mkdir()
    assert get_settings().primary_llm is None


def test_empty_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty or blank variable lets the next place answer."""
    monkeypatch.setenv("LLMKIT_REQUEST_TIMEOUT", "")
    monkeypatch.setenv("REQUEST_TIMEOUT", "  ")
    dotenv("REQUEST_TIMEOUT=7")
    assert get_settings().request_timeout == 7.0


@pytest.mark.parametrize("name", ["CACHE_URL", "CACHE_NAMESPACE", "LOG_CONTENT", "MODELS_FILE"])
def test_some_settings_ignore_the_bare_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Bare names that belong to the host application have no effect; prefixed ones have."""
    value = {"CACHE_URL": "sqlite:///my files/x.db", "LOG_CONTENT": "yes"}.get(name, "app")
    default = getattr(Settings(), name)
    monkeypatch.setenv(name, value)
    assert getattr(Settings(), name) == default
    monkeypatch.setenv(f"LLMKIT_{name}", value)
    assert getattr(Settings(), name) == (True if name == "LOG_CONTENT" else value)


def test_google_key_stands_in_for_gemini(monkeypatch: pytest.MonkeyPatch) -> None:
    """GOOGLE_API_KEY counts only where GEMINI_API_KEY is not set at all."""
    monkeypatch.setenv("GOOGLE_API_KEY", "google-key-1")
    assert Settings().gemini_api_key == "google-key-1"
    assert Settings().source("gemini_api_key") == "environment GOOGLE_API_KEY"
    dotenv("GEMINI_API_KEY=gemini-key-1")
    assert Settings().gemini_api_key == "gemini-key-1"


def test_settings_are_read_once_until_reloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One object serves the process; only reload_settings() sees a changed environment."""
    first = get_settings()
    monkeypatch.setenv("REQUEST_TIMEOUT", "9")
    assert get_settings() is first
    assert reload_settings() is get_settings()
    assert get_settings().request_timeout == 9.0
    assert first.request_timeout == 120.0


def test_a_failed_reload_keeps_the_settings_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long-running application survives a bad value that appears later."""
    first = get_settings()
    monkeypatch.setenv("REQUEST_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError):
        reload_settings()
    assert get_settings() is first


def test_threads_get_one_object() -> None:
    """Threads that ask for the settings at the same time all get the same ones."""
    with ThreadPoolExecutor(16) as pool:
        assert len({id(each) for each in pool.map(lambda _: get_settings(), range(64))}) == 1


def test_import_is_light() -> None:
    """Importing the settings loads no parser, no HTTP and reads no file."""
    heavy = {"dotenv", "urllib.request", "urllib.parse", "ipaddress", "pydantic", "asyncio"}
    Path(".env").write_bytes(b"\xff")
    code = "import sys, llmkit.settings; print(*sys.modules)"
    environment = os.environ | {
        "REQUEST_TIMEOUT": "abc",
        "PYTHONPATH": str(Path(module.__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not heavy & set(done.stdout.split())


# --- reading values ------------------------------------------------------------------------------


def test_values_are_read_into_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists, numbers, switches and addresses come out typed and without blanks."""
    for name, value in {
        "FALLBACK_LLM": " a , openai:b,,",
        "ENABLED_MODELS": "a",
        "REQUEST_TIMEOUT": " 2.5 ",
        "LLM_RETRY_MAX_ATTEMPTS": "0",
        "CACHE_ENABLED": "Off",
        "OPENAI_API_BASE": "HTTP://localhost:8000/v1\n",
        "OPENAI_API_KEY": f"{KEY}\r\n",
    }.items():
        monkeypatch.setenv(name, value)
    settings = get_settings()
    assert settings.fallback_llm == ("a", "openai:b")
    assert settings.enabled_models == ("a",)
    assert settings.request_timeout == 2.5
    assert settings.llm_retry_max_attempts == 0
    assert settings.cache_enabled is False
    assert settings.openai_api_base == "HTTP://localhost:8000/v1"
    assert settings.openai_api_key == KEY


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("REQUEST_TIMEOUT", "abc", "seconds"),
        ("REQUEST_TIMEOUT", "-1", "above 0"),
        ("REQUEST_TIMEOUT", "0", "above 0"),
        ("CONNECT_TIMEOUT", "nan", "seconds"),
        ("CONNECT_TIMEOUT", "inf", "at most"),
        ("CACHE_TTL", "0", "CACHE_ENABLED=false"),
        ("CACHE_MAX_ENTRIES", "1.5", "whole number"),
        ("LLM_RETRY_MAX_ATTEMPTS", "-1", "0 or more"),
        ("GEMINI_CONNECTION_POOL_SIZE", "0", "1 or more"),
        ("CACHE_ENABLED", "maybe", "true or false"),
        ("FALLBACK_LLM", ", ,", "commas"),
        ("OPENAI_API_BASE", "localhost:8000", "http://"),
        ("OPENAI_API_BASE", "https://", "http://"),
        ("ANTHROPIC_API_BASE", "https://a b", "http://"),
        ("GEMINI_API_BASE", "http://[::1", "http://"),
        ("GEMINI_API_BASE", "http://h:port", "http://"),
        ("CACHE_URL", "localhost:6379", "redis://"),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_unreadable_value_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str, place: str
) -> None:
    """A bad value says which variable, where, what it held and what was expected."""
    variable = f"LLMKIT_{name}"
    if place == ".env":
        dotenv(f"{variable}='{value}'")
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        get_settings()
    for part in (variable, place, repr(value), expected):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "bad", ["sk-abc def0123456", "sk-abc\ndef0123456", "sk-äbcdef0123456", '"sk-abcdef0123456"']
)
def test_a_broken_key_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    """A key that no header can carry is an error that never shows it, wherever it came from."""
    monkeypatch.setenv("GROQ_API_KEY", bad)
    settings = get_settings()
    tries: list[tuple[str, Callable[[], object]]] = [
        ("argument openai_api_key", lambda: Settings(openai_api_key=bad)),
        ("argument gemini_api_key", lambda: settings.replace(gemini_api_key=bad)),
        ("GROQ_API_KEY", lambda: settings.api_key("groq")),
        ("GROQ_API_KEY", lambda: settings.variable("GROQ_API_KEY")),
        ("ANTHROPIC_API_KEY", reload_settings),
    ]
    monkeypatch.setenv("ANTHROPIC_API_KEY", bad)
    tries[0], tries[-1] = tries[-1], tries[0]
    for name, call in tries:
        with pytest.raises(ConfigurationError, match=name) as caught:
            call()
        assert "def0123456" not in repr(caught.value) + repr(caught.value.__context__)
        monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)


def test_a_key_in_the_wrong_variable_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key pasted into a number's variable is redacted in the error."""
    monkeypatch.setenv("REQUEST_TIMEOUT", KEY)
    with pytest.raises(ConfigurationError, match="REQUEST_TIMEOUT") as caught:
        get_settings()
    assert "Zm9v" not in str(caught.value)


def settings_or_error(**values: Any) -> Settings | ConfigurationError:
    """The settings, or the one error that making them may end in."""
    try:
        return Settings(**values)
    except ConfigurationError as error:
        return error


@given(
    name=st.sampled_from([field.upper() for field in FIELDS]),
    value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
def test_no_environment_crashes_the_settings(name: str, value: str) -> None:
    """Whatever a variable holds, it is read or it is a ConfigurationError that names it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"LLMKIT_{name}", value)
        outcome = settings_or_error()
        if isinstance(outcome, ConfigurationError):
            assert f"LLMKIT_{name}" in str(outcome)
        else:
            assert outcome == Settings()
            assert hash(outcome) == hash(Settings())


@given(
    name=st.sampled_from(FIELDS),
    value=st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.lists(st.one_of(st.text(), st.integers())),
        st.dictionaries(st.text(), st.text(), max_size=2),
    ),
)
def test_no_argument_crashes_the_settings(name: str, value: Any) -> None:
    """Whatever is passed in code, it is taken or it is a ConfigurationError that names it."""
    outcome = settings_or_error(**{name: value})
    if isinstance(outcome, ConfigurationError):
        assert f"argument {name}" in str(outcome)
    else:
        assert outcome.source(name) == "argument"


# --- settings built in code ----------------------------------------------------------------------


def test_arguments_win_and_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings built in code keep their arguments; None means the default, not the environment."""
    monkeypatch.setenv("REQUEST_TIMEOUT", "9")
    monkeypatch.setenv("CONNECT_TIMEOUT", "2")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "anthropic-key")
    settings = Settings(openai_api_key=KEY, request_timeout=20, anthropic_api_key=None)
    assert settings.openai_api_key == KEY
    assert settings.request_timeout == 20.0
    assert settings.connect_timeout == 2.0
    assert settings.anthropic_api_key is None
    assert settings.source("request_timeout") == "argument"


def test_replace_changes_only_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy keeps the values and sources of the original, though the environment has moved on."""
    monkeypatch.setenv("CONNECT_TIMEOUT", "2")
    settings = get_settings()
    monkeypatch.setenv("CONNECT_TIMEOUT", "4")
    changed = settings.replace(request_timeout=20, enabled_models=["a"])
    assert (changed.request_timeout, changed.connect_timeout) == (20.0, 2.0)
    assert changed.enabled_models == ("a",)
    assert changed.source("connect_timeout") == "environment CONNECT_TIMEOUT"
    assert settings.request_timeout == 120.0
    assert settings != changed
    assert changed.replace(request_timeout=None, enabled_models=None) == settings


def test_an_empty_list_of_models_enables_none() -> None:
    """An empty list given in code is not taken for "all models"."""
    assert Settings(enabled_models=()).enabled_models == ()


def test_unknown_names_are_refused() -> None:
    """A misspelt setting fails at once, as an argument and as an attribute."""
    with pytest.raises(TypeError, match="request_timout"):
        Settings(request_timout=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="REQUEST_TIMEOUT"):
        get_settings().replace(REQUEST_TIMEOUT=3)
    with pytest.raises(AttributeError, match="REQUEST_TIMOUT"):
        get_settings().REQUEST_TIMOUT  # type: ignore[attr-defined]  # noqa: B018


def test_settings_do_not_change() -> None:
    """No attribute can be set or deleted, under either of its names."""
    settings = get_settings()
    for name in ("request_timeout", "REQUEST_TIMEOUT", "other"):
        with pytest.raises(AttributeError):
            setattr(settings, name, 3)
        with pytest.raises(AttributeError):
            delattr(settings, name)
    with pytest.raises(TypeError):
        settings.LLM_PROVIDERS_CONFIG["openai"]["api_key"] = "x"  # type: ignore[index]


def test_a_callable_key_is_kept_and_not_called() -> None:
    """A rotating key stays a callable, and what it would return is never shown."""
    key = partial(str, KEY)
    settings = Settings(openai_api_key=key)
    assert settings.api_key("openai") is key
    assert settings.LLM_PROVIDERS_CONFIG["openai"]["api_key"] is key
    assert KEY not in repr(settings)


# --- reading settings ----------------------------------------------------------------------------


def test_every_setting_has_its_upper_case_name() -> None:
    """The upper-case names are complete, for Python and for type checkers alike."""
    settings = Settings(openai_api_key=KEY, fallback_llm=("a", "b"))
    for name in FIELDS:
        assert getattr(settings, name.upper()) == getattr(settings, name)
    types = get_type_hints(Settings)
    assert {name.lower() for name in get_type_hints(module._UpperCase)} - {"__slots__"} == {*FIELDS}
    assert all(types[name] == types[name.upper()] for name in FIELDS)


def test_providers_config_reads_like_a_dict() -> None:
    """The nested form gives plain values by item and masks the key in its repr."""
    settings = Settings(openai_api_key=KEY, openai_api_base="http://h/v1")
    config = settings.LLM_PROVIDERS_CONFIG
    assert list(config) == ["openai", "anthropic", "gemini"]
    assert dict(config["openai"]) == {
        "api_key": KEY,
        "api_base": "http://h/v1",
        "connection_pool_size": 100,
    }
    assert config["gemini"].get("api_key") is None
    assert KEY not in f"{config!r} {config['openai']} {list(config.values())}"
    assert "…abcd" in repr(config)


def test_keys_of_other_providers_come_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider without a setting of its own is found by its variable, prefixed form first."""
    settings = Settings(openai_api_key=KEY)
    assert settings.api_key("OpenAI") == KEY
    assert settings.api_key("groq") is None
    monkeypatch.setenv("GROQ_API_KEY", "gsk_1")
    assert settings.api_key("groq") == "gsk_1"
    monkeypatch.setenv("LLMKIT_GROQ_API_KEY", "gsk_2\n")
    assert settings.api_key("groq") == "gsk_2"
    assert settings.source("GROQ_API_KEY") == "environment LLMKIT_GROQ_API_KEY"
    assert settings.source("OTHER_API_KEY") is None


# --- nothing shows a key -------------------------------------------------------------------------


def everything_shown(settings: Settings) -> Iterator[str]:
    """Every way in which settings turn into text."""
    yield from (repr(settings), str(settings), f"{settings}", repr([settings]))
    yield repr(settings.LLM_PROVIDERS_CONFIG)
    yield repr(settings._values)
    yield str(pickle.dumps(settings))


def test_no_repr_or_pickle_shows_a_secret() -> None:
    """Keys and URL passwords are in no repr, string or pickle of the settings."""
    settings = Settings(
        openai_api_key=KEY,
        gemini_api_key="short-key",
        cache_url="rediss://user:pa55word@host/0",
        openai_api_base="https://me:pa55word@gateway/v1",
        primary_llm=KEY,
    )
    for text in everything_shown(settings):
        assert "Zm9vYmFy" not in text
        assert "short-key" not in text
        assert "pa55word" not in text
    assert "openai_api_key=set (…abcd)" in repr(settings)
    assert "gemini_api_key=set (…)" in repr(settings)
    assert "anthropic_api_key=None" in repr(settings)


def test_a_pickle_carries_arguments_and_rereads_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process the arguments are the same, and keys come from its environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-parent")
    data = pickle.dumps(Settings(request_timeout=20, anthropic_api_key=KEY))
    shared = pickle.dumps(get_settings())
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-child")
    reload_settings()
    copied = pickle.loads(data)
    assert copied.request_timeout == 20.0
    assert copied.openai_api_key == "key-of-child"
    assert copied.anthropic_api_key is None
    assert pickle.loads(shared) is get_settings()


def test_the_nested_form_refuses_to_pickle() -> None:
    """What holds plain keys can't be sent anywhere by accident."""
    with pytest.raises(TypeError, match="API keys"):
        pickle.dumps(Settings(openai_api_key=KEY).LLM_PROVIDERS_CONFIG)


def test_copies_keep_the_key() -> None:
    """Copying inside a process loses nothing, unlike pickling."""
    settings = Settings(openai_api_key=KEY)
    assert copy.copy(settings) is settings
    assert copy.deepcopy({"s": settings})["s"].openai_api_key == KEY
    assert copy.deepcopy(settings.LLM_PROVIDERS_CONFIG)["openai"]["api_key"] == KEY


@pytest.mark.parametrize(
    ("secret", "masked"), [("", "…"), ("12345678901", "…"), ("123456789012", "…9012")]
)
def test_mask_keeps_four_characters_of_long_secrets_only(secret: str, masked: str) -> None:
    """A mask never gives away a large part of a short secret."""
    assert mask(secret) == masked


# --- proxies -------------------------------------------------------------------------------------

URL = "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, URL, None),
        ({"HTTPS_PROXY": "http://p:1"}, URL, "http://p:1"),
        ({"https_proxy": "http://p:1"}, URL, "http://p:1"),
        ({"HTTPS_PROXY": "p:1"}, URL, "http://p:1"),
        ({"HTTPS_PROXY": "socks5://p:1"}, URL, "socks5://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, URL, None),
        ({"HTTP_PROXY": "http://p:1"}, "http://host/", "http://p:1"),
        ({"ALL_PROXY": "p:1"}, URL, "http://p:1"),
        ({"HTTPS_PROXY": ""}, URL, None),
    ],
)
def test_proxy_follows_the_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    """The proxy variables are obeyed in both cases and as they are now, not as at first use."""
    settings = get_settings()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert settings.proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "exempt"),
    [
        ("*", URL, True),
        ("a, *", URL, True),
        ("openai.com", URL, True),
        (".openai.com", URL, True),
        ("*.openai.com", URL, True),
        ("notopenai.com", URL, False),
        ("api.openai.com:443", URL, True),
        ("api.openai.com:8443", URL, False),
        ("10.0.0.0/8", "https://10.2.3.4:9/", True),
        ("10.0.0.1/8", "https://10.2.3.4/", True),
        ("10.0.0.0/8", "https://11.2.3.4/", False),
        ("::1", "http://[::1]:8000/", True),
        ("[::1]", "http://[::1]:8000/", True),
        ("fd00::/8", "https://[fd00::7]/", True),
        ("fd00::/8", "https://10.0.0.1/", False),
        ("10.0.0.0/99,,", URL, False),
    ],
)
def test_no_proxy_exempts(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, exempt: bool
) -> None:
    """NO_PROXY knows names, ports, addresses and networks."""
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert get_settings().proxy_for(url) == (None if exempt else "http://p:1")


@pytest.mark.parametrize("url", ["", "api.openai.com", "https://", "http://[", "http://h:99999/"])
def test_proxy_for_something_else_than_a_url(url: str) -> None:
    """What isn't a URL is an error in plain words."""
    with pytest.raises(ConfigurationError, match="URL"):
        get_settings().proxy_for(url)
