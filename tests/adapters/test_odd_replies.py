"""Replies that are not as asked, but not useless either; and what vendors count differently."""

from __future__ import annotations

import json
import warnings

import pytest

from llmkit import ProviderError
from llmkit.testing import Answer, ProviderServer
from tests.adapters.vendor_cases import ANTHROPIC, GEMINI, OPENAI, OPENROUTER, Case


@pytest.mark.parametrize("case", [OPENAI, ANTHROPIC, OPENROUTER], ids=lambda case: case.provider)
def test_an_answer_instead_of_a_stream_is_taken(server: ProviderServer, case: Case) -> None:
    """A server that does not stream is not asked again, which would be billed again (synthetic)."""
    body = {
        "choices": [{"message": {"content": "all of it"}, "finish_reason": "stop"}],
        "content": [{"type": "text", "text": "all of it"}],
        "stop_reason": "end_turn",
    }
    server.answer = Answer(body=json.dumps(body), content_type="application/json")
    for _ in range(2):
        stream = case.adapter(server).stream("hi")
        assert list(stream.text_stream) == ["all of it"]
        assert (stream.completion.text, stream.completion.finish_reason) == ("all of it", "stop")
        assert any("instead of streaming" in note for note in stream.completion.warnings)
    assert len({request.connection for request in server.requests}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_word_that_googles_sdk_does_not_know(server: ProviderServer, stream: bool) -> None:
    """The SDK warns of it in streams; where warnings are errors, that is an LLMError, asked once.

    A plain reply does not go through the SDK's types.
    """
    server.answer = Answer("x", finish_reason="MOONSET")
    adapter = GEMINI.adapter(server)
    if stream:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            streamed = adapter.stream("hi")
            assert list(streamed.text_stream) == ["x"]
        assert any("MOONSET" in note for note in streamed.completion.warnings)
        assert any("MOONSET" in str(warning.message) for warning in caught)
        server.answer = Answer("", finish_reason="MOONSET")
        with pytest.raises(ProviderError, match="MOONSET") as refused:
            adapter.stream("hi")
        assert len(refused.value.attempts) == 1
    else:
        assert any("MOONSET" in note for note in adapter.generate("hi").warnings)
