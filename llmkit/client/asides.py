"""Asides: what a Client does besides asking models: it counts, pays, reports and looks around."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmkit.breaker import breaker_for
from llmkit.client.asking import Asking
from llmkit.connection_pool import health_check as pool_health
from llmkit.performance import get_performance_tracker
from llmkit.request import Prompt

if TYPE_CHECKING:
    from llmkit.adapters import BaseLLMAdapter
    from llmkit.budget import Budget
    from llmkit.budget.budget import OnStoreError, OnUnknownPrice
    from llmkit.budget.ledger import Ledger
    from llmkit.tokenizer import TokenCount

__all__ = ["Asides"]


class Asides:
    """Further methods of `Client`."""

    _asking: Asking

    def count_tokens(
        self,
        prompt: Prompt,
        *,
        model: str | BaseLLMAdapter | None = None,
        system: str | None = None,
        exact: bool = False,
        timeout: float | None = None,
    ) -> TokenCount:
        """Counts a prompt's tokens.

        Args:
            prompt: A text, or messages `{"role", "content"}`.
            model: A name, or an adapter of your own, as in `complete`; None takes the Client's.
            system: Instructions, put before the messages; None for none.
            exact: Whether the vendor's counting endpoint is asked, which costs a request, but no
                money; False never touches the network.
            timeout: Seconds for the request and its further tries; None takes the Client's.

        Returns:
            The tokens, an `int` that says by `.estimated` how good it is.

        Raises:
            LLMError: The vendor has no such endpoint, or could not be asked; or the model or the
                prompt can't be meant.
        """
        adapter = self._asking.adapter(model)
        limits = self._asking.limits(timeout)
        return adapter.count_tokens(prompt, system=system, exact=exact, **limits)

    def budget(
        self,
        usd: Decimal | float | str | None = None,
        tokens: int | None = None,
        *,
        name: str | None = None,
        store: str | Ledger | None = None,
        on_unknown_price: OnUnknownPrice = "error",
        on_store_error: OnStoreError = "error",
        input_margin: float | None = None,
    ) -> Budget:
        """Makes a budget for a block of calls.

            with client.budget(usd="0.50") as budget:
                ...
            print(budget.spent_usd)

        Before each call the worst that it can cost is reserved, and settled afterwards; a call that
        does not fit any more raises `BudgetExceededError`, and nothing was spent on it. The block's
        budget holds for every call of this thread, of whatever Client, and not for threads that you
        start yourself: those need `budget.wrap(function)`, or a `Client(budget=budget)`.

        Args:
            usd: What the block may cost; None sets no limit in money.
            tokens: How many tokens it may use, sent and received; None sets no limit in tokens.
            name: Whose budget it is; see `Budget`, also for all that follow.
            store: Where it is kept; None keeps it in memory.
            on_unknown_price: "error", "warn" or "ignore".
            on_store_error: "error" or "allow".
            input_margin: How many times its estimated tokens the input may have; None reserves a
                token for each byte.

        Returns:
            The budget, to be used as a context manager.

        Raises:
            InvalidRequestError: An argument can't be meant, or there is no limit.
        """
        from llmkit.budget import Budget

        return Budget(
            usd,
            tokens,
            name=name,
            store=store,
            on_unknown_price=on_unknown_price,
            on_store_error=on_store_error,
            input_margin=input_margin,
        )

    def stats(self, model: str | None = None) -> dict[str, Any]:
        """Returns the process's figures, by model.

        Args:
            model: One model's figures only, by its bare name; None for all.

        Returns:
            What `LLMPerformanceTracker.get_stats` says.
        """
        return get_performance_tracker().get_stats(model)

    def health_check(self, model: str | BaseLLMAdapter | None = None) -> dict[str, Any]:
        """Says whether the model's provider can be reached, without paying for anything.

        Args:
            model: A name, or an adapter of your own, as in `complete`; None takes the Client's.

        Returns:
            What `BaseLLMAdapter.health_check` says, with the state of the provider's connection
            pools under "pools", and of the model's circuit breaker ("closed", "open" or
            "half_open") under "circuit".

        Raises:
            LLMError: The model can't be meant, or the Client is closed. What is wrong with the
                provider or the key is said in the answer.
        """
        adapter = self._asking.adapter(model)
        circuit = breaker_for(adapter.provider, adapter.model, adapter.address)
        pools = pool_health(adapter.provider)
        return {**adapter.health_check(), "pools": pools, "circuit": circuit.state}
