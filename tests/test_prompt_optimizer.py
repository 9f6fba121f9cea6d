"""Fitting prompts and conversations to a number of tokens."""

from __future__ import annotations

import copy
import json
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from llmkit.errors import ContextLengthError, ErrorCode, InvalidRequestError
from llmkit.prompt_optimizer import (
    Counter,
    FittedMessages,
    FittedPrompt,
    fit_messages,
    fit_prompt,
    optimize_prompt,
)
from llmkit.tokenizer import count_tokens
from llmkit.tokenizer.vocabulary import load_encoding

MODEL = "gpt-6-luna"

OPENING = "Please analyze the following code for potential improvements:"
FOCUS = (
    "Specifically focus on:\n1. Performance optimizations\n2. Readability\n3. Error handling\n"
    "4. Security"
)
LAST_LINE = "Provide your answer with examples."


def counter_of(count: Callable[[str], int], frame: int = 4) -> Counter:
    """Makes a counter of texts and messages out of one for texts; arguments of calls count."""

    def counter(model: str, prompt: str | Sequence[Mapping[str, Any]]) -> int:
        if isinstance(prompt, str):
            return count(prompt)
        whole = "".join(
            "".join(texts(message)) + json.dumps(message.get("tool_calls") or "")
            for message in prompt
        )
        return count(whole) + frame * len(prompt) + 3

    return counter


def steep(text: str) -> int:
    """Counts ever more for each character, so that the parts' sum is far below the whole."""
    return len(text) + len(text) ** 2 // 200


def coarse(text: str) -> int:
    """Counts in large steps and something for nothing: the parts' sum is far above the whole."""
    return 2 + 5 * (len(text) // 30)


def characters(text: str) -> int:
    """Counts a token for each character."""
    return len(text)


def quarters(text: str) -> int:
    """Counts a token for each four characters, about as real tokenizers do."""
    return -(-len(text) // 4)


CHARACTERS = counter_of(characters)
QUARTERS = counter_of(quarters)
COUNTERS: dict[str, Counter] = {
    "estimate": count_tokens,
    "characters": CHARACTERS,
    "steep": counter_of(steep),
    "coarse": counter_of(coarse),
}


def texts(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or () if "text" in part]


FRAGMENTS = [
    "\n",
    "\n\n",
    "\r\n",
    "\r\n\r\n",
    " ",
    "   ",
    "\n\n\n\n",
    "\t",
    "```python\n",
    "```\n",
    "~~~~\n",
    '{\n  "a": [1, 2],\n  "b": "x  y"\n}\n',
    '[{"id": 1}, {"id": 2}]\n',
    "[ERROR {x",
    "1. First\n2. Second\n",
    "- An item\n",
    "Please do this:\n",
    "def f(a, b):\n    return a\n",
    "A sentence of some words, with a clause. ",
    "The same line again and again and again.\n",
    "👩\u200d👩\u200d👧\u200d👦",
    "🇩🇪🇫🇷",
    "e\u0301",
    "漢字かな交じり文。",
    "word",
]

prompts = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join),
    st.tuples(st.sampled_from(FRAGMENTS), st.integers(1, 200)).map(lambda one: one[0] * one[1]),
)
targets = st.integers(1, 300)
several = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    short = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)
    for turn in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["user", "user", "assistant", "calls", "system", "parts"]))
        if kind == "calls":
            ids = [f"call-{turn}-{call}" for call in range(draw(st.integers(1, 3)))]
            calls = [
                {"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}}
                for each in ids
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            results = [
                {"role": "tool", "tool_call_id": each, "content": draw(short)} for each in ids
            ]
            if draw(st.booleans()):
                results.insert(1, {"role": "user", "content": draw(short)})
            messages += results
        elif kind == "parts":
            picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
            text = {"type": "text", "text": draw(prompts)}
            messages.append({"role": "user", "content": [text, picture]})
        else:
            messages.append({"role": kind, "content": draw(short)})
    messages.append(
        {"role": draw(st.sampled_from(["user", "assistant"])), "content": draw(prompts)}
    )
    return messages


@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
class TestTextsAlways:
    """What holds for every text, target and counter."""

    @given(prompt=prompts, target=targets, preserve=st.booleans())
    @several
    def test_never_more_than_the_target(
        self, counter: Counter, prompt: str, target: int, preserve: bool
    ) -> None:
        """The result never has more tokens than asked for; an error says when that can't be."""
        try:
            fitted = fit_prompt(prompt, MODEL, target, preserve, counter=counter)
        except ContextLengthError:
            assert counter(MODEL, prompt) > target
            assert preserve or counter(MODEL, prompt[:64]) > target
            return
        assert fitted.tokens == counter(MODEL, fitted.prompt) <= target
        assert fitted.report.tokens == fitted.tokens

    @given(prompt=prompts, target=targets, preserve=st.booleans())
    @several
    def test_what_fits_is_returned_byte_for_byte(
        self, counter: Counter, prompt: str, target: int, preserve: bool
    ) -> None:
        """A text that fits is not touched; so fitting a result again changes nothing."""
        try:
            once = optimize_prompt(prompt, MODEL, target, preserve, counter=counter)
        except ContextLengthError:
            return
        if counter(MODEL, prompt) <= target:
            assert once == prompt
        again = fit_prompt(once, MODEL, target, preserve, counter=counter)
        assert again.prompt == once
        assert not again.report.changed

    @given(prompt=prompts, target=targets)
    @several
    def test_the_report_tells_where(self, counter: Counter, prompt: str, target: int) -> None:
        """Each marker stands where the report says, and a changed text has a report."""
        try:
            fitted = fit_prompt(prompt, MODEL, target, False, counter=counter)
        except ContextLengthError:
            return
        assert fitted.report.changed == (fitted.prompt != prompt)
        for cut in fitted.report.cut:
            assert fitted.prompt.startswith(cut.marker, cut.at)
            assert cut.characters > 0


@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
class TestConversationsAlways:
    """What holds for all messages, targets and counters."""

    @given(messages=conversations(), target=targets, preserve=st.booleans())
    @several
    def test_never_more_than_the_target(
        self, counter: Counter, messages: list[dict[str, Any]], target: int, preserve: bool
    ) -> None:
        """The result never has more tokens than asked for; what was given is not changed."""
        before = copy.deepcopy(messages)
        fitted = fit_or_none(messages, target, preserve, counter)
        assert messages == before
        if fitted is None:
            assert counter(MODEL, messages) > target
            return
        assert fitted.tokens == counter(MODEL, fitted.messages) <= target
        if counter(MODEL, messages) <= target:
            assert fitted.messages == messages
        assert fitted.messages
        again = fit_messages(fitted.messages, MODEL, target, preserve, counter=counter)
        assert again.messages == fitted.messages

    @given(messages=conversations(), target=targets, preserve=st.booleans())
    @several
    def test_roles_order_and_what_has_to_stay(
        self, counter: Counter, messages: list[dict[str, Any]], target: int, preserve: bool
    ) -> None:
        """What stays keeps its order and everything but its text; system and last user stay."""
        fitted = fit_or_none(messages, target, preserve, counter)
        if fitted is None:
            return
        dropped = {each.message for each in fitted.report.dropped}
        kept = [each for at, each in enumerate(messages) if at not in dropped]
        assert [bare(each) for each in fitted.messages] == [bare(each) for each in kept]
        users = [at for at, each in enumerate(messages) if each["role"] == "user"]
        assert not users or users[-1] not in dropped
        if preserve:
            system = [each for each in messages if each["role"] == "system"]
            assert [each for each in fitted.messages if each["role"] == "system"] == system

    @given(messages=conversations(), target=targets, preserve=st.booleans())
    @several
    def test_calls_and_results_are_never_parted(
        self, counter: Counter, messages: list[dict[str, Any]], target: int, preserve: bool
    ) -> None:
        """A call of tools and all of its results stay or go together."""
        fitted = fit_or_none(messages, target, preserve, counter)
        if fitted is None:
            return
        called = {call["id"] for each in fitted.messages for call in each.get("tool_calls") or ()}
        answered = {each["tool_call_id"] for each in fitted.messages if each["role"] == "tool"}
        assert called == answered


def fit_or_none(
    messages: list[dict[str, Any]], target: int, preserve: bool, counter: Counter
) -> FittedMessages | None:
    try:
        return fit_messages(messages, MODEL, target, preserve, counter=counter)
    except ContextLengthError:
        return None


def bare(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message without its texts."""
    bare_message = dict(message)
    if isinstance(message["content"], str):
        bare_message["content"] = ""
    elif message["content"] is not None:
        bare_message["content"] = [
            {**part, "text": ""} if "text" in part else part for part in message["content"]
        ]
    return bare_message


def snippet(functions: int) -> str:
    return "\n\n".join(
        f"def function_{at}(a, b):\n    total = a + b * {at}\n    return total"
        for at in range(functions)
    )


# The tests below rest on certain counts, so they bring their own.
fit = partial(fit_prompt, counter=QUARTERS)
fit_chat = partial(fit_messages, counter=QUARTERS)
shorten = partial(optimize_prompt, counter=QUARTERS)


class TestInstructions:
    """The instructions around a long middle."""

    @pytest.mark.parametrize("line_end", ["\n", "\r\n"])
    @pytest.mark.parametrize("fenced", [True, False])
    @pytest.mark.parametrize("target", [150, 400, 2000])
    def test_opening_items_and_last_line_stay(
        self, target: int, fenced: bool, line_end: str
    ) -> None:
        """Opening, four items and last line stay word for word around a snippet that is cut."""
        code = snippet(500)
        material = f"```python\n{code}\n```" if fenced else code
        prompt = f"{OPENING}\n\n{material}\n\n{FOCUS}\n\n{LAST_LINE}".replace("\n", line_end)
        fitted = fit(prompt, MODEL, target)
        assert fitted.tokens <= target
        assert fitted.prompt.startswith(OPENING + line_end)
        assert fitted.prompt.endswith(
            f"{FOCUS}\n\n{LAST_LINE}".replace("\n", line_end),
        )
        assert "characters left out …]" in fitted.prompt
        assert fitted.tokens > target * 0.8

    def test_no_blank_lines_at_all(self) -> None:
        """Instructions are found where nothing but line breaks parts them from the code."""
        code = snippet(300).replace("\n\n", "\n")
        fitted = fit(f"{OPENING}\n{code}\n{FOCUS}\n{LAST_LINE}", MODEL, 200)
        assert fitted.prompt.startswith(OPENING)
        assert fitted.prompt.endswith(f"{FOCUS}\n{LAST_LINE}")

    def test_around_prose(self) -> None:
        """Instructions stay around an article, whose first and last paragraphs are not theirs."""
        article = "\n\n".join(
            f"In the year {year} the town grew, and its harbour was rebuilt by {year} people."
            for year in range(1000, 1900)
        )
        prompt = f"Summarize this article:\n\n{article}\n\n{FOCUS}\n\nAnswer in French."
        fitted = fit(prompt, MODEL, 120)
        assert fitted.prompt.startswith("Summarize this article:\n")
        assert fitted.prompt.endswith(f"{FOCUS}\n\nAnswer in French.")

    def test_a_list_that_is_the_material_is_cut(self) -> None:
        """Ten thousand items are something to work on, not instructions."""
        items = "\n".join(f"- item number {at}" for at in range(10_000))
        fitted = fit(f"Sort these:\n{items}\nAnswer with the list only.", MODEL, 100)
        assert fitted.prompt.startswith("Sort these:\n- item number 0\n")
        assert fitted.prompt.endswith("\nAnswer with the list only.")

    def test_blanks_inside_instructions_stay(self) -> None:
        """Instructions are not compacted either."""
        opening = "Compare   these  two:  \n\n\n\nPlease be   brief:"
        fitted = fit(f"{opening}\n\n```\n{snippet(300)}\n```\n\nThank   you.", MODEL, 150)
        assert fitted.prompt.startswith(opening)
        assert fitted.prompt.endswith("\nThank   you.")

    def test_too_small_a_target_is_an_error_with_numbers(self) -> None:
        """Instructions are never cut silently: the error has both numbers and the way out."""
        prompt = f"{OPENING}\n\n{snippet(50)}\n\n{FOCUS}\n\n{LAST_LINE}"
        with pytest.raises(
            ContextLengthError, match=r"instructions alone take \d+ .* is 20;"
        ) as it:
            shorten(prompt, MODEL, 20)
        assert it.value.code is ErrorCode.LLM_CONTEXT_LENGTH
        assert QUARTERS(MODEL, shorten(prompt, MODEL, 20, False)) <= 20

    def test_plain_text_has_no_instructions(self) -> None:
        """One paragraph without a list can always be cut, whatever its words are."""
        fitted = fit("Please use words. " * 30, MODEL, 40)
        assert fitted.tokens <= 40
        assert fitted.prompt.startswith("Please use words.")


class TestCompacting:
    """What goes before anything is cut."""

    def test_blanks_go_first(self) -> None:
        """A text that fits without its blanks loses nothing else."""
        prompt = "One  two   three.   \n\n\n\n\nFour\tfive.\n \n \t\n\nSix." + " " * 50
        fitted = fit_prompt(prompt, MODEL, 40, False, counter=CHARACTERS)
        assert fitted.prompt == "One two three.\n\nFour\tfive.\n\nSix."
        assert not fitted.report.cut
        (compacted,) = fitted.report.compacted
        assert compacted.whitespace == len(prompt) - len(fitted.prompt)
        assert compacted.repeated == 0

    def test_indentation_and_values_stay(self) -> None:
        """Indentation, and wide gaps in code, JSON and tables, say something and stay."""
        code = "def f():\n    a = 'x   y'\n        # deep"
        table = "| a    | b   |\n|------|-----|"
        data = '{\n  "key": "two  blanks"\n}'
        prompt = "\n\n\n\n".join([code, table, data, "go" + " " * 100])
        fitted = fit_prompt(prompt, MODEL, 120, False, counter=CHARACTERS)
        assert fitted.prompt == "\n\n".join([code, table, data, "go"])

    def test_repeated_blocks_become_markers(self) -> None:
        """A block that stood there before is replaced by a marker, and the first one stays."""
        block = "This paragraph is long enough to be worth a marker. " * 4
        prompt = "\n\n".join([block, "Between.", block, block, "After."])
        fitted = fit_prompt(prompt, MODEL, 300, False, counter=CHARACTERS)
        assert fitted.prompt.count("worth a marker") == 4
        assert "characters as above left out …]\n\nAfter." in fitted.prompt
        assert not fitted.report.cut
        assert fitted.report.compacted[0].repeated > len(block)

    def test_a_repeated_paragraph_among_short_ones_becomes_a_marker(self) -> None:
        """Short paragraphs before and after a long one do not hide that it was said already."""
        long = "All of this was said before, word for word. " * 5
        prompt = "".join(f"{number}\n\nNo.\n\n{long}\n\n" for number in range(40))
        fitted = fit(prompt, MODEL, 1200, preserve_instructions=False)
        assert fitted.prompt.count("word for word") == 5
        assert all(f"\n{number}\n" in fitted.prompt for number in range(1, 40))
        assert fitted.report.cut == ()

    @pytest.mark.parametrize("length", [97, 98, 99, 100])
    def test_mixed_line_ends_come_to_an_end(self, length: int) -> None:
        """Blank lines of two kinds in a row end a paragraph like any others."""
        prompt = "".join(f"{number:0{length}}\n\r\n\r\n" for number in range(99))
        assert fit(prompt, MODEL, 500, preserve_instructions=False).tokens <= 500

    def test_repeated_lines_become_a_number(self) -> None:
        """A line repeated at once stays once, with how often it came."""
        prompt = "Start.\n" + "retrying the connection\n" * 500 + "Done."
        fitted = fit_prompt(prompt, MODEL, 100, False, counter=CHARACTERS)
        assert fitted.prompt == (
            "Start.\nretrying the connection\n[… the line above 499 more times …]\nDone."
        )

    def test_windows_line_ends_stay(self) -> None:
        """Compacting keeps the line ends that a text has."""
        prompt = "One.  \r\n\r\n\r\n\r\nTwo.\r\n" + " " * 60
        fitted = fit_prompt(prompt, MODEL, 20, False, counter=CHARACTERS)
        assert fitted.prompt == "One.\r\n\r\nTwo.\r\n"


class TestCutting:
    """Where a text is cut."""

    def test_code_is_not_torn_where_it_fits(self) -> None:
        """A code block that fits as a whole stays whole, and blank lines inside don't tear it."""
        code = f"```python\n{snippet(6)}\n```\n"
        article = "\n\n".join(f"Paragraph number {at} of a long text." for at in range(500))
        fitted = fit(f"{code}\n{article}\n\nEnd.", MODEL, 500, False)
        assert fitted.prompt.startswith(code)

    def test_json_is_not_torn_where_that_can_be_avoided(self) -> None:
        """JSON too large for the rest goes whole while the text around it fills the target."""
        data = json.dumps([{"id": at} for at in range(200)], indent=2)
        prose = "\n\n".join(f"Paragraph number {at} of a text." for at in range(40))
        prompt = f"{prose}\n\n{data}\n\n{prose} The end."
        fitted = fit(prompt, MODEL, QUARTERS(MODEL, prose) * 2 + 60, False)
        assert '"id"' not in fitted.prompt
        assert fitted.prompt.startswith(prose)
        assert fitted.prompt.endswith("The end.")

    def test_torn_fences_are_mended(self) -> None:
        """A fence whose end, or whose beginning, was cut away is closed, or opened, again."""
        first = "```python\n" + "\n".join(f"a{at} = {at}" for at in range(3000)) + "\n```"
        last = "```sql\n" + "\n".join(f"SELECT {at};" for at in range(3000)) + "\n```"
        fitted = fit(f"{first}\n\nBetween.\n\n{last}", MODEL, 300, False)
        before, _, after = fitted.prompt.partition("[…")
        assert before.endswith("\n```\n")
        assert "left out …]\n```sql\nSELECT" in "[…" + after
        assert fitted.prompt.count("```") == 4

    def test_lines_and_words_stay_whole(self) -> None:
        """Lines are not torn where there are lines, nor words where there are words."""
        lines = "\n".join(f"event {at}: all is well" for at in range(5000))
        kept = [one for one in shorten(lines, MODEL, 300, False).splitlines() if one]
        assert len(kept) > 20
        assert all(one in set(lines.splitlines()) or one.startswith("[… ") for one in kept)
        words = " ".join(f"word{at}" for at in range(5000))
        found = shorten(words, MODEL, 100, False)
        assert set(found.partition(" […")[0].split()) <= set(words.split())

    @pytest.mark.parametrize(
        "sign",
        ["👩\u200d👩\u200d👧\u200d👦", "🇩🇪", "👍🏽", "e\u0301\u0323", "각", "\ud83d\ude00"],
        ids=["family", "flag", "tone", "marks", "Korean", "surrogates"],
    )
    def test_characters_stay_whole(self, sign: str) -> None:
        """What a reader sees as one character is not torn, and no surrogate is left alone."""
        sign = unicodedata.normalize("NFD", sign)
        prompt = "x" + sign * 400 + "x"
        for target in range(60, 100):
            fitted = fit_prompt(prompt, MODEL, target, False, counter=CHARACTERS)
            assert len(fitted.prompt) <= target
            rest = fitted.prompt
            for known in (sign, fitted.report.cut[0].marker, "x"):
                rest = rest.replace(known, "")
            assert not rest.strip()

    def test_windows_line_ends_stay_whole(self) -> None:
        """No line end is torn, and a marker takes the line ends of its text."""
        prompt = "".join(f"line {at}\r\n" for at in range(300))
        for target in range(70, 120):
            cut = optimize_prompt(prompt, MODEL, target, False, counter=CHARACTERS)
            assert not {"\r", "\n"} & set(cut.replace("\r\n", ""))
            assert "…]\r\n" in cut

    def test_tiny_targets(self) -> None:
        """Where no marker fits, the beginning and the end are kept without one."""
        for target in range(1, 12):
            fitted = fit("word " * 500, MODEL, target, False)
            assert fitted.tokens <= target
            assert fitted.report.cut

    def test_something_of_the_text_always_stays(self) -> None:
        """A marker alone is no prompt: words come first, and an error where not even they fit."""
        fitted = fit_prompt("abcdef " * 100, MODEL, 30, False, counter=CHARACTERS)
        assert fitted.prompt.startswith("abcdef")
        with pytest.raises(ContextLengthError, match="not even its beginning"):
            fit_prompt("👩\u200d👩\u200d👧\u200d👦" * 50, MODEL, 3, False, counter=CHARACTERS)

    @pytest.mark.parametrize("target", [7, 8, 9, 13, 14, 20])
    def test_a_character_that_fits_once_stays_once(self, target: int) -> None:
        """Halves of it that would fit at either end do not keep the whole out."""
        family = "👩\u200d👩\u200d👧\u200d👦"
        fitted = fit_prompt(family * 50, MODEL, target, False, counter=CHARACTERS)
        assert family in fitted.prompt
        assert not set(fitted.prompt.replace(family, "")) & set(family)

    @pytest.mark.parametrize("target", [0, -1, 1.5, True, None, "8"])
    def test_wrong_targets_are_refused(self, target: Any) -> None:
        """A target that is no whole number from 1 is an error at once."""
        with pytest.raises(InvalidRequestError, match="target_token_count="):
            fit("Hello", MODEL, target)
        with pytest.raises(InvalidRequestError, match="target_token_count="):
            fit_chat([{"role": "user", "content": "Hello"}], MODEL, target)

    def test_wrong_prompts_are_refused(self) -> None:
        """Something else than a text or messages is an error that says what was expected."""
        wrong: Any
        for wrong in (7, [7], [{"content": "x"}], b"x", None):
            with pytest.raises(InvalidRequestError, match="expected"):
                shorten(wrong, MODEL, 10)
        with pytest.raises(InvalidRequestError, match="expected a text"):
            fit(wrong, MODEL, 10)


def call(*ids: str) -> dict[str, Any]:
    calls = [{"id": one, "type": "function", "function": {"name": "f"}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(of: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": of, "content": content}


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


class TestConversations:
    """What goes out of a conversation, and in which order."""

    def test_the_oldest_turns_go_first_and_whole(self) -> None:
        """Turns are dropped as a whole, from the oldest, and the report names them."""
        messages = [said("system", "Be kind.")]
        for turn in range(20):
            messages += [
                said("user", f"Question {turn}? " * 5 + "!"),
                said("assistant", f"Answer {turn}."),
            ]
        messages.append(said("user", "And now?"))
        fitted = fit_chat(messages, MODEL, 150)
        gone = [each.message for each in fitted.report.dropped]
        assert gone == list(range(1, 1 + len(gone)))
        assert len(gone) % 2 == 0
        assert fitted.messages == [messages[0], *messages[1 + len(gone) :]]
        assert fitted.report.dropped[0].role == "user"
        assert fitted.report.dropped[0].characters == len(messages[1]["content"])
        assert fitted.tokens + QUARTERS(MODEL, messages[len(gone) - 1 : len(gone) + 1]) > 150

    def test_messages_are_compacted_before_turns_go(self) -> None:
        """Blanks in older messages go before any message does."""
        messages = [said("user", "One.\n\n\n\n" + " " * 200 + "\nTwo."), said("user", "Three.")]
        fitted = fit_chat(messages, MODEL, 20)
        assert fitted.messages == [said("user", "One.\n\nTwo."), said("user", "Three.")]
        assert fitted.report.compacted[0].message == 0
        assert not fitted.report.dropped

    def test_a_long_result_of_the_running_turn_is_cut(self) -> None:
        """After the question the latest call and its results stay; the longest result is cut."""
        lines = "\n".join(f"line {at}" for at in range(5000))
        messages = [
            said("user", "Old question"),
            said("assistant", "Old answer"),
            said("user", "Read both files."),
            call("a", "b"),
            result("a", "short"),
            result("b", lines),
        ]
        fitted = fit_chat(messages, MODEL, 200)
        assert [each["role"] for each in fitted.messages] == ["user", "assistant", "tool", "tool"]
        assert fitted.messages[2]["content"] == "short"
        assert fitted.messages[3]["content"].endswith("line 4999")
        (cut,) = fitted.report.cut
        assert (cut.message, cut.part) == (5, None)
        assert fitted.tokens > 150

    def test_reused_and_missing_ids(self) -> None:
        """Ids used again in every turn, or missing, still keep results at their calls."""
        turn = [said("user", "Go."), call("call_1"), result("call_1", "data " * 20)]
        nameless = [said("user", "Go."), call("x"), {"role": "tool", "content": "data " * 20}]
        for pattern in (turn, nameless):
            messages = [*pattern * 10, said("user", "Done?")]
            for target in range(20, 200, 7):
                roles = [each["role"] for each in fit_chat(messages, MODEL, target).messages]
                kept = (len(roles) - 1) // 3
                assert roles == ["user", "assistant", "tool"] * kept + ["user"]

    def test_the_last_question_is_cut_in_its_middle(self) -> None:
        """A question too long by itself keeps its instructions; parts and pictures stay."""
        picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        text = f"{OPENING}\n\n{snippet(500)}\n\n{FOCUS}\n\n{LAST_LINE}"
        messages = [
            said("system", "Be kind."),
            said("user", "Earlier"),
            {"role": "user", "content": [{"type": "text", "text": text}, picture]},
        ]
        fitted = fit_chat(messages, MODEL, 300)
        assert [each["role"] for each in fitted.messages] == ["system", "user"]
        cut_text, same = fitted.messages[1]["content"]
        assert same == picture
        assert cut_text["text"].startswith(OPENING)
        assert cut_text["text"].endswith(f"{FOCUS}\n\n{LAST_LINE}")
        assert (fitted.report.cut[0].message, fitted.report.cut[0].part) == (2, 0)
        assert fitted.tokens > 240

    def test_a_long_system_prompt(self) -> None:
        """The system's message is kept whole or the error names it with numbers; unless allowed."""
        messages = [said("system", "Rule. " * 300), said("user", "Hello")]
        with pytest.raises(ContextLengthError, match=r"system's messages take \d+ tokens.* is 100"):
            fit_chat(messages, MODEL, 100)
        fitted = fit_chat(messages, MODEL, 100, False)
        assert [each["role"] for each in fitted.messages] == ["system", "user"]
        assert fitted.messages[1] == messages[1]
        assert fitted.report.cut[0].message == 0

    def test_the_default_counter(self) -> None:
        """Without a counter, tokens are what count_tokens says."""
        for target in (30, 100, 300):
            assert count_tokens(MODEL, optimize_prompt(snippet(100), MODEL, target)) <= target
            messages = [said("user", snippet(9))] * 9
            fitted = fit_messages(messages, MODEL, 2 * target)
            assert fitted.tokens == count_tokens(MODEL, fitted.messages) <= 2 * target

    def test_many_parts(self) -> None:
        """A message of very many parts takes linear time, and the error tells what it takes."""
        parts = [{"type": "text", "text": f"{at}"} for at in range(20_000)]
        with pytest.raises(ContextLengthError, match=r"last user's message take 20,00\d tokens"):
            fit_chat([{"role": "user", "content": parts}], MODEL, 1000)

    def test_the_same_kind_comes_back(self) -> None:
        """A text gives a text, messages give a list of dicts that can be sent as they are."""
        assert optimize_prompt("Hello", MODEL, 10) == "Hello"
        messages = (said("user", "Hello"),)
        fitted = optimize_prompt(messages, MODEL, 30)
        assert fitted == [said("user", "Hello")]
        assert fitted[0] is not messages[0]
        assert isinstance(fit("Hello", MODEL, 10), FittedPrompt)


PATHOLOGICAL = {
    "one word": "abcdefghij" * 20_000,
    "newlines": "\n" * 200_000,
    "blanks": " " * 200_000 + "x",
    "blanks and a break": (" " * 1000 + "x\n") * 200,
    "brackets": "[" * 100_000 + "]" * 100_000,
    "quotes": '"\\' * 100_000,
    "fences": "```python\nx\n" * 16_000,
    "unbalanced": "[ERROR {x\n}\n" * 16_000,
    "short paragraphs": "a\n\nb\n\n" * 33_000,
    "short Windows lines": "a\r\n" * 66_000,
    "flags": "🇩🇪" * 100_000,
    "marks": "e" + "\u0301" * 200_000,
}


TINY_PARAGRAPHS = {
    "open brackets": "{\n\n" * 110_000,
    "numbers": "".join(f"{number}\n\n" for number in range(10_000, 55_000)),
    "Windows line ends": "ab\r\n\r\n" * 55_000,
    "wide gaps": "a  b\n\n" * 55_000,
    "blank lines": "x \n\n \n" * 55_000,
}


class TestCost:
    """How much is counted; times stand in benchmarks/fit_prompt.py."""

    def test_little_of_a_long_text_is_counted(self) -> None:
        """Of 1 MB that has to become 8,000 tokens, less than a third is ever tokenized."""
        prompt = f"{OPENING}\n\n```python\n{snippet(14_000)}\n```\n\n{FOCUS}\n\n{LAST_LINE}"
        counter, counted = noting(QUARTERS)
        fitted = fit_prompt(prompt, MODEL, 8000, counter=counter)
        assert len(prompt) > 900_000
        assert sum(counted) < len(prompt) / 3
        assert 7500 < fitted.tokens <= 8000

    @pytest.mark.parametrize("text", PATHOLOGICAL.values(), ids=PATHOLOGICAL)
    @pytest.mark.parametrize("preserve", [True, False])
    def test_odd_texts_cost_no_more(self, text: str, preserve: bool) -> None:
        """Texts made to be slow are counted at most about once, and still fit."""
        counter, counted = noting(QUARTERS)
        fitted = fit_prompt(text, MODEL, 1000, preserve, counter=counter)
        assert fitted.tokens <= 1000
        assert sum(counted) < 1.5 * len(text)

    @pytest.mark.parametrize("text", TINY_PARAGRAPHS.values(), ids=TINY_PARAGRAPHS)
    def test_tiny_paragraphs_cost_no_more_than_tokenizing_them(self, text: str) -> None:
        """A third of a megabyte in tens of thousands of pieces takes about one encode at most.

        Measured were 0.3 to 1.3; work done in Python for each paragraph took 3 to 8 times as long.
        """
        encoding = load_encoding("o200k_base")
        assert encoding is not None

        def count(model: str, prompt: str | Sequence[Mapping[str, Any]]) -> int:
            assert isinstance(prompt, str)
            return len(encoding.encode_ordinary(prompt))

        encoded = min(_seconds(partial(encoding.encode_ordinary, text)) for _ in range(5))
        fitting = partial(fit_prompt, text, MODEL, 2500, counter=count)
        fitted = min(_seconds(fitting) for _ in range(5))
        assert fitted < 2.2 * encoded

    def test_long_lines_of_blanks_cost_nothing(self) -> None:
        """Nobody waits for seconds while a line of blanks is searched for a request."""
        text = "Please read:\n\n" + " " * 40_000 + "word " * 9_000
        assert _seconds(partial(fit, text, MODEL, 100)) < 0.5

    def test_a_hundred_thousand_messages(self) -> None:
        """Only the latest of very many messages are counted."""
        messages = [said(("user", "assistant")[at % 2], f"Number {at}") for at in range(100_000)]
        counter, counted = noting(QUARTERS)
        fitted = fit_messages(messages, MODEL, 2000, counter=counter)
        assert fitted.messages[-1] == messages[-1]
        assert 1900 < fitted.tokens <= 2000
        assert sum(counted) < 5000


def _seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def noting(counter: Counter) -> tuple[Counter, list[int]]:
    """Returns a counter that notes how long each prompt was, and its notes."""
    notes: list[int] = []

    def counting(model: str, prompt: str | Sequence[Mapping[str, Any]]) -> int:
        notes.append(len(prompt))
        return counter(model, prompt)

    return counting, notes
