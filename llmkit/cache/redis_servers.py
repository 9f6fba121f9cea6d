"""Which server has a key: the one of the URL, the one that Sentinels name, or one of a cluster."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import parse_qs, urlencode

from llmkit.cache.breaker import Breaker, StoreFailed
from llmkit.cache.redis_link import CONNECTING, Link, Refused
from llmkit.cache.redis_server import Server, Waited
from llmkit.errors import ConfigurationError

__all__ = ["SCHEMES", "Servers", "find_servers"]

SCHEMES = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+cluster://",
    "rediss+cluster://",
    "redis+sentinel://",
    "rediss+sentinel://",
)

_SLOTS = 16384

Address = tuple[str, int]
Options = dict[str, Any]


class Servers(ABC):
    """The servers behind one URL, as this process sees them.

    Args:
        options: What `redis.connection.parse_url` makes of a URL; the address may be another.
    """

    # Whether a command may name keys of several servers, or of several parts of one.
    many_keys = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self._servers: dict[Address | None, Server] = {}

    def ask(self, until: float, key: str, *command: Any, again: bool = True) -> Any:
        """Sends a command about a key to the server that has it; see `Server.ask`."""
        found = self._find(until)
        try:
            return self._server(self._owner(found, key)).ask(until, *command, again=again)
        except StoreFailed as error:
            if not isinstance(error, Refused) or _has_moved(error):
                self._forget(found)
            raise

    def all(self, until: float) -> list[Server]:
        """Returns the servers that have keys."""
        return [self._server(address) for address in self._owners(self._find(until))]

    def breakers(self) -> list[Breaker]:
        """Returns what says how the servers are."""
        return [server.breaker for server in list(self._servers.values())]

    def close(self) -> None:
        """Closes all links."""
        for server in list(self._servers.values()):
            server.close()

    def abandon(self) -> None:
        """Closes, in a forked child, the child's side of all links."""
        for server in list(self._servers.values()):
            server.abandon()

    def _server(self, address: Address | None) -> Server:
        server = self._servers.get(address)
        if server is None:
            options = _at(self._options, address)
            breaker = Breaker(f"the cache at {_shown(options)}")
            server = self._servers.setdefault(address, Server(lambda: Link(options), breaker))
        return server

    @abstractmethod
    def _find(self, until: float) -> Any:
        """Returns what is known of who has which keys."""

    @abstractmethod
    def _owner(self, found: Any, key: str) -> Address | None:
        """Returns who has a key; None for the URL's own address."""

    @abstractmethod
    def _owners(self, found: Any) -> list[Address | None]:
        """Returns all that have keys."""

    @abstractmethod
    def _forget(self, found: Any) -> None:
        """Notes that what was known may not be true any more."""


class _One(Servers):
    """The URL's own server."""

    def _find(self, until: float) -> None:
        return None

    def _owner(self, found: Any, key: str) -> None:
        return None

    def _owners(self, found: Any) -> list[Address | None]:
        return [None]

    def _forget(self, found: Any) -> None:
        pass


class _Found(Servers):
    """Servers that others have to be asked for, who are looked for in the background."""

    def __init__(self, options: Options, askable: list[Address], what: str) -> None:
        super().__init__(options)
        self._askable = askable
        self._breaker = Breaker(f"the cache's {what} at {_names(askable)}")
        self._known: Waited[Any] = Waited(self._look, f"the {what}'s answer")

    def breakers(self) -> list[Breaker]:
        """Returns what says how the servers are, and those that know them."""
        return [self._breaker, *super().breakers()]

    def _find(self, until: float) -> Any:
        self._breaker.check()
        try:
            found = self._known.get(until)
        except StoreFailed as error:
            self._breaker.failed(error)
            raise
        self._breaker.succeeded()
        return found

    def _forget(self, found: Any) -> None:
        self._known.forget(found)

    def _look(self) -> Any:
        problem = StoreFailed("nobody to ask")
        for address in self._askable:
            try:
                link = Link(self._asking(address))
            except StoreFailed as error:
                problem = error
                continue
            try:
                found = self._ask_for(link, address)
            except StoreFailed as error:
                problem = error
            else:
                if found:
                    return found
                problem = StoreFailed("the answer names no server")
            finally:
                link.close()
        raise problem

    def _asking(self, address: Address) -> Options:
        return _at(self._options, address)

    @abstractmethod
    def _ask_for(self, link: Link, address: Address) -> Any:
        """Asks one of those who know."""


class _Sentinels(_Found):
    """The primary that Sentinels name."""

    def __init__(
        self, options: Options, sentinels: list[Address], service: str, login: Options
    ) -> None:
        super().__init__(options, sentinels, "Sentinels")
        self._service = service
        self._login = login

    def _owner(self, found: Address, key: str) -> Address:
        return found

    def _owners(self, found: Address) -> list[Address | None]:
        return [found]

    def _asking(self, address: Address) -> Options:
        own = {"username", "password", "db"}
        rest = {name: value for name, value in self._options.items() if name not in own}
        return _at({**rest, **self._login}, address)

    def _ask_for(self, link: Link, address: Address) -> Address | None:
        until = time.monotonic() + CONNECTING
        answer = link.ask(until, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        return (answer[0].decode(), int(answer[1])) if answer else None


class _Cluster(_Found):
    """The primaries of a cluster, by the slots of their keys."""

    many_keys = False

    def __init__(self, options: Options, seeds: list[Address]) -> None:
        from redis.crc import key_slot

        super().__init__(options, seeds, "cluster")
        self._slot = key_slot

    def _owner(self, found: list[Address | None], key: str) -> Address:
        owner = found[self._slot(key.encode())]
        if owner is None:
            raise StoreFailed("no server of the cluster has this key's slot")
        return owner

    def _owners(self, found: list[Address | None]) -> list[Address | None]:
        return [*dict.fromkeys(owner for owner in found if owner is not None)]

    def _look(self) -> Any:
        # Whoever is known besides the URL's own servers can be asked, too.
        known = [address for address in self._servers if address is not None]
        self._askable = [*dict.fromkeys([*self._askable, *known])]
        return super()._look()

    def _ask_for(self, link: Link, address: Address) -> list[Address | None] | None:
        owners: list[Address | None] = [None] * _SLOTS
        for first, last, primary, *_ in link.ask(time.monotonic() + CONNECTING, "CLUSTER", "SLOTS"):
            host = (primary[0] or b"").decode() or address[0]  # left out: the one that was asked
            owners[first : last + 1] = [(host, int(primary[1]))] * (last + 1 - first)
        return owners if any(owners) else None


def find_servers(url: str) -> Servers:
    """Reads a URL.

    Args:
        url: As `RedisCache` takes it.

    Returns:
        The servers; nothing is connected yet.

    Raises:
        ConfigurationError: It can't be read. The message doesn't show it, for its password.
    """
    from redis import connection

    parse_url: Any = connection.parse_url  # has no annotations
    scheme, found, rest = url.partition("://")
    scheme, _, kind = scheme.lower().partition("+")
    if f"{url.partition('://')[0].lower()}://" not in SCHEMES or not found:
        raise ConfigurationError(f"a cache's URL: expected one of {', '.join(SCHEMES)}")
    try:
        if not kind:
            return _One(parse_url(f"{scheme}://{rest}"))
        place, _, query = rest.partition("?")
        login, at, place = place.rpartition("@")
        hosts, _, path = place.partition("/")
        extra = parse_qs(query)
        sentinel = {
            name: extra.pop(f"sentinel_{name}")[0]
            for name in ("username", "password")
            if f"sentinel_{name}" in extra
        }
        service, _, db = path.partition("/") if kind == "sentinel" else ("", "", path)
        options = parse_url(
            f"{scheme}://{login}{at}{hosts.split(',')[0]}/{db}?{urlencode(extra, doseq=True)}"
        )
        addresses = [_address(host, kind) for host in hosts.split(",")]
    except ValueError:
        raise ConfigurationError(f"a cache's URL, {scheme}://…, can't be read") from None
    if kind == "cluster":
        return _Cluster(options, addresses)
    if not service:
        raise ConfigurationError(
            "a cache's URL for Sentinels names the service: redis+sentinel://host:26379/service/0"
        )
    return _Sentinels(options, addresses, service, sentinel)


def _address(host: str, kind: str) -> Address:
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:  # an IPv6 address without a port
        name, port = host, ""
    if not name:
        raise ValueError("no host")
    return name.strip("[]"), int(port or (26379 if kind == "sentinel" else 6379))


def _at(options: Options, address: Address | None) -> Options:
    return options if address is None else {**options, "host": address[0], "port": address[1]}


def _shown(options: Options) -> str:
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def _names(addresses: list[Address]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in addresses)


def _has_moved(error: Refused) -> bool:
    """Whether another server than the one that was asked has the key, or may write it."""
    import redis

    return isinstance(error.error, redis.ReadOnlyError | redis.exceptions.MovedError)
