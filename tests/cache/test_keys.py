from __future__ import annotations

import base64
import copy
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import llmkit
from llmkit.cache import keys
from llmkit.cache.keys import NOT_ON_THE_WIRE, request_key
from llmkit.request import Image, Message, Request

ROOT = Path(llmkit.__file__).parent.parent
PLACE = {"provider": "openai", "address": "https://api.openai.com/v1", "namespace": "llmkit"}
PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def key(request: Request, **place: str) -> str:
    found = request_key(request, **{**PLACE, **place})
    assert found is not None
    return found


def ask(prompt: Any = "Hi", **facts: Any) -> Request:
    return Request.build("gpt-6-luna", prompt, **facts)


def altered(request: Request, **facts: Any) -> Request:
    """The request with some fields replaced, whatever their type."""
    return dataclasses.replace(request, **facts)


def parts(*content: str | Image) -> Request:
    return Request("m", (Message("user", content),))


def run(program: str, seed: str = "random") -> list[str]:
    """What a program prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


# --- what counts ----------------------------------------------------------------------------------

OTHERS: Mapping[str, Any] = {
    "model": "gpt-6-terra",
    "messages": (Message("user", "Ho"),),
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.5,
    "stop": ("x",),
    "seed": 5,
    "reasoning_effort": "low",
    "vendor_parameters": {"logit_bias": {"5": 1}},
    "extra_body": {"logit_bias": {"5": 1}},
    "extra_headers": {"x-team": "a"},
    "on_unsupported": "drop",
}


def test_every_field_is_part_of_the_key_or_said_not_to_be() -> None:
    """A field that is added to Request can't be forgotten here: it counts, or somebody decided."""
    names = {each.name for each in dataclasses.fields(Request)}
    assert set(OTHERS) | NOT_ON_THE_WIRE == names
    assert not set(OTHERS) & NOT_ON_THE_WIRE


@pytest.mark.parametrize("name", OTHERS)
def test_each_field_makes_another_key(name: str) -> None:
    """Two requests that differ in one field alone don't share an answer."""
    other = altered(ask(), **{name: OTHERS[name]})
    assert key(other) != key(ask())


LATER = """
import dataclasses
from typing import Any
import llmkit.request
from llmkit.request import Message, Request

@dataclasses.dataclass(frozen=True, slots=True)
class Tool:
    name: str
    schema: dict[str, Any]

Later = dataclasses.make_dataclass(
    "Later", [("tools", tuple, ()), ("shape", dict, None)], bases=(Request,), frozen=True
)
llmkit.request.Request = Later
from llmkit.cache.keys import request_key
place = dict(provider="openai", address="https://api.openai.com/v1", namespace="llmkit")
for facts in (
    {},
    {"tools": (Tool("a", {"x": 1}),)},
    {"tools": (Tool("a", {"x": 2}),)},
    {"tools": (Tool("b", {"x": 1}),)},
    {"shape": {"type": "object"}},
    {"shape": {}},
):
    request = Later(model="gpt-6-luna", messages=(Message("user", "Hi"),), **facts)
    print(request_key(request, **place))
"""


def test_a_field_of_a_later_version_counts() -> None:
    """A field that this module has never heard of is part of the key; at its default, of none."""
    made = run(LATER)
    assert made[0] == key(ask())
    assert len(set(made)) == len(made) == 6
    assert "None" not in made


def test_what_is_not_on_the_wire_does_not_count() -> None:
    """The caller's notes leave the answer the same."""
    assert key(ask(metadata={"user": 5})) == key(ask())


@pytest.mark.parametrize("name", PLACE)
def test_place_and_namespace_count(name: str) -> None:
    """Another provider, address or namespace never gets this one's answers."""
    assert key(ask(), **{name: "https://other"}) != key(ask())


def test_place_and_namespace_are_not_glued_together() -> None:
    """What ends one piece and begins the next is part of the key."""
    assert key(ask(), provider="ab", namespace="c") != key(ask(), provider="a", namespace="bc")
    one = Request("m", (Message("user", "ab"), Message("user", "c")))
    two = Request("m", (Message("user", "a"), Message("user", "bc")))
    assert key(one) != key(two) != key(Request("m", (Message("user", "abc"),)))


# --- what looks alike -----------------------------------------------------------------------------


def differ(*values: Any) -> None:
    """Each value makes a key of its own, wherever a vendor's parameter may stand."""
    for wrap in (lambda v: {"a": v}, lambda v: {"a": {"b": [v]}}):
        made = [
            key(altered(ask(), **{field: wrap(value)}))
            for field in ("vendor_parameters", "extra_body")
            for value in values
        ]
        assert len(set(made)) == len(made)


def test_numbers_count_as_they_are_written() -> None:
    """1, 1.0 and true are three things on the wire, and so are 0.0 and -0.0, and a text "1"."""
    differ(1, 1.0, True, "1", "true", [1])
    differ(0, 0.0, -0.0, False, None, "", [], {})
    differ(10**400, 10.0**300, 0.1, 0.1 + 2**-56, 1e16, 10**16)
    made = {key(ask(temperature=value)) for value in (0, 0.0, -0.0, 1, 1.0, None)}
    assert len(made) == 6
    assert key(ask(seed=0)) != key(ask())


def test_unicode_forms_count() -> None:
    """Texts that only look alike are different bytes on the wire, in prompts and parameters."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert key(ask(composed)) != key(ask(decomposed))
    differ(composed, decomposed)
    differ("\ufb01", "fi")
    differ("a", "\u0430")


def test_half_a_surrogate_pair_is_no_crash() -> None:
    """Such a text can't be sent; its key is one all the same, and not that of the whole pair."""
    texts = ("\ud83d\ude00", "\U0001f600", "\ud83d", "\\ud83d", "?", "\ufffd")
    made = {key(Request("m", (Message("user", text),))) for text in texts}
    assert len(made) == len(texts)
    differ(*texts)


def test_what_has_no_canonical_form_is_not_cached() -> None:
    """An object whose text may change from run to run makes no key, and no crash."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (object(), {1, 2}, int, nested, {1: 1, "1": 2}, lambda: 1):
        odd = altered(ask(), extra_body={"a": value})
        assert request_key(odd, **PLACE) is None


# --- pictures -------------------------------------------------------------------------------------


def test_a_picture_counts_by_its_content() -> None:
    """The same bytes, given as a part or as a data URL, are the same question."""
    data = base64.b64encode(PIXEL).decode()
    given = ask([{"role": "user", "content": [Image(data=data, media_type="image/png")]}])
    linked = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    assert key(ask([{"role": "user", "content": [linked]}])) == key(given)


def test_pictures_that_differ_have_different_keys() -> None:
    """Bytes, media type, URL, and the order and number of parts count."""
    data = [base64.b64encode(PIXEL + bytes([n])).decode() for n in range(2)]
    made = [
        key(parts(*content))
        for content in (
            (Image(data=data[0], media_type="image/png"),),
            (Image(data=data[1], media_type="image/png"),),
            (Image(data=data[0], media_type="image/jpeg"),),
            (Image(data=data[0], media_type="image/png"),) * 2,
            (Image(url="https://x/1.png"),),
            (Image(url="https://x/2.png"),),
            ("https://x/1.png",),
            ("a", Image(url="https://x/1.png")),
            (Image(url="https://x/1.png"), "a"),
            ("a", "b"),
            ("ab",),
        )
    ]
    assert len(set(made)) == len(made)
    assert key(parts("ab")) != key(Request("m", (Message("user", "ab"),)))


# --- secrets --------------------------------------------------------------------------------------

SECRET = "sk-proj-Zm9vYmFyMDEyMzQ1Njc4OWFiY2Q"


@pytest.mark.parametrize(
    "facts",
    [
        {"extra_headers": {"Authorization": "Bearer short"}},
        {"extra_headers": {"authorization": "x"}},
        {"extra_headers": {"x-api-key": "abc"}},
        {"extra_headers": {"X-Goog-Api-Key": "abc"}},
        {"extra_headers": {"api-key": "abc"}},
        {"extra_headers": {"Cookie": "session=1"}},
        {"extra_headers": {"x-note": f"use {SECRET}"}},
        {"extra_body": {"vertex_token": "abc"}},
        {"extra_body": {"mcp": [{"headers": {"Authorization": ["abc"]}}]}},
        {"extra_body": {"note": SECRET}},
        {"vendor_parameters": {"service_key": "abc"}},
        {"vendor_parameters": {"tools": [{"url": "https://u:pass@host/"}]}},
    ],
    ids=str,
)
def test_a_request_with_a_key_in_it_is_not_cached(facts: dict[str, Any]) -> None:
    """Nothing that lies in a cache is derived from a secret."""
    assert request_key(altered(ask(), **facts), **PLACE) is None


@pytest.mark.parametrize(
    "facts",
    [
        {"extra_headers": {"anthropic-beta": "files-2026", "x-trace": "5"}},
        {"vendor_parameters": {"prompt_cache_key": "user-7", "max_tool_calls": 3}},
        {"vendor_parameters": {"logit_bias": {"50256": -100}}},
        {"extra_body": {"response_format": {"properties": {"api_key": {"type": "string"}}}}},
    ],
    ids=str,
)
def test_what_only_resembles_a_key_is_cached(facts: dict[str, Any]) -> None:
    """Vendors' harmless parameters, and the names inside a schema, don't switch the cache off."""
    key(altered(ask(), **facts))


def test_a_password_in_the_address_does_not_count() -> None:
    """As another API key gets the same answers, so does another password; none can be derived."""
    made = {key(ask(), address=f"https://user:{word}@host/v1") for word in ("one", "two")}
    assert len(made) == 1


def test_a_key_shows_nothing() -> None:
    """A key is a digest in ASCII: no part of the prompt is in it."""
    made = key(ask("Top secret"))
    assert made.isascii()
    assert made.startswith("reply:")
    assert len(made) == len("reply:") + 64


# --- the same in every process -------------------------------------------------------------------

PINNED = """
from llmkit.cache.keys import request_key
from llmkit.request import Image, Message, Request
place = dict(provider="openai", address="https://api.openai.com/v1", namespace="llmkit")
names = [f"name{n}" for n in range(50)]
nested = {name: {"b": n, "a": [n, float(n)]} for n, name in enumerate(names)}
requests = (
    Request.build("gpt-6-luna", "Hi"),
    Request.build("gpt-6-luna", "caf\\u00e9 \\U0001f600", system="Be brief", temperature=0.1,
                  max_tokens=7, stop=["a", "b"], seed=-3, extra_headers={"x-b": "1", "x-a": "2"}),
    Request("m", (Message("user", ("a", Image(data="iVBORw==", media_type="image/png"))),)),
    Request.build("m", "Hi", extra_body=nested),
)
for request in requests:
    print(request_key(request, **place))
"""
DIGESTS = [
    "reply:fe58df1ff47f26002b71485a23a899c5b86d322b067d2e769527305dbf334a27",
    "reply:dae677a3a4f25b69d59744356d6aa98d1472809845737e3883f3a4acb1230dcc",
    "reply:f8214ca14a87104389031cb28cd095287507126d13919fb089cdd8baae52eb43",
    "reply:4695facfd8415c1ad72dcc8ebafd28ce007cefa72ab8c6f7f4840abaf8db40b6",
]


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_keys_are_the_same_in_every_process(seed: str) -> None:
    """Whatever the hash seed, and from one release to the next: else all caches go cold.

    Who changes how a request is written raises `FORMAT`, and these digests with it.
    """
    assert run(PINNED, seed) == DIGESTS


# --- hypothesis -----------------------------------------------------------------------------------

texts = st.text(max_size=6)
any_text = st.text(st.characters(exclude_categories=()), max_size=4)  # with half surrogate pairs
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_text
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
mappings = st.dictionaries(st.sampled_from(["a", "b", "ä"]) | any_text, values, max_size=3)
images = st.builds(Image, url=any_text) | st.builds(
    lambda data: Image(data=base64.b64encode(data).decode(), media_type="image/png"),
    st.binary(max_size=3),
)
messages = st.builds(
    Message,
    st.sampled_from(["system", "developer", "user", "assistant"]),
    any_text | st.lists(any_text | images, min_size=1, max_size=3).map(tuple),
)
requests = st.builds(
    Request,
    model=texts,
    messages=st.lists(messages, min_size=1, max_size=3).map(tuple),
    max_tokens=st.none() | st.integers(1, 3),
    temperature=st.none() | st.floats(0, 2) | st.integers(0, 2),
    top_p=st.none() | st.floats(0, 1) | st.integers(0, 1),
    stop=st.lists(any_text, max_size=2).map(tuple),
    seed=st.none() | st.integers(-2, 2),
    reasoning_effort=st.none() | st.sampled_from(["low", "high"]),
    vendor_parameters=mappings,
    extra_body=mappings,
    extra_headers=st.dictionaries(st.sampled_from(["x-a", "X-A", "x-b"]), texts, max_size=2),
)


def wire(value: Any) -> str:
    """What goes on the wire, written down independently of the module: types and all."""
    if isinstance(value, Request):
        return repr({each: wire(getattr(value, each)) for each in OTHERS})
    if isinstance(value, Message):
        return repr(("message", value.role, type(value.content).__name__, wire(value.content)))
    if isinstance(value, Image):
        return repr(("image", value.url, value.data, value.media_type))
    if isinstance(value, Mapping):
        return repr(sorted((wire(name), wire(each)) for name, each in value.items()))
    if isinstance(value, list | tuple):
        return repr([wire(each) for each in value])
    return repr((type(value).__name__, value))


def shuffled(value: Any) -> Any:
    """An equal value with every mapping in the opposite order, and of another kind."""
    if isinstance(value, Mapping):
        turned = {name: shuffled(value[name]) for name in reversed(list(value))}
        return MappingProxyType(turned)
    if isinstance(value, list):
        return [shuffled(each) for each in value]
    return copy.copy(value)


@settings(max_examples=80, deadline=None)
@given(requests, requests)
def test_different_requests_never_share_a_key(one: Request, two: Request) -> None:
    """Whatever differs on the wire differs in the key, and nothing else does."""
    first, second = request_key(one, **PLACE), request_key(two, **PLACE)
    if first is not None and second is not None:
        assert (first == second) == (wire(one) == wire(two))


@settings(max_examples=80, deadline=None)
@given(requests, st.data())
def test_a_single_change_makes_another_key(one: Request, data: st.DataObject) -> None:
    """Two requests that are equal but for one field, the hardest case, are kept apart."""
    name = data.draw(st.sampled_from(list(OTHERS)))
    two = altered(one, **{name: getattr(data.draw(requests), name)})
    first, second = request_key(one, **PLACE), request_key(two, **PLACE)
    if first is not None and second is not None:
        assert (first == second) == (wire(one) == wire(two))


@settings(max_examples=80, deadline=None)
@given(requests)
def test_the_order_of_names_never_counts(one: Request) -> None:
    """A mapping's order, and what kind of mapping it is, are no part of the request."""
    names = ("vendor_parameters", "extra_body", "extra_headers")
    two = altered(one, **{name: shuffled(getattr(one, name)) for name in names})
    assert request_key(one, **PLACE) == request_key(two, **PLACE)


@settings(max_examples=80, deadline=None)
@given(st.lists(any_text, max_size=4), st.lists(any_text, max_size=4))
def test_a_digest_tells_lists_apart(one: list[str], two: list[str]) -> None:
    """Where one text ends and the next begins is part of the digest."""
    assert (keys.digest_of(one) == keys.digest_of(two)) == (one == two)


@settings(max_examples=80, deadline=None)
@given(mappings)
def test_what_went_through_json_has_the_same_key(body: dict[str, Any]) -> None:
    """A request read back from a journal or another process finds the same answers."""
    one = altered(ask(), extra_body=body)
    two = altered(ask(), extra_body=json.loads(json.dumps(body)))
    assert request_key(one, **PLACE) == request_key(two, **PLACE)
