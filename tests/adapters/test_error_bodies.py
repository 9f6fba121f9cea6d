"""Each vendor's own error bodies, and the completeness of the tables that read them.

No body was measured against a vendor here: each names where it is from, or says `synthetic`.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterator
from types import ModuleType

import anthropic
import httpx2
import openai
import pytest
from google.genai import _api_client, errors
from hypothesis import given, strategies as st

from llmkit import LLMError
from llmkit.adapters.error_table import (
    ANTHROPIC_CLASSES,
    BY_STATUS,
    GEMINI_CLASSES,
    HTTPX_CLASSES,
    OPENAI_CLASSES,
    classify,
)
from llmkit.adapters.vendor_error import VendorError, retry_after
from llmkit.testing import Answer, ProviderServer
from tests.adapters.vendor_cases import ANTHROPIC, GEMINI, GROQ, LOCAL, OPENAI, OPENROUTER, Case

# vendor, status, body, code
BODIES: dict[str, tuple[Case, int, object, str]] = {
    "github.com/ChatGPTNextWeb/NextChat issue 3664": (
        OPENAI,
        429,
        {
            "error": {
                "message": "You exceeded your current quota, please check your plan and billing "
                "details. For more information on this error, read the docs: "
                "https://platform.openai.com/docs/guides/error-codes/api-errors.",
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            }
        },
        "LLM_QUOTA_EXCEEDED",
    ),
    "github.com/ayaka14732/ChatGPTAPIFree issue 16: code is null": (
        OPENAI,
        429,
        {
            "error": {
                "message": "You exceeded your current quota, please check your plan and billing "
                "details.",
                "type": "insufficient_quota",
                "param": None,
                "code": None,
            }
        },
        "LLM_QUOTA_EXCEEDED",
    ),
    "github.com/crewAIInc/crewAI-examples issue 121": (
        OPENAI,
        400,
        {
            "error": {
                "message": "This model's maximum context length is 8192 tokens. However, your "
                "messages resulted in 8227 tokens. Please reduce the length of the messages.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        },
        "LLM_CONTEXT_LENGTH",
    ),
    "synthetic: a wrong request that only mentions other codes": (
        OPENAI,
        400,
        {
            "error": {
                "message": "Unknown parameter: 'rate_limit_exceeded'. Did you mean "
                "'insufficient_quota'?",
                "type": "invalid_request_error",
                "param": "context_length_exceeded",
                "code": "unknown_parameter",
            }
        },
        "INVALID_REQUEST",
    ),
    "synthetic: a key refused with another status": (
        OPENAI,
        403,
        {"error": {"message": "Incorrect API key", "code": "invalid_api_key"}},
        "AUTHENTICATION_ERROR",
    ),
    "synthetic: the safety system": (
        OPENAI,
        400,
        {"error": {"message": "rejected", "code": "content_policy_violation"}},
        "LLM_CONTENT_FILTER",
    ),
    "synthetic: a full window of vLLM, which has no code for it": (
        GROQ,
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you "
            "requested 5000 tokens.",
            "type": "BadRequestError",
            "code": 400,
        },
        "LLM_CONTEXT_LENGTH",
    ),
    "facts of the embedded server, run": (
        LOCAL,
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
            }
        },
        "LLM_CONTEXT_LENGTH",
    ),
    "github.com/open-webui/computer issue 293": (
        OPENROUTER,
        429,
        {
            "error": {
                "message": "Provider returned error",
                "code": 429,
                "metadata": {"raw": "temporarily rate-limited upstream", "provider_name": "B"},
            }
        },
        "LLM_RATE_LIMIT",
    ),
    "synthetic: a compatible server in other letters": (
        GROQ,
        429,
        {"error": {"message": "Quota exceeded", "type": "INSUFFICIENT_QUOTA"}},
        "LLM_QUOTA_EXCEEDED",
    ),
    "synthetic: the same of a full window": (
        GROQ,
        400,
        {"error": {"message": "too much", "code": "Context_Length_Exceeded"}},
        "LLM_CONTEXT_LENGTH",
    ),
    "synthetic, after OpenRouter's error_type": (
        OPENROUTER,
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"error_type": "context_length_exceeded"},
            }
        },
        "LLM_CONTEXT_LENGTH",
    ),
    "github.com/sojohnnysaid/project-guide issue 2": (
        ANTHROPIC,
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 208656 tokens > 200000 maximum",
            },
        },
        "LLM_CONTEXT_LENGTH",
    ),
    "the SDK's table: EnforcedSpendLimitReachedError": (
        ANTHROPIC,
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "spend limit",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
        },
        "LLM_QUOTA_EXCEEDED",
    ),
    "synthetic: credit used up": (
        ANTHROPIC,
        402,
        {"type": "error", "error": {"type": "billing_error", "message": "balance too low"}},
        "LLM_QUOTA_EXCEEDED",
    ),
    "synthetic: overloaded": (
        ANTHROPIC,
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        "LLM_PROVIDER_ERROR",
    ),
    "github.com/cequence-io/openai-scala-client issue 109": (
        GEMINI,
        400,
        {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "API_KEY_INVALID",
                        "domain": "googleapis.com",
                        "metadata": {"service": "generativelanguage.googleapis.com"},
                    },
                    {
                        "@type": "type.googleapis.com/google.rpc.LocalizedMessage",
                        "locale": "en-US",
                        "message": "API key not valid. Please pass a valid API key.",
                    },
                ],
            }
        },
        "AUTHENTICATION_ERROR",
    ),
    "github.com/google-gemini/gemini-cli issue 14831: inside a list": (
        GEMINI,
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "Resource exhausted. Please try again later.",
                    "errors": [{"domain": "global", "reason": "rateLimitExceeded"}],
                    "status": "RESOURCE_EXHAUSTED",
                }
            }
        ],
        "LLM_RATE_LIMIT",
    ),
    "synthetic, after Google's documented texts": (
        GEMINI,
        400,
        {
            "error": {
                "code": 400,
                "message": "The input token count (1500000) exceeds the maximum number of tokens "
                "allowed (1048576).",
                "status": "INVALID_ARGUMENT",
            }
        },
        "LLM_CONTEXT_LENGTH",
    ),
}


@pytest.mark.parametrize("source", BODIES)
def test_a_vendors_own_words_decide(server: ProviderServer, source: str) -> None:
    """A realistic body has the code that its vendor means, in complete calls and in streams."""
    case, status, body, code = BODIES[source]
    server.answer = Answer(status=status, body=json.dumps(body))
    adapter = case.adapter(server, max_retries=0)
    for call in (adapter.generate, adapter.stream):
        with pytest.raises(LLMError) as caught:
            call("hi")
        assert (caught.value.code, caught.value.status) == (code, status)


HOPELESS = [
    source
    for source, (_, _, _, code) in BODIES.items()
    if code in ("LLM_QUOTA_EXCEEDED", "INVALID_REQUEST", "AUTHENTICATION_ERROR")
]


@pytest.mark.parametrize("source", HOPELESS)
def test_nothing_hopeless_is_tried_again(server: ProviderServer, source: str) -> None:
    """A used-up quota, a wrong request and a wrong key cost one request, though a vendor says 429
    or asks to come back.
    """
    case, status, body, _ = BODIES[source]
    headers = {"retry-after": "0", "x-should-retry": "true"}
    server.answer = Answer(status=status, body=json.dumps(body), headers=headers)
    adapter = case.adapter(server, max_retries=3)
    for call in (adapter.generate, adapter.stream):
        with pytest.raises(LLMError) as caught:
            call("hi")
        assert not caught.value.retryable
    assert len(server.requests) == 2


def test_googles_pause_is_in_the_body() -> None:
    """Google says in a RetryInfo how long to wait; a header says it better (synthetic)."""
    body = {"error": {"code": 429, "details": [{"reason": 5}, {"retryDelay": "26.5s"}, 7]}}
    error = VendorError.from_body(body)
    assert (retry_after(error), error.status) == (26.5, 429)
    error = VendorError.from_body(body, headers={"retry-after": "3"})
    assert retry_after(error) == 3.0


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XYZ+5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_a_date_is_a_pause() -> None:
    """A Retry-After with a date counts from now, wherever this machine is."""
    for zone in ("GMT", "", "-0000", "+0000"):
        error = VendorError(headers={"retry-after": f"Wed, 21 Oct 2015 07:28:00 {zone}"})
        assert retry_after(error, now=1445412470.0) == 10.0
    error = VendorError(headers={"retry-after": "Wed, 21 Oct 2015 09:28:00 +0200"})
    assert retry_after(error, now=1445412470.0) == 10.0


@given(st.text(max_size=40) | st.text("Wed, 21 Oct 2015 07:28:00 GMT-+", max_size=40))
def test_no_retry_after_breaks_the_reader(text: str) -> None:
    """Whatever a header holds, the pause is a number of seconds that can be waited, or none."""
    for name in ("retry-after", "retry-after-ms"):
        seconds = retry_after(VendorError(headers={name: text}))
        assert seconds is None or 0 <= seconds <= 30 * 86400


@pytest.mark.parametrize(
    "body", [None, "", 5, [], [1, 2], {}, {"error": None}, {"error": {"details": "x", "code": []}}]
)
def test_no_body_breaks_the_reader(body: object) -> None:
    """An error body can be anything; reading it never fails."""
    error = VendorError.from_body(body, message="as it stands")
    assert (error.message, error.words) == ("as it stands", ())


def _exported(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in list(vars(module).items())  # some names appear when they are looked at
        if inspect.isclass(value)
        and issubclass(value, BaseException)
        and not issubclass(value, Warning)
        and not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("table", "modules", "more"),
    [
        (OPENAI_CLASSES, [openai], set()),
        # Lazily exported: it is in the module once something has asked for it.
        (ANTHROPIC_CLASSES, [anthropic], {"WorkloadIdentityError"}),
        # The SDK's own client raises the first, pydantic the second.
        (GEMINI_CLASSES, [errors], {"EphemeralTokenAPIKeyError", "ValidationError"}),
        (HTTPX_CLASSES, [httpx2], set()),
    ],
    ids=["openai", "anthropic", "google-genai", "httpx2"],
)
def test_every_exported_class_has_its_row(
    table: dict[str, object], modules: list[ModuleType], more: set[str]
) -> None:
    """An SDK that adds or drops an exception class makes this test fail, not a user's call."""
    assert set().union(*map(_exported, modules)) | more == set(table)


def test_the_names_beside_the_exports_exist() -> None:
    """The rows for classes that are not exported belong to classes that exist."""
    assert issubclass(anthropic.WorkloadIdentityError, anthropic.AnthropicError)
    assert issubclass(_api_client.EphemeralTokenAPIKeyError, Exception)


@pytest.mark.parametrize("module", [openai, anthropic], ids=["openai", "anthropic"])
def test_deep_classes_count_as_their_bases(module: ModuleType) -> None:
    """A class deep inside an SDK, or one of tomorrow, has the code of its nearest base."""
    table = OPENAI_CLASSES if module is openai else ANTHROPIC_CLASSES
    root = openai.OpenAIError if module is openai else anthropic.AnthropicError
    kinds = [root]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    assert len(kinds) > 15
    for kind in kinds:
        names = tuple(base.__name__ for base in kind.__mro__)
        row = next(table[name] for name in names if name in table)
        code = classify(VendorError(kinds=names, status=403), table)
        assert code == ("PERMISSION_DENIED" if row is BY_STATUS else row), kind


def test_a_programming_error_stays_one() -> None:
    """An exception that no SDK and no HTTP client raises is not turned into a vendor's failure."""
    for kind in (ZeroDivisionError, KeyError, RuntimeError):
        names = tuple(base.__name__ for base in kind.__mro__)
        assert classify(VendorError(kinds=names), OPENAI_CLASSES) is None
