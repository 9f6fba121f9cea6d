"""The call's side: reserve before, settle after."""

from __future__ import annotations

from collections.abc import Sequence

from llmkit.budget.budget import Budget
from llmkit.budget.held import Held
from llmkit.budget.worst_case import WorstCase, worst_case
from llmkit.errors import BudgetExceededError
from llmkit.log import get_logger
from llmkit.models import ModelInfo
from llmkit.request import Request

__all__ = ["hold"]


def hold(
    request: Request, info: ModelInfo, budgets: Sequence[Budget], *, streamed: bool = False
) -> Held:
    """Reserves a call's worst case, waiting inside the current Scope while others must settle.

        held = hold(request, info, budgets, streamed=True)
        with held:                                   # an error is charged as far as it may cost
            source = held.counting(adapter._stream_text(held.request))
        ...
        held.end(completion_or_error)                # once the stream is over

    Args:
        request: What is asked.
        info: The model that is asked.
        budgets: At least one, innermost first.
        streamed: Whether the answer arrives in pieces.

    Returns:
        What is held; its `request` is the one to send.

    Raises:
        BudgetExceededError: It doesn't fit, or its price is unknown; nothing is spent.
        CallInterrupted: The Scope ended while it waited; nothing is spent.
    """
    margins = [budget.input_margin for budget in budgets]
    cautious = [margin for margin in margins if margin is not None]
    case = worst_case(request, info, max(cautious) if len(cautious) == len(margins) else None)
    warnings = _check_price(case, budgets)
    held = Held(request, case, [budget.account for budget in budgets], streamed)
    try:
        held.acquire()
    except BudgetExceededError as refusal:
        refusal.provider, refusal.model = info.provider, info.name
        raise
    held.warnings += warnings
    return held


def _check_price(case: WorstCase, budgets: Sequence[Budget]) -> tuple[str, ...]:
    """Returns what the user should know about an unknown price."""
    if case.prices is not None:
        return ()
    warnings: tuple[str, ...] = ()
    for budget in budgets:
        if budget.account.limit.usd is None or budget.on_unknown_price == "ignore":
            continue
        said = f"the price of {case.info.name} is unknown"
        if budget.on_unknown_price == "error":
            raise BudgetExceededError(
                f"{said}, and {budget.account} is in USD: give it a price by register_model(…, "
                "prices=…), or make the budget with on_unknown_price='warn', or tokens=…",
                provider=case.info.provider,
                model=case.info.name,
            )
        if not warnings:
            warnings = (f"{said}: {budget.account} does not count its money",)
            get_logger("budget").warning("%s", warnings[0])
    return warnings
