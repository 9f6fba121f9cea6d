"""One model's part in a call: its tries, what each may cost, and what comes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

from llmkit.cache import Allowance
from llmkit.cache.replies import replay
from llmkit.content_policy import log_violation
from llmkit.cost import cost_of, find_unpriced, why_unknown
from llmkit.errors import Attempt, LLMError, ProviderError
from llmkit.models import ModelInfo
from llmkit.pipeline.fitting import fit_to_model, say_for
from llmkit.pipeline.options import Adapter, CallOptions, Target
from llmkit.pipeline.tries import Tries
from llmkit.request import Request
from llmkit.scope import Scope, current_scope
from llmkit.streams import ChunkSource
from llmkit.types import Chunk, Completion

__all__ = ["Begun", "ModelCall", "begin_replay", "read_answer", "stand_in"]

T = TypeVar("T")
R = TypeVar("R", Completion, Completion | None)

# Seconds that a call's work on shared caches may take together, and the part of a short time-out.
FOR_CACHES = 0.25
SHARE_FOR_CACHES = 1 / 4

# Seconds that a look for an expired answer may take, when a call's own time may be over.
LAST_LOOK = 0.05


class Begun(NamedTuple):
    """A stream whose first chunk has arrived.

    Attributes:
        source: The further chunks.
        first: The first one; None when the answer is empty.
        ended: The whole answer, when it was over before its first chunk.
        scope: The stream's time and cancel switch; it holds the open reply.
    """

    source: ChunkSource
    first: Chunk | None
    ended: Completion | None
    scope: Scope


class ModelCall:
    """Asks one model, as often as its retries allow.

    Args:
        adapter: Whom to ask.
        request: What to ask.
        options: How.
        streamed: Whether the answer arrives in pieces.
        asides: What the user should know already of this very call.
        allowance: The time that the call's work on shared caches may take; None for the usual.

    Attributes:
        asides: What the user should know of this very call: it is not kept with the answer.

    Raises:
        InvalidRequestError: The model does not take what is asked, and `on_unsupported` is
            "error".
    """

    __slots__ = (
        "_allowance",
        "_fitted",
        "_key",
        "_request",
        "_warnings",
        "adapter",
        "asides",
        "options",
        "streamed",
        "tries",
    )

    def __init__(
        self,
        adapter: Adapter,
        request: Request,
        options: CallOptions,
        *,
        streamed: bool = False,
        asides: tuple[str, ...] = (),
        allowance: Allowance | None = None,
    ) -> None:
        self.adapter = adapter
        self.options = options
        self.streamed = streamed
        self.asides = asides
        self._warnings: tuple[str, ...] = ()  # of the model; kept with the answer
        self.tries: Tries | None = None
        self._request = request
        self._fitted: tuple[Request, ModelInfo] | None = None
        self._key: str | None = None
        self._allowance = allowance
        if options.cache is not None:
            self._key = options.cache.key_of(
                request, provider=adapter.provider, address=adapter.address
            )
        if request.on_unsupported == "error":
            self._fit()

    @property
    def allowance(self) -> Allowance | None:
        """The time that the call's work on shared caches may take; None without a cache."""
        if self._allowance is None and self.options.cache is not None:
            timeout = self.options.timeout
            share = FOR_CACHES if timeout is None else timeout * SHARE_FOR_CACHES
            self._allowance = Allowance(min(FOR_CACHES, share))
        return self._allowance

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every HTTP request that has ended."""
        return () if self.tries is None else self.tries.attempts

    @property
    def attempts_if_cut(self) -> tuple[Attempt, ...]:
        """Every HTTP request, one that is under way as cancelled: a racer that has lost."""
        return () if self.tries is None else self.tries.attempts_if_cut()

    @property
    def failure(self) -> LLMError | None:
        """The last error of a try; None before."""
        return None if self.tries is None else self.tries.failure

    def cached_near(self) -> Completion | None:
        """Returns the answer, if it is cached in memory and may be taken from there."""
        cache = self.options.cache
        if cache is None or self.options.cache_use.mode != "use":
            return None
        return self._delivered(cache.near(self._key, self.options.cache_use))

    def cached(self) -> Completion | None:
        """Returns the answer, if it is cached anywhere and may be taken from there."""
        cache = self.options.cache
        if cache is None or self.options.cache_use.mode != "use":
            return None
        return self._delivered(cache.find(self._key, self.allowance, self.options.cache_use))

    def cached_stale(self) -> Completion | None:
        """Returns an answer that has expired, if those are wanted rather than none."""
        cache = self.options.cache
        use = self.options.cache_use
        if cache is None or not use.stale_ttl:
            return None
        return self._delivered(cache.find_stale(self._key, Allowance(LAST_LOOK), use))

    def answer(self, forced: bool = False) -> Completion:
        """Gets an answer, cached or fresh, inside the current Scope.

        Args:
            forced: Whether the model is asked although its circuit is open.

        Returns:
            The answer, with its cost and warnings.

        Raises:
            LLMError: The last try's error.
            CallInterrupted: The Scope ended outside of a try.
        """
        cache = self.options.cache
        if cache is None or self._key is None:
            reply = self._ask(forced)
        else:
            reply = cache.answer(
                self._key, self.options.cache_use, lambda: self._ask(forced), self.allowance
            )
        return self._delivered(reply)

    def answer_alone(self, forced: bool = False) -> Completion:
        """Gets an answer from the model, whoever else asks it the same, and keeps it: a racer's.

        Args:
            forced: Whether the model is asked although its circuit is open.

        Returns:
            The answer, with its cost and warnings.

        Raises:
            LLMError: The last try's error.
            CallInterrupted: The Scope ended outside of a try.
        """
        reply = self._ask(forced)
        self._keep(reply)
        return self._delivered(reply)

    def _ask(self, forced: bool) -> Completion:
        tries = self._try()
        adapter = self.adapter
        # Looked up at each try: tests replace it.
        reply = tries.run(
            lambda: read_answer(adapter, adapter._generate_text(tries.request)), forced
        )
        if tries.held is not None:
            tries.held.settle(reply)
        self._complete(reply)
        return reply

    def begin(self, whole: Scope, forced: bool = False) -> Begun:
        """Gets a stream's first chunk, cached or fresh, inside the current Scope.

        Args:
            whole: The Scope of the whole stream, around the current one.
            forced: Whether the model is asked although its circuit is open.

        Returns:
            The stream.

        Raises:
            LLMError: The last try's error.
            CallInterrupted: The Scope ended outside of a try.
        """
        hit = self.cached()
        if hit is not None:
            return begin_replay(hit, whole)
        return self.begin_fresh(whole, forced)

    def begin_fresh(self, whole: Scope, forced: bool = False) -> Begun:
        """Gets a stream's first chunk from the model, inside the current Scope.

        Args:
            whole: The Scope of the whole stream, around the current one.
            forced: Whether the model is asked although its circuit is open.

        Returns:
            The stream.

        Raises:
            LLMError: The last try's error.
            CallInterrupted: The Scope ended outside of a try.
        """
        # The stream goes on when the current Scope, which bounds its first chunk, is over.
        scope = Scope(parent=whole, holds=True)
        around = current_scope() or whole
        with scope.entered(), scope.bounded_by(around).entered():
            tries = self._try()
            return tries.run(lambda: self._begin(tries, scope), forced)

    def end_stream(self, outcome: Completion | LLMError) -> None:
        """Settles what is known only at a stream's end."""
        if self.tries is not None:
            self.tries.end_stream(outcome)
        if isinstance(outcome, Completion) and outcome.cached is None:
            self._complete(outcome)
            self._keep(outcome)
            self._delivered(outcome)

    def note_end(self, error: LLMError) -> None:
        """Notes how a stream ended that was dropped; takes no lock."""
        if self.tries is not None:
            self.tries.note_end(error)

    def _keep(self, reply: Completion) -> None:
        """Puts an answer into the cache that was not got through it: a stream's, or a racer's."""
        if self.options.cache is not None:
            self.options.cache.keep(self._key, reply, self.options.cache_use, self.allowance)

    def log_violation(self, outcome: Completion | LLMError) -> None:
        """Logs, for review, that the content of this call was refused or filtered."""
        log_violation(
            outcome,
            provider=self.adapter.provider,
            model=self.adapter.model,
            request=self._request,
            settings=self.adapter.settings,
        )

    def _complete(self, reply: Completion) -> None:
        reply.warnings = (*self._warnings, *reply.warnings)
        if reply.cost is None:
            info = self._fit()[1]
            unpriced = find_unpriced(reply.provider, reply.raw)
            if unpriced is None:
                reply.cost = cost_of(reply.usage, info)
            if reply.cost is None and info.known:  # of another model, all is said already
                reply.warnings += (why_unknown(reply.usage, info, unpriced),)

    def _delivered(self, reply: R) -> R:
        """Adds what belongs to this very call, and not to whoever is given the answer later."""
        if reply is not None and self.asides:
            reply.warnings = (*self.asides, *reply.warnings)
        return reply

    def _try(self) -> Tries:
        if self.tries is None:
            request, info = self._fit()
            self.tries = Tries(self.adapter, info, request, self.options, self.streamed)
        return self.tries

    def _fit(self) -> tuple[Request, ModelInfo]:
        """Returns what is sent, and what is known of the model; a cached answer needs neither."""
        if self._fitted is None:
            info = self.adapter.info
            request, said = fit_to_model(self._request, info, self.adapter.never_takes)
            self._warnings = tuple(said)
            self._fitted = request, info
        return self._fitted

    def _begin(self, tries: Tries, scope: Scope) -> Begun:
        source = _read_answer_of(self.adapter, self.adapter._stream_text(tries.request))
        if tries.held is not None:
            source = tries.held.counting(source)
        try:
            return Begun(source, next(source), None, scope)
        except StopIteration as end:
            return Begun(source, None, end.value, scope)
        except BaseException:  # Ctrl-C, too: nobody else has the open reply yet
            scope.close_held()
            raise


def begin_replay(reply: Completion, whole: Scope) -> Begun:
    """Hands a cached answer out as a stream.

    Args:
        reply: The answer.
        whole: The Scope of the whole stream.
    """
    source = replay(reply)
    return Begun(source, next(source), None, Scope(parent=whole, holds=True))


def stand_in(first: ModelCall, request: Request, target: Target) -> ModelCall:
    """Makes the part in a call of a model that the request was not written for.

    Args:
        first: The part of the model that it was written for.
        request: The request, as it was meant for that one.
        target: The one that is asked.

    Raises:
        InvalidRequestError: The model does not take what is asked, and `on_unsupported` is
            "error".
    """
    said, asides = say_for(
        request,
        first.adapter.provider,
        target.adapter.info,
        same_address=first.adapter.address == target.adapter.address,
    )
    return ModelCall(
        target.adapter,
        said,
        target.options,
        streamed=first.streamed,
        asides=asides,
        allowance=first.allowance,
    )


def read_answer(adapter: Adapter, answer: object) -> Completion:
    """Reads what an adapter's `_generate_text`, or a test's stand-in for it, returned.

    Args:
        adapter: The adapter.
        answer: A `Completion`, or a mapping such as `{"text": …}`.

    Returns:
        A completion that nobody else holds.

    Raises:
        ProviderError: It is something else.
    """
    if isinstance(answer, Completion):
        return replace(answer)
    if isinstance(answer, Mapping):
        return Completion.from_mapping(answer, model=adapter.model, provider=adapter.provider)
    raise ProviderError(
        f"_generate_text returned {type(answer).__name__}, expected a Completion or a mapping",
        provider=adapter.provider,
        model=adapter.model,
        retryable=False,
    )


def _read_answer_of(adapter: Adapter, source: ChunkSource) -> ChunkSource:
    """Passes a stream's chunks on, and reads what stands at their end."""
    return read_answer(adapter, (yield from source))
