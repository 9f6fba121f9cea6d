"""The log of refused and filtered contents."""

from __future__ import annotations

import logging
import pickle

import pytest

from llmkit import Client, Completion, ContentFilterError, Image, Message, RateLimitError, Request
from llmkit.content_policy import LONGEST, is_violation, log_violation
from llmkit.settings import Settings
from llmkit.testing import Answer, ProviderServer

KEY = "sk-proj-0123456789abcdefghij"
OWN_KEY = "warehouse-sesame-without-shape"
ASKED = Request.build("m-1", f"first line\nsecret question {KEY}", system=f"rules {OWN_KEY}")
REFUSED = ContentFilterError("the text of the error", category="hate", request_id="req_1")
CUT = Completion(
    "half an answer",
    "m-1",
    "openai",
    finish_reason="content_filter",
    content_filter_category="violence",
    request_id="req_2",
)


def lines(
    caplog: pytest.LogCaptureFixture,
    outcome: object,
    *,
    log_content: bool = False,
    request: Request = ASKED,
) -> list[str]:
    """What is logged about an outcome."""
    settings = Settings(log_content=log_content, anthropic_api_key=OWN_KEY)
    with caplog.at_level(logging.WARNING, "llmkit"):
        log_violation(outcome, provider="openai", model="m-1", request=request, settings=settings)
    assert {record.name for record in caplog.records} <= {"llmkit.content_policy"}
    assert {record.levelname for record in caplog.records} <= {"WARNING"}
    return [record.getMessage() for record in caplog.records]


def test_a_refusal_is_one_line_without_the_text(caplog: pytest.LogCaptureFixture) -> None:
    """Who, which model, why and which request: enough for a review, and nothing of the content."""
    assert lines(caplog, REFUSED) == [
        "content filter: openai:m-1: refused, nothing was answered; category 'hate', "
        "request id 'req_1'"
    ]


def test_a_cut_answer_says_how_much_came(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that was cut off is told from a refusal, without its text."""
    assert lines(caplog, CUT) == [
        "content filter: openai:m-1: refused or cut off after 14 characters of the answer; "
        "category 'violence', request id 'req_2'"
    ]


@pytest.mark.parametrize(
    "outcome", [Completion("fine", "m", "p", finish_reason="stop"), RateLimitError("slow"), None]
)
def test_nothing_else_is_logged(caplog: pytest.LogCaptureFixture, outcome: object) -> None:
    """Other answers and errors are no violations."""
    assert not is_violation(outcome)
    assert lines(caplog, outcome, log_content=True) == []
    assert is_violation(REFUSED)
    assert is_violation(CUT)


def test_the_text_is_logged_only_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    """With log_content the prompt and the answer stand in the same line, without any key."""
    (line,) = lines(caplog, CUT, log_content=True)
    assert r"prompt 'system: rules ***\n\nuser: first line\nsecret question sk-***'" in line
    assert line.endswith("answer 'half an answer'")
    assert "\n" not in line
    assert KEY not in line
    assert OWN_KEY not in line


def test_another_vendors_key_is_not_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that looks like any word is known by its variable, whoever was asked."""
    monkeypatch.setenv("GROQ_API_KEY", "correct-horse-battery")
    request = Request("m-1", (Message("user", "what is correct-horse-battery?"),))
    with caplog.at_level(logging.WARNING, "llmkit"):
        log_violation(
            REFUSED,
            provider="groq",
            model="m-1",
            request=request,
            settings=Settings(log_content=True),
        )
    assert caplog.messages[0].endswith("prompt 'user: what is ***?'")


def test_a_long_prompt_is_shortened(caplog: pytest.LogCaptureFixture) -> None:
    """A prompt of a megabyte does not become a line of a megabyte; pictures are only counted."""
    picture = Message("user", ("x" * 1_000_000, Image(url="https://example.com/cat.png")))
    request = Request("m-1", (picture,))
    (line,) = lines(caplog, REFUSED, log_content=True, request=request)
    assert len(line) < LONGEST + 300
    assert "characters more" in line
    caplog.clear()
    request = Request("m-1", (Message("user", ("Look:", Image(url="https://example.com/a"))),))
    (line,) = lines(caplog, REFUSED, log_content=True, request=request)
    assert line.endswith("prompt 'user: Look: [images: 1]'")


def test_a_vendors_word_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """A category or an id with a line break stays inside its line."""
    forged = ContentFilterError("m", category="hate\nWARNING all is well", request_id="a\nb")
    (line,) = lines(caplog, forged)
    assert "\n" not in line


def test_the_category_survives_pickle_and_json() -> None:
    """An error crosses processes, and an answer a cache, with the category."""
    assert pickle.loads(pickle.dumps(REFUSED)).category == "hate"
    assert Completion.from_dict(CUT.to_dict()) == CUT
    assert CUT.to_dict()["content_filter_category"] == "violence"


def test_a_call_logs_its_violation_once(
    server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever way a call takes, a refused content is logged once, when the call ends."""
    settings = Settings(
        openai_api_key="sk-test-0123456789", openai_api_base=server.base_url("openai")
    )
    server.answer = Answer("partly", finish_reason="content_filter")
    client = Client("gpt-6-luna", settings=settings)
    with caplog.at_level(logging.WARNING, "llmkit.content_policy"):
        assert client.complete("a secret question").finish_reason == "content_filter"
        with client.stream("a secret question") as stream:
            list(stream)

    lines = [each for each in caplog.messages if each.startswith("content filter")]
    assert len(lines) == 2
    assert not any("secret" in line for line in lines)
