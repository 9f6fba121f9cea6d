"""Ctrl-C at every point of a request's way: no place and no connection may be lost by it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import ssl
import sys
import time
from collections.abc import Callable

import httpx2
import pytest

from llmkit.gate import Gate, Place
from llmkit.http_transport import PooledTransport
from llmkit.scope import CallInterrupted, Scope
from llmkit.testing import Answer, ProviderServer
from tests.deadline.calling import Background
from tests.interruption import Interruption

OURS = ("/llmkit/gate.py", "/llmkit/http_transport.py", "/llmkit/http_connections.py")
BELOW = ("/llmkit/network.py", "/llmkit/threads.py", "/llmkit/scope.py")
THEIRS = ("/httpx2/_client.py", "/httpx2/_models.py", "/httpcore2/_sync/", "/httpcore2/_models.py")

# A socket that was interrupted between its making and our first look at it closes itself.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def quiet_destructors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A destructor that was interrupted says so, and pytest would keep all that it shows."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)


class Pool:
    """A client of two places, and what stands in its books."""

    def __init__(self, server: ProviderServer) -> None:
        self.transport = PooledTransport(
            size=2,
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            connect_timeout=5.0,
            keepalive=60.0,
            max_body=1 << 20,
            proxy_for=lambda url: None,
        )
        self.client = httpx2.Client(transport=self.transport, trust_env=False)
        self.request = self.client.build_request(
            "GET",
            f"{server.base_url('openai')}/models",
            headers={"authorization": "Bearer sk-test"},
        )

    def ask(self) -> None:
        self.client.send(self.request)

    def check(self) -> None:
        """Everything that was taken is back, and can be taken again."""
        assert self.transport.gate.in_use == 0
        for pool in self.transport._pools.values():
            idle = [each.connection for line in pool._idle.values() for each in line]
            assert len(idle) == len(set(map(id, idle)))
            assert set(map(id, pool)) == set(map(id, idle))
            assert all(connection.is_idle() for connection in idle)
        self.ask()


def send_and_read(pool: Pool) -> None:
    pool.ask()


def send_and_leave(pool: Pool) -> None:
    reply = pool.client.send(pool.request, stream=True)
    next(iter(reply.iter_raw(10)))
    reply.close()


def send_and_forget(pool: Pool) -> None:
    reply = pool.client.send(pool.request, stream=True)
    next(iter(reply.iter_raw(10)))


def wait_in_vain(pool: Pool) -> None:
    places = [Place(pool.transport.gate), Place(pool.transport.gate)]
    try:
        assert all(place.take(0) for place in places)
        with Scope(0.0005).entered():
            pool.ask()
    finally:
        for place in places:
            place.give_back()


@pytest.fixture
def long_answer(server: ProviderServer) -> ProviderServer:
    server.answer = Answer("x" * 2000)
    return server


def interrupt_everywhere(
    server: ProviderServer,
    task: Callable[[Pool], None],
    within: tuple[str, ...],
) -> None:
    """Does a task again and again, each time interrupted a little later, and checks the books."""
    for point in itertools.count(1):
        pool = Pool(server)
        if point % 2:  # else it has to connect first
            pool.ask()
        interruption = Interruption(point, within)
        with contextlib.suppress(KeyboardInterrupt, CallInterrupted), interruption.armed():
            task(pool)
        try:
            pool.check()
        except AssertionError as error:
            error.add_note(f"after an interrupt at point {point}")
            raise
        finally:
            pool.client.close()
        if not interruption.has_come:
            assert point > 20
            return


@pytest.mark.parametrize("task", [send_and_read, send_and_leave, send_and_forget, wait_in_vain])
@pytest.mark.parametrize("within", [OURS, BELOW, THEIRS], ids=["ours", "below", "theirs"])
def test_ctrl_c_leaves_no_place_taken_and_no_connection_lost(
    server: ProviderServer,
    task: Callable[[Pool], None],
    within: tuple[str, ...],
) -> None:
    """Wherever it strikes, every place is free, and every connection idle or closed."""
    server.answer = Answer("x" * 2000)
    interrupt_everywhere(server, task, within)


def test_ctrl_c_leaves_nobody_waiting_in_vain() -> None:
    """Whoever is next comes in, wherever the one before it was interrupted on its way out."""
    for point in itertools.count(1):
        interruption = Interruption(point, (*OURS, *BELOW))
        gate = Gate(1)
        first, second = Place(gate), Place(gate)
        assert first.take()
        waiting = Background(functools.partial(second.take, 10))
        while gate.waiting == 0 or list(gate._line.values())[1] is None:
            time.sleep(0.0005)
        with contextlib.suppress(KeyboardInterrupt), interruption.armed():
            leave(first)
        del first
        assert waiting.outcome().result is True, point
        second.give_back()
        assert gate.in_use == 0
        if not interruption.has_come:
            assert point > 3
            return


def leave(place: Place) -> None:
    """Gives a place back as a reply's body does."""
    try:
        place.give_back()
    except BaseException:
        place.give_back()
        raise
