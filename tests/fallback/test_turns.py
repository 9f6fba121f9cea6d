"""The engine of fallback, with made-up candidates and a clock that is set by hand."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from llmkit.errors import (
    AllModelsFailedError,
    APIConnectionError,
    AuthenticationError,
    CancelledError,
    CircuitOpenError,
    ContextLengthError,
    ErrorCode,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
)
from llmkit.fallback import FALLBACK_CODES, execute_with_fallbacks, falls_back_on
from llmkit.fallback.turns import Candidate, in_turn
from llmkit.scope import CallInterrupted, Scope, current_scope


class Clock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Model:
    """A candidate that does what it was given, and notes the seconds that it had."""

    def __init__(
        self, name: str, *outcomes: object, window: int | None = None, takes: float = 0.0
    ) -> None:
        self.name = name
        self.asked: list[bool] = []
        self.had: list[float | None] = []
        self.clock: Clock | None = None
        self._outcomes = list(outcomes)
        self._window = window
        self._takes = takes

    def ask(self, forced: bool) -> object:
        scope = current_scope()
        self.asked.append(forced)
        self.had.append(None if scope is None else scope.remaining())
        if self.clock is not None:
            self.clock.now += self._takes
        outcome = self._outcomes.pop(0)
        if scope is not None and scope.remaining() == 0.0:
            scope.check("answering")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @property
    def candidate(self) -> Candidate[object]:
        return Candidate(self.name, lambda: self._window, self.ask, "fake")


def run(*models: Model, leads_on: Any = None, **options: Any) -> tuple[int, object]:
    return in_turn([model.candidate for model in models], falls_back_on(leads_on), **options)


def failing(code: ErrorCode | str, **facts: Any) -> LLMError:
    return LLMError.of_code(code, f"it was {code}", **facts)


def test_the_first_that_answers_is_the_last_that_is_asked() -> None:
    """Nobody is asked behind a model that answers."""
    first, second = Model("first", "yes"), Model("second", "no")

    assert run(first, second) == (0, "yes")
    assert (first.asked, second.asked) == ([False], [])


def test_the_triggers_are_those_of_the_design() -> None:
    """Nobody widens or narrows by accident what leads to another model."""
    assert {code.value for code in FALLBACK_CODES} == {
        "LLM_RATE_LIMIT",
        "LLM_QUOTA_EXCEEDED",
        "LLM_TIMEOUT",
        "LLM_CONNECTION_ERROR",
        "LLM_PROVIDER_ERROR",
        "MODEL_NOT_FOUND",
        "LLM_CONTEXT_LENGTH",
        "LLM_CIRCUIT_OPEN",
    }


@pytest.mark.parametrize("code", sorted(FALLBACK_CODES))
def test_failures_that_another_model_need_not_have_lead_on(code: ErrorCode) -> None:
    """Each trigger leads to the next model, and the step is told."""
    error = failing(code)
    steps: list[tuple[str, str, LLMError]] = []

    found = run(
        Model("first", error), Model("second", "yes"), note=lambda *step: steps.append(step)
    )
    assert found == (1, "yes")
    assert steps == [("first", "second", error)]


@pytest.mark.parametrize("code", sorted(set(ErrorCode) - FALLBACK_CODES))
def test_no_other_failure_leads_on(code: ErrorCode) -> None:
    """A refused key, a wrong request, a spent budget are shown, not hidden behind another model."""
    error, second = failing(code), Model("second", "yes")

    with pytest.raises(LLMError) as caught:
        run(Model("first", error), second)
    assert caught.value is error
    assert not second.asked


@pytest.mark.parametrize(
    "bug", [ValueError("a bug"), KeyError("a bug"), AssertionError(), RecursionError()]
)
def test_a_programming_error_is_passed_on_at_once(bug: Exception) -> None:
    """A bug looks like one: no other model is asked, and the errors before it don't swallow it."""
    second = Model("second", "yes")
    with pytest.raises(type(bug)) as caught:
        run(Model("first", bug), second)
    assert caught.value is bug
    assert not second.asked

    with pytest.raises(type(bug)):
        run(Model("first", failing("LLM_TIMEOUT")), Model("second", bug))


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), TimeoutError("late")])
def test_broken_connections_of_other_libraries_lead_on(error: Exception) -> None:
    """An operation of the user's own may fail by the built-in classes, and they are shown."""
    assert run(Model("first", error), Model("second", "yes")) == (1, "yes")
    with pytest.raises(AllModelsFailedError, match="fake") as caught:
        run(Model("first", error), Model("second", failing("LLM_RATE_LIMIT", provider="fake")))
    assert caught.value.errors[0].__cause__ is error
    assert type(error).__name__ in str(caught.value)


def test_interrupts_are_nobodys_failure() -> None:
    """Ctrl-C and a cancel end the chain, whatever `fallback_on` says."""
    for error in (KeyboardInterrupt(), CancelledError("by its user")):
        second = Model("second", "yes")
        with pytest.raises(type(error)):
            run(Model("first", error), second, leads_on=lambda _: True)
        assert not second.asked


def test_a_cancel_from_outside_ends_the_chain() -> None:
    """A cancelled Scope is not a model's failure: nobody else is asked."""
    second = Model("second", "yes")
    with Scope().entered() as scope:

        def ask(forced: bool) -> object:
            scope.cancel("by its user")
            return scope.check("answering")

        with pytest.raises(CallInterrupted) as caught:
            in_turn([Candidate("first", lambda: None, ask), second.candidate], falls_back_on())
    assert caught.value.code is ErrorCode.LLM_CANCELLED
    assert not second.asked


@pytest.mark.parametrize(
    ("given", "leads"),
    [
        (["LLM_CONTENT_FILTER"], {"LLM_CONTENT_FILTER"}),
        ([ErrorCode.LLM_TIMEOUT, "LLM_RATE_LIMIT"], {"LLM_TIMEOUT", "LLM_RATE_LIMIT"}),
        ([], set()),
        (lambda error: error.code is ErrorCode.INVALID_REQUEST, {"INVALID_REQUEST"}),
    ],
)
def test_what_leads_on_can_be_chosen(given: Any, leads: set[str]) -> None:
    """Codes, or a function, take the place of the triggers instead of adding to them."""
    decide = falls_back_on(given)
    assert {code.value for code in ErrorCode if decide(failing(code))} == leads
    if not callable(given):
        assert not decide(ConnectionResetError())


@pytest.mark.parametrize(
    "given", ["LLM_TIMEOUT", ["timeout"], 5, LLMTimeoutError, (LLMTimeoutError,), [None]]
)
def test_what_can_not_be_meant_as_a_trigger_is_refused(given: Any) -> None:
    """A misspelt code, or a class (which is callable!), never becomes "everything leads on"."""
    with pytest.raises(InvalidRequestError, match="expected error codes"):
        falls_back_on(given)


@pytest.mark.parametrize("fallbacks", ["claude-haiku-5-5", None, 3])
def test_fallbacks_are_a_list(fallbacks: Any) -> None:
    """One name is not taken for a list of its letters."""
    with pytest.raises(InvalidRequestError, match="expected a list of models"):
        execute_with_fallbacks("gpt-6-luna", fallbacks, lambda name: name)


def test_every_cause_is_shown_with_its_model() -> None:
    """The error of a chain says what each model did, in their order, also behind a pickle."""
    errors = [
        RateLimitError("too many", provider="openai", model="first", status=429, retry_after=9.0),
        ProviderError("on fire", provider="anthropic", model="second", status=503),
    ]
    with pytest.raises(AllModelsFailedError) as caught:
        run(Model("first", errors[0]), Model("second", errors[1]))

    failed = caught.value
    assert failed.errors == tuple(errors)
    assert failed.__cause__ is errors[1]
    assert failed.code is ErrorCode.LLM_ALL_MODELS_FAILED
    assert not failed.retryable
    for error in (failed, pickle.loads(pickle.dumps(failed))):
        assert str(error).splitlines() == [
            "all 2 models failed:",
            "  - openai:first: too many (HTTP 429)",
            "  - anthropic:second: on fire (HTTP 503)",
        ]
        assert [each.code for each in error.errors] == ["LLM_RATE_LIMIT", "LLM_PROVIDER_ERROR"]
        assert error.errors[0].retry_after == 9.0


def test_one_failure_stays_what_it_is() -> None:
    """A chain of one model, or one whose first failure ends it, raises that very error."""
    error = failing("LLM_RATE_LIMIT")
    with pytest.raises(RateLimitError) as caught:
        run(Model("only", error))
    assert caught.value is error


def test_a_chain_that_a_refusal_ends_names_both() -> None:
    """The second model's refused key does not hide why the first one was left."""
    third = Model("third", "yes")
    with pytest.raises(AllModelsFailedError, match="2 of 3 models failed") as caught:
        run(
            Model("first", failing("LLM_QUOTA_EXCEEDED")),
            Model("second", AuthenticationError("no")),
            third,
        )
    assert [each.code for each in caught.value.errors] == [
        "LLM_QUOTA_EXCEEDED",
        "AUTHENTICATION_ERROR",
    ]
    assert not third.asked


# --- windows --------------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_goes_to_larger_windows_only() -> None:
    """A model that is known to be no larger isn't asked in vain; an unknown one may be."""
    too_long = [ContextLengthError("too long"), ContextLengthError("too long")]
    same, smaller = Model("same", window=8), Model("smaller", window=4)
    unknown = Model("unknown", too_long[1])
    larger = Model("larger", "yes", window=16)

    found = run(Model("first", too_long[0], window=8), smaller, same, unknown, larger)
    assert found == (4, "yes")
    assert not smaller.asked
    assert not same.asked
    assert unknown.asked


def test_a_prompt_that_fits_nowhere_is_said_to_be_too_long() -> None:
    """With no larger window behind it, the error is the model's own."""
    smaller = Model("smaller", window=4)
    with pytest.raises(ContextLengthError):
        run(Model("first", ContextLengthError("too long"), window=8), smaller)
    assert not smaller.asked


def test_windows_matter_for_too_long_a_prompt_alone() -> None:
    """Whoever fails otherwise is followed by smaller models, too."""
    first = Model("first", failing("LLM_PROVIDER_ERROR"), window=8)
    assert run(first, Model("smaller", "yes", window=4)) == (1, "yes")


# --- circuits -------------------------------------------------------------------------------------


def test_of_open_circuits_the_first_to_close_is_tried() -> None:
    """When no circuit is closed, one model is asked rather than none: that with the least left."""
    models = [
        Model("first", CircuitOpenError("open", retry_after=20.0)),
        Model("second", CircuitOpenError("open", retry_after=5.0), "yes"),
        Model("third", CircuitOpenError("open", retry_after=9.0)),
    ]
    assert run(*models) == (1, "yes")
    assert [model.asked for model in models] == [[False], [False, True], [False]]


def test_an_open_circuit_beside_a_real_failure_forces_nobody() -> None:
    """A model that did fail was asked: that is enough."""
    first = Model("first", CircuitOpenError("open", retry_after=20.0))
    with pytest.raises(AllModelsFailedError):
        run(first, Model("second", failing("LLM_TIMEOUT")))
    assert first.asked == [False]

    only = Model("only", CircuitOpenError("open"))
    with pytest.raises(CircuitOpenError):
        run(only)
    assert only.asked == [False]


# --- time -----------------------------------------------------------------------------------------


def in_time(seconds: float, models: Iterable[Model], share: float | None = None) -> object:
    """Runs a chain in a Scope of so many seconds of a clock that the models move on."""
    clock = Clock()
    models = tuple(models)
    for model in models:
        model.clock = clock
    with pytest.MonkeyPatch.context() as patch:
        # The engine makes Scopes of its own.
        patch.setattr(Scope.__init__, "__kwdefaults__", {**KEYWORDS, "clock": clock})
        with Scope(seconds).entered():
            return run(*models, share=share)


KEYWORDS = dict(Scope.__init__.__kwdefaults__ or {})


def test_two_thirds_of_the_time_are_the_first_ones() -> None:
    """Whoever hangs leaves a third for those behind it, and the last one has all that is left."""
    models = [
        Model("first", "late", takes=20.0),
        Model("second", "late", takes=7.0),
        Model("third", "yes"),
    ]
    assert in_time(30.0, models) == (2, "yes")
    assert models[0].had == [pytest.approx(20.0)]
    assert models[1].had == [pytest.approx(20.0 / 3)]
    assert models[2].had == [pytest.approx(3.0)]


def test_a_quick_failure_leaves_its_time_to_the_next() -> None:
    """Shares are of what is left, so that nothing is lost to a model that failed at once."""
    models = [Model("first", failing("LLM_TIMEOUT")), Model("second", "yes")]
    in_time(30.0, models)
    assert models[1].had == [pytest.approx(30.0)]


def test_a_share_can_be_said() -> None:
    """`attempt_timeout` takes the place of the two thirds, for every model."""
    models = [Model("first", "late", takes=4.0), Model("second", "yes")]
    assert in_time(30.0, models, share=4.0) == (1, "yes")
    assert [model.had for model in models] == [[pytest.approx(4.0)], [pytest.approx(4.0)]]


def test_a_single_model_has_all_the_time() -> None:
    """Without anybody behind it there is nobody to leave time for."""
    only = Model("only", "yes")
    in_time(30.0, [only])
    assert only.had == [pytest.approx(30.0)]


def test_nobody_is_asked_when_the_time_is_over() -> None:
    """The end of the whole time ends the chain; the error still shows who used it up."""
    third = Model("third", "yes")
    models = [Model("first", "late", takes=25.0), Model("second", "late", takes=25.0), third]
    with pytest.raises(AllModelsFailedError) as caught:
        in_time(30.0, models)
    assert [str(each) for each in caught.value.errors] == [
        "fake:first: the time-out of 20 s ended while answering",
        "fake:second: the time-out of 3.333 s ended while answering",
    ]
    assert all(isinstance(each, LLMTimeoutError) for each in caught.value.errors)
    assert not third.asked


def test_without_a_time_out_there_is_no_share() -> None:
    """Nothing invents a deadline that nobody asked for."""
    models = [Model("first", failing("LLM_TIMEOUT")), Model("second", "yes")]
    run(*models)
    assert [model.had for model in models] == [[None], [None]]


# --- execute_with_fallbacks -----------------------------------------------------------------------


def doing(outcomes: dict[str, object]) -> Callable[[str], object]:
    def operation(model: str) -> object:
        outcome = outcomes[model]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return operation


def test_any_operation_can_fall_back() -> None:
    """The name that managed it comes back with what it returned, None included."""
    operation = doing({"one": failing("LLM_RATE_LIMIT"), "two": None})
    assert execute_with_fallbacks("one", ["two", "three"], operation) == ("two", None)


def test_an_operations_triggers_can_be_a_function() -> None:
    """`should_fallback` judges any exception, not only those of llmkit."""
    operation = doing({"one": KeyError("missing"), "two": 2})
    with pytest.raises(KeyError):
        execute_with_fallbacks("one", ["two"], operation)
    found = execute_with_fallbacks(
        "one", ["two"], operation, should_fallback=lambda error: isinstance(error, KeyError)
    )
    assert found == ("two", 2)


def test_an_operations_time_out_bounds_what_waits_in_it() -> None:
    """A wait in the first operation ends at its share, one in the last at the whole time."""
    had: list[float | None] = []

    def operation(model: str) -> str:
        scope = current_scope()
        assert scope is not None
        had.append(scope.remaining())
        scope.sleep(60)
        return model

    with pytest.raises(AllModelsFailedError) as caught:
        execute_with_fallbacks("one", ["two"], operation, timeout=0.06)
    assert had[0] == pytest.approx(0.04, abs=0.02)
    assert [each.code for each in caught.value.errors] == [ErrorCode.LLM_TIMEOUT] * 2
    assert current_scope() is None


def test_too_long_a_prompt_passes_over_smaller_models_by_name() -> None:
    """Names of the registry bring their windows with them; an unknown name may be larger."""
    asked: list[str] = []

    def operation(model: str) -> str:
        asked.append(model)
        if model == "newer-than-the-list":
            return model
        raise ContextLengthError("too long")

    found = execute_with_fallbacks(
        "gpt-6-luna", ["gpt-4o", "claude-haiku-4-5", "newer-than-the-list"], operation
    )
    assert found[0] == "newer-than-the-list"
    assert asked == ["gpt-6-luna", "newer-than-the-list"]


def test_a_connection_error_of_llmkit_is_not_wrapped() -> None:
    """An error that is one of llmkit's and a built-in's counts by its code."""
    with pytest.raises(APIConnectionError):
        execute_with_fallbacks(
            "one", ["two"], doing({"one": APIConnectionError("gone")}), should_fallback=[]
        )
