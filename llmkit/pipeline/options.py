"""What the pipeline is told of a call: whom it asks, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from llmkit.cache.replies import CacheUse, ReplyCache
from llmkit.models import ModelInfo
from llmkit.performance import Observer
from llmkit.request import Request
from llmkit.retry import RetryPolicy
from llmkit.settings import Settings
from llmkit.streams import ChunkSource, Stream
from llmkit.types import Completion

if TYPE_CHECKING:
    from llmkit.budget import Budget
    from llmkit.rate_limits import RateLimits

__all__ = ["Adapter", "CallOptions", "Target"]

_USUAL_USE = CacheUse()


class Adapter(Protocol):
    """What the pipeline knows of an adapter: one model, and the two vendor-specific steps."""

    @property
    def model(self) -> str:
        """The model's bare name."""

    @property
    def provider(self) -> str:
        """Its provider's name."""

    @property
    def address(self) -> str:
        """Where it is asked."""

    @property
    def info(self) -> ModelInfo:
        """What the registry knows of it."""

    @property
    def settings(self) -> Settings:
        """Where its keys and defaults come from."""

    @property
    def observers(self) -> Sequence[Observer]:
        """Who is told about its calls."""

    def run(self, request: Request, options: CallOptions) -> Completion:
        """Makes a checked request."""

    def run_stream(self, request: Request, options: CallOptions) -> Stream:
        """Makes a checked request as a stream."""

    def ensure_initialized(self) -> bool:
        """Gets ready what a first call needs."""

    def load_ahead(self) -> None:
        """Begins to load what a first call needs, without waiting for it."""

    @property
    def never_takes(self) -> frozenset[str]:
        """Fields of a Request that the vendor has no word for, whatever the model."""

    def _generate_text(self, request: Request) -> Completion | Mapping[str, Any]: ...

    def _stream_text(self, request: Request) -> ChunkSource: ...


class CallOptions(NamedTuple):
    """How a call is made, as opposed to what it asks.

    Attributes:
        timeout: Seconds for the whole call; None sets no limit (a Scope around it still does).
        attempt_timeout: Seconds for each single try; None: as long as the call may last. In a chain
            of models, all tries of one model have this time together.
        first_chunk_timeout: Seconds until a stream's first chunk, all tries together; None: no
            limit but `timeout`.
        idle_timeout: Seconds between two chunks of a stream; None: no limit but `timeout`.
        retry: When to try again.
        observers: Who is told about the call, besides the process's tracker.
        budgets: What pays for the call, besides the budgets of the blocks around it.
        rate_limits: What the call has to wait for; None for nothing.
        cache: Where answers are kept; None for nowhere.
        cache_use: How.
        tracked: Whether the process's tracker is told about the call.
        following: The model that is asked when this one fails; None for none.
    """

    timeout: float | None = None
    attempt_timeout: float | None = None
    first_chunk_timeout: float | None = None
    idle_timeout: float | None = None
    retry: RetryPolicy = RetryPolicy()
    observers: Sequence[Observer] = ()
    budgets: Sequence[Budget] = ()
    rate_limits: RateLimits | None = None
    cache: ReplyCache | None = None
    cache_use: CacheUse = _USUAL_USE
    tracked: bool = True
    following: Adapter | None = None


class Target(NamedTuple):
    """One of the models that a call may ask.

    Attributes:
        adapter: The model.
        options: How it is asked.
    """

    adapter: Adapter
    options: CallOptions
