from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from llmkit import LLMError, OpenAIAdapter
from llmkit.rate_limits import Limiter, RateLimit
from llmkit.reply_headers import heard_by, tell
from llmkit.testing import Answer, ProviderServer

HEADERS = {
    "x-ratelimit-limit-requests": "600",
    "X-RateLimit-Remaining-Requests": "3",
    "x-ratelimit-reset-requests": "59s",
}


@pytest.fixture
def adapter(server: ProviderServer) -> OpenAIAdapter:
    return OpenAIAdapter(
        "gpt-4o", "openai", "warehouse000000sesame", server.base_url("openai"), max_retries=0
    )


@pytest.mark.parametrize("status", [200, 429, 500])
def test_every_reply_is_heard(server: ProviderServer, adapter: OpenAIAdapter, status: int) -> None:
    """The headers of answers and of refusals reach whoever listens, once for each reply, below the
    real SDK, for plain calls and for streams.
    """
    heard: list[Mapping[str, str]] = []
    server.answer = Answer("hi", status=status, headers=HEADERS)
    for call in (adapter.generate, adapter.stream):
        with heard_by(heard.append):
            if status == 200:
                str(call("hi"))
            else:
                with pytest.raises(LLMError):
                    call("hi")
    assert len(heard) == 2
    assert all(headers["x-ratelimit-remaining-requests"] == "3" for headers in heard)
    adapter.close()


def test_a_limiter_hears_what_is_left(server: ProviderServer, adapter: OpenAIAdapter) -> None:
    """From the socket to the bucket: a refusal's headers make the next call wait."""
    limiter = Limiter(RateLimit(requests_per_minute=600), "openai")
    server.answer = Answer(status=429, headers=HEADERS)
    with pytest.raises(LLMError), heard_by(limiter.learn), limiter.place():
        adapter.generate("hi")
    assert limiter._requests is not None
    assert limiter._requests._level <= 3


def test_only_those_inside_hear() -> None:
    """Blocks may be nested; another thread's replies and those after the block are not heard."""
    outer: list[Any] = []
    inner: list[Any] = []
    with heard_by(outer.append):
        with heard_by(inner.append):
            tell([(b"A", b"1")])
            thread = threading.Thread(target=tell, args=([(b"A", b"2")],))
            thread.start()
            thread.join(10)
        tell([(b"A", b"3")])
    tell([(b"A", b"4")])
    assert inner == [{"a": "1"}]
    assert outer == [{"a": "1"}, {"a": "3"}]


def test_a_listeners_bug_costs_no_answer(
    server: ProviderServer, adapter: OpenAIAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is paid for: it comes all the same, and the log says what went wrong."""
    server.answer = Answer("hi")

    def broken(headers: Mapping[str, str]) -> None:
        raise ZeroDivisionError

    with heard_by(broken):
        assert str(adapter.generate("hi")) == "hi"
    assert "listener" in caplog.text
