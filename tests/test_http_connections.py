"""Pooled connections: which one is used, which ones are kept, and when they are closed."""

from __future__ import annotations

from collections.abc import Iterator

import httpcore2
import pytest

from llmkit import http_connections
from llmkit.http_connections import Connections
from llmkit.testing import Answer, ProviderServer

MOST_IDLE = 4


@pytest.fixture
def moments() -> list[float]:
    """What the pool's clock has shown; the last one counts."""
    return [0.0]


@pytest.fixture
def pool(moments: list[float]) -> Iterator[Connections]:
    route = httpcore2.ConnectionPool(keepalive_expiry=60.0)
    pool = Connections(route, MOST_IDLE, clock=lambda: moments[-1])
    yield pool
    for connection in pool:
        connection.close()


@pytest.fixture
def second_server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


def open_reply(pool: Connections, server: ProviderServer) -> httpcore2.Response:
    """Sends a request and leaves its reply unread."""
    headers = [("host", "127.0.0.1"), ("authorization", "Bearer sk-test")]
    url = f"{server.base_url('openai')}/models"
    return pool.handle_request(httpcore2.Request("GET", url, headers=headers))


def read(reply: httpcore2.Response) -> None:
    reply.read()
    reply.close()


def ask(pool: Connections, server: ProviderServer) -> None:
    read(open_reply(pool, server))


def ask_together(pool: Connections, server: ProviderServer, count: int) -> None:
    """Has as many connections open at once, and leaves them idle."""
    replies = [open_reply(pool, server) for _ in range(count)]
    for reply in replies:
        reply.read()
        reply.close()


def test_the_connection_that_was_used_last_is_used_next(
    pool: Connections, server: ProviderServer
) -> None:
    """Few stay busy, and the others may grow old."""
    ask_together(pool, server, 3)
    last = server.requests[2].connection
    for _ in range(4):
        ask(pool, server)
    assert [request.connection for request in server.requests[3:]] == [last] * 4
    assert server.connections_accepted == 3


def test_a_connection_serves_one_request_at_a_time(
    pool: Connections, server: ProviderServer
) -> None:
    """A reply that is still open keeps its connection from others."""
    first = open_reply(pool, server)
    ask(pool, server)
    assert server.connections_accepted == 2
    first.read()
    first.close()
    ask(pool, server)
    assert server.connections_accepted == 2
    assert len(list(pool)) == 2


def test_no_more_than_so_many_are_kept(
    pool: Connections,
    server: ProviderServer,
    second_server: ProviderServer,
    moments: list[float],
) -> None:
    """The oldest are closed, of whatever address, by the next request of another second."""
    ask_together(pool, server, MOST_IDLE)
    ask_together(pool, second_server, 3)
    moments.append(1.5)
    ask(pool, second_server)
    assert len(list(pool)) <= MOST_IDLE + 1  # the one that was in use came back
    asked = [request.connection for request in second_server.requests]
    ask(pool, second_server)
    assert second_server.requests[-1].connection in asked


def test_old_idle_connections_are_closed_by_later_requests(
    pool: Connections,
    server: ProviderServer,
    second_server: ProviderServer,
    moments: list[float],
) -> None:
    """What a busy minute opened is not kept for ever, though it is never used again."""
    ask_together(pool, server, 4)
    assert len(list(pool)) == 4
    for each in pool:
        each._connection._expire_at = 0.0  # type: ignore[attr-defined]  # a minute later
    ask(pool, second_server)
    assert len(list(pool)) == 5  # nobody looked yet
    moments.append(1.5)
    ask(pool, second_server)
    assert len(list(pool)) == 1


def test_one_that_the_server_has_closed_is_replaced(
    pool: Connections, server: ProviderServer
) -> None:
    """No request is lost on a connection that has ended meanwhile."""
    ask(pool, server)
    server.close()
    server.start()
    ask(pool, server)
    assert len(list(pool)) == 1


def test_one_that_was_closed_here_is_replaced(pool: Connections, server: ProviderServer) -> None:
    """Closing the idle ones, from another thread say, costs no request either."""
    ask(pool, server)
    for each in pool:
        each.close()
    ask(pool, server)
    assert len(list(pool)) == 1


def test_one_that_did_not_come_about_is_forgotten(
    pool: Connections, server: ProviderServer
) -> None:
    """A refused connect leaves nothing behind."""
    server.close()
    for _ in range(3):
        with pytest.raises(httpcore2.ConnectError):
            ask(pool, server)
    assert list(pool) == []


def test_a_reply_that_breaks_leaves_no_connection(
    pool: Connections, server: ProviderServer
) -> None:
    """What was not read to its end can't be used again."""
    server.answer = Answer("x" * 100)
    open_reply(pool, server).close()
    assert list(pool) == []


def test_a_reply_that_is_forgotten_leaves_no_connection(
    pool: Connections, server: ProviderServer
) -> None:
    """Nobody has to close what nobody has: it is closed by itself."""
    reply = open_reply(pool, server)
    (connection,) = pool
    assert not connection.is_closed()
    del reply
    assert connection.is_closed()
    assert list(pool) == []


@pytest.mark.parametrize("moment", ["taken", "given back", "replied"])
def test_an_interrupt_leaves_no_connection(
    pool: Connections, server: ProviderServer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A connection that nobody holds any more is closed, at whatever step Ctrl-C comes."""

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    ask(pool, server)
    (connection,) = pool
    reply = open_reply(pool, server) if moment == "given back" else None
    if moment == "replied":
        monkeypatch.setattr(http_connections, "_PooledBody", interrupt)
    else:
        monkeypatch.setattr(connection, "has_expired", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ask(pool, server) if reply is None else read(reply)
    assert list(pool) == []
    assert connection.is_closed()


def test_closing_the_idle_ones_leaves_those_in_use(
    pool: Connections, server: ProviderServer
) -> None:
    """A request that is under way ends as it would have."""
    ask_together(pool, server, 2)
    reply = open_reply(pool, server)
    pool.close_idle()
    assert len(list(pool)) == 1
    read(reply)
    ask(pool, server)
    assert server.connections_accepted == 2


def test_too_many_are_taken_from_the_address_that_has_most(
    pool: Connections,
    server: ProviderServer,
    second_server: ProviderServer,
    moments: list[float],
) -> None:
    """One address's crowd costs another address no warm connection."""
    ask(pool, server)
    ask_together(pool, second_server, MOST_IDLE + 2)
    moments.append(1.5)
    ask(pool, second_server)
    ask(pool, server)
    assert server.connections_accepted == 1


def test_other_protocols_are_refused(pool: Connections) -> None:
    """An error of the library's own kind, as a program's except clause expects it."""
    with pytest.raises(httpcore2.UnsupportedProtocol, match="ftp"):
        pool.handle_request(httpcore2.Request("GET", "ftp://127.0.0.1:1/x"))
