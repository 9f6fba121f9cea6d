"""Redis as it comes: sockets, TLS, users, clusters, Sentinels, and servers that misbehave."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import llmkit
from llmkit import ConfigurationError, InvalidRequestError
from llmkit.cache import LLMCache, RedisCache
from llmkit.cache.redis_server import MAX_LINKS
from tests.cache.servers import RedisServer, answering, free_port, in_child, until


def works(cache: LLMCache) -> bool:
    """Whether each operation does what it should."""
    assert cache.set("key", {"a": 1})
    assert cache.get("key") == {"a": 1}
    assert cache.acquire("key", "mine", 5) == "granted"
    assert cache.renew("key", "mine", 5)
    cache.release("key", "mine")
    assert cache.delete("key")
    for number in range(20):
        assert cache.set(str(number), number)
    assert cache.clear()
    assert not any(cache.get(str(number)) for number in range(20))
    figures = cache.stats()
    assert (figures["errors"], figures["skipped"], figures["outages"]) == (0, 0, 0)
    cache.close()
    return True


# --- ways to a server ---------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_a_unix_socket(redis_server: RedisServer) -> None:
    """`unix://` needs no port."""
    assert works(RedisCache(f"unix://{redis_server.socket}?db=1"))


@pytest.mark.usefixtures("patient")
def test_a_user_a_password_and_a_database(redis_server: RedisServer) -> None:
    """ACL users log in; each database is a place of its own."""
    redis_server.ask("ACL", "SETUSER", "app", "on", ">pa55/word", "~llmkit:*", "+@all")
    url = f"redis://app:pa55%2Fword@127.0.0.1:{redis_server.port}"
    assert works(RedisCache(f"{url}/2"))
    two, three = (RedisCache(f"{url}/{number}") for number in (2, 3))
    two.set("key", 2)
    assert three.get("key") is None
    assert two.clear()
    for cache in (two, three):
        cache.close()


@pytest.mark.usefixtures("patient")
def test_what_a_user_may_not_is_refused_once(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the right to write, reads still hit, and the log says so once."""
    redis_server.ask("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+@connection")
    writing = RedisCache(redis_server.url, "rights")
    reading = RedisCache(f"redis://reader:secret@127.0.0.1:{redis_server.port}/0", "rights")
    writing.set("key", 1)
    assert [reading.set("key", 2) for _ in range(3)] == [False] * 3
    assert reading.get("key") == 1
    assert (reading.stats()["errors"], reading.stats()["available"]) == (3, True)
    assert len(caplog.records) == 1
    assert "refuses SET" in caplog.text
    for cache in (writing, reading):
        cache.close()


@pytest.mark.usefixtures("patient")
def test_a_url_does_not_undo_the_time_limits(redis_server: RedisServer) -> None:
    """Options that redis-py knows, and that would make a hung server expensive, have no effect."""
    options = "socket_timeout=30&socket_connect_timeout=30&retry_on_timeout=1&max_connections=1"
    assert works(RedisCache(f"{redis_server.url}?{options}&health_check_interval=1&protocol=3"))


@contextlib.contextmanager
def tls_in_front_of(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """A port that speaks TLS, for a server that doesn't."""

    def relay(plain: socket.socket) -> None:
        with (
            context.wrap_socket(plain, server_side=True) as inside,
            socket.create_connection(("127.0.0.1", port)) as behind,
        ):
            while True:
                for one, other in ((inside, behind), (behind, inside)):
                    try:
                        one.settimeout(0.005)
                        data = one.recv(65536)
                    except TimeoutError:
                        continue
                    if not data:
                        return
                    other.settimeout(10)
                    other.sendall(data)

    with answering(relay) as relayed:
        yield relayed


@pytest.mark.usefixtures("patient")
def test_tls(redis_server: RedisServer, tmp_path: Path) -> None:
    """`rediss://` checks the server's certificate, and works like any other way."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with tls_in_front_of(redis_server.port, context) as port:
        url = f"rediss://localhost:{port}/0"
        assert works(RedisCache(f"{url}?ssl_ca_certs={tmp_path}/ca.pem", "tls"))
        stranger = RedisCache(url, "tls")
        assert not stranger.set("key", 1)
        assert stranger.stats()["outages"] == 1
        stranger.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Two servers that share the keys."""
    nodes: list[RedisServer] = []
    try:
        for _ in range(2):
            folder = tmp_path_factory.mktemp("node")
            bus = ("--cluster-port", str(free_port()))  # by default a port that may not exist
            nodes.append(RedisServer(folder, "--cluster-enabled", "yes", *bus))
        nodes[0].ask("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        nodes[1].ask("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        bus_port = nodes[1].options[-1]
        nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, bus_port)
        for node in nodes:
            until(lambda node=node: b"_state:ok" in node.ask("CLUSTER", "INFO"))  # type: ignore[misc] # bound by name
        yield nodes
    finally:
        for node in nodes:
            node.kill()


@pytest.mark.usefixtures("patient")
def test_a_cluster(cluster: list[RedisServer]) -> None:
    """Each key goes to the server that has it, and a clear reaches all servers."""
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    assert works(RedisCache(f"redis+cluster://{hosts}"))
    cache = RedisCache(f"redis+cluster://127.0.0.1:{cluster[0].port}")
    for number in range(40):
        assert cache.set(str(number), number)
    counts = [int(node.ask("DBSIZE")) for node in cluster]
    assert sum(counts) == 40
    assert min(counts) > 5
    assert [cache.get(str(number)) for number in range(40)] == [*range(40)]
    cache.close()


@pytest.mark.usefixtures("patient")
def test_a_key_that_moves_within_a_cluster(cluster: list[RedisServer]) -> None:
    """One operation fails, the next asks the new server; nothing is taken for an outage."""
    cache = RedisCache(f"redis+cluster://127.0.0.1:{cluster[0].port}")
    assert cache.set("key", 1)
    assert cache.delete("key")
    place = f"{cache._prefix}k:{hashlib.sha256(b'key').hexdigest()}"
    slot = int(cluster[0].ask("CLUSTER", "KEYSLOT", place))
    source, target = cluster if slot < 8192 else reversed(cluster)
    new_owner = target.ask("CLUSTER", "MYID").decode()
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", new_owner)
    assert not cache.set("key", 2)
    assert cache.set("key", 3)
    assert cache.get("key") == 3
    assert cache.delete("key")
    assert cache.stats()["outages"] == 0
    cache.close()


def test_a_cluster_of_which_one_server_is_gone(cluster: list[RedisServer]) -> None:
    """The keys of the others are found as before, as soon as the loss is noticed."""
    cluster[0].ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    cache = RedisCache(f"redis+cluster://127.0.0.1:{cluster[0].port}")
    assert cache.clear()
    for number in range(20):
        assert cache.set(str(number), number)
    kept = int(cluster[0].ask("DBSIZE"))
    cluster[1].kill()
    for number in range(20):
        cache.get(str(number))
    until(lambda: [cache.get(str(number)) for number in range(20)].count(None) == 20 - kept)
    assert not cache.clear()
    cache.close()


@pytest.fixture
def sentinel(own_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    """A Sentinel that knows one server by the name `main`."""
    written = tmp_path / "sentinel.conf"
    written.write_text(f"sentinel monitor main 127.0.0.1 {own_server.port} 1\n")
    server = RedisServer(tmp_path, str(written), "--sentinel", ready="+monitor")
    yield server
    server.kill()


@pytest.mark.usefixtures("patient")
def test_sentinels(
    sentinel: RedisServer, own_server: RedisServer, redis_server: RedisServer
) -> None:
    """They are asked for the primary, again after it failed, and dead ones are passed over."""
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}"
    assert works(RedisCache(f"redis+sentinel://{hosts}/main/1"))
    cache = RedisCache(f"redis+sentinel://{hosts}/main", "sentinels")
    assert cache.set("key", 1)
    sentinel.ask("SENTINEL", "REMOVE", "main")
    sentinel.ask("SENTINEL", "MONITOR", "main", "127.0.0.1", redis_server.port, 1)
    own_server.kill()
    assert cache.get("key") is None
    until(lambda: cache.set("key", 2))
    assert cache.get("key") == 2
    stranger = RedisCache(f"redis+sentinel://{hosts}/unknown")
    assert not stranger.set("key", 1)
    for each in (cache, stranger):
        each.close()


# --- what is asked for, and can't be had --------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://:pa55word@host",
        "redis:pa55word",
        "redis://:pa55word@host:port",
        "redis+cluster://:pa55word@",
        "redis+cluster://:pa55word@host:port",
        "redis+sentinel://:pa55word@host:26379",
        "redis+other://:pa55word@host",
    ],
)
def test_a_url_that_cannot_be_read(url: str) -> None:
    """It is said at once, and without the password."""
    with pytest.raises(ConfigurationError, match="cache's URL") as raised:
        RedisCache(url)
    assert "pa55word" not in str(raised.value)


def test_a_missing_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for Redis without redis-py is told the pip command."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r'pip install "llmkit\[redis\]"'):
        RedisCache("redis://localhost")


@pytest.mark.parametrize("namespace", ["", None, 7])
def test_a_namespace_is_a_text(namespace: Any) -> None:
    """An empty one would be everybody's."""
    with pytest.raises(InvalidRequestError, match="namespace"):
        RedisCache("redis://localhost", namespace)


# --- servers that misbehave ---------------------------------------------------------------------


def test_a_dripping_answer_is_bounded_as_a_whole() -> None:
    """redis-py alone would wait for each piece anew."""

    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"+OK\r\n" * 2 + b"$100000\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    with answering(drip) as port:
        cache = RedisCache(f"redis://127.0.0.1:{port}/0")
        begin = time.monotonic()
        assert cache.get("key") is None
        assert time.monotonic() - begin < 0.5
        cache.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"$-7\r\n:x\r\n", b"*1\r\n" * 9]
)
def test_what_is_no_redis_server(answer: bytes) -> None:
    """A wrong port is an outage like any other."""

    def reply(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with answering(reply) as port:
        cache = RedisCache(f"redis://127.0.0.1:{port}/0")
        assert not cache.set("key", 1)
        assert cache.get("key") is None
        assert cache.stats()["errors"] + cache.stats()["skipped"] == 2
        cache.close()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "answer", [b":5\r\n", b"$1\r\nx\r\n", b"*2\r\n$1\r\nx\r\n:1\r\n", b"*-1\r\n"]
)
def test_an_answer_of_another_kind_is_none(answer: bytes) -> None:
    """A server that answers what nobody asked for is a store that is broken: it raises nothing."""

    def reply(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            connection.sendall(answer * max(1, data.count(b"\r\n*") + data.startswith(b"*")))

    with answering(reply) as port:
        cache = RedisCache(f"redis://127.0.0.1:{port}/0")
        assert cache.get("key") is None
        assert cache.delete("key") is (answer == b":5\r\n")
        assert not cache.clear()
        cache.close()


@pytest.mark.usefixtures("patient")
def test_connections_are_bounded(redis_server: RedisServer) -> None:
    """Many threads share few connections, and none is lost."""
    cache = RedisCache(redis_server.url, "bounded")
    cache.set("key", 1)

    def work() -> None:
        for _ in range(5):
            cache.get("key")

    begin = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(3 * MAX_LINKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begin < 8  # nobody waited until the end of patience
    assert (cache.stats()["errors"], cache.stats()["skipped"]) == (0, 0)
    server = cache._servers.get()._servers[None]
    assert 1 <= len(server._links) <= MAX_LINKS
    assert len(server._idle) == len(server._links)
    cache.close()
    assert server._links == set()


@pytest.mark.usefixtures("patient")
def test_a_connection_that_the_server_closed_costs_no_miss(own_server: RedisServer) -> None:
    """Servers close idle connections; that is no failure, and nobody notices."""
    cache = RedisCache(own_server.url)
    cache.set("key", 1)
    own_server.ask("CLIENT", "KILL", "TYPE", "normal")
    assert cache.get("key") == 1
    own_server.ask("CLIENT", "KILL", "TYPE", "normal")
    assert cache.set("key", 2)
    assert (cache.stats()["errors"], cache.stats()["outages"]) == (0, 0)
    cache.close()


@pytest.mark.usefixtures("patient")
def test_a_child_leaves_its_parents_connections_alone(redis_server: RedisServer) -> None:
    """It opens its own, and what it closes at its end is not the parent's."""
    cache = RedisCache(redis_server.url, "forked")
    cache.set("key", 1)
    accepted = _accepted(redis_server)

    def child() -> None:
        assert cache.get("key") == 1
        cache.close()

    assert in_child(child) == 0
    assert cache.get("key") == 1
    # The child's, and the two questions' own.
    assert _accepted(redis_server) - accepted == 2
    cache.close()


def _accepted(server: RedisServer) -> int:
    return int(server.ask("INFO", "stats")["total_connections_received"])


def test_nothing_is_left_behind(redis_server: RedisServer, tmp_path: Path) -> None:
    """A script that used the cache ends at once, without a warning."""
    program = f"""
from llmkit.cache import RedisCache
cache = RedisCache({redis_server.url!r}, "script")
assert cache.set("key", 1) and cache.get("key") == 1
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(llmkit.__file__).parent.parent)},
    )
    assert (done.returncode, done.stderr) == (0, "")
