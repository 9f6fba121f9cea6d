from __future__ import annotations

import copy
import pickle
import time
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmkit.errors import InvalidRequestError, ModelNotFoundError
from llmkit.request import Image, Message
from llmkit.tokenizer import TokenCount, count_tokens, get_token_limit

any_text = st.text(st.characters())


def count(text_or_messages: Any) -> TokenCount:
    return count_tokens("gpt-6-luna", text_or_messages)


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
def test_odd_texts_are_only_texts(text: str) -> None:
    """Lone surrogates and what looks like a special token are counted like anything else."""
    assert 1 <= count(text) <= 3 * len(text)


def test_scripts_differ_in_tokens_per_character() -> None:
    """A Chinese prompt isn't taken for one that is four times shorter than it is."""
    per_character = [count(letter * 1000) / 1000 for letter in ("a", "é", "я", "中", "🎉")]
    assert per_character == [0.203, 0.84, 0.31, 0.71, 2.0]


# Counted with tiktoken 0.14 and o200k_base.
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The quick brown fox jumps over the lazy dog, and then it sleeps until noon.", 17),
        ("Der schnelle braune Fuchs springt über den faulen Hund und schläft bis zum Mittag.", 20),
        ("Быстрая лиса перепрыгнула через ленивую собаку и проспала до полудня.", 24),
        ("敏捷的狐狸跳过了懒狗，然后一直睡到中午。", 17),
        ("for index, name in enumerate(sorted(names)):\n    print(f'{index}: {name}')\n", 18),
    ],
)
def test_the_estimate_is_near_the_true_count(text: str, tokens: int) -> None:
    """A short text in any of the usual scripts is estimated within 40 % of its true count."""
    assert abs(count(text) - tokens) <= 0.4 * tokens


@pytest.mark.parametrize("unit", ["word ", "a1", "é中я🎉\n", "\ud800"])
def test_a_megabyte_takes_well_under_a_second(unit: str) -> None:
    """No text makes the count slow, also not one that changes its script at every character."""
    text = unit * (1_000_000 // len(unit))
    began = time.perf_counter()
    count(text)
    assert time.perf_counter() - began < 1.0


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
