"""Calls that fall back, through real adapters and SDKs, to providers on loopback."""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

import llmkit.settings
from llmkit import (
    AllModelsFailedError,
    BaseLLMAdapter,
    Budget,
    CallRecord,
    Client,
    Completion,
    ErrorCode,
    Fallback,
    LLMError,
    LLMTimeoutError,
    RateLimitError,
    Request,
    Settings,
    StreamInterruptedError,
    deadline,
    execute_llm_with_fallback,
    get_adapter,
    get_performance_tracker,
)
from llmkit.adapters.vendor_adapter import VendorAdapter
from llmkit.scope import current_scope
from llmkit.testing import Answer, ProviderServer
from tests.deadline.calling import MODELS, VENDORS, Vendor, adapter, best_of

Servers = tuple[ProviderServer, ...]
# What a model of each vendor is followed by.
NEXT: dict[Vendor, Vendor] = {"openai": "anthropic", "anthropic": "gemini", "gemini": "openai"}
# A parameter that only this vendor has, or may have.
OWN: dict[Vendor, str] = {
    "openai": "verbosity",
    "anthropic": "inference_geo",
    "gemini": "response_mime_type",
}
TIMEOUT = 0.6
OUTAGE = Answer(status=503)


def refusing() -> str:
    """An address at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host, port = unused.getsockname()
    return f"{host}:{port}"


def chain(
    servers: Sequence[ProviderServer], vendors: Sequence[Vendor] = VENDORS, **arguments: Any
) -> list[BaseLLMAdapter]:
    """One adapter for each server."""
    return [
        adapter(vendor, server.base_url(vendor), **arguments)
        for vendor, server in zip(vendors, servers, strict=False)
    ]


def ask(adapters: Sequence[BaseLLMAdapter], client: Client | None = None, **how: Any) -> Completion:
    first = adapters[0]
    how.setdefault("max_retries", 0)
    return (client or Client()).complete("hi", model=first, fallbacks=adapters[1:], **how)


def seen(servers: Sequence[ProviderServer]) -> list[tuple[str | None, str | None]]:
    """The vendor and model of every request, over all servers in the order of arrival."""
    requests = [request for server in servers for request in server.requests]
    requests.sort(key=lambda request: request.received_at)
    return [(request.vendor, request.model) for request in requests]


# --- an answer in time ----------------------------------------------------------------------------


FAULTS: Mapping[str, Answer | None] = {
    "drips": Answer(drip=0.02),
    "hangs": Answer(delay=30),
    "refuses the connection": None,
    "limits us for a minute": Answer(status=429, headers={"retry-after": "60"}),
    "does not let us connect": None,
}


def faulty(fault: str, vendor: Vendor, server: ProviderServer, dead_end: tuple[str, int]) -> str:
    """The address of a provider with a fault."""
    answer = FAULTS[fault]
    if answer is not None:
        server.answer = answer
        return server.base_url(vendor)
    path = "/v1" if vendor == "openai" else ""
    if fault == "refuses the connection":
        return f"http://{refusing()}{path}"
    return f"http://{dead_end[0]}:{dead_end[1]}{path}"


def clock(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_healthy_fallback_answers_before_the_time_out(
    fault: str, vendor: Vendor, servers: Servers, dead_end: tuple[str, int]
) -> None:
    """Whatever is wrong with the first model, what it leaves of the time is enough for another."""
    first = adapter(vendor, faulty(fault, vendor, servers[0], dead_end))
    other = adapter(NEXT[vendor], servers[1].base_url(NEXT[vendor]))
    servers[1].answer = Answer("in time")

    def call() -> None:
        reply = ask([first, other], timeout=TIMEOUT, max_retries=3)
        assert (reply.text, reply.model) == ("in time", MODELS[NEXT[vendor]])
        assert reply.attempts[-1].code is None
        assert {attempt.model for attempt in reply.attempts[:-1]} == {MODELS[vendor]}

    best_of(6, lambda: clock(call), strict=TIMEOUT, loose=5 * TIMEOUT)


@pytest.mark.parametrize(
    ("fault", "vendor"), list(zip(FAULTS, (*VENDORS, "openai", "gemini"), strict=True))
)
def test_with_no_healthy_model_the_error_comes_in_time(
    fault: str, vendor: Vendor, servers: Servers, dead_end: tuple[str, int]
) -> None:
    """When the fallback is as faulty as the first model, the call still ends with its time."""
    adapters = [
        adapter(each, faulty(fault, each, servers[0], dead_end)) for each in (vendor, NEXT[vendor])
    ]
    codes: set[ErrorCode] = set()

    def call() -> None:
        with pytest.raises(AllModelsFailedError) as caught:
            ask(adapters, timeout=TIMEOUT, max_retries=3)
        codes.update(each.code for each in caught.value.errors)
        assert [each.model for each in caught.value.errors] == [
            MODELS[vendor],
            MODELS[NEXT[vendor]],
        ]

    taken = best_of(6, lambda: clock(call), strict=TIMEOUT + 0.1, loose=5 * TIMEOUT)
    if fault in ("drips", "hangs", "does not let us connect"):
        assert taken >= TIMEOUT
        assert codes <= {ErrorCode.LLM_TIMEOUT, ErrorCode.LLM_CONNECTION_ERROR}
    elif fault == "limits us for a minute":  # nobody waits in vain
        assert taken < TIMEOUT / 2
        assert codes == {ErrorCode.LLM_RATE_LIMIT}


def test_a_share_of_the_time_can_be_said(servers: Servers) -> None:
    """`attempt_timeout` is what a model's tries have together before the next one is asked."""
    servers[0].answer = Answer(delay=30)
    adapters = chain(servers[:2])

    def call() -> None:
        reply = ask(adapters, timeout=20, attempt_timeout=0.1, max_retries=3)
        assert [attempt.code for attempt in reply.attempts] == [ErrorCode.LLM_TIMEOUT, None]

    best_of(6, lambda: clock(call), strict=0.4, loose=3.0)


def test_a_block_s_deadline_bounds_chains(servers: Servers) -> None:
    """`with deadline(…)` holds over a call's own, longer time-out and all its models."""
    for server in servers:
        server.answer = Answer(delay=30)
    adapters = chain(servers)

    def call() -> None:
        with pytest.raises(AllModelsFailedError), deadline(0.3):
            ask(adapters, timeout=20)
        assert current_scope() is None

    assert best_of(6, lambda: clock(call), strict=0.4, loose=3.0) >= 0.3


# --- triggers -------------------------------------------------------------------------------------


TRIGGERS: Mapping[str, Answer] = {
    "rate limit": Answer(status=429),
    "quota": Answer(status=429, error_code="insufficient_quota", error_type="insufficient_quota"),
    "no such model": Answer(status=404),
    "server error": Answer(status=500),
    "overloaded": Answer(status=529),
    "bad gateway": Answer(status=502, body="<html>bad gateway</html>", content_type="text/html"),
    "not JSON": Answer(body="no JSON", content_type="application/json"),
    "cut": Answer(cut_after=40),
    "reset": Answer(cut_after=0, reset=True),
}


@pytest.mark.parametrize("failure", TRIGGERS)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_failures_of_the_vendor_lead_to_the_next_model(
    failure: str, streamed: bool, servers: Servers
) -> None:
    """What another vendor need not have is answered by another vendor, streamed or not."""
    for number, vendor in enumerate(VENDORS):
        servers[0].answer = TRIGGERS[failure]
        adapters = chain(servers, (vendor, NEXT[vendor]))
        if streamed:
            with Client().stream(
                "hi", model=adapters[0], fallbacks=adapters[1:], max_retries=0
            ) as stream:
                assert "".join(stream.text_stream)
            reply = stream.completion
        else:
            reply = ask(adapters)
        assert reply.model == MODELS[NEXT[vendor]], vendor
        assert len(reply.attempts) == 2
        assert len(servers[0].requests) == len(servers[1].requests) == number + 1


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422])
def test_what_is_the_callers_to_mend_leads_nowhere(status: int, servers: Servers) -> None:
    """A refused key or a wrong request is shown at once: no other vendor is paid for it."""
    for vendor in VENDORS:
        servers[0].answer = Answer(status=status)
        with pytest.raises(LLMError) as caught:
            ask(chain(servers, (vendor, NEXT[vendor])))
        assert not isinstance(caught.value, AllModelsFailedError)
        assert caught.value.status == status
        assert (caught.value.provider, caught.value.model) == (vendor, MODELS[vendor])
    assert not servers[1].requests


def test_a_missing_key_leads_nowhere(servers: Servers) -> None:
    """A chain whose first model has no key says so, instead of paying for the second in silence."""
    first = get_adapter(MODELS["openai"], "openai", api_base=servers[0].base_url("openai"))
    with pytest.raises(LLMError, match="OPENAI_API_KEY") as caught:
        ask([first, *chain(servers[1:2], ["anthropic"])])
    assert caught.value.code is ErrorCode.CONFIGURATION_ERROR
    assert not seen(servers)


def test_a_bug_in_an_own_adapter_leads_nowhere(servers: Servers) -> None:
    """A programming error reaches the programmer as it is."""

    class Broken(BaseLLMAdapter):
        def _generate_text(self, request: Request) -> Completion:
            return self.nothing  # type: ignore[attr-defined,no-any-return]  # that is the bug

    with pytest.raises(AttributeError, match="nothing"):
        ask([Broken("mine", "own"), *chain(servers[:1])])
    assert not seen(servers)


@pytest.mark.parametrize("vendor", VENDORS)
def test_refused_content_leads_on_only_when_asked(vendor: Vendor, servers: Servers) -> None:
    """A refusal is an answer by default; `fallback_on` makes it a reason to ask another model."""
    servers[0].answer = Answer("I can't", finish_reason="content_filter")
    servers[1].answer = Answer("I can")
    adapters = chain(servers, (vendor, NEXT[vendor]))

    reply = ask(adapters)
    assert (reply.text, reply.finish_reason) == ("I can't", "content_filter")
    assert not servers[1].requests

    records: list[CallRecord] = []
    client = Client(fallback_on=["LLM_CONTENT_FILTER"], observers=[records.append])
    assert ask(adapters, client).text == "I can"
    (step,) = records[0].fallbacks
    assert step.reason is ErrorCode.LLM_CONTENT_FILTER

    servers[1].answer = servers[0].answer
    assert ask(adapters, client).finish_reason == "content_filter"
    assert ask(adapters[:1], client).finish_reason == "content_filter"


def test_a_refusal_by_error_leads_on_only_when_asked(servers: Servers) -> None:
    """A vendor that refuses by HTTP status is treated as one that refuses in its answer."""
    servers[0].answer = Answer(status=400, error_code="content_filter")
    adapters = chain(servers[:2])
    with pytest.raises(LLMError) as caught:
        ask(adapters)
    assert caught.value.code is ErrorCode.LLM_CONTENT_FILTER
    assert ask(adapters, Client(fallback_on=["LLM_CONTENT_FILTER"])).model == MODELS["anthropic"]


def test_too_long_a_prompt_goes_to_a_larger_window(servers: Servers) -> None:
    """A model that is known to be no larger is passed over; one nobody knows may do."""
    servers[0].answer = Answer(status=400, error_code="context_length_exceeded")
    first = get_adapter("gpt-4o", api_key="sk-test", api_base=servers[0].base_url("openai"))
    smaller = get_adapter("gpt-4o-mini", api_key="sk-test", api_base=servers[2].base_url("openai"))
    larger = adapter("anthropic", servers[1].base_url("anthropic"))
    unknown = get_adapter(
        "openai:newer-than-the-list", api_key="sk-test", api_base=servers[1].base_url("openai")
    )
    assert ask([first, smaller, larger]).model == MODELS["anthropic"]
    assert ask([first, smaller, unknown]).model == "newer-than-the-list"
    assert not servers[2].requests
    with pytest.raises(LLMError) as caught:
        ask([first, smaller])
    assert caught.value.code is ErrorCode.LLM_CONTEXT_LENGTH


# --- what the next model is told ------------------------------------------------------------------


def test_parameters_are_said_anew_for_each_model(servers: Servers) -> None:
    """Each vendor gets the request in its own words, and what it does not take is said."""
    servers[0].answer = OUTAGE
    reply = ask(
        chain(servers, ("openai", "anthropic")),
        system="be brief",
        max_tokens=50,
        temperature=0.5,
        seed=7,
        stop="END",
    )
    (first,), (second,) = servers[0].requests, servers[1].requests
    assert first.json["max_completion_tokens"] == 50
    assert first.json["seed"] == 7
    assert second.json["max_tokens"] == 50
    assert second.json["system"] == "be brief"
    assert second.json["stop_sequences"] == ["END"]
    assert "seed" not in second.json
    assert any("seed" in warning for warning in reply.warnings)


def test_an_answer_may_be_no_longer_than_the_next_model_writes(servers: Servers) -> None:
    """A `max_tokens` that would be an error there is lowered, and that is said."""
    servers[0].answer = OUTAGE
    second = get_adapter("gpt-4o", api_key="sk-test", api_base=servers[1].base_url("openai"))
    assert second.info.max_output_tokens is not None
    first = adapter("anthropic", servers[0].base_url("anthropic"))
    reply = ask([first, second], max_tokens=100_000)

    assert servers[0].requests[0].json["max_tokens"] == 100_000
    assert servers[1].requests[0].json["max_completion_tokens"] == second.info.max_output_tokens
    assert any(f"max_tokens={second.info.max_output_tokens}" in each for each in reply.warnings)


@pytest.mark.parametrize("how", ["fallback", "race", "stream"])
def test_what_is_meant_for_one_vendor_never_reaches_another(how: str, servers: Servers) -> None:
    """There may be a key in a header: another vendor must not see it, nor unknown parameters."""
    servers[0].answer = OUTAGE
    client = Client(fallbacks=[])
    for vendor in VENDORS:
        for server in servers[1:]:
            server.reset()
        adapters = chain(servers, (vendor, NEXT[vendor], NEXT[NEXT[vendor]]))
        further: dict[str, Any] = {
            "extra_headers": {"x-gateway-key": "sekret-0123456789"},
            "extra_body": {"routing": "sekret-0123456789"},
            OWN[vendor]: "sekret-0123456789",
            "max_retries": 0,
        }
        servers[1].answer = OUTAGE
        if how == "race":
            asked = len(servers[0].requests)

            def once_the_first_is_asked(_: object, asked: int = asked) -> Answer:
                servers[0].wait_for_requests(asked + 1, timeout=10)
                return Answer("third")

            servers[2].answer = once_the_first_is_asked
            reply = client.race("hi", adapters, **further)
        elif how == "fallback":
            reply = ask(adapters, **further)
        else:
            stream = client.stream("hi", model=adapters[0], fallbacks=adapters[1:], **further)
            list(stream)
            reply = stream.completion

        first = servers[0].requests[-1]
        assert first.headers["x-gateway-key"] == "sekret-0123456789"
        assert b"sekret-0123456789" in first.body
        for request in (*servers[1].requests, *servers[2].requests):
            assert "sekret" not in f"{request.headers}{request.query}{request.body!r}"
        (warning,) = (each for each in reply.warnings if "meant for" in each)
        for name in (OWN[vendor], "extra_body", "extra_headers"):
            assert name in warning
        assert "sekret" not in warning


def test_headers_stay_at_their_address(servers: Servers) -> None:
    """Two servers of one provider's protocol are two parties: a gateway's key stays with it."""
    servers[0].answer = OUTAGE
    gateway, direct = (adapter("openai", server.base_url("openai")) for server in servers[:2])
    headers = {"x-gateway-key": "sekret-0123456789"}
    reply = ask([gateway, direct], extra_headers=headers, own_parameter=1)

    assert "x-gateway-key" in servers[0].requests[0].headers
    assert "x-gateway-key" not in servers[1].requests[0].headers
    assert servers[1].requests[0].json["own_parameter"] == 1
    assert any("extra_headers" in warning for warning in reply.warnings)

    other = get_adapter("gpt-4o", api_key="sk-test", api_base=servers[0].base_url("openai"))
    servers[0].script(OUTAGE, Answer("same place"))
    assert ask([gateway, other], extra_headers=headers).text == "same place"
    assert "x-gateway-key" in servers[0].requests[-1].headers


def test_each_model_is_asked_with_its_own_key(servers: Servers) -> None:
    """A key goes to its own provider alone."""
    servers[0].answer = servers[1].answer = OUTAGE
    adapters = [
        get_adapter(
            MODELS[vendor], vendor, api_key=f"sk-{vendor}-01234", api_base=server.base_url(vendor)
        )
        for vendor, server in zip(VENDORS, servers, strict=True)
    ]
    ask(adapters)
    for vendor, server in zip(VENDORS, servers, strict=True):
        (request,) = server.requests
        assert f"sk-{vendor}-01234" in str(request.headers)
        for other in set(VENDORS) - {vendor}:
            assert f"sk-{other}-01234" not in f"{request.headers}{request.query}{request.body!r}"


# --- what is said afterwards ----------------------------------------------------------------------


def test_every_cause_and_every_request_is_shown(servers: Servers) -> None:
    """The error names each model with its cause, lists what the servers saw, and pickles."""
    servers[0].answer = Answer(status=429, headers={"retry-after": "0"})
    servers[1].answer = Answer(status=503, headers={"retry-after": "0"})
    servers[2].answer = Answer(status=404)
    with pytest.raises(AllModelsFailedError) as caught:
        ask(chain(servers), max_retries=2)

    error = caught.value
    sent = [(attempt.provider, attempt.model) for attempt in error.attempts]
    assert sent == seen(servers)
    assert len(sent) == 3 + 3 + 1
    assert [len(each.attempts) for each in error.errors] == [3, 3, 1]
    for shown in (str(error), str(pickle.loads(pickle.dumps(error)))):
        assert shown.startswith("all 3 models failed:")
        for vendor in VENDORS:
            assert f"  - {vendor}:{MODELS[vendor]}: " in shown
    assert [each.code for each in pickle.loads(pickle.dumps(error)).errors] == [
        ErrorCode.LLM_RATE_LIMIT,
        ErrorCode.LLM_PROVIDER_ERROR,
        ErrorCode.MODEL_NOT_FOUND,
    ]


def test_the_reply_tells_the_way(servers: Servers) -> None:
    """`reply.model` answered; `reply.attempts` are the requests of all models in their order."""
    servers[0].script(*[Answer(status=503, headers={"retry-after": "0"})] * 2)
    servers[1].script(Answer(status=404))
    reply = ask(chain(servers), max_retries=1)

    assert (reply.provider, reply.model) == ("gemini", MODELS["gemini"])
    assert [(attempt.provider, attempt.model) for attempt in reply.attempts] == seen(servers)
    assert [attempt.status for attempt in reply.attempts] == [503, 503, 404, None]


def test_a_call_is_recorded_once_with_its_steps(servers: Servers) -> None:
    """Observers hear of one logical call, whatever it took; the tracker keeps figures per model."""
    servers[0].answer, servers[1].answer = Answer(status=429), Answer(status=500)
    records: list[CallRecord] = []
    reply = ask(chain(servers), Client(observers=[records.append]), metadata={"view": "home"})

    (record,) = records
    assert record.ok
    assert (record.provider, record.model) == ("gemini", MODELS["gemini"])
    assert record.attempts == reply.attempts
    assert record.metadata == {"view": "home"}
    assert record.fallbacks == (
        Fallback(MODELS["openai"], MODELS["anthropic"], ErrorCode.LLM_RATE_LIMIT),
        Fallback(MODELS["anthropic"], MODELS["gemini"], ErrorCode.LLM_PROVIDER_ERROR),
    )
    stats = get_performance_tracker().get_stats()
    assert {name: (each["requests"], each["successes"]) for name, each in stats.items()} == {
        MODELS["openai"]: (1, 0),
        MODELS["anthropic"]: (1, 0),
        MODELS["gemini"]: (1, 1),
    }
    assert stats[MODELS["openai"]]["errors"] == {"LLM_RATE_LIMIT": 1}
    assert stats[MODELS["openai"]]["fallbacks"] == {f"{MODELS['anthropic']}: LLM_RATE_LIMIT": 1}


def test_a_chain_that_fails_is_recorded_once(servers: Servers) -> None:
    """A failed chain is one failed call, and each model has its failure in the figures."""
    for server in servers:
        server.answer = OUTAGE
    records: list[CallRecord] = []
    with pytest.raises(AllModelsFailedError) as caught:
        ask(chain(servers), Client(observers=[records.append]))

    (record,) = records
    assert record.code is ErrorCode.LLM_ALL_MODELS_FAILED
    assert record.attempts == caught.value.attempts
    stats = get_performance_tracker().get_stats()
    assert [stats[MODELS[vendor]]["failures"] for vendor in VENDORS] == [1, 1, 1]


def test_a_block_s_budget_pays_for_every_model(servers: Servers) -> None:
    """What failed without work is free, what answered is charged, and nothing stays reserved."""
    servers[0].answer = OUTAGE
    servers[1].answer = Answer("yes", input_tokens=11, output_tokens=3)
    with Budget(usd="1") as budget:
        reply = ask(chain(servers))
    assert reply.cost is not None
    assert budget.spent_usd == reply.cost > 0
    assert budget.spent_tokens == 14
    assert budget.remaining_usd == Decimal(1) - reply.cost


def test_a_spent_budget_leads_nowhere(servers: Servers) -> None:
    """A budget is not a model's failure: the next model is not asked instead."""
    with Budget(usd="0.0000001"), pytest.raises(LLMError) as caught:
        ask(chain(servers), max_tokens=1000)
    assert caught.value.code is ErrorCode.LLM_BUDGET_EXCEEDED
    assert not seen(servers)


# --- requests, and no more ------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.usefixtures("endless_patience")
def test_no_sdk_adds_requests_of_its_own(
    vendor: Vendor, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`max_retries=3` sends four requests, whatever the SDK's environment asks for."""
    for name in ("OPENAI", "ANTHROPIC", "GOOGLE", "GEMINI", "GOOGLE_GENAI"):
        monkeypatch.setenv(f"{name}_MAX_RETRIES", "7")
    monkeypatch.setenv("OPENAI_TIMEOUT", "0.001")
    llmkit.settings.reload_settings()
    for status in (408, 409, 429, 500, 503):
        servers[0].reset()
        # Both vendors' SDKs obey `x-should-retry`, if they are left to.
        servers[0].answer = Answer(
            status=status, headers={"retry-after": "0", "x-should-retry": "true"}
        )
        model = adapter(vendor, servers[0].base_url(vendor), max_retries=3)
        with pytest.raises(LLMError) as caught:
            model.generate("hi")
        expected = 1 if status == 409 else 4
        assert len(servers[0].requests) == len(caught.value.attempts) == expected, status


def test_one_model_is_asked_once_under_all_its_names(servers: Servers) -> None:
    """The same model under two names is no fallback for itself."""
    servers[0].answer = OUTAGE
    settings = llmkit.Settings(
        openai_api_key="sk-test-0123456789", openai_api_base=servers[0].base_url("openai")
    )
    names = ["openai:gpt-6-luna", "openai/gpt-6-luna", "gpt-6-luna"]
    with pytest.raises(LLMError) as caught:
        Client("gpt-6-luna", fallbacks=names, settings=settings, max_retries=0).complete("hi")
    assert not isinstance(caught.value, AllModelsFailedError)
    assert len(servers[0].requests) == 1


def test_one_model_with_another_key_is_a_fallback(servers: Servers) -> None:
    """A second account of the same vendor's is asked when the first has used up its quota."""
    servers[0].script(Answer(status=429, error_code="insufficient_quota"), Answer("paid"))
    url = servers[0].base_url("openai")
    keys = ("sk-first-0123456789", "sk-second-0123456789", "sk-second-0123456789")
    first, second, again = (get_adapter("gpt-6-luna", api_key=key, api_base=url) for key in keys)
    reply = Client(fallbacks=[second, again]).complete("hi", model=first)
    assert reply.text == "paid"
    sent = [request.headers["authorization"] for request in servers[0].requests]
    assert sent == [f"Bearer {key}" for key in keys[:2]]


def test_the_settings_name_the_chain(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """FALLBACK_LLM is the chain of every call that doesn't name another; an empty list is none."""
    for number, vendor in enumerate(VENDORS):
        monkeypatch.setenv(f"{vendor.upper()}_API_BASE", servers[number].base_url(vendor))
        monkeypatch.setenv(f"{vendor.upper()}_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("PRIMARY_LLM", MODELS["openai"])
    monkeypatch.setenv("FALLBACK_LLM", f"{MODELS['anthropic']}, {MODELS['gemini']}")
    llmkit.settings.reload_settings()
    servers[0].answer = servers[1].answer = OUTAGE
    client = Client(max_retries=0)

    assert client.complete("hi").model == MODELS["gemini"]
    assert client.complete("hi", fallbacks=[MODELS["gemini"]]).model == MODELS["gemini"]
    assert len(servers[1].requests) == 1
    with pytest.raises(LLMError) as caught:
        client.complete("hi", fallbacks=[])
    assert caught.value.code is ErrorCode.LLM_PROVIDER_ERROR
    with pytest.raises(LLMError):
        Client(max_retries=0, fallbacks=[]).complete("hi")

    model, reply = execute_llm_with_fallback("hi", max_retries=0)
    assert model == reply.model == MODELS["gemini"]
    with pytest.raises(LLMError):
        execute_llm_with_fallback("hi", max_tokens=-1)


@pytest.mark.parametrize(("timeout", "loaded"), [(3, ["claude-haiku-5-5"]), (60, [])])
def test_a_fallbacks_sdk_is_loaded_ahead_when_there_is_little_time(
    timeout: float, loaded: list[str], servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of a short time-out would not do for importing an SDK; a cached answer needs none."""
    begun: list[str] = []

    def note(adapter: VendorAdapter) -> None:
        if adapter.model != MODELS["openai"]:  # which loads its own in any case
            begun.append(adapter.model)

    monkeypatch.setattr(VendorAdapter, "load_ahead", note)
    monkeypatch.setenv("LLMKIT_CACHE_ENABLED", "yes")
    llmkit.settings.reload_settings()
    chain = [adapter(vendor, servers[0].base_url(vendor)) for vendor in VENDORS[:2]]
    for cached in (None, "memory"):
        reply = Client(timeout=timeout).complete("hi", model=chain[0], fallbacks=chain[1:])
        assert (reply.model, reply.cached) == (MODELS["openai"], cached)
        assert begun == loaded


@pytest.mark.parametrize("variable", ["PRIMARY_LLM", "FALLBACK_LLM"])
def test_a_model_that_a_variable_names_is_said_to_be(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has typed no model at all is told where the wrong name comes from."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv(variable, "gtp-6-lunar")
    llmkit.settings.reload_settings()
    with pytest.raises(LLMError, match=rf"gtp-6-lunar.* \({variable} names it\)"):
        Client().complete("hi")
    with pytest.raises(LLMError) as caught:
        Client().complete("hi", model="gtp-6-lunar", fallbacks=[])
    assert variable not in str(caught.value)


def test_a_stale_answer_has_its_models_name(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all fail, the documented function names the model whose expired answer it gives."""
    for vendor, server in zip(VENDORS, servers, strict=True):
        monkeypatch.setenv(f"{vendor.upper()}_API_KEY", "sk-test-0123456789")
        monkeypatch.setenv(f"{vendor.upper()}_API_BASE", server.base_url(vendor))
    monkeypatch.setenv("LLMKIT_CACHE_ENABLED", "yes")
    monkeypatch.setenv("FALLBACK_LLM", MODELS["anthropic"])
    llmkit.settings.reload_settings()
    servers[0].script(OUTAGE)

    def ask() -> tuple[str, Any]:
        return execute_llm_with_fallback(
            "hi", MODELS["openai"], max_retries=0, cache_ttl=0.05, stale_ttl=60
        )

    assert ask()[0] == MODELS["anthropic"]
    time.sleep(0.1)
    servers[0].answer = servers[1].answer = OUTAGE
    model, reply = ask()
    assert (model, reply.model, reply.cached) == (*2 * (MODELS["anthropic"],), "stale")


def test_a_fallback_that_can_not_be_is_said_before_anything_is_sent(servers: Servers) -> None:
    """A misspelt fallback is found on the first call, not in the first outage."""
    first = chain(servers)[0]
    for wrong in (["gpt-6-lunatic"], ["nobody:model"], "gpt-6-luna"):
        with pytest.raises(LLMError):
            Client().complete("hi", model=first, fallbacks=wrong)
    assert not seen(servers)


# --- streams --------------------------------------------------------------------------------------


def test_a_stream_falls_back_until_its_first_chunk(servers: Servers) -> None:
    """A stream that stalls before its first word is another model's; its request is on the list."""
    servers[0].answer = Answer(stall_after=80)
    servers[1].answer = Answer(chunks=["in ", "time"])
    adapters = chain(servers[:2])
    records: list[CallRecord] = []
    with Client(observers=[records.append]).stream(
        "hi", model=adapters[0], fallbacks=adapters[1:], max_retries=0, first_chunk_timeout=0.5
    ) as stream:
        assert [chunk.text for chunk in stream] == ["in ", "time"]

    reply = stream.completion
    assert (reply.provider, reply.model) == ("anthropic", MODELS["anthropic"])
    assert [attempt.code for attempt in reply.attempts] == [ErrorCode.LLM_TIMEOUT, None]
    (record,) = records
    assert record.streamed
    assert [step.reason for step in record.fallbacks] == [ErrorCode.LLM_TIMEOUT]
    assert servers[0].requests[0].disconnected.wait(5)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stream_never_falls_back_after_its_first_chunk(vendor: Vendor, servers: Servers) -> None:
    """Text that was handed out can't be taken back: the stream breaks, and nobody else is asked."""
    servers[0].answer = Answer(chunks=["one ", "two"], error_event_after=1)
    adapters = chain(servers, (vendor, NEXT[vendor]))
    stream = Client().stream("hi", model=adapters[0], fallbacks=adapters[1:], max_retries=3)
    with pytest.raises(StreamInterruptedError) as caught:
        list(stream)
    assert caught.value.partial_text == "one "
    assert (caught.value.provider, caught.value.model) == (vendor, MODELS[vendor])
    assert len(caught.value.attempts) == len(servers[0].requests) == 1
    assert not servers[1].requests


def test_a_chain_of_streams_that_fails_says_so_at_once(servers: Servers) -> None:
    """With no first chunk from anybody, `stream()` itself raises, with every cause."""
    for server in servers:
        server.answer = OUTAGE
    adapters = chain(servers)
    with pytest.raises(AllModelsFailedError) as caught:
        Client().stream("hi", model=adapters[0], fallbacks=adapters[1:], max_retries=0)
    assert len(caught.value.errors) == len(caught.value.attempts) == len(seen(servers)) == 3
    assert current_scope() is None


def test_a_stream_that_began_in_a_share_outlives_it(servers: Servers) -> None:
    """The first model's share bounds its first chunk, not the rest of its stream."""
    servers[0].answer = Answer(chunks=["a", "b", "c"], chunk_delay=0.25)
    adapters = chain(servers[:2])
    stream = Client().stream(
        "hi", model=adapters[0], fallbacks=adapters[1:], first_chunk_timeout=0.6, timeout=20
    )
    assert [chunk.text for chunk in stream] == ["a", "b", "c"]
    assert not servers[1].requests


def test_nobody_waits_out_a_minute_while_another_can_be_asked(servers: Servers) -> None:
    """A long Retry-After, though there is time for it, is waited for by the last model alone."""
    adapters = chain(servers[:2])
    limited = Answer(status=429, headers={"retry-after": "60"})
    servers[0].script(limited, Answer("first"))
    reply = ask(adapters, max_retries=3, timeout=120)
    assert (reply.provider, len(servers[0].requests)) == ("anthropic", 1)
    assert reply.latency < 10

    servers[0].script(Answer(status=429, headers={"retry-after": "0.05"}), Answer("first"))
    assert ask(adapters, max_retries=3, timeout=120, use_cache=False).provider == "openai"


def test_timeouts_and_limits_are_told_apart(servers: Servers) -> None:
    """Each cause keeps its class, so that a caller can look for one."""
    servers[0].answer = Answer(delay=30)
    servers[1].answer = Answer(status=429, headers={"retry-after": "60"})
    with pytest.raises(AllModelsFailedError) as caught:
        ask(chain(servers[:2]), timeout=0.9)
    assert [type(each) for each in caught.value.errors] == [LLMTimeoutError, RateLimitError]
    assert caught.value.errors[1].retry_after == 60


@pytest.mark.parametrize(("own", "asked"), [("sk-other", 2), ("sk-test", 1)])
def test_another_account_stands_in(own: str, asked: int) -> None:
    """The same model is a fallback by the settings of another account, and none by equal ones."""
    with ProviderServer(Answer(status=503)) as server:

        def account(key: str) -> BaseLLMAdapter:
            settings = Settings(openai_api_key=key, openai_api_base=server.base_url("openai"))
            return get_adapter("gpt-6-luna", settings=settings)

        with pytest.raises(LLMError):
            Client(max_retries=0).complete(
                "Hi", model=account("sk-test"), fallbacks=[account(own)], use_cache=False
            )
        keys = {request.headers["authorization"] for request in server.requests}
        assert (len(server.requests), keys) == (asked, {"Bearer sk-test", f"Bearer {own}"})
