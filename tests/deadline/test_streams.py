"""A stream's connection is freed at once, however the stream is left."""

from __future__ import annotations

import gc
import signal
import threading
import time

import pytest

import llmkit
from llmkit.connection_pool import health_check
from llmkit.errors import CancelledError, LLMTimeoutError, StreamInterruptedError
from llmkit.streams import ChunkSource, Stream
from llmkit.testing import Answer, ProviderServer
from llmkit.types import CallRecord
from tests.deadline.calling import VENDORS, Background, Vendor, adapter, best_of
from tests.deadline.probe import Probe, signal_main_thread
from tests.deadline.states import FOREVER, STALLED


def begin(server: ProviderServer, vendor: Vendor = "openai") -> Stream:
    server.answer = STALLED
    stream = adapter(vendor, server.base_url(vendor)).stream("hi")
    assert next(stream).text
    return stream


def assert_freed(server: ProviderServer) -> None:
    """The provider saw us leave, and the place is free."""
    assert server.requests[-1].disconnected.wait(2)
    (pool,) = health_check().values()
    assert (pool["in_use"], pool["connections"]) == (0, 0)


@pytest.mark.parametrize("vendor", VENDORS)
def test_dropping_a_stream_frees_its_connection(any_server: ProviderServer, vendor: Vendor) -> None:
    """Whoever forgets to close a stream holds nothing by it."""
    stream = begin(any_server, vendor)
    del stream
    assert_freed(any_server)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stream_in_a_reference_cycle_is_collected(server: ProviderServer, vendor: Vendor) -> None:
    """The garbage collector frees what a cycle kept, wherever it happens to run."""
    stream = begin(server, vendor)
    cycle: list[object] = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()
    assert_freed(server)
    server.answer = Answer("next")
    assert adapter(vendor, server.base_url(vendor)).generate("hi").text == "next"


@pytest.mark.parametrize("vendor", VENDORS)
def test_break_and_close_free_the_connection(any_server: ProviderServer, vendor: Vendor) -> None:
    """Leaving the `with` block ends the stream at the provider, too."""
    any_server.answer = STALLED
    with adapter(vendor, any_server.base_url(vendor)).stream("hi") as stream:
        for _ in stream:
            break
    assert_freed(any_server)
    # Never mistaken for an answer that is whole.
    with pytest.raises(CancelledError):
        next(stream)
    with pytest.raises(StreamInterruptedError):
        _ = stream.completion


def test_closing_the_texts_closes_the_stream(any_server: ProviderServer) -> None:
    """A web framework closes what it was given to send, and knows nothing of the stream."""
    any_server.answer = STALLED
    stream = adapter("openai", any_server.base_url("openai")).stream("hi")
    texts = stream.text_stream
    assert next(iter(texts))
    texts.close()
    assert_freed(any_server)
    with pytest.raises(CancelledError):
        next(texts)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stream_that_was_read_keeps_its_connection(
    any_server: ProviderServer, vendor: Vendor
) -> None:
    """A stream read to its end gives its connection back for the next call."""
    asked = adapter(vendor, any_server.base_url(vendor))
    for _ in range(2):
        with asked.stream("hi") as stream:
            assert "".join(stream.text_stream)
    first, second = any_server.requests
    assert first.connection == second.connection


def test_close_wakes_a_thread_that_waits_for_a_chunk(
    any_server: ProviderServer, probe: Probe
) -> None:
    """`close()` from another thread ends the wait at once, and is told as a cancel."""

    def measure() -> float:
        stream = begin(any_server)
        background = Background(lambda: next(stream))
        probe.wait_until_stuck()
        began = time.monotonic()
        stream.close()
        outcome = background.outcome()
        assert isinstance(outcome.error, CancelledError)
        assert_freed(any_server)
        return outcome.ended - began

    best_of(8, measure, strict=0.02, loose=0.5)


def test_close_while_a_chunk_is_taken_frees_the_connection(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close that meets a reader between two waits is not lost, and is recorded once."""
    records: list[CallRecord] = []
    asked = adapter("openai", server.base_url("openai"))
    asked.observers = (records.append,)
    server.answer = STALLED
    stream = asked.stream("hi")
    assert next(stream).text
    source = stream._source

    def closed_meanwhile() -> ChunkSource:
        closer = threading.Thread(target=stream.close)
        closer.start()
        closer.join()
        yield llmkit.Chunk("parsed already")
        return (yield from source)

    monkeypatch.setattr(stream, "_source", closed_meanwhile())
    assert next(stream).text == "parsed already"
    assert_freed(server)
    with pytest.raises(CancelledError):
        next(stream)
    stream.close()
    assert len(records) == 1


def test_a_deadline_around_a_stream_is_cancelled_with_it(
    server: ProviderServer, probe: Probe
) -> None:
    """Cancelling the block that a stream was opened in ends its wait for the next chunk."""
    scopes = []

    def read() -> None:
        with llmkit.deadline(FOREVER) as scope:
            scopes.append(scope)
            list(begin(server))

    background = Background(read)
    server.wait_for_requests(1)
    probe.wait_until_stuck()
    scopes[0].cancel()
    assert isinstance(background.outcome(2).error, CancelledError)


def test_a_deadline_around_the_reader_ends_the_wait(server: ProviderServer, probe: Probe) -> None:
    """Time and cancel of the block that a stream is read in hold, wherever it was opened."""
    stream = begin(server)
    began = time.monotonic()
    with pytest.raises(StreamInterruptedError) as caught, llmkit.deadline(0.2):
        next(stream)
    assert isinstance(caught.value.__cause__, LLMTimeoutError)
    assert time.monotonic() - began < 1

    other, scopes = begin(server), []

    def read() -> None:
        with llmkit.deadline(FOREVER) as scope:
            scopes.append(scope)
            next(other)

    background = Background(read)
    probe.wait_until_stuck()
    scopes[0].cancel()
    assert isinstance(background.outcome(2).error, CancelledError)


def test_a_stream_keeps_its_total_and_its_idle_time(server: ProviderServer) -> None:
    """`timeout` bounds the whole stream though chunks keep coming; `idle_timeout` each gap."""
    asked = adapter("openai", server.base_url("openai"))
    server.answer = Answer("word " * 200, chunk_delay=0.02)
    began = time.monotonic()
    with pytest.raises(StreamInterruptedError) as caught:
        list(asked.stream("hi", timeout=0.3))
    assert 0.3 <= time.monotonic() - began < 1.3
    assert caught.value.partial_text.startswith("word word")
    server.answer = STALLED
    with pytest.raises(StreamInterruptedError):
        list(asked.stream("hi", idle_timeout=0.2))


def test_no_deadline_leaks_into_the_reader(server: ProviderServer) -> None:
    """Between two chunks the reader's own code runs in no Scope."""
    server.answer = Answer("one two three")
    for _ in adapter("openai", server.base_url("openai")).stream("hi", timeout=5):
        assert llmkit.scope.current_scope() is None


def test_an_interrupted_stream_does_not_look_complete(server: ProviderServer, probe: Probe) -> None:
    """After Ctrl-C in a stream, reading on raises instead of ending quietly."""
    stream = begin(server)
    interrupting = threading.Thread(target=signal_main_thread, args=(probe, signal.SIGINT))
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    interrupting.join()
    assert_freed(server)
    with pytest.raises(CancelledError):
        next(stream)
