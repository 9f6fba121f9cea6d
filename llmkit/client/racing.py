"""Racing: the part of a Client that asks several models at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmkit.client.asking import Asking
from llmkit.request import Prompt
from llmkit.types import Completion

if TYPE_CHECKING:
    from llmkit.adapters import BaseLLMAdapter
    from llmkit.parallel import HedgeAfter
    from llmkit.streams import Stream

__all__ = ["Racing"]


class Racing:
    """Races, as methods of `Client`."""

    _asking: Asking

    def race(
        self,
        prompt: Prompt,
        models: Sequence[str | BaseLLMAdapter],
        *,
        hedge_after: HedgeAfter = None,
        **parameters: Any,
    ) -> Completion:
        """Asks several models at once, and cuts the others when the first has answered.

            reply = client.race("Now!", ["gpt-6-luna", "claude-haiku-5-5"], hedge_after=1.5)

        A model that fails, or whose answer is filtered, does not win while another may still
        answer.

        Args:
            prompt: As in `complete`.
            models: The models, the likeliest winner first; one may stand there twice.
            hedge_after: Seconds after which the next model is asked, too, if there is no answer
                yet (one that fails is followed at once); "p95" takes the time in which 95 % of the
                last model's calls were answered; None asks all at once.
            **parameters: All that `complete` takes, but `model` and `fallbacks`.

        Returns:
            The winner's answer. `.attempts` lists the requests that were cut, too; what those cost
            is unknown, and `.warnings` says so.

        Raises:
            AllModelsFailedError: No model answered; `.errors` says why.
            LLMError: The request is wrong, or the only model failed.
        """
        return self._asking.race(prompt, models, hedge_after, parameters)

    def race_stream(
        self,
        prompt: Prompt,
        models: Sequence[str | BaseLLMAdapter],
        *,
        hedge_after: HedgeAfter = None,
        **parameters: Any,
    ) -> Stream:
        """Asks several models at once for a stream; the first to deliver a chunk wins.

        Args:
            prompt: As in `complete`.
            models: See `race`.
            hedge_after: See `race`; here it counts until the first chunk.
            **parameters: All that `stream` takes, but `model` and `fallbacks`.

        Returns:
            The winner's stream; the others have been cut.

        Raises:
            LLMError: As in `race`.
        """
        return self._asking.race_stream(prompt, models, hedge_after, parameters)
