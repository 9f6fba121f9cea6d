"""Which proxy the environment wants for a URL."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from llmkit.settings.readers import Reader, read_value

__all__ = ["proxy_for"]


def proxy_for(url: str) -> str | None:
    """Says which proxy to use; see `Settings.proxy_for`."""
    scheme, host, port = read_value(_ADDRESS, url, "The URL", secret=False)
    proxies = getproxies()
    proxy = (proxies.get(scheme) or proxies.get("all") or "").strip()
    if not proxy or proxy_bypass(f"{host}:{port}") or _exempt(host, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _read_address(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


_ADDRESS = Reader(_read_address, "http(s)://host…")


def _exempt(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host in a way that urllib doesn't know."""
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
