"""What every adapter promises for complete calls, tested over real sockets with the real SDKs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from llmkit import (
    BaseLLMAdapter,
    CallRecord,
    LLMError,
    ModelNotFoundError,
)
from llmkit.testing import Answer, ProviderServer, RecordedRequest
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
    fresh_key,
)

PIXEL = base64.b64encode(bytes(range(256))).decode()


class AdapterContract:
    """What every adapter promises; a subclass names the provider."""

    case: ClassVar[Case]

    @pytest.fixture
    def adapter(self, server: ProviderServer) -> BaseLLMAdapter:
        return self.case.adapter(server)

    def failure(self, adapter: BaseLLMAdapter, prompt: Any = "hi", **arguments: Any) -> LLMError:
        """The error of a call that must fail."""
        with pytest.raises(LLMError) as caught:
            adapter.generate(prompt, **arguments)
        return caught.value

    def test_answers(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """A call gives the text, who answered, why it stopped, its id, and the vendor's JSON."""
        server.answer = Answer("Grüße, 世界 🌍", request_id="req_7")
        reply = adapter.generate("hi")
        assert (str(reply), reply.finish_reason) == ("Grüße, 世界 🌍", "stop")
        assert (reply.model, reply.provider) == (self.case.model, self.case.provider)
        assert reply.request_id
        assert reply.latency > 0
        assert isinstance(reply.raw, dict)
        assert reply.raw
        assert server.requests[0].path == self.case.path
        assert server.requests[0].model == self.case.model

    def test_counts_tokens_the_same_way_for_all(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """Input includes cached and written tokens, output includes reasoning, whoever counts."""
        server.answer = Answer(
            "a b c",
            input_tokens=100,
            output_tokens=30,
            cached_tokens=40,
            cache_write_tokens=0 if self.case.wire == "gemini" else 10,
            reasoning_tokens=5,
        )
        usage = adapter.generate("hi").usage
        written = None if self.case.wire == "gemini" else 10
        assert usage == Usage(100, 30, 40, written, 5)

    def test_reports_a_price_only_when_it_is_known(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """The cost is an exact Decimal for a model with a price, and None (never 0) for others."""
        cost = adapter.generate("hi").cost
        assert isinstance(cost, Decimal) if self.case.known else cost is None

    @pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
    def test_names_why_it_stopped(
        self, server: ProviderServer, adapter: BaseLLMAdapter, reason: str
    ) -> None:
        """The vendor's words for the end become the same three, and a refusal is warned about."""
        server.answer = Answer("so far", finish_reason=reason)
        reply = adapter.generate("hi")
        assert reply.finish_reason == reason
        assert any("content" in note for note in reply.warnings) == (reason == "content_filter")

    def test_says_an_unknown_reason(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """A finish reason that nobody knows is handed on as a warning, not guessed."""
        server.answer = Answer("x", finish_reason="moonset")
        reply = adapter.generate("hi")
        assert reply.finish_reason is None
        assert any("moonset" in note for note in reply.warnings)

    def test_reads_tool_calls(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """Tool calls come with name and arguments read from JSON, and are the finish reason."""
        server.answer = Answer(
            "", tool_calls=[("weather", {"city": "Köln", "days": 3}), ("now", {})]
        )
        reply = adapter.generate("hi")
        assert [(call.name, call.arguments) for call in reply.tool_calls] == [
            ("weather", {"city": "Köln", "days": 3}),
            ("now", {}),
        ]
        assert all(call.id for call in reply.tool_calls)
        assert reply.finish_reason == "tool_calls"
        assert reply.text == ""

    def test_sends_parameters(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """Every parameter reaches the wire under the vendor's own name."""
        adapter.generate("hi", max_tokens=9, temperature=0.5, top_p=0.25, stop_sequences=["END"])
        body = server.requests[0].json
        settings = body.get("generationConfig", body)
        names = {
            "gemini": ("maxOutputTokens", "temperature", "topP", "stopSequences"),
            "anthropic": ("max_tokens", "temperature", "top_p", "stop_sequences"),
            "openai": (
                "max_completion_tokens" if self.case.provider == "openai" else "max_tokens",
                "temperature",
                "top_p",
                "stop",
            ),
        }[self.case.wire]
        assert [settings[name] for name in names] == [9, 0.5, 0.25, ["END"]]

    def test_sends_nothing_that_was_not_given(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """Left-out parameters are not on the wire, except the length that Anthropic insists on."""
        adapter.generate("hi")
        known = {"model", "messages", "contents"}
        known |= {"max_tokens"} if self.case.wire == "anthropic" else set()
        known |= (
            {"generationConfig"} if server.requests[0].json.get("generationConfig") == {} else set()
        )
        assert set(server.requests[0].json) <= known

    def test_sends_system_messages(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """Instructions reach the vendor's own place for them, in their order."""
        messages = [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "ho"},
            {"role": "user", "content": "go on"},
        ]
        adapter.generate(messages, system="Be brief.")
        body = server.requests[0].json
        if self.case.wire == "anthropic":
            assert body["system"] == "Be brief.\n\nBe kind."
            assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
        elif self.case.wire == "gemini":
            assert body["systemInstruction"]["parts"] == [{"text": "Be brief.\n\nBe kind."}]
            assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
        else:
            second = "developer" if self.case.provider == "openai" else "system"
            roles = [turn["role"] for turn in body["messages"]]
            assert roles == ["system", second, "user", "assistant", "user"]

    def test_sends_images(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """An image arrives byte for byte, and an image by its URL."""
        parts = [
            {"type": "text", "text": "Look:"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            {"type": "image_url", "image_url": "https://example.com/cat.png"},
        ]
        adapter.generate([{"role": "user", "content": parts}])
        body = server.requests[0].json
        if self.case.wire == "gemini":
            text, inline, remote = body["contents"][0]["parts"]
            data, kind = inline["inlineData"]["data"], inline["inlineData"]["mimeType"]
            url = remote["fileData"]["fileUri"]
        elif self.case.wire == "anthropic":
            text, inline, remote = body["messages"][0]["content"]
            data, kind = inline["source"]["data"], inline["source"]["media_type"]
            url = remote["source"]["url"]
        else:
            text, inline, remote = body["messages"][0]["content"]
            kind, _, data = inline["image_url"]["url"].removeprefix("data:").partition(";base64,")
            url = remote["image_url"]["url"]
        assert text["text"] == "Look:"
        assert base64.urlsafe_b64decode(data.replace("+", "-").replace("/", "_")) == bytes(
            range(256)
        )
        assert (kind, url) == ("image/png", "https://example.com/cat.png")

    def test_sends_what_only_the_vendor_knows(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """Vendor parameters, extra body and extra headers reach the wire."""
        adapter.generate(
            "hi",
            top_k=4,
            extra_body={"labels": {"team": "blue"}},
            extra_headers={"X-Trace": "t1"},
        )
        request = server.requests[0]
        assert request.json.get("generationConfig", {}).get("topK", request.json.get("top_k")) == 4
        assert request.json["labels"] == {"team": "blue"}
        assert request.headers["x-trace"] == "t1"
        assert self.case.key_in(request) == "warehouse000000sesame"

    def test_warns_of_a_model_that_the_registry_does_not_know(self, server: ProviderServer) -> None:
        """A model newer than the registry works, with a warning and no price."""
        adapter = self.case.adapter(
            server, provider=None, model=f"{self.case.provider}:brand-new-9"
        )
        reply = adapter.generate("hi")
        assert (reply.model, reply.cost) == ("brand-new-9", None)
        assert any("brand-new-9" in note for note in reply.warnings)
        assert server.requests[0].model == "brand-new-9"

    def test_rotates_keys(self, server: ProviderServer) -> None:
        """A callable key is asked once for each call, so that each call can have another one."""
        keys = [fresh_key() for _ in range(3)]
        given: Iterator[str] = iter(keys)
        adapter = self.case.adapter(server, api_key=lambda: next(given))
        for _ in keys:
            adapter.generate("hi")
        assert [self.case.key_in(request) for request in server.requests] == keys

    def test_takes_a_key_with_a_line_break_at_its_end(self, server: ProviderServer) -> None:
        """A key read from a file ends in a line break, which is not part of it."""
        key = fresh_key()
        self.case.adapter(server, api_key=f"{key}\n").generate("hi")
        assert self.case.key_in(server.requests[0]) == key

    def test_crosses_no_answers(self, server: ProviderServer, adapter: BaseLLMAdapter) -> None:
        """32 threads that share one adapter each get the answer to their own question."""

        def echo(request: RecordedRequest) -> Answer:
            question = request.body.decode().partition("question ")[2][:3]
            return Answer(f"answer {question}")

        server.answer = echo
        questions = [f"{number:03d}" for number in range(160)]
        with ThreadPoolExecutor(32) as threads:
            replies = threads.map(lambda each: adapter.generate(f"question {each}"), questions)
            assert [str(reply) for reply in replies] == [f"answer {each}" for each in questions]

    def test_tells_the_observers_once(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """One logical call is one record, however many requests it took, failed or not."""
        records: list[CallRecord] = []
        adapter.observers = (records.append,)
        server.script(Answer(status=500), Answer("good"), Answer(status=400))
        adapter.generate("hi", metadata={"team": "blue"})
        self.failure(adapter)
        good, bad = records
        assert (good.ok, len(good.attempts), good.metadata) == (True, 2, {"team": "blue"})
        assert (good.model, good.provider) == (self.case.model, self.case.provider)
        assert (bad.code, len(bad.attempts)) == ("INVALID_REQUEST", 1)
        assert good.usage.input_tokens == 7

    def test_says_how_it_is(self, server: ProviderServer) -> None:
        """A health check asks for something free, and reports instead of raising."""
        adapter = self.case.adapter(server)
        report = adapter.health_check()
        assert (report["status"], report["error"]) == ("healthy", None)
        assert (report["provider"], report["model"]) == (self.case.provider, self.case.model)
        assert report["latency_ms"] > 0
        assert server.requests[0].method == "GET"
        server.answer = Answer(status=401)
        report = adapter.health_check()
        assert report["status"] == "unhealthy"
        assert "401" in report["error"]

    def test_can_be_closed_and_used_again(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """Closing one adapter does not disturb another one that shares its connections."""
        other = self.case.adapter(server)
        with adapter:
            adapter.generate("hi")
        assert str(other.generate("hi")) == str(adapter.generate("hi"))

    def test_reads_a_compressed_reply(
        self, server: ProviderServer, adapter: BaseLLMAdapter
    ) -> None:
        """A gzip body is the same answer."""
        server.answer = Answer("zipped", gzip=True)
        assert str(adapter.generate("hi")) == "zipped"


class TestOpenAI(AdapterContract):
    case = OPENAI


class TestAnthropic(AdapterContract):
    case = ANTHROPIC


class TestGemini(AdapterContract):
    case = GEMINI


class TestLegacyGemini(AdapterContract):
    case = LEGACY_GEMINI


class TestGroq(AdapterContract):
    # Groq no longer serves it, but the registry still has its price.
    case = replace(GROQ, known=True)


class TestOpenRouter(AdapterContract):
    case = OPENROUTER


class TestLocal(AdapterContract):
    case = LOCAL

    def test_warns_of_a_model_that_the_registry_does_not_know(self, server: ProviderServer) -> None:
        """There is one embedded model; asking for another is an error, not its answer."""
        with pytest.raises(ModelNotFoundError, match="smollm2-135m"):
            self.case.adapter(server, provider=None, model="local:brand-new-9").generate("hi")
        assert server.requests == []
