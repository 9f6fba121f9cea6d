"""What is Gemini's older SDK's own: how it is chosen, what it can't do, and that it is kept quiet.

What it has in common with the other adapters is tested by the contracts beside this file.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import llmkit.adapters.gemini_legacy
from llmkit import (
    Client,
    ContentFilterError,
    GeminiAdapter,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    deadline,
    get_adapter,
)
from llmkit.adapters import LegacyGeminiAdapter
from llmkit.adapters.error_table import classify
from llmkit.adapters.gemini_safety import read_safety_settings
from llmkit.adapters.vendor_error import VendorError
from llmkit.process_local import ProcessLocal
from llmkit.testing import Answer, ProviderServer
from tests.adapters.vendor_cases import LEGACY_GEMINI, OPENAI, fresh_key
from tests.testing.http_clients import SOON

ROOT = Path(__file__).parents[2]
NAME = "gemini:gemini-2.5-flash"
PICTURE_OF_AN_ANSWER = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture
def adapter(server: ProviderServer) -> LegacyGeminiAdapter:
    found = LEGACY_GEMINI.adapter(server)
    assert isinstance(found, LegacyGeminiAdapter)
    return found


@pytest.mark.parametrize(
    ("missing", "backend", "expected"),
    [
        ((), None, GeminiAdapter),
        (("google.generativeai",), None, GeminiAdapter),
        (("google.genai",), None, LegacyGeminiAdapter),
        (("google.genai", "google.generativeai"), None, GeminiAdapter),
        ((), "google-genai", GeminiAdapter),
        (("google.genai",), "google-genai", GeminiAdapter),
        ((), "google-generativeai", LegacyGeminiAdapter),
    ],
)
def test_it_is_chosen_when_it_is_alone_or_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    missing: tuple[str, ...],
    backend: str | None,
    expected: type[GeminiAdapter],
) -> None:
    """google-genai is taken wherever it is installed, unless the older SDK is named."""
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    assert type(get_adapter(NAME, backend=backend)) is expected
    assert type(GeminiAdapter("gemini-2.5-flash", backend=backend)) is expected


def test_the_class_asks_by_the_backend_it_is_made_with(server: ProviderServer) -> None:
    """`GeminiAdapter(…, backend=)` asks by that SDK, and so do its copies and pickles."""
    made = GeminiAdapter(
        "gemini-2.5-flash",
        api_key=fresh_key(),
        api_base=server.base_url("gemini"),
        backend="google-generativeai",
    )
    assert isinstance(made, LegacyGeminiAdapter)
    made.generate("hi", use_cache=False)
    assert "/v1beta/" in server.requests[0].path
    newer = GeminiAdapter("gemini-2.5-flash", timeout=3, backend="google-genai")
    for adapter in (made, newer):
        for twin in (copy.copy(adapter), pickle.loads(pickle.dumps(adapter))):
            assert type(twin) is type(adapter)
            assert (twin.model, twin.timeout) == (adapter.model, adapter.timeout)


def test_a_copy_keeps_its_class_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle that is read where only the older SDK is installed is not turned into another."""
    pickled = pickle.dumps(GeminiAdapter("gemini-2.5-flash", backend="google-genai"))
    monkeypatch.setitem(sys.modules, "google.genai", None)
    assert type(pickle.loads(pickled)) is GeminiAdapter


def test_a_subclass_has_its_own_backend() -> None:
    """Asking a class for another SDK than its own is refused, never quietly ignored."""

    class Mine(GeminiAdapter):
        pass

    assert type(Mine("gemini-2.5-flash", backend="google-genai")) is Mine
    for kind, backend in (
        (Mine, "google-generativeai"),
        (LegacyGeminiAdapter, "google-genai"),
    ):
        with pytest.raises(InvalidRequestError, match=f"{kind.__name__} asks by"):
            kind("gemini-2.5-flash", backend=backend)


@pytest.mark.parametrize(("name", "backend"), [(NAME, "vertex"), ("openai:gpt-4o", "google-genai")])
def test_there_are_two_backends(name: str, backend: str) -> None:
    """A backend that nobody knows, or for a provider without a choice, is a wrong request."""
    with pytest.raises(InvalidRequestError, match=rf"{backend}.*google-genai and google-gen"):
        get_adapter(name, backend=backend)
    with pytest.raises(InvalidRequestError, match=r"vertex.*google-genai and google-gen"):
        GeminiAdapter("gemini-2.5-flash", backend="vertex")
    assert get_adapter("openai:gpt-4o", backend=None).provider == OPENAI.provider


@pytest.mark.parametrize(("field", "value"), [("seed", 5), ("reasoning_effort", "low")])
def test_what_it_has_no_word_for_is_left_out(
    server: ProviderServer, adapter: LegacyGeminiAdapter, field: str, value: Any
) -> None:
    """Seed and thinking are warned about on the reply, or refused before anything is sent."""
    reply = adapter.generate("hi", **{field: value})
    assert any(field in note for note in reply.warnings)
    assert set(server.requests[0].json) == {"contents"}
    with pytest.raises(InvalidRequestError, match=field):
        adapter.generate("hi", on_unsupported="error", **{field: value})
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"thinking_config": {"thinking_budget": 0}},
        {"response_json_schema": PICTURE_OF_AN_ANSWER},
        {"response_schema": {**PICTURE_OF_AN_ANSWER, "additionalProperties": False}},
        {"top_k": "many"},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_a_parameter_that_it_does_not_know_is_refused(
    server: ProviderServer, adapter: LegacyGeminiAdapter, parameters: dict[str, Any]
) -> None:
    """It is named, for plain calls and streams, and nothing is sent without it."""
    for call in (adapter.generate, adapter.stream):
        with pytest.raises(InvalidRequestError, match="google-generativeai can't say this request"):
            call("hi", **parameters)
    assert server.requests == []


def test_parameters_get_to_their_places(
    server: ProviderServer, adapter: LegacyGeminiAdapter
) -> None:
    """The SDK's own are checked by it, and the extra body is laid over what it says."""
    adapter.generate(
        "hi",
        max_tokens=9,
        candidate_count=1,
        response_schema={"type": "OBJECT", "properties": {"city": {"type": "STRING"}}},
        safety_settings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}],
        extra_body={"generationConfig": {"seed": 5, "thinkingConfig": {"thinkingBudget": 0}}},
    )
    body = server.requests[0].json
    config = body["generationConfig"]
    assert (config["maxOutputTokens"], config["candidateCount"]) == (9, 1)
    assert (config["seed"], config["thinkingConfig"]) == (5, {"thinkingBudget": 0})
    assert config["responseSchema"]["properties"]["city"]
    assert len(body["safetySettings"]) == 1


HARASSMENT = "HARM_CATEGORY_HARASSMENT"
HATE = "HARM_CATEGORY_HATE_SPEECH"


def _enums() -> tuple[Any, Any]:
    sdk = importlib.import_module("google.ai.generativelanguage_v1beta")
    return sdk.HarmCategory, sdk.SafetySetting.HarmBlockThreshold


def _safety_types() -> Any:
    """The SDK's own reading; its package says on import that Google has given it up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("google.generativeai.types.safety_types")


def _by_enums() -> Any:
    category, threshold = _enums()
    return {category[HARASSMENT]: threshold.BLOCK_ONLY_HIGH, category[HATE]: threshold.OFF}


def _list_of_enums() -> Any:
    category, threshold = _enums()
    return [
        {"category": category[HARASSMENT], "threshold": threshold.BLOCK_ONLY_HIGH},
        {"category": category[HATE], "threshold": threshold.OFF},
    ]


@pytest.mark.parametrize(
    "settings",
    [
        lambda: {HARASSMENT: "BLOCK_ONLY_HIGH", HATE: "OFF"},
        lambda: {"harassment": "high", "Hate": "off"},
        lambda: {7: 3, 8: 5},
        _by_enums,
        _list_of_enums,
        lambda: [
            {"category": "harassment", "threshold": "block_only_high"},
            {"category": HATE, "threshold": 5},
        ],
    ],
    ids=["words", "short words", "numbers", "enums", "list of enums", "list"],
)
@pytest.mark.parametrize("name", ["safety_settings", "safetySettings"])
def test_safety_settings_are_taken_as_the_sdks_users_write_them(
    server: ProviderServer, adapter: LegacyGeminiAdapter, settings: Any, name: str
) -> None:
    """Whatever form google-generativeai takes, Google gets the same list of numbered settings."""
    adapter.generate("hi", **{name: settings()})
    category, threshold = _enums()
    sent = [
        (category(each["category"]).name, threshold(each["threshold"]).name)
        for each in server.requests[0].json["safetySettings"]
    ]
    assert sent == [(HARASSMENT, "BLOCK_ONLY_HIGH"), (HATE, "OFF")]


@pytest.mark.parametrize("one", ["block_none", 4])
def test_one_threshold_is_for_all_categories(
    server: ProviderServer, adapter: LegacyGeminiAdapter, one: str | int
) -> None:
    """A threshold alone holds for the four categories for which the SDK lets it hold."""
    safety = _safety_types()
    adapter.generate("hi", safety_settings=one)
    sent = {
        each["category"]: each["threshold"] for each in server.requests[0].json["safetySettings"]
    }
    assert sent == {
        each["category"].value: each["threshold"].value
        for each in safety.normalize_safety_settings(one)
    }


def test_the_sdks_short_words_mean_what_they_mean_there() -> None:
    """Each word that the SDK knows for a category or a threshold is read as the SDK reads it."""
    safety = _safety_types()
    sdk = importlib.import_module("google.ai.generativelanguage_v1beta")
    words = [word for word in safety._HARM_CATEGORIES if isinstance(word, str)]
    levels = [word for word in safety._BLOCK_THRESHOLDS if isinstance(word, str)]
    assert len(words) > 12
    assert len(levels) > 10
    for category, threshold in [
        *((word, "high") for word in words),
        *(("sex", word) for word in levels),
    ]:
        (read,) = read_safety_settings({category: threshold}, sdk)
        (meant,) = safety.normalize_safety_settings({category: threshold})
        assert read == {"category": meant["category"].name, "threshold": meant["threshold"].name}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rudeness": "high"}, ("no category 'rudeness'", HARASSMENT)),
        ({"harassment": "strict"}, ("no threshold 'strict'", "BLOCK_ONLY_HIGH")),
        ({"harassment": None}, ("no threshold None", "BLOCK_ONLY_HIGH")),
        ({99: "high"}, ("no category 99", HARASSMENT)),
        ([{"harassment": "high"}], ("{'harassment': 'high'}", "with their thresholds")),
        (["high"], ("'high'", "with their thresholds")),
        (1.5, ("1.5", "with their thresholds")),
    ],
)
def test_safety_settings_that_mean_nothing_are_refused_in_plain_words(
    server: ProviderServer, adapter: LegacyGeminiAdapter, settings: Any, words: tuple[str, ...]
) -> None:
    """The error shows what was given and what there is, and nothing is sent."""
    with pytest.raises(InvalidRequestError) as caught:
        adapter.generate("hi", safety_settings=settings)
    assert all(word in str(caught.value) for word in words), caught.value
    assert server.requests == []


@pytest.mark.parametrize(
    ("ending", "version"),
    [("", "v1beta"), ("/v1beta", "v1beta"), ("/v1/", "v1"), ("/x/v1", "x/v1")],
)
def test_the_version_in_the_address_is_asked(
    server: ProviderServer, ending: str, version: str
) -> None:
    """An address that ends in a version is asked by it: calls, streams, counts and checks."""
    server.answer = Answer(status=404)
    adapter = LEGACY_GEMINI.adapter(server, api_base=server.base_url("gemini") + ending)
    for call in (
        adapter.generate,
        adapter.stream,
        lambda prompt: adapter.count_tokens(prompt, exact=True),
        lambda _: adapter.health_check(),
    ):
        with contextlib.suppress(LLMError):
            call("hi")
    assert adapter.address.endswith(f"/{version}")
    assert [request.path for request in server.requests] == [
        f"/{version}/models/gemini-2.5-flash{method}"
        for method in (":generateContent", ":streamGenerateContent", ":countTokens", "")
    ]


def _ask_in_a_child(adapter: LegacyGeminiAdapter, answers: Any) -> None:
    answers.put(adapter.generate("from the child", use_cache=False, timeout=20).text)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_was_forked_after_use_asks_over_its_own_connection(
    server: ProviderServer, adapter: LegacyGeminiAdapter
) -> None:
    """A pre-forking server's worker can ask at once, and its parent's connection stays whole."""
    adapter.generate("warm up", use_cache=False)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    server.answer = Answer("child's")
    child = context.Process(target=_ask_in_a_child, args=(adapter, answers))
    child.start()
    child.join(30)
    if child.is_alive():
        child.kill()
        child.join()
    assert child.exitcode == 0
    assert answers.get() == "child's"
    server.answer = Answer("parent's")
    assert adapter.generate("again", use_cache=False).text == "parent's"
    assert [request.vendor for request in server.requests] == ["gemini"] * 3
    warm, childs, again = (request.connection for request in server.requests)
    assert warm == again != childs


def test_a_universe_in_the_environment_does_not_redirect(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GOOGLE_CLOUD_UNIVERSE_DOMAIN and its like, which the SDK reads, change no request."""
    before = LEGACY_GEMINI.adapter(server, api_key=fresh_key())
    before.generate("hi", use_cache=False)
    for name, value in (
        ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "universe.invalid"),
        ("GOOGLE_API_USE_MTLS_ENDPOINT", "always"),
        ("GOOGLE_API_USE_CLIENT_CERTIFICATE", "true"),
    ):
        monkeypatch.setenv(name, value)
    # Another key, so that the SDK's clients are built anew.
    after = LEGACY_GEMINI.adapter(server, api_key=fresh_key())
    after.generate("hi", use_cache=False)
    assert after.health_check()["status"] == "healthy"
    first, second, _ = server.requests
    assert (first.path, first.headers["host"]) == (second.path, second.headers["host"])
    assert "universe" not in LegacyGeminiAdapter("gemini-2.5-flash").address


def test_words_are_asked_for_instead_of_numbers(
    server: ProviderServer, adapter: LegacyGeminiAdapter
) -> None:
    """The SDK would ask Google for its enums' numbers, of which it knows those of early 2025."""
    adapter.generate("hi")
    list(adapter.stream("hi"))
    assert [request.query for request in server.requests] == [{}, {"alt": "sse"}]


def test_instructions_are_counted(server: ProviderServer, adapter: LegacyGeminiAdapter) -> None:
    """The endpoint gets the whole request, so that the count is exact, instructions included."""
    server.answer = Answer(input_tokens=11)
    count = adapter.count_tokens("hi", system="Be brief.", exact=True)
    assert (int(count), count.estimated) == (11, False)
    asked = server.requests[0].json["generateContentRequest"]
    assert asked["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert asked["model"] == "models/gemini-2.5-flash"


def test_a_tuned_model_has_its_own_path(server: ProviderServer) -> None:
    """A name with a path the SDK knows is asked there; another one is refused, not guessed."""
    adapter = LEGACY_GEMINI.adapter(server, model="tunedModels/mine")
    adapter.generate("hi")
    assert server.requests[0].path == "/v1beta/tunedModels/mine:generateContent"
    with pytest.raises(InvalidRequestError, match="no URL"):
        LEGACY_GEMINI.adapter(server, model="publishers/x/models/y").generate("hi")
    assert len(server.requests) == 1


def test_a_blocked_prompt_has_its_category(
    server: ProviderServer, adapter: LegacyGeminiAdapter
) -> None:
    """A refusal says why, plain or streamed, before or after the model was asked."""
    category = "HARM_CATEGORY_DANGEROUS_CONTENT"
    for blocked in (True, False):
        server.answer = Answer(
            "", finish_reason="content_filter", blocked=blocked, filter_category=category
        )
        for call in (adapter.generate, lambda prompt: list(adapter.stream(prompt))):
            with pytest.raises(ContentFilterError) as caught:
                call("hi")
            assert caught.value.category == category


def test_the_sdk_does_not_try_again(server: ProviderServer, adapter: LegacyGeminiAdapter) -> None:
    """Its own client would try a 503 for minutes: each try is one that was asked for."""
    server.answer = Answer(status=503)
    for call in (adapter.generate, adapter.stream):
        with pytest.raises(ProviderError) as caught:
            call("hi", max_retries=1)
        assert len(caught.value.attempts) == 2
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "answer", [Answer(delay=30), Answer("x" * 5000, drip=0.01)], ids=["silent", "dripping"]
)
def test_the_deadline_holds(
    server: ProviderServer, adapter: LegacyGeminiAdapter, answer: Answer
) -> None:
    """A silent server and one that drips for a minute end with the time-out, and are left."""
    server.answer = Answer()
    adapter.generate("warm up")
    server.answer = answer
    for call in (adapter.generate, lambda prompt, **how: list(adapter.stream(prompt, **how))):
        began = time.monotonic()
        with pytest.raises(LLMTimeoutError):
            call("hi", timeout=0.3, max_retries=0)
        assert 0.3 <= time.monotonic() - began < 1.5
        assert server.requests[-1].disconnected.wait(SOON)


def test_a_race_cuts_it(server: ProviderServer, adapter: LegacyGeminiAdapter) -> None:
    """The loser of a race ends at once, and its provider sees the connection go."""
    adapter.generate("warm up")
    winner = OPENAI.adapter(server)

    def answer(request: Any) -> Answer:
        if request.vendor == "gemini":
            return Answer(delay=30)
        server.wait_for_requests(3, timeout=10)
        return Answer("fast")

    server.answer = answer
    began = time.monotonic()
    assert str(Client(fallbacks=[]).race("hi", [winner, adapter])) == "fast"
    loser = next(each for each in server.requests[1:] if each.vendor == "gemini")
    assert loser.disconnected.wait(SOON)
    assert time.monotonic() - began < 10


def test_a_cancel_ends_it(server: ProviderServer, adapter: LegacyGeminiAdapter) -> None:
    """Cancelled from another thread, a call that waits ends, and nobody waits for its server."""
    adapter.generate("warm up")
    server.answer = Answer(delay=30)
    began = time.monotonic()
    with deadline(20) as scope:

        def cut() -> None:
            server.wait_for_requests(2, timeout=10)
            scope.cancel("enough")

        helper = threading.Thread(target=cut)
        helper.start()
        with pytest.raises(Exception, match="enough"):
            adapter.generate("hi")
        helper.join()
    assert time.monotonic() - began < 10
    assert server.requests[-1].disconnected.wait(SOON)


def test_its_limits_are_told_once(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process's log says once what this SDK can't do, and how to get its successor."""
    told: ProcessLocal[list[bool]] = ProcessLocal(list)
    monkeypatch.setattr(llmkit.adapters.gemini_legacy, "_told", told)
    for _ in range(2):
        LEGACY_GEMINI.adapter(server).generate("hi")
    notes = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(notes) == 1
    assert 'pip install "llmkit[gemini]"' in notes[0]


def test_no_key_gets_into_the_sdks_log(
    server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    """At its most talkative, the SDK logs the headers that it knows: the key isn't among them."""
    for name in ("google", "google.ai", "google.api_core", "google.auth"):
        caplog.set_level(logging.DEBUG, name)
    key = fresh_key()
    adapter = LEGACY_GEMINI.adapter(server, api_key=key)
    adapter.generate("hi")
    list(adapter.stream("hi"))
    assert adapter.health_check()["status"] == "healthy"
    server.answer = Answer(status=403)
    with pytest.raises(Exception, match="permission"):
        adapter.generate("hi")
    shown = "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert any(record.name.startswith("google.ai.") for record in caplog.records)
    assert key not in shown


def test_every_error_of_the_sdk_has_a_code() -> None:
    """Each class that google.api_core raises for a status is an error of llmkit's."""
    exceptions = importlib.import_module("google.api_core.exceptions")
    kinds = [
        kind
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and issubclass(kind, exceptions.GoogleAPICallError)
    ]
    assert len(kinds) > 25
    for kind in kinds:
        error = VendorError.from_exception(kind("no"))
        assert classify(error, LegacyGeminiAdapter.error_classes) is not None, kind


def run_alone(
    program: str, server: ProviderServer, *options: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter; its argument is the server's address."""
    return subprocess.run(
        [sys.executable, *options, "-c", program, server.base_url("gemini")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )


ASK = """
import sys
from llmkit import get_adapter
backend = {backend!r}
get_adapter("gemini:gemini-2.5-flash", api_key="k" * 20, api_base=sys.argv[1],
            backend=backend).generate("hi", use_cache=False)
print(*sorted(sys.modules))
"""


def test_it_is_quiet_and_light(server: ProviderServer) -> None:
    """With warnings as errors it works, without `google.generativeai` itself and without genai."""
    done = run_alone(ASK.format(backend="google-generativeai"), server, "-W", "error")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "google.ai.generativelanguage_v1beta" in loaded
    assert not loaded & {"google.generativeai", "googleapiclient", "google.genai"}


def test_nothing_of_it_is_loaded_beside_its_successor(server: ProviderServer) -> None:
    """A call by google-genai loads neither this SDK nor what it is made of."""
    done = run_alone(ASK.format(backend=None), server)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "google.genai" in loaded
    assert not loaded & {
        *("google.generativeai", "google.ai", "google.api_core", "google.protobuf", "grpc"),
        "llmkit.adapters.gemini_legacy",
    }
