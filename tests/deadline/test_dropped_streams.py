"""A stream leaves one record, however it is left."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmkit import get_performance_tracker
from llmkit.errors import ErrorCode, StreamInterruptedError
from llmkit.performance import notify_later
from llmkit.process_local import close_all
from llmkit.scope import current_scope
from llmkit.streams import Stream
from llmkit.testing import Answer, ProviderServer
from llmkit.types import CallRecord
from tests.deadline.calling import VENDORS, Background, Vendor, adapter
from tests.deadline.states import STALLED


class Books:
    """What an observer was told of the calls of one adapter, and what the tracker counted."""

    def __init__(self, server: ProviderServer, vendor: Vendor = "openai") -> None:
        get_performance_tracker().reset()
        self.records: list[CallRecord] = []
        self._asked = adapter(vendor, server.base_url(vendor))
        self._asked.observers = (self.records.append,)
        self._server = server

    def begin(self, answer: Answer = STALLED) -> Stream:
        self._server.answer = answer
        return self._asked.stream("hi", metadata={"mine": 1})

    def figures(self) -> dict[str, int]:
        stats = get_performance_tracker().get_stats(self._asked.model)
        return {name: stats[name] for name in ("requests", "successes", "failures", "cancelled")}

    def check_cancelled(self) -> None:
        """There is one record, of a call that was given up."""
        assert self.figures() == {"requests": 1, "successes": 0, "failures": 0, "cancelled": 1}
        (record,) = self.records
        assert record.code is ErrorCode.LLM_CANCELLED
        assert [attempt.code for attempt in record.attempts] == [ErrorCode.LLM_CANCELLED]
        assert (record.streamed, record.metadata) == (True, {"mine": 1})
        assert (record.usage.total_tokens, record.cost) == (None, None)
        assert record.first_chunk is not None
        assert record.first_chunk <= record.latency


def close_unread(stream: Stream) -> None:
    stream.close()
    stream.close()


def leave_at_once(stream: Stream) -> None:
    with stream:
        pass


def read_half_and_leave(stream: Stream) -> None:
    with stream:
        next(stream)


def drop_unread(stream: Stream) -> None:
    pass


def read_half_and_drop(stream: Stream) -> None:
    next(stream)


def drop_in_a_cycle(stream: Stream) -> None:
    next(stream)
    cycle: list[object] = [stream]
    cycle.append(cycle)


def drop_the_texts(stream: Stream) -> None:
    next(iter(stream.text_stream))


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    "leave",
    [
        close_unread,
        leave_at_once,
        read_half_and_leave,
        drop_unread,
        read_half_and_drop,
        drop_in_a_cycle,
        drop_the_texts,
    ],
)
def test_a_stream_that_is_given_up_leaves_one_record(
    server: ProviderServer, vendor: Vendor, leave: Callable[[Stream], None]
) -> None:
    """Tracker and observers hear of every call, also of one that nobody read to its end."""
    books = Books(server, vendor)
    leave(books.begin())
    gc.collect()
    assert server.requests[-1].disconnected.wait(2)
    books.check_cancelled()
    close_all()  # nothing is told twice
    assert len(books.records) == 1


def test_a_stream_that_is_read_leaves_one_record(server: ProviderServer) -> None:
    """The end is told once, also when the stream is closed and dropped afterwards."""
    books = Books(server)
    stream = books.begin(Answer("one two three"))
    assert "".join(stream.text_stream) == "one two three"
    assert len(books.records) == 1
    stream.close()
    del stream
    gc.collect()
    assert books.figures() == {"requests": 1, "successes": 1, "failures": 0, "cancelled": 0}
    assert [record.ok for record in books.records] == [True]
    assert books.records[0].usage.total_tokens


def test_a_stream_that_breaks_leaves_one_record(server: ProviderServer) -> None:
    """An error is told once, also when the stream is dropped afterwards."""
    books = Books(server)
    stream = books.begin(Answer(chunks=["x" * 5000, "y" * 5000], cut_after=8000))
    with pytest.raises(StreamInterruptedError):
        list(stream)
    del stream
    gc.collect()
    assert books.figures() == {"requests": 1, "successes": 0, "failures": 1, "cancelled": 0}
    assert [record.code for record in books.records] == [ErrorCode.LLM_STREAM_INTERRUPTED]


def test_a_stream_may_be_dropped_inside_an_observers_lock(server: ProviderServer) -> None:
    """The garbage collector may run anywhere: it neither waits for a lock nor runs an observer."""
    books = Books(server)
    lock = threading.Lock()

    def observe(record: CallRecord) -> None:
        with lock:
            books.records.append(record)

    books._asked.observers = (observe,)
    streams = [books.begin()]

    def drop() -> None:
        with lock, get_performance_tracker()._lock:
            streams.clear()
            gc.collect()
        assert not books.records

    assert Background(drop).outcome(5).error is None
    books.check_cancelled()


def test_the_next_call_tells_of_a_dropped_stream(server: ProviderServer) -> None:
    """Observers need not wait for the process's end, and hear outside of any Scope."""
    books = Books(server)
    scopes = []
    books._asked.observers = (books.records.append, lambda record: scopes.append(current_scope()))
    for _ in range(2):
        drop_unread(books.begin())
    gc.collect()
    server.answer = Answer("next")
    books._asked.generate("hi")
    codes = [record.code for record in books.records]
    assert codes == [None, ErrorCode.LLM_CANCELLED, ErrorCode.LLM_CANCELLED]
    assert scopes == [None] * 3


def test_a_dropped_stream_is_told_of_at_the_end(server: ProviderServer) -> None:
    """Where no call follows, the process's end, or `shutdown`, tells."""
    books = Books(server)
    drop_unread(books.begin())
    gc.collect()
    assert not books.records
    close_all()
    assert len(books.records) == 1


def test_many_dropped_streams_are_told_of_one_after_the_other(server: ProviderServer) -> None:
    """However many there are, and whatever observers fail, nobody's stack is full of them."""
    books = Books(server)
    books.begin(Answer("hi")).close()
    (record,) = books.records
    told: list[CallRecord] = []

    def fail(record: CallRecord) -> None:
        raise ValueError("an observer's bug")

    for _ in range(2 * sys.getrecursionlimit()):
        notify_later((fail, told.append), record)
    books.figures()
    assert len(told) == 2 * sys.getrecursionlimit()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_does_not_tell_of_its_parents_stream(
    server: ProviderServer, tmp_path: Path
) -> None:
    """The parent's calls end in the parent, one that was dropped just before the fork, too."""
    books = Books(server)
    told = tmp_path / "told"

    def observe(record: CallRecord) -> None:
        with told.open("a") as file:
            file.write(f"{os.getpid()}\n")

    books._asked.observers = (observe,)
    streams = [books.begin()]
    drop_unread(books.begin())
    child = os.fork()
    if child == 0:
        try:
            streams.clear()
            gc.collect()
            close_all()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert not told.exists()
    streams.clear()
    gc.collect()
    close_all()
    assert told.read_text() == f"{os.getpid()}\n" * 2
