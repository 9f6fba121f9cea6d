"""What every adapter promises for calls that fail, tested with the real SDKs."""

from __future__ import annotations

import functools
import gzip
import http.client
import json
import pickle
import socket
import traceback
from email.utils import formatdate
from typing import Any, ClassVar

import pytest

from llmkit import (
    APIConnectionError,
    BaseLLMAdapter,
    ConfigurationError,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
)
from llmkit.testing import Answer, ProviderServer
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
    fresh_key,
)
from tests.case_names import case_name

UNREADABLE: dict[str, str | bytes] = {
    "empty object": "{}",
    "null": "null",
    "empty list": "[]",
    "a text": '"hello"',
    "a number": "7",
    "html": "<html><body>502 Bad Gateway</body></html>",
    "nothing": "",
    "truncated": '{"choices": [{"message": {"content": "he',
    "not utf-8": b'{"text": "\xff\xfe"}',
    "nested beyond reason": "[" * 100_000,
    "no choices": '{"choices": [], "candidates": [], "content": []}',
    "null choices": '{"choices": null, "candidates": null, "content": null}',
    "choices of another type": '{"choices": {}, "candidates": 5, "content": "text"}',
    "choices without content": '{"choices": [{}], "candidates": [{}], "content": [{}]}',
    "an empty message": '{"choices": [{"message": {}}], "candidates": [{"content": {}}]}',
    "a message that is a text": '{"choices": [{"message": "x"}], "candidates": [{"content": "x"}]}',
    "content that is a number": (
        '{"choices": [{"message": {"content": 5}}], "content": [{"type": "text", "text": 5}],'
        ' "candidates": [{"content": {"parts": [{"text": 5}]}}]}'
    ),
    "token counts that are texts": (
        '{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],'
        ' "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn",'
        ' "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],'
        ' "usage": {"prompt_tokens": "7", "input_tokens": "7"},'
        ' "usageMetadata": {"promptTokenCount": "7"}}'
    ),
}


@functools.cache
def bomb() -> bytes:
    """A small body that unfolds to more than the largest reply."""
    return gzip.compress(b" " * (65 * 1024 * 1024), compresslevel=1)


class FailureContract:
    """What every adapter promises when a call fails; a subclass names the provider."""

    case: ClassVar[Case]

    @pytest.fixture
    def adapter(self, server: ProviderServer) -> BaseLLMAdapter:
        return self.case.adapter(server)

    def failure(self, adapter: BaseLLMAdapter, prompt: Any = "hi", **arguments: Any) -> LLMError:
        """The error of a call that must fail."""
        with pytest.raises(LLMError) as caught:
            adapter.generate(prompt, **arguments)
        return caught.value

    def test_accounts_for_each_request(
        self, server: ProviderServer, adapter: BaseLLMAdapter, pauses: list[float]
    ) -> None:
        """`attempts` lists exactly the requests that the server saw, with code, status and wait."""
        server.script(Answer(status=500), Answer(status=429), Answer(status=503), Answer("good"))
        reply = adapter.generate("hi")
        assert str(reply) == "good"
        assert len(reply.attempts) == len(server.requests) == 4
        assert [attempt.status for attempt in reply.attempts] == [500, 429, 503, None]
        assert [attempt.code for attempt in reply.attempts] == [
            "LLM_PROVIDER_ERROR",
            "LLM_RATE_LIMIT",
            "LLM_PROVIDER_ERROR",
            None,
        ]
        assert (
            [attempt.wait for attempt in reply.attempts] == [0.0, *pauses] == [0.0, 0.5, 1.0, 2.0]
        )

    @pytest.mark.parametrize("retries", [0, 1, 3])
    def test_owns_the_retries(
        self, server: ProviderServer, monkeypatch: pytest.MonkeyPatch, retries: int
    ) -> None:
        """`max_retries` alone decides how often is asked, whatever header or variable says."""
        for name in ("OPENAI_MAX_RETRIES", "ANTHROPIC_MAX_RETRIES", "GOOGLE_GENAI_MAX_RETRIES"):
            monkeypatch.setenv(name, "9")
        server.answer = Answer(status=503, headers={"x-should-retry": "true"})
        error = self.failure(self.case.adapter(server, max_retries=retries))
        assert len(server.requests) == len(error.attempts) == retries + 1

    def test_can_be_told_not_to_retry(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """`retry_on_failure=False` makes one request."""
        server.answer = Answer(status=503)
        self.failure(adapter, retry_on_failure=False)
        assert len(server.requests) == 1

    def test_maps_every_status(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """Each HTTP status has one code for all vendors, also with a body that says nothing."""
        for status, code in errors_of(self.case).items():
            for body in ("", "{}", "<html>oops</html>", "[]", "null", '{"error": "x"}'):
                server.script(Answer(status=status, body=body))
                error = self.failure(adapter, max_retries=0)
                assert (status, body, error.code) == (status, body, code)
                assert error.status == status
                assert (error.provider, error.model) == (self.case.provider, self.case.model)

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 418, 422, 430, 451])
    def test_does_not_retry_what_would_fail_again(
        self, server: ProviderServer, adapter: BaseLLMAdapter, status: int
    ) -> None:
        """A request that the vendor refuses is sent once, also with a status that nobody listed."""
        server.answer = Answer(status=status)
        assert not self.failure(adapter).retryable
        assert len(server.requests) == 1

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_follows_no_redirect(
        self, server: ProviderServer, adapter: BaseLLMAdapter, status: int
    ) -> None:
        """A redirect is an error that says so: following it would carry the key to another host."""
        server.answer = Answer(status=status, body="", headers={"location": f"{server.url}/other"})
        error = self.failure(adapter)
        assert isinstance(error, ProviderError)
        assert "redirect" in error.message
        assert len(server.requests) == 1

    @pytest.mark.parametrize("name", UNREADABLE)
    def test_refuses_a_reply_that_it_cannot_read(
        self, server: ProviderServer, adapter: BaseLLMAdapter, name: str
    ) -> None:
        """A reply with status 200 that is no answer is a ProviderError, never half an answer."""
        server.answer = Answer(body=UNREADABLE[name])
        error = self.failure(adapter, max_retries=1)
        assert isinstance(error, ProviderError)
        # What counts its tokens was billed, and would be again; a gateway's page was not.
        assert len(server.requests) == (1 if name == "token counts that are texts" else 2)

    @pytest.mark.parametrize("name", UNREADABLE)
    def test_refuses_a_stream_that_it_cannot_read(
        self, server: ProviderServer, adapter: BaseLLMAdapter, name: str
    ) -> None:
        """JSON in place of a stream is an answer, an error, or refused, whatever is in it."""
        server.answer = Answer(body=UNREADABLE[name], content_type="application/json")
        with pytest.raises(ProviderError):
            adapter.stream("hi", max_retries=0)

    @pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/octet-stream"])
    def test_refuses_another_content_type(
        self, server: ProviderServer, adapter: BaseLLMAdapter, kind: str
    ) -> None:
        """A reply that does not even claim to be JSON is refused, and the error names its type."""
        server.answer = Answer(content_type=kind)
        error = self.failure(adapter, max_retries=0)
        assert isinstance(error, ProviderError)
        assert kind in error.message

    def test_reads_an_error_of_status_200(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """An error inside a reply of status 200 is that error, not an unreadable reply.

        Source of the body: github.com/open-webui/computer issue 293 (OpenRouter).
        """
        server.answer = Answer(
            body='{"error": {"message": "Provider returned error", "code": 429, "metadata": '
            '{"raw": "z-ai/glm-5.3-flash is temporarily rate-limited upstream."}}}',
            content_type="application/json",
        )
        for call in (adapter.generate, adapter.stream):
            with pytest.raises(RateLimitError, match="temporarily rate-limited upstream"):
                call("hi", max_retries=0)

    def test_reads_an_error_that_is_a_mere_text(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """What a small server says in one sentence is what the error says (synthetic)."""
        body = '{"error": "the model is being loaded"}'
        server.answer = Answer(body=body, content_type="application/json")
        with pytest.raises(ProviderError, match="the model is being loaded"):
            adapter.generate("hi", max_retries=0)

    def test_survives_a_cut_at_any_place(self, server: ProviderServer) -> None:
        """A reply that is cut anywhere is an error of the connection, and never an answer."""
        adapter = self.case.adapter(server, max_retries=0)
        server.answer = Answer(headers={"date": "now"})
        whole = _size_of_reply(server, self.case)
        for position in range(0, whole, max(1, whole // 40)):
            server.answer = Answer(cut_after=position, headers={"date": "now"})
            error = self.failure(adapter)
            assert isinstance(error, (APIConnectionError, ProviderError)), position
            assert error.retryable

    def test_survives_a_reset(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """A connection that is reset in the middle of the body is tried again."""
        server.script(Answer(cut_after=250, reset=True), Answer("good"))
        reply = adapter.generate("hi")
        assert str(reply) == "good"
        assert [attempt.code for attempt in reply.attempts] == ["LLM_CONNECTION_ERROR", None]

    def test_survives_a_broken_compression(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """A body that claims to be gzip and is not is a ProviderError."""
        server.answer = Answer(headers={"content-encoding": "gzip"})
        assert isinstance(self.failure(adapter, max_retries=0), ProviderError)

    def test_limits_the_size_of_a_reply(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """A small body that unfolds beyond the limit is refused, and not asked for again."""
        server.answer = Answer(body=bomb(), headers={"content-encoding": "gzip"})
        error = self.failure(adapter)
        assert isinstance(error, ProviderError)
        assert "67,108,864" in error.message
        assert len(server.requests) == 1

    def test_says_that_nobody_listens(self) -> None:
        """A refused connection is an APIConnectionError, which is a ConnectionError, too."""
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with ProviderServer() as unused:
            adapter = self.case.adapter(unused, api_base=url, max_retries=1)
            error = self.failure(adapter)
        assert isinstance(error, APIConnectionError)
        assert isinstance(error, ConnectionError)
        assert len(error.attempts) == 2

    def test_keeps_the_deadline(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """The time-out is for the whole call: a server that is late gets no other try."""
        server.answer = Answer(delay=30)
        error = self.failure(adapter, timeout=0.15)
        assert isinstance(error, LLMTimeoutError)
        assert len(error.attempts) == 1

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after": "7"}, 7.0),
            ({"retry-after": "0.25"}, 0.25),
            ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
            ({"retry-after": "0"}, 0.0),
            ({"retry-after": formatdate(1, usegmt=True)}, 0.0),
            ({"retry-after": "-5"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "Mon, 99 Foo 99999 99:99:99 GMT"}, None),
            ({"retry-after-ms": "-1", "retry-after": "7"}, 7.0),
            ({"retry-after-ms": "inf", "retry-after": "7"}, 7.0),
            ({"retry-after": "1e300"}, None),
            ({"retry-after": "1763800000"}, None),  # a point in time
            ({"retry-after": formatdate(1e11, usegmt=True)}, None),
        ],
    )
    def test_obeys_retry_after(
        self,
        server: ProviderServer,
        adapter: BaseLLMAdapter,
        pauses: list[float],
        headers: dict[str, str],
        seconds: float | None,
    ) -> None:
        """The vendor's pause is taken in each form it may have; nonsense means the own backoff."""
        body = '{"error": {"message": "slow down"}}'
        server.script(Answer(status=429, headers=headers, body=body), Answer("good"))
        assert str(adapter.generate("hi")) == "good"
        assert pauses == [0.5 if seconds is None else seconds]

    @pytest.mark.parametrize(
        ("delay", "seconds"),
        [("26.5s", 26.5), ("0s", 0.0), (3, 3.0), ("-4s", None), ("nans", None), ("1e300s", None)],
    )
    def test_obeys_the_pause_in_the_body(
        self,
        server: ProviderServer,
        adapter: BaseLLMAdapter,
        pauses: list[float],
        delay: object,
        seconds: float | None,
    ) -> None:
        """Google's `retryDelay` counts, also behind a server that speaks another protocol."""
        details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
        body = {"error": {"code": 429, "message": "slow down", "details": details}}
        for shape in (body, [body]):
            server.script(Answer(status=429, body=json.dumps(shape)), Answer("good"))
            assert str(adapter.generate("hi")) == "good"
        assert pauses == [0.5 if seconds is None else seconds] * 2

    def test_does_not_wait_beyond_the_deadline(
        self, server: ProviderServer, adapter: BaseLLMAdapter, pauses: list[float]
    ) -> None:
        """A pause that would outlast the call is not begun; the error tells its length."""
        server.answer = Answer(status=429, headers={"retry-after": "3600"})
        error = self.failure(adapter, timeout=20)
        assert (error.retry_after, pauses, len(server.requests)) == (3600.0, [], 1)
        assert "the vendor asks to wait 3600.0 s" in error.message

    def test_shows_no_key(
        self, server: ProviderServer, capfd: pytest.CaptureFixture[str], caplog: Any
    ) -> None:
        """A key that the vendor echoes is in no text, repr, log, traceback or pickle of ours."""
        caplog.set_level("DEBUG", "llmkit")
        key = fresh_key()
        adapter = self.case.adapter(server, api_key=key, max_retries=1)
        for status in (200, 302, 400, 401, 418, 500):
            for body in (
                f'{{"error": {{"message": "your key {key} is bad", "type": "{key}"}}}}',
                f"<html>{'x' * 100} Authorization: Bearer {key}</html>",
                f'{{"error": "{key}"}}',
            ):
                server.answer = Answer(status=status, body=body)
                error = self.failure(adapter)
                shown = "".join(traceback.format_exception(error))
                shown += f"{error!r} {adapter!r} {error.attempts!r} {pickle.dumps(error)!r}"
                assert key not in shown, (status, body)
                assert key[:12] not in shown, (status, body)
        assert key not in caplog.text
        assert key not in "".join(capfd.readouterr())

    def test_pickles_errors(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """An error crosses a process boundary whole."""
        server.answer = Answer(status=429, headers={"retry-after": "2"})
        error = self.failure(adapter, max_retries=1)
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert vars(copy) == vars(error)
        assert (copy.retry_after, len(copy.attempts)) == (2.0, 2)

    def test_keeps_the_vendors_error_as_the_cause(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """The SDK's own exception is there for those who want it."""
        server.answer = Answer(status=400)
        cause = self.failure(adapter).__cause__
        assert cause is not None
        assert type(cause).__module__.split(".")[0] in ("openai", "anthropic", "google")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"prompt": ""},
            {"prompt": "  \n"},
            {"prompt": []},
            {"prompt": 5},
            {"prompt": b"hi"},
            {"prompt": [{"role": "wizard", "content": "hi"}]},
            {"prompt": [{"role": "user", "content": 5}]},
            {"prompt": [{"role": "user", "content": None}]},
            {"prompt": [{"role": "user", "content": [{"type": "video"}]}]},
            {"prompt": [{"role": "user"}]},
            {"prompt": ["hi"]},
            {"prompt": [{"role": "system", "content": "alone"}]},
            {"prompt": "lone \ud800 surrogate"},
            {"timeout": -1},
            {"timeout": 0},
            {"timeout": float("nan")},
            {"timeout": "soon"},
            {"temperature": float("nan")},
            {"temperature": 3},
            {"temperature": "hot"},
            {"top_p": -0.1},
            {"max_tokens": 0},
            {"max_tokens": "many"},
            {"max_tokens": True},
            {"max_tokens": 1.5},
            {"max_retries": -1},
            {"max_retries": "often"},
            {"stop_sequences": [""]},
            {"stop_sequences": ["END"], "stop": "END"},
            {"seed": 0.5},
            {"max_token": 5},
            {"extra_headers": {"X-A": "line\nbreak"}},
            {"extra_body": {"x": float("inf")}},
            {"extra_body": {"x": "\ud800"}},
            {"something": object()},
            {"on_unsupported": "ignore"},
        ],
        ids=case_name,
    )
    def test_checks_before_any_network(
        self, server: ProviderServer, adapter: BaseLLMAdapter, arguments: dict[str, Any]
    ) -> None:
        """What can't be meant is refused in plain words, and nothing is sent."""
        for call in (adapter.generate, adapter.stream):
            given = dict(arguments)
            with pytest.raises(InvalidRequestError):
                call(given.pop("prompt", "hi"), **given)
        assert server.requests == []

    @pytest.mark.parametrize("key", ["schlüssel", "two words", "line\nbreak", b"bytes", 5])
    def test_refuses_a_key_that_no_header_can_carry(self, server: ProviderServer, key: Any) -> None:
        """A mangled key is a ConfigurationError before any network, which does not show it."""
        error = self.failure(self.case.adapter(server, api_key=lambda: key))
        assert isinstance(error, ConfigurationError)
        assert str(key) not in str(error) or key == 5
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        assert any(frame.f_code.co_name == "_resolve_key" for frame in frames)
        for frame in frames:  # error reports may show their variables
            assert key == 5 or not any(held is key for held in frame.f_locals.values())
        assert server.requests == []


def _size_of_reply(server: ProviderServer, case: Case) -> int:
    """How many bytes the reply to a call has, its head included."""
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.request("POST", case.path, b'{"model": "m", "messages": [], "contents": []}')
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    head = sum(len(name) + len(value) + 4 for name, value in reply.getheaders())
    return len("HTTP/1.1 200 OK\r\n\r\n") + head + len(body)


class TestOpenAI(FailureContract):
    case = OPENAI


class TestAnthropic(FailureContract):
    case = ANTHROPIC


class TestGemini(FailureContract):
    case = GEMINI


class TestLegacyGemini(FailureContract):
    case = LEGACY_GEMINI


class TestGroq(FailureContract):
    case = GROQ


class TestOpenRouter(FailureContract):
    case = OPENROUTER


class TestLocal(FailureContract):
    case = LOCAL
