"""Every path on which a vendor refuses or filters a content, in each vendor's own words.

No body was measured against a vendor here: each names where it is from, or says `synthetic`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai.types import FinishReason

from llmkit import Completion, ContentFilterError, QuotaExceededError
from llmkit.adapters import GeminiAdapter
from llmkit.testing import Answer, ProviderServer
from tests.adapters.vendor_cases import (
    ANTHROPIC,
    CASES,
    GEMINI,
    GROQ,
    LOCAL,
    OPENAI,
    OPENROUTER,
    Case,
    fresh_key,
)

_AZURE_TEXT = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management "
    "policy. Please modify your prompt and retry."
)
_SAFE = {"filtered": False, "severity": "safe"}

# vendor, status, body, category
REFUSED: dict[str, tuple[Case, int, object, str]] = {
    "github.com/microsoft/TinyTroupe issue 85: Azure": (
        OPENAI,
        400,
        {
            "error": {
                "message": _AZURE_TEXT,
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {
                        "hate": _SAFE,
                        "jailbreak": {"filtered": True, "detected": True},
                        "self_harm": _SAFE,
                        "sexual": _SAFE,
                        "violence": _SAFE,
                    },
                },
            }
        },
        "jailbreak",
    ),
    "github.com/browser-use/browser-use issue 262: Azure's other spelling": (
        OPENAI,
        400,
        {
            "error": {
                "inner_error": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_results": {"jailbreak": {"filtered": True, "detected": True}},
                },
                "code": "content_filter",
                "message": _AZURE_TEXT,
                "param": "prompt",
                "type": None,
            }
        },
        "jailbreak",
    ),
    "synthetic: Azure, several categories and a list of blocklists": (
        OPENAI,
        400,
        {
            "error": {
                "message": _AZURE_TEXT,
                "code": "content_filter",
                "innererror": {
                    "content_filter_result": {
                        "hate": {"filtered": True, "severity": "high"},
                        "violence": {"filtered": True, "severity": "medium"},
                        "custom_blocklists": [{"filtered": True, "id": "words"}],
                        "sexual": None,
                    },
                },
            }
        },
        "hate, violence, custom_blocklists",
    ),
    "synthetic: a code and nothing else": (
        OPENAI,
        400,
        {"error": {"message": "rejected", "code": "content_policy_violation"}},
        "content_policy_violation",
    ),
    "synthetic: Azure without its inner error": (
        OPENAI,
        400,
        {"error": {"message": _AZURE_TEXT, "code": "content_filter"}},
        "content_filter",
    ),
    "github.com/BeehiveInnovations/pal-mcp-server issue 178": (
        OPENAI,
        400,
        {
            "error": {
                "message": "Invalid prompt: your prompt was flagged as potentially violating our "
                "usage policy. Please try again with a different prompt: "
                "https://platform.openai.com/docs/guides/reasoning#advice-on-prompting",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_prompt",
            }
        },
        "usage policy",
    ),
    "github.com/666ghj/BettaFish issue 108: DeepSeek": (
        OPENAI,
        400,
        {
            "error": {
                "message": "Content Exists Risk",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_request_error",
            }
        },
        "Content Exists Risk",
    ),
    "synthetic, after the code of openrouter.ai/docs/errors": (
        OPENROUTER,
        403,
        {
            "error": {
                "code": 403,
                "message": "openai/gpt-4o requires moderation, your input was flagged",
                "metadata": {
                    "reasons": ["violence", "self-harm"],
                    "flagged_input": "how do I …",
                    "provider_name": "OpenAI",
                    "model_slug": "openai/gpt-4o",
                },
            }
        },
        "violence, self-harm",
    ),
    "synthetic, after developersdigest.tech/errors/api/openrouter/403-refusal": (
        OPENROUTER,
        403,
        {"error": {"code": 403, "message": "declined", "metadata": {"error_type": "refusal"}}},
        "refusal",
    ),
    "synthetic: a compatible vendor": (
        GROQ,
        400,
        {"error": {"message": "refused", "type": "Content_Filter"}},
        "Content_Filter",
    ),
    "github.com/anthropics/claude-code issue 58367": (
        ANTHROPIC,
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Output blocked by content filtering policy",
            },
            "request_id": "req_011CaxpBxEpLvE6AvvuDD5BW",
        },
        "content filtering policy",
    ),
    "docs.apiyi.com/en/faq/claude-content-safety-refusal: nothing answered": (
        ANTHROPIC,
        200,
        {
            "type": "message",
            "content": [],
            "stop_reason": "refusal",
            "stop_details": {
                "type": "refusal",
                "category": "cyber",
                "explanation": "This request was declined because it could enable cyber harm.",
            },
            "usage": {"input_tokens": 20, "output_tokens": 0},
        },
        "cyber",
    ),
    "the SDK's RefusalStopDetails: no category": (
        ANTHROPIC,
        200,
        {
            "content": [],
            "stop_reason": "refusal",
            "stop_details": {"type": "refusal", "category": None, "explanation": None},
        },
        "refusal",
    ),
    "synthetic: before there were stop_details": (
        ANTHROPIC,
        200,
        {"content": [{"type": "text", "text": ""}], "stop_reason": "refusal"},
        "refusal",
    ),
    "synthetic: OpenAI's filter left nothing": (
        OPENAI,
        200,
        {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]},
        "content_filter",
    ),
    "docs.apiyi.com: Anthropic's word in OpenAI's protocol": (
        OPENAI,
        200,
        {"choices": [{"message": {"content": ""}, "finish_reason": "refusal"}]},
        "refusal",
    ),
    "synthetic, after the SDK's chat_completion.Moderation": (
        OPENAI,
        200,
        {
            "choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}],
            "moderation": {
                "input": {"type": "error", "code": "x", "message": "y"},
                "output": {
                    "type": "moderation_results",
                    "results": [{"flagged": True, "categories": {"hate": False, "violence": True}}],
                },
            },
        },
        "violence",
    ),
    "synthetic: OpenRouter with the word of the vendor behind it": (
        OPENROUTER,
        200,
        {
            "choices": [
                {
                    "message": {"content": ""},
                    "finish_reason": "content_filter",
                    "native_finish_reason": "PROHIBITED_CONTENT",
                }
            ]
        },
        "PROHIBITED_CONTENT",
    ),
    "the field's usual fixture: a blocked prompt": (
        GEMINI,
        200,
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}},
        "PROHIBITED_CONTENT",
    ),
    "synthetic: a blocked prompt with its ratings": (
        GEMINI,
        200,
        {
            "candidates": [],
            "promptFeedback": {
                "blockReason": "SAFETY",
                "safetyRatings": [
                    {"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"},
                    {
                        "category": "HARM_CATEGORY_DANGEROUS_CONTENT",
                        "probability": "HIGH",
                        "blocked": True,
                    },
                ],
            },
            "usageMetadata": {"promptTokenCount": 8},
        },
        "HARM_CATEGORY_DANGEROUS_CONTENT",
    ),
    "synthetic: a reason that nobody knows": (
        GEMINI,
        200,
        {"promptFeedback": {"blockReason": "JAILBREAK", "blockReasonMessage": "Not this."}},
        "JAILBREAK",
    ),
    "github.com/CherryHQ/cherry-studio issue 664": (
        GEMINI,
        200,
        {
            "candidates": [
                {
                    "finishReason": "SAFETY",
                    "safetyRatings": [
                        {"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "NEGLIGIBLE"},
                        {
                            "category": "HARM_CATEGORY_SEXUALLY_EXPLICIT",
                            "probability": "HIGH",
                            "blocked": True,
                        },
                    ],
                }
            ],
            "usageMetadata": {"promptTokenCount": 752, "candidatesTokenCount": 16},
        },
        "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    ),
    "synthetic: a recitation": (
        GEMINI,
        200,
        {"candidates": [{"content": {}, "finishReason": "RECITATION"}]},
        "RECITATION",
    ),
}

# vendor, the stream's events, category: the same refusals, before any text
REFUSED_STREAMS: dict[str, tuple[Case, list[dict[str, Any]], str]] = {
    "synthetic: OpenAI": (
        OPENAI,
        [
            {"choices": [], "prompt_filter_results": [{"content_filter_results": {"hate": _SAFE}}]},
            {"choices": [{"delta": {"content": ""}, "finish_reason": None}]},
            {
                "choices": [
                    {
                        "delta": {},
                        "finish_reason": "content_filter",
                        "content_filter_results": {"violence": {"filtered": True}},
                    }
                ]
            },
        ],
        "violence",
    ),
    "synthetic: Azure's error inside the stream": (
        OPENAI,
        [{"error": {"code": "content_filter", "message": _AZURE_TEXT}}],
        "content_filter",
    ),
    "synthetic: OpenRouter's error inside the stream": (
        OPENROUTER,
        [
            {
                "error": {"code": 403, "message": "no", "metadata": {"reasons": ["hate"]}},
                "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
            }
        ],
        "hate",
    ),
    "platform.claude.com/docs, handle-streaming-refusals": (
        ANTHROPIC,
        [
            {"type": "message_start", "message": {"usage": {"input_tokens": 9}}},
            {
                "type": "message_delta",
                "delta": {
                    "stop_reason": "refusal",
                    "stop_details": {
                        "type": "refusal",
                        "category": "bio",
                        "explanation": "It could enable biological harm.",
                    },
                },
            },
            {"type": "message_stop"},
        ],
        "bio",
    ),
    "github.com/anthropics/claude-code issue 55789: the error inside a stream": (
        ANTHROPIC,
        [
            {
                "type": "error",
                "error": {
                    "details": None,
                    "type": "invalid_request_error",
                    "message": "Output blocked by content filtering policy",
                },
                "request_id": "req_011CafqBB5WP2JwkYebVpeCk",
            }
        ],
        "content filtering policy",
    ),
    "synthetic: Gemini's prompt": (
        GEMINI,
        [{"promptFeedback": {"blockReason": "BLOCKLIST"}, "usageMetadata": {}}],
        "BLOCKLIST",
    ),
    "synthetic: Gemini's answer": (
        GEMINI,
        [
            {
                "candidates": [{"finishReason": "SPII"}],
                "usageMetadata": {"promptTokenCount": 5},
            }
        ],
        "SPII",
    ),
}

# vendor, the stream's events after "so far", category
CUT_STREAMS: dict[str, tuple[Case, list[dict[str, Any]], str]] = {
    "synthetic: Azure, with further verdicts behind the end": (
        OPENAI,
        [
            {
                "choices": [
                    {
                        "delta": {},
                        "finish_reason": "content_filter",
                        "content_filter_results": {
                            "hate": {"filtered": True, "severity": "high"},
                            "sexual": _SAFE,
                        },
                    }
                ]
            },
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        ],
        "hate",
    ),
    "synthetic: the moderation's chunk comes last": (
        OPENAI,
        [
            {"choices": [{"delta": {}, "finish_reason": "content_filter"}]},
            {
                "choices": [],
                "moderation": {"output": {"results": [{"categories": {"self-harm": True}}]}},
            },
        ],
        "self-harm",
    ),
    "synthetic: OpenRouter": (
        OPENROUTER,
        [
            {
                "choices": [
                    {
                        "delta": {},
                        "finish_reason": "content_filter",
                        "native_finish_reason": "SAFETY",
                    }
                ]
            }
        ],
        "SAFETY",
    ),
    "synthetic: an error of OpenRouter's": (
        OPENROUTER,
        [{"error": {"code": 403, "message": "no", "metadata": {"reasons": ["hate"]}}}],
        "hate",
    ),
    "synthetic: the embedded server's protocol": (
        LOCAL,
        [{"choices": [{"delta": {}, "finish_reason": "content_filter"}]}],
        "content_filter",
    ),
    "platform.claude.com/docs, handle-streaming-refusals": (
        ANTHROPIC,
        [
            {
                "type": "message_delta",
                "delta": {
                    "stop_reason": "refusal",
                    "stop_details": {"type": "refusal", "category": "cyber"},
                },
                "usage": {"output_tokens": 2},
            },
            {"type": "message_stop"},
        ],
        "cyber",
    ),
    "github.com/anthropics/claude-code issue 55789": (
        ANTHROPIC,
        [
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "Output blocked by content filtering policy",
                },
            }
        ],
        "content filtering policy",
    ),
    "synthetic: Gemini's finish reason and ratings": (
        GEMINI,
        [
            {
                "candidates": [
                    {
                        "finishReason": "SAFETY",
                        "safetyRatings": [
                            {"category": "HARM_CATEGORY_HARASSMENT", "blocked": True}
                        ],
                    }
                ],
                "usageMetadata": {"promptTokenCount": 5},
            }
        ],
        "HARM_CATEGORY_HARASSMENT",
    ),
    "synthetic: Gemini blocks the prompt half-way": (
        GEMINI,
        [{"promptFeedback": {"blockReason": "OTHER"}}],
        "OTHER",
    ),
}


def _so_far(case: Case) -> list[dict[str, Any]]:
    """The events of a stream that says "so far" and goes on."""
    if case.wire == "openai":
        return [{"choices": [{"delta": {"content": "so far"}, "finish_reason": None}]}]
    if case.wire == "gemini":
        return [{"candidates": [{"content": {"parts": [{"text": "so far"}]}}]}]
    delta = {"type": "text_delta", "text": "so far"}
    return [
        {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
    ]


def _stream_of(events: list[dict[str, Any]]) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events)


def _finished(server: ProviderServer, case: Case) -> Completion:
    stream = case.adapter(server).stream("hi")
    assert "".join(stream.text_stream) == "so far"
    return stream.completion


@pytest.mark.parametrize("source", REFUSED)
def test_a_refusal_without_an_answer_is_an_error(server: ProviderServer, source: str) -> None:
    """However a vendor says it, it is a ContentFilterError with its own word, and asked once."""
    case, status, body, category = REFUSED[source]
    server.answer = Answer(status=status, body=json.dumps(body))
    with pytest.raises(ContentFilterError) as caught:
        case.adapter(server).generate("hi")
    error = caught.value
    assert (error.category, error.code) == (category, "LLM_CONTENT_FILTER")
    assert (error.status, error.retryable) == (status if status >= 400 else None, False)
    assert (error.provider, error.model) == (case.provider, case.model)
    assert len(server.requests) == len(error.attempts) == 1


@pytest.mark.parametrize("source", [name for name, row in REFUSED.items() if row[1] >= 400])
def test_a_stream_is_refused_by_the_same_errors(server: ProviderServer, source: str) -> None:
    """An error status says the same before a stream as before a complete answer."""
    case, status, body, category = REFUSED[source]
    server.answer = Answer(status=status, body=json.dumps(body))
    with pytest.raises(ContentFilterError) as caught:
        case.adapter(server).stream("hi")
    assert (caught.value.category, caught.value.status) == (category, status)


@pytest.mark.parametrize("source", REFUSED_STREAMS)
def test_a_stream_without_any_text_is_refused(server: ProviderServer, source: str) -> None:
    """A stream that ends by a filter before its first chunk never begins."""
    case, events, category = REFUSED_STREAMS[source]
    server.answer = Answer(body=_stream_of(events))
    with pytest.raises(ContentFilterError) as caught:
        case.adapter(server).stream("hi")
    assert caught.value.category == category
    assert len(server.requests) == 1
    if "error" in events[0]:
        assert events[0]["error"]["message"] in caught.value.message


@pytest.mark.parametrize("source", CUT_STREAMS)
def test_a_stream_that_is_cut_off_keeps_its_text(server: ProviderServer, source: str) -> None:
    """Whether by a finish reason or by an error: what came is an answer that says why it ends."""
    case, events, category = CUT_STREAMS[source]
    server.answer = Answer(body=_stream_of([*_so_far(case), *events]))
    reply = _finished(server, case)
    assert (reply.text, reply.finish_reason) == ("so far", "content_filter")
    assert reply.content_filter_category == category
    assert any(category in note for note in reply.warnings)


def test_an_error_that_cuts_a_stream_off_counts_no_tokens(server: ProviderServer) -> None:
    """What Anthropic's first event says of the output is not what the whole answer took."""
    source = "github.com/anthropics/claude-code issue 55789"
    server.answer = Answer(body=_stream_of([*_so_far(ANTHROPIC), *CUT_STREAMS[source][1]]))
    usage = _finished(server, ANTHROPIC).usage
    assert (usage.input_tokens, usage.output_tokens) == (9, None)


# vendor, body, text, category
CUT: dict[str, tuple[Case, dict[str, Any], str, str]] = {
    "openai's refusal in words (synthetic)": (
        OPENAI,
        {
            "choices": [
                {"message": {"content": None, "refusal": "I can't."}, "finish_reason": "stop"}
            ]
        },
        "I can't.",
        "refusal",
    ),
    "azure (synthetic)": (
        OPENAI,
        {
            "choices": [
                {
                    "message": {"content": "so far"},
                    "finish_reason": "content_filter",
                    "content_filter_results": {
                        "error": {"code": "content_filter_error", "message": "not filtered"},
                        "protected_material_text": {"filtered": True, "detected": True},
                    },
                }
            ]
        },
        "so far",
        "protected_material_text",
    ),
    "the verdict on the prompt alone (synthetic)": (
        OPENAI,
        {
            "choices": [{"message": {"content": "so far"}, "finish_reason": "content_filter"}],
            "prompt_filter_results": [
                {"prompt_index": 0, "content_filter_results": {"sexual": {"filtered": True}}}
            ],
        },
        "so far",
        "sexual",
    ),
    "platform.claude.com/docs, handle-streaming-refusals": (
        ANTHROPIC,
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Hello.."}],
            "stop_reason": "refusal",
            "stop_details": {
                "type": "refusal",
                "category": "cyber",
                "explanation": "This request was declined because it could enable cyber harm.",
            },
        },
        "Hello..",
        "cyber",
    ),
    "gemini (synthetic)": (
        GEMINI,
        {
            "candidates": [
                {"content": {"parts": [{"text": "so far"}]}, "finishReason": "MODEL_ARMOR"}
            ]
        },
        "so far",
        "MODEL_ARMOR",
    ),
}


@pytest.mark.parametrize("source", CUT)
def test_an_answer_that_was_cut_off_says_why(server: ProviderServer, source: str) -> None:
    """What came of a filtered answer is returned, with the category and a warning."""
    case, body, text, category = CUT[source]
    server.answer = Answer(body=json.dumps(body))
    reply = case.adapter(server).generate("hi")
    assert (reply.text, reply.finish_reason) == (text, "content_filter")
    assert reply.content_filter_category == category
    assert any(category in note for note in reply.warnings)
    assert Completion.from_dict(json.loads(json.dumps(reply.to_dict()))) == reply


def test_a_streamed_refusal_in_words(server: ProviderServer) -> None:
    """OpenAI's refusal arrives in pieces of its own field, and is the answer's text."""
    server.answer = Answer(chunks=("so ", "far"), refusal=True)
    reply = _finished(server, OPENAI)
    assert (reply.finish_reason, reply.content_filter_category) == ("content_filter", "refusal")


def test_verdicts_that_let_a_content_pass_change_nothing(server: ProviderServer) -> None:
    """Azure's annotations on every answer, and a detection without a filter, are no refusal."""
    choice = {
        "message": {"content": "fine", "refusal": None},
        "finish_reason": "stop",
        "content_filter_results": {
            "hate": _SAFE,
            "protected_material_code": {"filtered": False, "detected": True},
        },
    }
    prompts = [{"prompt_index": 0, "content_filter_results": {"jailbreak": {"filtered": False}}}]
    body = {"choices": [choice], "prompt_filter_results": prompts}
    server.answer = Answer(body=json.dumps(body))
    reply = OPENAI.adapter(server).generate("hi")
    assert (reply.finish_reason, reply.content_filter_category) == ("stop", None)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 403, "message": "m", "metadata": {"reasons": []}}},
        {"error": {"code": 403, "message": "m", "metadata": {"reasons": "hate"}}},
        {"error": {"code": 403, "message": "m", "metadata": {"reasons": [5, None]}}},
        {"error": {"code": 403, "message": "m", "metadata": {"error_type": ["refusal"]}}},
        {"error": {"code": 403, "message": "m", "innererror": {"content_filter_result": "hate"}}},
        {"error": {"message": "m", "innererror": {"content_filter_result": {"hate": _SAFE}}}},
    ],
    ids=str,
)
def test_odd_details_make_no_refusal(server: ProviderServer, body: object) -> None:
    """A 403 that names no category stays what its status says (synthetic)."""
    server.answer = Answer(status=403, body=json.dumps(body))
    with pytest.raises(Exception, match="m") as caught:
        OPENROUTER.adapter(server).generate("hi")
    assert getattr(caught.value, "code", None) == "PERMISSION_DENIED"


def test_reasons_for_something_else_make_no_refusal(server: ProviderServer) -> None:
    """OpenRouter gives reasons beside other statuses, too (synthetic)."""
    error = {"code": 402, "message": "m", "metadata": {"reasons": ["no credits"]}}
    server.answer = Answer(status=402, body=json.dumps({"error": error}))
    with pytest.raises(QuotaExceededError):
        OPENROUTER.adapter(server).generate("hi")


@pytest.mark.parametrize("details", ["text", 5, [], {"category": 5, "explanation": []}], ids=str)
def test_odd_stop_details_break_nothing(server: ProviderServer, details: object) -> None:
    """What stands beside a refusal may change its form; it stays a refusal (synthetic)."""
    body = {"content": [], "stop_reason": "refusal", "stop_details": details}
    server.answer = Answer(body=json.dumps(body))
    with pytest.raises(ContentFilterError) as caught:
        ANTHROPIC.adapter(server).generate("hi")
    assert caught.value.category == "refusal"


def test_the_vendors_explanation_is_in_the_error(server: ProviderServer) -> None:
    """Anthropic's and Google's sentences for a refusal reach the user."""
    source = "docs.apiyi.com/en/faq/claude-content-safety-refusal: nothing answered"
    for body, sentence in (
        (REFUSED[source][2], "could enable cyber harm"),
        (REFUSED["synthetic: a reason that nobody knows"][2], "Not this."),
    ):
        server.answer = Answer(body=json.dumps(body), request_id="req_8")
        case = GEMINI if sentence == "Not this." else ANTHROPIC
        with pytest.raises(ContentFilterError, match=sentence) as caught:
            case.adapter(server).generate("hi")
    server.answer = Answer(body=json.dumps(REFUSED[source][2]), request_id="req_8")
    with pytest.raises(ContentFilterError) as caught:
        ANTHROPIC.adapter(server).generate("hi")
    assert caught.value.request_id == "req_8"


def test_a_category_shows_no_key(server: ProviderServer) -> None:
    """A key that a filter echoes is in neither the category nor the message (synthetic)."""
    key = fresh_key()
    metadata = {"reasons": [f"your key {key}"], "flagged_input": key}
    server.answer = Answer(
        status=403, body=json.dumps({"error": {"code": 403, "message": key, "metadata": metadata}})
    )
    with pytest.raises(ContentFilterError) as caught:
        OPENROUTER.adapter(server, api_key=key).generate("hi")
    assert caught.value.category == "your key ***"
    assert key not in str(caught.value)
    server.answer = Answer(
        body=json.dumps(
            {"content": [], "stop_reason": "refusal", "stop_details": {"category": key}}
        )
    )
    with pytest.raises(ContentFilterError) as caught:
        ANTHROPIC.adapter(server, api_key=key).generate("hi")
    assert caught.value.category == "***"


# What Google's words for an end mean here; the others are a warning and no finish reason.
_GOOGLES_OTHER_WORDS = {
    "FINISH_REASON_UNSPECIFIED",
    "LANGUAGE",
    "OTHER",
    "MALFORMED_FUNCTION_CALL",
    "IMAGE_OTHER",
    "NO_IMAGE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
    "PUP_LIMITED_DISABLED",
    "CONTINUATION",
}


def test_every_finish_reason_of_googles_sdk_was_looked_at() -> None:
    """An SDK that adds a finish reason makes this test fail, so that no filter is overlooked."""
    known = {*GeminiAdapter.finish_words, *_GOOGLES_OTHER_WORDS}
    assert known == {reason.name for reason in FinishReason}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.provider)
def test_the_provider_server_refuses_in_every_protocol(server: ProviderServer, case: Case) -> None:
    """`Answer(blocked=True)` and a filtered answer mean the same to every vendor's adapter."""
    adapter = case.adapter(server)
    server.answer = Answer(blocked=True, filter_category="HARM_CATEGORY_HATE_SPEECH")
    for call in (adapter.generate, adapter.stream):
        with pytest.raises(ContentFilterError) as caught:
            call("hi")
        assert caught.value.category == "HARM_CATEGORY_HATE_SPEECH"
    assert adapter.health_check()["status"] == "healthy"  # it concerns answers only
    server.answer = Answer(
        "so far", finish_reason="content_filter", filter_category="HARM_CATEGORY_HATE_SPEECH"
    )
    whole = adapter.generate("hi")
    assert whole.content_filter_category == "HARM_CATEGORY_HATE_SPEECH"
    assert _finished(server, case).content_filter_category == "HARM_CATEGORY_HATE_SPEECH"
