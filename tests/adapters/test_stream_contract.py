"""What every adapter promises for streams, tested over real sockets with the real SDKs."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from llmkit import (
    APIConnectionError,
    BaseLLMAdapter,
    CallRecord,
    CancelledError,
    Completion,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
    StreamInterruptedError,
)
from llmkit.testing import Answer, ProviderServer
from llmkit.types import Usage
from tests.adapters.vendor_cases import (
    ANTHROPIC,
    GEMINI,
    GROQ,
    LEGACY_GEMINI,
    LOCAL,
    OPENAI,
    OPENROUTER,
    Case,
    errors_of,
)
from tests.testing.http_clients import SOON

WORDS = ("Grüße ", "aus ", "世界 ", "🌍!")
TEXT = "".join(WORDS)


class StreamContract:
    """What every adapter promises for streams; a subclass names the provider."""

    case: ClassVar[Case]

    @pytest.fixture
    def adapter(self, server: ProviderServer) -> BaseLLMAdapter:
        return self.case.adapter(server)

    def broken(self, adapter: BaseLLMAdapter, after: str) -> StreamInterruptedError:
        """The error of a stream that must break after some text."""
        stream = adapter.stream("hi", idle_timeout=SOON)
        with pytest.raises(StreamInterruptedError) as caught:
            list(stream)
        assert (caught.value.partial_text, stream.text) == (after, after)
        return caught.value

    def refused(self, adapter: BaseLLMAdapter, **arguments: Any) -> LLMError:
        """The error of a stream that must not begin."""
        with pytest.raises(LLMError) as caught:
            adapter.stream("hi", **arguments)
        assert not isinstance(caught.value, StreamInterruptedError)
        return caught.value

    def outcome(self, adapter: BaseLLMAdapter) -> Completion | LLMError:
        """How a stream that is asked for once ends: with its completion, or with an error."""
        try:
            stream = adapter.stream("hi", max_retries=0)
            list(stream)
        except LLMError as error:
            return error
        return stream.completion

    def test_streams(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """The chunks arrive as the vendor sends them; the completion is what `generate` gives."""
        server.answer = Answer(
            chunks=WORDS,
            input_tokens=100,
            output_tokens=30,
            cached_tokens=40,
            cache_write_tokens=0 if self.case.wire == "gemini" else 10,
            reasoning_tokens=5,
        )
        stream = adapter.stream("hi")
        assert tuple(stream.text_stream) == WORDS
        streamed, whole = stream.completion, adapter.generate("hi")
        assert streamed.text == whole.text == TEXT
        assert streamed.finish_reason == whole.finish_reason == "stop"
        written = None if self.case.wire == "gemini" else 10
        assert streamed.usage == whole.usage == Usage(100, 30, 40, written, 5)
        assert (streamed.cost, streamed.warnings) == (whole.cost, whole.warnings)
        assert (streamed.model, streamed.provider) == (whole.model, whole.provider)
        assert streamed.request_id
        assert streamed.raw
        assert len(streamed.attempts) == 1

    def test_asks_for_a_stream(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """The request says that it wants a stream, and OpenAI's that it wants the usage."""
        list(adapter.stream("hi", extra_headers={"X-Trace": "t1"}, extra_body={"labels": 1}))
        request = server.requests[0]
        assert request.stream
        assert (request.headers["x-trace"], request.json["labels"]) == ("t1", 1)
        if self.case.wire == "openai":
            assert request.json["stream_options"] == {"include_usage": True}

    def test_uses_the_connection_again(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """A stream that was read to its end gives its connection back."""
        for _ in range(3):
            list(adapter.stream("hi"))
        assert len({request.connection for request in server.requests}) == 1

    def test_reads_single_bytes(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """Characters of several bytes survive a stream that arrives byte by byte."""
        server.answer = Answer(chunks=WORDS, drip=0.0)
        stream = adapter.stream("hi")
        assert tuple(stream.text_stream) == WORDS

    @pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
    def test_names_why_it_stopped(
        self, server: ProviderServer, adapter: BaseLLMAdapter, reason: str
    ) -> None:
        """Finish reasons and their warnings are those of a complete call."""
        server.answer = Answer("so far", finish_reason=reason)
        stream = adapter.stream("hi")
        list(stream)
        whole = adapter.generate("hi")
        assert stream.completion.finish_reason == whole.finish_reason == reason
        assert stream.completion.warnings == whole.warnings

    @pytest.mark.parametrize("text", ["", "Looking it up."])
    def test_reads_tool_calls(
        self, server: ProviderServer, adapter: BaseLLMAdapter, text: str
    ) -> None:
        """Tool calls that arrive in pieces are those of a complete call."""
        server.answer = Answer(
            text, tool_calls=[("weather", {"city": "Köln", "days": 3}), ("now", {})]
        )
        stream = adapter.stream("hi")
        assert "".join(stream.text_stream) == text
        assert [(call.name, call.arguments) for call in stream.completion.tool_calls] == [
            ("weather", {"city": "Köln", "days": 3}),
            ("now", {}),
        ]
        assert all(call.id for call in stream.completion.tool_calls)
        assert stream.completion.finish_reason == "tool_calls"

    def test_streams_an_empty_answer(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """An answer without text that has its end mark is an answer."""
        server.answer = Answer("")
        stream = adapter.stream("hi")
        assert list(stream) == []
        assert (stream.completion.text, stream.completion.finish_reason) == ("", "stop")

    def test_misses_the_end_mark(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """A stream without the vendor's own end is broken, though the SDK does not say so."""
        server.answer = Answer(chunks=WORDS, end_mark=False)
        error = self.broken(adapter, after=TEXT)
        assert isinstance(error.__cause__, ProviderError)
        assert len(server.requests) == 1

    def test_retries_until_something_was_handed_out(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """Whatever breaks a stream before its first chunk is tried again, each request counted."""
        server.script(
            Answer("", end_mark=False),
            Answer(status=503),
            Answer(error_event_after=0),
            Answer("good"),
        )
        stream = adapter.stream("hi")
        assert "".join(stream.text_stream) == "good"
        assert len(stream.completion.attempts) == len(server.requests) == 4
        assert [attempt.code for attempt in stream.completion.attempts] == [
            *["LLM_PROVIDER_ERROR"] * 3,
            None,
        ]

    def test_retries_no_more_than_allowed(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """A stream that never begins fails with the last cause after `max_retries` more tries."""
        server.answer = Answer("", end_mark=False)
        error = self.refused(adapter, max_retries=2)
        assert isinstance(error, ProviderError)
        assert len(error.attempts) == len(server.requests) == 3

    @pytest.mark.parametrize("body", ["", "\n\n", ": comment\n\n", "data: [DONE]\n\n", "data:\n\n"])
    def test_refuses_an_empty_stream(
        self, server: ProviderServer, adapter: BaseLLMAdapter, body: str
    ) -> None:
        """A reply of status 200 without a single event is a ProviderError."""
        server.answer = Answer(body=body)
        assert isinstance(self.refused(adapter, max_retries=0), ProviderError)

    @pytest.mark.parametrize("body", ["{}", "null", "[]", "7", "<html></html>", "{", '{"x": 1}'])
    def test_refuses_events_that_are_no_answer(
        self, server: ProviderServer, adapter: BaseLLMAdapter, body: str
    ) -> None:
        """Events with anything but the vendor's JSON, or no events at all, are a ProviderError."""
        for framed in (f"data: {body}\n\n", body, f"data: {body}"):
            server.answer = Answer(body=framed)
            assert isinstance(self.refused(adapter, max_retries=0), ProviderError)

    def test_refuses_another_content_type(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """A page in place of a stream is a ProviderError."""
        server.answer = Answer(content_type="text/html", body="<html>Sign in</html>")
        assert isinstance(self.refused(adapter, max_retries=0), ProviderError)

    def test_reports_an_error_inside(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """The vendor's error event after some text breaks the stream, with the text so far."""
        server.answer = Answer(chunks=WORDS, error_event_after=2)
        assert self.broken(adapter, after="Grüße aus ").__cause__ is not None

    def test_reports_a_malformed_event(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """An event that is not JSON breaks the stream, and nothing after it is read."""
        server.answer = Answer(chunks=WORDS, malformed_after=2)
        assert self.broken(adapter, after="Grüße aus ").__cause__ is not None

    @pytest.mark.parametrize("reset", [False, True])
    def test_reports_a_cut(
        self, server: ProviderServer, adapter: BaseLLMAdapter, reset: bool
    ) -> None:
        """A stream that is cut anywhere ends in an error, never as if it were whole."""
        server.answer = Answer(chunks=WORDS)
        whole = 250 + sum(len(piece) for piece in _stream_bytes(server, self.case))
        seen: set[type] = set()
        for position in range(150, whole - 250, max(1, whole // 20)):
            server.answer = Answer(chunks=WORDS, cut_after=position, reset=reset)
            ended = self.outcome(adapter)
            seen.add(type(ended))
            if isinstance(ended, StreamInterruptedError):
                assert TEXT.startswith(ended.partial_text)
            elif isinstance(ended, Completion):  # only what comes after the end mark was cut
                assert ended.text == TEXT
            else:
                assert isinstance(ended, (APIConnectionError, ProviderError))
        assert {APIConnectionError, StreamInterruptedError} <= seen

    def test_reports_a_stall(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """A stream that falls silent breaks after `idle_timeout`."""
        server.answer = Answer(chunks=("first", "x" * 9000), stall_after=5000)
        stream = adapter.stream("hi", idle_timeout=0.1)
        with pytest.raises(StreamInterruptedError) as caught:
            list(stream)
        assert caught.value.partial_text == "first"
        assert "0.1 s" in caught.value.message

    def test_reports_that_nothing_begins(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """A stream whose first chunk does not come in time is a time-out, and is given up."""
        server.answer = Answer(delay=30)
        error = self.refused(adapter, first_chunk_timeout=0.1)
        assert isinstance(error, LLMTimeoutError)
        assert server.requests[0].disconnected.wait(SOON)

    def test_maps_every_status(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """An error status has the same code as in a complete call, and breaks nothing half-way."""
        for status, code in errors_of(self.case).items():
            server.script(Answer(status=status, body=""))
            error = self.refused(adapter, max_retries=0)
            assert (status, error.code, error.status) == (status, code, status)

    def test_ends_early_at_any_event(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """A stream that ends in good order, but too early, is never taken for a whole one."""
        pieces = _stream_bytes(server, self.case)
        for kept in range(1, len(pieces) + 1):
            for end in (b"\n\n", b"", b"\n"):
                server.answer = Answer(body=b"\n\n".join(pieces[:kept]) + end)
                ended = self.outcome(adapter)
                if isinstance(ended, StreamInterruptedError):
                    assert TEXT.startswith(ended.partial_text)
                elif isinstance(ended, Completion):
                    assert (ended.text, ended.finish_reason) == (TEXT, "stop")
                else:
                    assert isinstance(ended, ProviderError)
                    assert kept < len(pieces)

    def test_tells_the_observers_once(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """A stream is one record: when it ends, when it breaks, when it is closed early."""
        records: list[CallRecord] = []
        adapter.observers = (records.append,)
        list(adapter.stream("hi"))
        server.answer = Answer(chunks=WORDS, end_mark=False)
        self.broken(adapter, after=TEXT)
        server.answer = Answer(chunks=WORDS)
        with adapter.stream("hi") as stream:
            next(stream)
        stream.close()
        server.answer = Answer(status=400)
        self.refused(adapter)
        assert [record.code for record in records] == [
            None,
            "LLM_STREAM_INTERRUPTED",
            "LLM_CANCELLED",
            "INVALID_REQUEST",
        ]
        assert all(record.streamed for record in records)
        assert [len(record.attempts) for record in records] == [1, 1, 1, 1]
        assert all(record.first_chunk is not None for record in records[:3])

    def test_refuses_another_type(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """A page of a proxy in between is no stream, even if something in it looks like one."""
        server.answer = Answer("fine", content_type="text/html")
        with pytest.raises(ProviderError, match="text/html"):
            adapter.stream("hi", max_retries=0)

    def test_closes_at_once(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """Closing a stream early ends the connection, and the completion says that it was cut."""
        server.answer = Answer(chunks=("first", "x" * 9000), stall_after=5000)
        stream = adapter.stream("hi")
        next(stream)
        stream.close()
        assert server.requests[0].disconnected.wait(SOON)
        with pytest.raises(StreamInterruptedError):
            _ = stream.completion
        with pytest.raises(CancelledError):
            next(stream)

    def test_reads_rate_limits_inside(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """An error event's own word decides what it is, not the status 200 around it."""
        words = {"openai": "rate_limit_exceeded", "anthropic": "rate_limit_error"}
        error_type = words.get(self.case.wire, "RESOURCE_EXHAUSTED")
        if self.case.wire == "gemini":
            report = json.dumps({"error": {"code": 429, "status": error_type}})
            server.answer = Answer(body=f"data: {report}\r\n\r\n")
        else:
            server.answer = Answer(error_event_after=0, error_type=error_type)
        assert isinstance(self.refused(adapter, max_retries=0), RateLimitError)


def _stream_bytes(server: ProviderServer, case: Case) -> list[bytes]:
    """The bodies of the vendor's events of a stream of WORDS."""
    import httpx2

    path = case.path.replace("generateContent", "streamGenerateContent?alt=sse")
    body = {"model": "m", "messages": [], "contents": [], "stream": True}
    server.script(Answer(chunks=WORDS))
    reply = httpx2.post(server.url + path, json=body, trust_env=False)
    return reply.content.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]


class TestOpenAI(StreamContract):
    case = OPENAI


class TestAnthropic(StreamContract):
    case = ANTHROPIC


class TestGemini(StreamContract):
    case = GEMINI


class TestLegacyGemini(StreamContract):
    case = LEGACY_GEMINI


class TestGroq(StreamContract):
    case = GROQ


class TestOpenRouter(StreamContract):
    case = OPENROUTER


class TestLocal(StreamContract):
    case = LOCAL
