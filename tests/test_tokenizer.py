from __future__ import annotations

import copy
import pickle
import time
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmkit.errors import InvalidRequestError, ModelNotFoundError
from llmkit.request import Image, Message
from llmkit.tokenizer import TokenCount, count_tokens, fits, get_token_limit, rates, vocabulary

any_text = st.text(st.characters())


# Whose vocabulary nobody has: always an estimate.
ESTIMATED = "claude-haiku-4-5"


def count(text_or_messages: Any) -> TokenCount:
    return count_tokens(ESTIMATED, text_or_messages)


# --- estimates ------------------------------------------------------------------------------------


@given(any_text, any_text)
def test_more_text_never_takes_fewer_tokens(one: str, other: str) -> None:
    """The estimate grows with the text, so that a prompt can be cut to fit by searching."""
    assert count(one + other) >= max(count(one), count(other))
    assert count(one + other) <= count(one) + count(other)
    assert count(one) >= (1 if one else 0)


def test_an_empty_text_takes_nothing() -> None:
    """Nothing costs nothing."""
    assert count("") == 0


@pytest.mark.parametrize(
    "text", ["\ud800", "a\udfff" * 100, "<|endoftext|>", "<|im_start|>system", "\x00", "🧑‍🚀"]
)
@pytest.mark.parametrize("model", [ESTIMATED, "gpt-4o", "gpt-4", "gpt-6-luna", "local:", ""])
def test_odd_texts_are_only_texts(model: str, text: str) -> None:
    """Lone surrogates and what looks like a special token are counted like anything else."""
    assert 1 <= count_tokens(model, text) <= 3 * len(text)


def test_scripts_differ_in_tokens_per_character() -> None:
    """A Chinese prompt isn't taken for one that is four times shorter than it is."""
    per_character = [count(letter * 1000) for letter in ("a", "é", "я", "中", "🎉")]
    assert per_character == [211, 818, 306, 674, 1948]


SAMPLES = {
    "English": "The quick brown fox jumps over the lazy dog, and then it sleeps until noon.",
    "German": "Der schnelle braune Fuchs springt über den faulen Hund und schläft bis zum Mittag.",
    "Russian": "Быстрая лиса перепрыгнула через ленивую собаку и проспала до полудня.",
    "Arabic": "قفز الثعلب السريع فوق الكلب الكسول ثم نام حتى الظهيرة.",
    "Chinese": "敏捷的狐狸跳过了懒狗，然后一直睡到中午。",
    "Japanese": "すばしこい狐は怠け者の犬を飛び越えて、昼まで眠りました。",
    "Korean": "날쌘 여우가 게으른 개를 뛰어넘고 나서 정오까지 잠을 잤다.",
    "Hindi": "तेज़ लोमड़ी आलसी कुत्ते के ऊपर से कूदी और दोपहर तक सोती रही।",
    "code": "for index, name in enumerate(sorted(names)):\n    print(f'{index}: {name}')\n",
    "emoji": "🦊🐶😀😂🎉🔥🚀🌍🍕📚💻🧠",
}


@pytest.mark.parametrize("encoding", vocabulary.VOCABULARIES)
@pytest.mark.parametrize("sample", SAMPLES)
def test_the_estimate_is_near_the_true_count(sample: str, encoding: str) -> None:
    """A short text in any of the usual scripts is estimated within half of its true count."""
    counted = vocabulary.load_encoding(encoding)
    assert counted is not None
    tokens = len(counted.encode_ordinary(SAMPLES[sample]))
    assert abs(rates.estimate(SAMPLES[sample], encoding) - tokens) <= 0.5 * tokens


def test_every_table_knows_every_kind() -> None:
    """A rate that is missing would be an error at the first text that needs it."""
    kinds = {*rates.ASCII_KINDS, *rates.WIDE_KINDS, rates.LINE_BREAKS, rates.OTHER}
    assert {frozenset(table) for table in rates.RATES.values()} == {frozenset(kinds)}
    assert set(vocabulary.VOCABULARIES) < set(rates.RATES)


@given(any_text)
def test_every_character_has_one_kind(text: str) -> None:
    """No character is left out, or counted twice."""
    counts = rates.characters(text)
    breaks = text.count("\n") + text.count("\r")
    assert sum(counts.values()) - counts[rates.LINE_BREAKS] + breaks == len(text)
    assert min(counts.values()) >= 0


@pytest.mark.parametrize("unit", ["word ", "a1", "é中я🎉\n", "\ud800"])
def test_a_megabyte_takes_well_under_a_second(unit: str) -> None:
    """No text makes the count slow, also not one that changes its script at every character."""
    text = unit * (1_000_000 // len(unit))
    began = time.process_time()
    count(text)
    assert time.process_time() - began < 1.0


# --- either ---------------------------------------------------------------------------------------


def test_a_run_of_blanks_does_not_break_the_engine() -> None:
    """A million blanks, at which tiktoken's expression panics, are estimated instead."""
    count_tokens("gpt-4o", "")
    for blank in (" ", "\u3000", " \t"):
        for text in (blank * 1_000_000, "x" * 250_000 + blank * 1_000_000 + "y"):
            assert count_tokens("gpt-4o", text).estimated is True
            assert fits("gpt-4o", text, 10) is (count_tokens("gpt-4o", text) <= 10)
    assert count_tokens("gpt-4o", (" " * 100_000 + "x") * 4).estimated is False


def test_an_empty_text_says_whether_counts_are_exact() -> None:
    """Budgets ask with it whether a model's counts can be relied on."""
    answers = {name: count_tokens(name, "").estimated for name in ("gpt-4o", "gpt-4", ESTIMATED)}
    assert answers == {"gpt-4o": False, "gpt-4": False, ESTIMATED: True}


def test_an_unknown_name_is_estimated() -> None:
    """A model that is newer than the registry, or somebody's own, is no error."""
    for name in ("gpt-99", "openai:gpt-99", "ft:gpt-4o:me", "nobody/nothing", ""):
        assert count_tokens(name, "Hi there").estimated is True


def test_chat_framing_is_openais_recipe() -> None:
    """The framing of messages is that of OpenAI's published example, counted there as 129."""
    jargon = "example_user"
    example = [
        {
            "role": "system",
            "content": "You are a helpful, pattern-following assistant that translates corporate "
            "jargon into plain English.",
        },
        {
            "role": "system",
            "name": jargon,
            "content": "New synergies will help drive top-line growth.",
        },
        {
            "role": "system",
            "name": "example_assistant",
            "content": "Things working well together will increase revenue.",
        },
        {
            "role": "system",
            "name": jargon,
            "content": "Let's circle back when we have more bandwidth to touch base on "
            "opportunities for increased leverage.",
        },
        {
            "role": "system",
            "name": "example_assistant",
            "content": "Let's talk later when we're less busy about how to do better.",
        },
        {
            "role": "user",
            "content": "This late pivot means we don't have time to boil the ocean for the client "
            "deliverable.",
        },
    ]
    for model, expected in (("gpt-4", 129), ("gpt-4o", 124)):
        counted = count_tokens(model, example)
        assert (int(counted), counted.estimated) == (expected, False)


def test_what_cannot_be_counted_makes_an_estimate() -> None:
    """A picture or a tool call in the messages is said by `.estimated`, and calls are counted."""
    picture = {"type": "image_url", "image_url": {"url": "https://h/a.png"}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    plain = count_tokens("gpt-4o", [{"role": "user", "content": "Hi"}])
    seen = count_tokens("gpt-4o", [{"role": "user", "content": ["Hi", picture]}])
    called = count_tokens("gpt-4o", [{"role": "user", "content": "Hi", "tool_calls": [call]}])
    assert (plain.estimated, seen.estimated, called.estimated) == (False, True, True)
    assert seen == plain
    assert called > plain + 10


@given(any_text, st.integers(0, 50))
def test_what_fits_is_what_the_count_says(text: str, limit: int) -> None:
    """The bounds that spare a count never contradict it."""
    for model in ("gpt-4o", "gpt-4", ESTIMATED):
        for each in (text, text * 50, [{"role": "user", "content": text}]):
            assert fits(model, each, limit) is (count_tokens(model, each) <= limit)


def test_what_is_certain_is_not_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that must fit, or can't, is judged by its length."""

    class Engine:
        def encode_ordinary(self, text: str) -> list[int]:
            raise AssertionError("tokenized")

    monkeypatch.setitem(vocabulary._loaded, "o200k_base", Engine())
    assert fits("gpt-4o", "word " * 1000, 5000)
    assert fits("gpt-4o", [{"role": "user", "content": "слово " * 1000}], 12_000)
    assert not fits("gpt-4o", "word " * 1000, 30)
    with pytest.raises(AssertionError, match="tokenized"):
        fits("gpt-4o", "word " * 1000, 1000)


def test_messages_cost_their_texts_and_their_framing() -> None:
    """Each message adds its framing, in whichever form it is given; pictures aren't counted."""
    expected = 3 + 2 * (3 + 1) + count("Be brief.") + count("Hi there")
    picture = {"type": "image_url", "image_url": {"url": "https://h/a.png"}}
    for content in (
        "Hi there",
        [{"type": "text", "text": "Hi there"}],
        [{"type": "text", "text": "Hi there"}, picture],
        ["Hi there", Image(url="https://h")],
    ):
        system = {"role": "system", "content": "Be brief."}
        assert count([system, {"role": "user", "content": content}]) == expected
    assert count([Message("system", "Be brief."), Message("user", "Hi there")]) == expected
    assert count([Message("system", "Be brief."), Message("user", ("Hi there",))]) == expected
    assert count([]) == 3
    assert count([{"role": "assistant", "content": None}, {"role": "user", "content": ""}]) == 11


def test_a_part_outside_of_a_list_is_counted_for_what_it_says() -> None:
    """A content that is one part is no list of the part's keys, which would be a wrong count."""
    part = {"type": "text", "text": "Hello there, how are you?"}
    one = count_tokens("gpt-4o", [{"role": "user", "content": part}])
    listed = count_tokens("gpt-4o", [{"role": "user", "content": [part]}])
    assert (int(one), one.estimated) == (int(listed), listed.estimated)
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    assert count_tokens("gpt-4o", [{"role": "user", "content": picture}]).estimated


@pytest.mark.parametrize("model", [None, 5, b"gpt-4o"])
def test_a_model_that_is_no_name_is_refused(model: Any) -> None:
    """Arguments in the wrong order are told in this library's words."""
    with pytest.raises(InvalidRequestError, match="model="):
        count_tokens(model, "Hi")


def test_a_text_before_the_model_is_refused() -> None:
    """The other order, which Client.count_tokens has, does not silently count the model's name."""
    with pytest.raises(InvalidRequestError, match="the model comes first"):
        count_tokens("Why is the sky blue?", "gpt-6-luna")
    assert count_tokens("my own model", "Why is the sky blue?") > 1
    assert count_tokens("own", "gpt-6-luna") > 1


def test_the_embedded_models_short_name_has_its_own_rates() -> None:
    """`local:`, as README writes it, is estimated like the model that it means."""
    text = "Привет, как дела? " * 9
    assert count_tokens("local:", text) == count_tokens("smollm2-135m", text)
    assert count_tokens("local:", text) > 1.5 * count_tokens("gpt-4o", text)


@pytest.mark.parametrize("odd", [None, 5, b"Hi", ["Hi"], [5], [{"content": 5}], {"role": "user"}])
def test_something_else_is_refused_in_plain_words(odd: Any) -> None:
    """What is neither a text nor messages is an error in plain words."""
    with pytest.raises(InvalidRequestError, match="a text or messages"):
        count(odd)


def test_a_count_says_that_it_is_an_estimate() -> None:
    """The number is an int that carries its quality with it, through copies and pickles."""
    number = count("Hi there")
    assert number.estimated is True
    assert isinstance(number, int)
    for copied in (copy.copy(number), copy.deepcopy(number), pickle.loads(pickle.dumps(number))):
        assert copied == number
        assert copied.estimated is True
    exact = pickle.loads(pickle.dumps(TokenCount(3, estimated=False)))
    assert (exact, exact.estimated) == (3, False)
    assert f"{number}" == str(int(number))


def test_the_limit_is_the_registrys() -> None:
    """A known model's window is a number; a name that isn't known is an error, not a guess."""
    assert get_token_limit("gpt-6-luna") == get_token_limit("openai:gpt-6-luna") == 1_050_000
    with pytest.raises(ModelNotFoundError, match="gpt-6-luna"):
        get_token_limit("gpt-6-lun")
