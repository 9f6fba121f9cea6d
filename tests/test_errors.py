from __future__ import annotations

import copy
import inspect
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmkit import errors
from llmkit.errors import (
    AllModelsFailedError,
    APIConnectionError,
    Attempt,
    AuthenticationError,
    ContentFilterError,
    ErrorCode,
    LLMError,
    LLMTimeoutError,
    RateLimitError,
    StreamInterruptedError,
)

CLASSES = tuple(
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, LLMError)
)
SUBCLASSES = tuple(kind for kind in CLASSES if kind is not LLMError)
ATTEMPT = Attempt("gpt-6-luna", "openai", ErrorCode.LLM_RATE_LIMIT, 429, 0.0, 0.25, "req_1")
OWN_FIELDS: dict[type[LLMError], dict[str, Any]] = {
    StreamInterruptedError: {"partial_text": "Once upon"},
    ContentFilterError: {"category": "violence"},
    AllModelsFailedError: {
        "errors": (
            RateLimitError("slow down", model="a", attempts=[ATTEMPT]),
            StreamInterruptedError("cut", partial_text="x"),
        )
    },
}


def full(kind: type[LLMError]) -> LLMError:
    """An error with every field set to something else than its default."""
    return kind(
        "it broke",
        provider="openai",
        model="gpt-6-luna",
        status=418,
        request_id="req_1",
        retry_after=2.5,
        retryable=kind.default_code not in errors.RETRYABLE_CODES,
        attempts=[ATTEMPT],
        **OWN_FIELDS.get(kind, {}),
    )


def facts(error: BaseException) -> dict[str, Any]:
    """All that an error says; the errors inside it likewise."""
    own = dict(vars(error))
    if isinstance(error, AllModelsFailedError):
        own["errors"] = [facts(each) for each in error.errors]
    return {"class": type(error), "text": str(error), "args": error.args, **own}


def test_each_class_has_its_own_code_and_each_code_its_class() -> None:
    """Retry and fallback decide by the code, so it must tell the classes apart."""
    assert {kind.default_code for kind in SUBCLASSES} == set(ErrorCode)
    assert len(SUBCLASSES) == len(ErrorCode)
    for kind in SUBCLASSES:
        assert type(LLMError.of_code(kind.default_code, "x")) is kind
        assert type(LLMError.of_code(kind.default_code.value, "x")) is kind


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    """The overview names every class, and shows ContextLengthError as the one that is nested."""
    drawn = errors.__doc__ or ""
    assert all(f"── {kind.__name__} " in drawn for kind in SUBCLASSES)
    nested = [kind.__name__ for kind in SUBCLASSES if kind.__bases__[0] is not LLMError]
    assert nested == ["ContextLengthError"]
    assert {*errors.__all__} == {kind.__name__ for kind in CLASSES} | {"Attempt", "ErrorCode"}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_carries_every_field(kind: type[LLMError], protocol: int) -> None:
    """An error crosses a process pool whole, each subclass's own fields included."""
    error = full(kind)
    error.add_note("seen in a worker")
    assert facts(pickle.loads(pickle.dumps(error, protocol))) == facts(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_copies_are_whole(kind: type[LLMError]) -> None:
    """Shallow and deep copies lose nothing and change nothing in the original."""
    error = full(kind)
    shallow, deep = copy.copy(error), copy.deepcopy(error)
    assert facts(shallow) == facts(error) == facts(deep)
    shallow.attempts = ()
    assert error.attempts == (ATTEMPT,)


def test_every_parameter_is_a_field_that_is_pickled() -> None:
    """A field added to a class later can't be forgotten by the tests above."""
    for kind in CLASSES:
        names = {
            name
            for base in kind.__mro__
            if "__init__" in vars(base) and issubclass(base, LLMError)
            for name, parameter in inspect.signature(base).parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        assert names == set(vars(full(kind)))


@given(
    message=st.text(),
    retry_after=st.none() | st.floats(allow_nan=False),
    partial=st.text(),
    kind=st.sampled_from(CLASSES),
)
def test_any_text_survives_a_pickle(
    message: str, retry_after: float | None, partial: str, kind: type[LLMError]
) -> None:
    """Whatever a vendor wrote, lone surrogates included, comes out of a pickle unchanged."""
    own: dict[str, Any] = {"partial_text": partial} if kind is StreamInterruptedError else {}
    error = kind(message, retry_after=retry_after, **own)
    assert facts(pickle.loads(pickle.dumps(error))) == facts(error)


def _raise_in_worker() -> None:
    raise full(AllModelsFailedError) from ValueError("the vendor's own")


def test_an_error_comes_out_of_a_real_process_pool() -> None:
    """The worker's error is the caller's error, fields and nested causes included."""
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(AllModelsFailedError) as caught,
    ):
        pool.submit(_raise_in_worker).result()
    assert {**facts(caught.value), "args": ("it broke",)} == facts(full(AllModelsFailedError))


def test_timeouts_and_connections_are_also_the_builtin_ones() -> None:
    """Code that catches TimeoutError, ConnectionError or OSError catches llmkit's, too."""
    for kind, builtin in ((LLMTimeoutError, TimeoutError), (APIConnectionError, ConnectionError)):
        error = kind("20 s are over", provider="openai")
        assert isinstance(error, builtin)
        assert isinstance(error, OSError)
        assert (error.errno, error.strerror, error.filename) == (None, None, None)
        assert error.args == ("20 s are over",)
        assert str(error) == "openai: 20 s are over"


def test_a_bare_llm_error_takes_any_code() -> None:
    """`LLMError(code="LLM_TIMEOUT", message="…")` works, and retries follow the code."""
    error = LLMError(code="LLM_TIMEOUT", message="late")
    assert error.code is ErrorCode.LLM_TIMEOUT
    assert error.retryable
    assert not isinstance(error, LLMTimeoutError)
    assert error.code == "LLM_TIMEOUT"
    with pytest.raises(ValueError, match="LLM_TIMEOT"):
        LLMError("late", code="LLM_TIMEOT")


def test_retryable_follows_the_code_unless_told_otherwise() -> None:
    """Only what a second try of the same request may mend is retryable by itself."""
    retryable = {kind.default_code.value for kind in SUBCLASSES if kind("x").retryable}
    assert retryable == {
        "LLM_RATE_LIMIT",
        "LLM_TIMEOUT",
        "LLM_CONNECTION_ERROR",
        "LLM_PROVIDER_ERROR",
    }
    assert AuthenticationError("x", retryable=True).retryable
    assert not RateLimitError("x", retryable=False).retryable


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (LLMError("m"), "m"),
        (LLMError("m", status=500), "m (HTTP 500)"),
        (LLMError("m", model="a"), "a: m"),
        (LLMError("m", provider="p"), "p: m"),
        (RateLimitError("m", provider="p", model="a", status=429), "p:a: m (HTTP 429)"),
        (
            AllModelsFailedError("none", errors=[LLMError("m", model="a"), LLMError("n")]),
            "none\n  - a: m\n  - n",
        ),
    ],
)
def test_the_text_says_who_what_and_which_status(error: LLMError, text: str) -> None:
    """A bare traceback shows the model, the message, the status and every cause."""
    assert str(error) == text
    assert type(error).__name__ in repr(error)
    assert error.code.value in repr(error)


def test_an_unknown_code_says_which_there_are() -> None:
    """Who mistypes a code is shown the right ones."""
    with pytest.raises(ValueError, match=r"'NOPE' is no error code; there are .*LLM_TIMEOUT"):
        LLMError("m", code="NOPE")
