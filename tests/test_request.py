from __future__ import annotations

import base64
import dataclasses
import inspect
import json
import time
from collections import UserString
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llmkit import Client
from llmkit.errors import InvalidRequestError
from llmkit.request import Image, Message, Request, check_seconds
from llmkit.request.spelling import KNOWN_KEYWORDS, check_spelling

KEY = "sk-proj-Zm9vYmFy0123456789abcd"
PIXEL = base64.b64encode(b"\x89PNG").decode()


def build(prompt: Any = "Hi", model: Any = "m", **keywords: Any) -> Request:
    return Request.build(model, prompt, **keywords)


def refusal(**keywords: Any) -> str:
    """The text of the error that these arguments end in."""
    with pytest.raises(InvalidRequestError) as caught:
        build(**keywords)
    text = str(caught.value)
    text.encode()
    return text


class NoRepr:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError


class NoEquality:
    """A value that can't be compared, as arrays can't."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError

    def __bool__(self) -> bool:
        raise ValueError


class WholeNumber:
    """Another library's integer."""

    def __index__(self) -> int:
        return 7


def endless() -> Iterator[str]:
    while True:
        yield "x"


# --- whatever is typed ----------------------------------------------------------------------------

ODDITIES = (
    10**5000,
    -(10**5000),
    2**63,
    1e308,
    float("nan"),
    float("inf"),
    True,
    "\ud800",
    "a\x00b",
    "\x85",
    b"bytes",
    bytearray(b"x"),
    memoryview(b"x"),
    UserString("Hi"),
    range(3),
    [[["nested"]]],
    [{"role": "user", "content": [[]]}],
    {"role": "user", "content": "Hi"},
    {1: 2},
    {("a",): 1},
    {"a": {1, 2}},
    {"a": NoRepr()},
    Decimal("0.5"),
    Fraction(1, 2),
    NoRepr(),
    NoEquality(),
    object,
    print,
    Ellipsis,
    Message("user", "Hi"),
    Message(5, None),  # type: ignore[arg-type]
    Image(),
)
# By number, since hypothesis would show the values, and some can't be shown.
oddities = st.integers(0, len(ODDITIES) - 1).map(lambda at: ODDITIES[at])
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=4)
)
values = st.recursive(
    plain | oddities,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
        | st.lists(inner, max_size=2).map(iter)
    ),
    max_leaves=5,
)
contents = values | st.text(min_size=1)
parts = (
    st.fixed_dictionaries({"type": st.just("text"), "text": contents})
    | st.fixed_dictionaries({"type": st.just("image_url"), "image_url": contents})
    | st.fixed_dictionaries(
        {
            "type": st.just("image_url"),
            "image_url": st.fixed_dictionaries(
                {"url": contents | st.just(f"data:image/png;base64,{PIXEL}")}
            ),
        }
    )
    | st.builds(Image, values, values, values)
    | contents
)
roles = st.sampled_from(["system", "developer", "user", "assistant"]) | values
messages = st.fixed_dictionaries(
    {"role": roles, "content": contents | st.lists(parts, min_size=1, max_size=2)}
) | st.builds(Message, roles, contents | st.lists(parts, max_size=2).map(tuple))
prompts = values | st.text(min_size=1) | st.lists(messages | values, min_size=1, max_size=3)
PARAMETERS = [
    name
    for name, parameter in inspect.signature(Request.build).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]


@settings(max_examples=400)
@given(
    prompt=prompts,
    model=st.just("m") | values,
    keywords=st.dictionaries(st.sampled_from(PARAMETERS), values, max_size=3),
)
def test_whatever_is_typed_is_a_request_or_an_invalid_request_error(
    prompt: Any, model: Any, keywords: dict[str, Any]
) -> None:
    """No input crashes the check, and what it lets through can be sent as JSON in UTF-8."""
    try:
        request = Request.build(model, prompt, **keywords)
    except InvalidRequestError as error:
        text = str(error)
    else:
        sent = dataclasses.asdict(dataclasses.replace(request, metadata={}))
        text = json.dumps(sent, ensure_ascii=False, allow_nan=False)
    text.encode()


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize(
    "value",
    [10**5000, NoRepr(), NoEquality(), "\ud800", [[]], 1.5, object(), {NoRepr: 1}],
    ids=lambda value: type(value).__name__,
)
def test_each_parameter_withstands_each_oddity(name: str, value: Any) -> None:
    """Every parameter is checked by itself, so that none hides behind another's error."""
    if name == "metadata" and isinstance(value, Mapping):
        assert build(metadata=value).metadata == value
    elif name == "temperature" and isinstance(value, float):
        assert build(temperature=value).temperature == 1.5
    else:
        refusal(**{name: value})


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": " \n\t"}, "the prompt is empty"),
        ({"prompt": b"Hi"}, "got bytes"),
        ({"prompt": None}, "got NoneType"),
        ({"prompt": iter(["Hi"])}, "a text or a list of messages"),
        ({"prompt": {"role": "user", "content": "Hi"}}, "got dict"),
        ({"prompt": []}, "no message of a user"),
        ({"prompt": [{"role": "system", "content": "Hi"}]}, "no message of a user"),
        ({"prompt": ["Hi"]}, "messages[0]: expected {'role'"),
        ({"prompt": [{"content": "Hi"}]}, "role None is not one of system, developer, user"),
        ({"prompt": [{"role": "tool", "content": "Hi"}]}, "role 'tool'"),
        ({"prompt": [{"role": "user"}]}, "got nothing"),
        ({"prompt": [{"role": "user", "content": ""}]}, "messages[0] is empty"),
        ({"prompt": [{"role": "user", "content": []}]}, "got []"),
        ({"prompt": [{"role": "user", "content": [{"type": NoEquality()}]}]}, "part 0: expected"),
        ({"prompt": [{"role": "user", "content": [3]}]}, "messages[0], part 0: expected {'type'"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
            "part 0 is empty",
        ),
        ({"prompt": "a\ud83d"}, "the character at 1 is a lone surrogate ('\\ud83d')"),
        ({"model": " "}, "model is empty"),
        ({"system": 5}, "system: expected a text, got int"),
        ({"max_tokens": 0}, "max_tokens=0: expected at least 1"),
        ({"max_tokens": 1.0}, "max_tokens=1.0: expected a whole number"),
        ({"max_tokens": True}, "max_tokens=True: expected a whole number"),
        ({"max_tokens": "10"}, "max_tokens='10': expected a whole number"),
        ({"seed": 2**63}, "seed=9223372036854775808: expected"),
        ({"temperature": 2.1}, "temperature=2.1: expected 0 to 2"),
        ({"temperature": float("nan")}, "temperature=nan: expected 0 to 2"),
        ({"temperature": NoRepr()}, "temperature=a value of type NoRepr: expected a number"),
        ({"temperature": "hot"}, "temperature='hot': expected a number"),
        ({"top_p": -0.1}, "top_p=-0.1: expected 0 to 1"),
        ({"stop": ""}, "empty text would end every answer"),
        ({"stop": ["a", 1]}, "stop: expected a text, got int"),
        ({"stop": b"ab"}, "stop"),
        ({"stop": {"a": 1}}, "stop={'a': 1}: expected a text or several"),
        ({"stop": endless()}, "more than 1000"),
        ({"reasoning_effort": "very high"}, "expected a word such as 'low'"),
        ({"on_unsupported": "ignore"}, "expected one of warn, error, drop"),
        ({"metadata": [("a", 1)]}, "metadata=[('a', 1)]: expected a mapping"),
        ({"extra_body": []}, "extra_body: expected a mapping"),
        ({"extra_body": {1: 2}}, "extra_body: expected a mapping with texts as keys"),
        ({"extra_body": {"a": float("inf")}}, "extra_body: can't be sent as JSON"),
        ({"extra_body": {"a": b"x"}}, "bytes is not JSON serializable"),
        ({"vendor_parameters": {"tempo": object()}}, "parameters for the vendor: can't be sent"),
        ({"vendor_parameters": 5}, "parameters for the vendor: expected a mapping"),
        ({"extra_headers": [("a", "b")]}, "extra_headers: expected a mapping"),
        ({"extra_headers": {"": "b"}}, "'' can't be a header's name"),
        ({"extra_headers": {"a b": "c"}}, "'a b' can't be a header's name"),
        ({"extra_headers": {"a:": "c"}}, "'a:' can't be a header's name"),
        ({"extra_headers": {"x-a": "b\r\nHost: evil"}}, "single line of ASCII"),
        ({"extra_headers": {"x-a": "ü"}}, "single line of ASCII"),
        ({"extra_headers": {"x-a": " b"}}, "without blanks"),
        ({"extra_headers": {"x-a": 1}}, "the value of x-a"),
        ({"extra_headers": {"Content-Length": "3"}}, "Content-Length follows from what is sent"),
    ],
)
def test_the_error_says_what_is_wrong_in_plain_words(
    keywords: dict[str, Any], expected: str
) -> None:
    """Each refusal names the parameter, what was given, and what was expected."""
    assert expected in refusal(**keywords)


def test_no_error_shows_a_key() -> None:
    """A key that was typed into the wrong parameter is not repeated in the error."""
    for name in ("max_tokens", "temperature", "seed", "on_unsupported", "reasoning_effort"):
        assert "Zm9v" not in refusal(**{name: KEY})
    assert "Zm9v" not in refusal(metadata=[KEY])
    assert "Zm9v" not in refusal(prompt=[{"role": KEY, "content": "Hi"}])
    assert "Zm9v" not in refusal(extra_headers={"authorization": f"Bearer {KEY}\n"})


# --- what comes out -------------------------------------------------------------------------------


def test_a_text_is_one_message_of_the_user() -> None:
    """The plainest call is the plainest request: nothing is added that nobody asked for."""
    assert build("Hi") == Request(model="m", messages=(Message("user", "Hi"),))


def test_system_texts_come_first_and_can_be_told_from_the_turns() -> None:
    """Adapters that have a field for the system's text find it, wherever it stood."""
    request = build(
        [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": "Hello."},
        ],
        system="Be brief.",
    )
    assert request.system_text == "Be brief.\n\nBe kind."
    assert [turn.role for turn in request.turns] == ["user", "assistant"]
    assert request.turns[0].text == "Hi"
    assert build("Hi", system="").messages == build("Hi", system=None).messages


def test_pictures_are_read_from_urls_and_data() -> None:
    """The OpenAI shape, an `Image`, and a data URL all become the same `Image`."""
    data = Image(data=PIXEL, media_type="image/png")
    content = [
        {"type": "image_url", "image_url": {"url": "https://h/a.png", "detail": "auto"}},
        {"type": "image_url", "image_url": "https://h/a.png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        data,
        Image(url="https://h/a.png"),
        "What are these?",
    ]
    (message,) = build([{"role": "user", "content": content}]).messages
    linked = Image(url="https://h/a.png")
    assert message.content == (linked, linked, data, data, linked, "What are these?")
    assert message.text == "What are these?"


@pytest.mark.parametrize(
    "image",
    [
        Image(),
        Image(url="https://h/a.png", data=PIXEL),
        Image(data=PIXEL),
        Image(data="", media_type="image/png"),
        Image(data="***", media_type="image/png"),
        Image(data=PIXEL, media_type="text/html"),
        Image(data=b"x", media_type="image/png"),  # type: ignore[arg-type]
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
        {"type": "image_url", "image_url": {"url": "data:text/plain;base64,aGk="}},
        {"type": "image_url", "image_url": {}},
        {"type": "image_url"},
    ],
)
def test_a_picture_that_no_vendor_could_read_is_refused(image: Any) -> None:
    """A broken picture is found here, not in a vendor's 400 after a long upload."""
    assert "messages[0], part 0" in refusal(prompt=[{"role": "user", "content": [image]}])


def test_messages_are_checked_however_they_were_made() -> None:
    """A `Message` built by hand gets no further than a mapping would."""
    broken: tuple[Message, ...] = (
        Message("users", "Hi"),
        Message("user", ""),
        Message("user", "\ud800"),
        Message("user", ()),
        Message("user", (Image(),)),
        Message("user", (5,)),  # type: ignore[arg-type]
    )
    for message in broken:
        assert "messages[0]" in refusal(prompt=[message])
    assert build([Message("user", ("a", Image(url="https://h")))]).messages[0].text == "a"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "Hi", "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": "Hi", "cache_control": {"type": "ephemeral"}},
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"a": 1}}]},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://h", "detail": "high"}}],
        },
    ],
)
def test_nothing_in_a_message_is_lost_in_silence(message: dict[str, Any]) -> None:
    """What this version has no place for is refused by name rather than dropped."""
    assert "would be lost" in refusal(prompt=[message])


def test_a_message_as_the_openai_sdk_dumps_it_is_read() -> None:
    """The empty fields of an SDK's own dump say nothing and are no reason to refuse it."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert build([message]).messages == (Message("assistant", "Hi"),)


def test_numbers_of_other_libraries_are_numbers() -> None:
    """An integer from an array or a data frame is as good as Python's own, and becomes one."""
    request = build(max_tokens=WholeNumber(), seed=WholeNumber())
    assert (request.max_tokens, request.seed) == (7, 7)
    assert type(request.max_tokens) is int


def test_a_request_shares_nothing_with_what_was_typed() -> None:
    """Changing a dict after the call can't change a request that waits, or its cache key."""
    schema = {"type": "object", "properties": {}}
    headers, metadata = {"x-a": "b"}, {"user": 1}
    request = build(
        vendor_parameters={"schema": schema},
        extra_body={"schema": schema},
        extra_headers=headers,
        metadata=metadata,
    )
    before = dataclasses.asdict(request)
    schema["properties"] = {"new": 1}
    headers["x-b"] = "c"
    metadata["other"] = 2
    assert dataclasses.asdict(request) == before


def test_stop_takes_one_text_or_several() -> None:
    """Any iterable of texts will do, a generator included."""
    assert build(stop="END").stop == ("END",)
    assert build(stop=(text for text in "ab")).stop == ("a", "b")
    assert build(stop=[]).stop == build(stop=None).stop == ()


@pytest.mark.parametrize(
    "value",
    [0, -1, float("nan"), float("inf"), 10**5000, True, "5", b"5"],
    ids=lambda value: f"{value:.5}" if isinstance(value, float) else type(value).__name__,
)
def test_seconds_must_be_a_positive_number(value: Any) -> None:
    """No time-out is silently endless, zero, or something that a socket would choke on."""
    with pytest.raises(InvalidRequestError, match="timeout="):
        check_seconds("timeout", value)
    assert check_seconds("timeout", None) is None
    assert check_seconds("timeout", 3) == 3.0


# --- misspelt keywords ----------------------------------------------------------------------------


def test_what_is_not_there_yet_is_said_whatever_its_value() -> None:
    """A class as `response_model` is no mistake of JSON, but a feature of a later version."""
    with pytest.raises(InvalidRequestError, match="response_model= is not part of this version"):
        build(vendor_parameters={"response_model": type})


# Refused by name, whoever else has such a parameter.
DELIBERATELY = {"tools", "tool_choice", "messages", "stream", "fallbacks"}


def openai_parameters() -> set[str]:
    from openai.resources.chat.completions import Completions

    return set(inspect.signature(Completions.create).parameters)


def anthropic_parameters() -> set[str]:
    from anthropic.resources.beta.messages import Messages as BetaMessages
    from anthropic.resources.messages import Messages

    return {
        name
        for create in (Messages.create, BetaMessages.create)
        for name in inspect.signature(create).parameters
    }


def gemini_parameters() -> set[str]:
    from google.genai.types import GenerateContentConfig

    return set(GenerateContentConfig.model_fields)


@pytest.mark.parametrize("vendor", [openai_parameters, anthropic_parameters, gemini_parameters])
def test_no_vendors_own_parameter_is_taken_for_a_misspelling(vendor: Any) -> None:
    """Every parameter of the installed SDKs goes through, but for those refused on purpose."""
    parameters = vendor() - {"self"}
    assert len(parameters) > 20
    check_spelling(sorted(parameters - DELIBERATELY - set(KNOWN_KEYWORDS)))
    for name in sorted(parameters & DELIBERATELY):
        with pytest.raises(InvalidRequestError, match=f"^{name}= "):
            check_spelling([name])


@pytest.mark.parametrize(
    "name",
    [
        *("top_k", "top_a", "min_p", "min_tokens", "n", "best_of", "user", "store", "speed"),
        *("logprobs", "top_logprobs", "prompt_logprobs", "logit_bias", "repetition_penalty"),
        *("presence_penalty", "frequency_penalty", "length_penalty", "service_tier", "verbosity"),
        *("modalities", "prediction", "response_format", "parallel_tool_calls", "betas"),
        *("thinking", "thinking_config", "safety_settings", "candidate_count", "mcp_servers"),
        *("web_search_options", "container", "models", "route", "provider", "transforms"),
        *("reasoning", "reasoning_format", "include_reasoning", "max_completion_tokens"),
        *("max_output_tokens", "max_new_tokens", "stop_sequences", "stop_token_ids", "keep_alive"),
        *("num_ctx", "guided_json", "chat_template_kwargs", "search_parameters", "documents"),
    ],
)
def test_parameters_of_compatible_vendors_go_through(name: str) -> None:
    """What vLLM, OpenRouter, Groq, Ollama and others understand reaches them."""
    assert build(vendor_parameters={name: 1}).vendor_parameters == {name: 1}


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("max_token", "max_tokens"),
        ("max_tokns", "max_tokens"),
        ("maxtokens", "max_tokens"),
        ("MAX_TOKENS", "max_tokens"),
        ("temprature", "temperature"),
        ("Temperature", "temperature"),
        ("sytem", "system"),
        ("time_out", "timeout"),
        ("timout", "timeout"),
        ("top-p", "top_p"),
        ("topp", "top_p"),
        ("stops", "stop"),
        ("reasoning_efort", "reasoning_effort"),
        ("meta_data", "metadata"),
        ("extra_header", "extra_headers"),
        ("fallback", "fallbacks"),
        ("message", "messages"),
        ("hegde_after", "hedge_after"),
    ],
)
def test_a_misspelt_keyword_is_refused_with_the_right_one(misspelt: str, meant: str) -> None:
    """A typo doesn't become a vendor's unknown parameter: the error names what was meant."""
    assert f"did you mean {meant}=?" in refusal(vendor_parameters={misspelt: 1})


@pytest.mark.parametrize(
    ("misplaced", "advice"),
    [
        ("retries", "max_retries= is meant"),
        ("num_retries", "max_retries= is meant"),
        ("cache", "use_cache="),
        ("deadline", "timeout= is meant"),
        ("budget", "client.budget"),
        ("hedge_after", "Client.race"),
        ("rate_limits", "give it to Client"),
        ("base_url", "api_base= to get_adapter"),
        ("api_base", "api_base= to get_adapter"),
    ],
)
def test_a_misplaced_keyword_is_refused_with_its_place(misplaced: str, advice: str) -> None:
    """What other calls or libraries have is no vendor's parameter: the error says what to write."""
    said = refusal(vendor_parameters={misplaced: 1})
    assert said.startswith(f"{misplaced}= is not a parameter here: ")
    assert advice in said
    assert "extra_body" in said


def test_known_keywords_are_those_of_the_client() -> None:
    """A keyword that Client gets later is also protected against misspelling."""
    named = {
        name
        for method in (Client.complete, Client.stream)
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert named <= set(KNOWN_KEYWORDS)


def test_checking_keywords_costs_next_to_nothing() -> None:
    """The comparison of texts is made once for each keyword, not in every call."""
    check_spelling(["a_new_parameter"])
    began = time.process_time()
    for _ in range(1000):
        check_spelling(["a_new_parameter"])
    assert time.process_time() - began < 0.1
