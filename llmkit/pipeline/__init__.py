"""One call's way: what every adapter's call goes through, around the vendor's own step.

    LogicalCall     Scope: the deadline and the cancel switch; one CallRecord for the observers
      (fallback over models, or a race: on the rungs above)
        ModelCall   cached: one flight for equal questions; not for streams and racers
          retried   within the provider's retry budget
            guarded     by the model's circuit breaker
              limited     waits for its turn under the rate limits
                budgeted    reserves what the try may cost, and settles
                  attempted   every HTTP request is an Attempt
                    adapter._generate_text

A stream takes the same way up to its first chunk; afterwards it can only break.
"""

from __future__ import annotations

from llmkit.pipeline.logical_call import LogicalCall
from llmkit.pipeline.model_call import Begun, ModelCall, begin_replay, read_answer, stand_in
from llmkit.pipeline.options import Adapter, CallOptions, Target
from llmkit.request import Request
from llmkit.streams import Stream
from llmkit.types import Completion

__all__ = [
    "Adapter",
    "Begun",
    "CallOptions",
    "LogicalCall",
    "ModelCall",
    "Target",
    "begin_replay",
    "complete",
    "open_stream",
    "read_answer",
    "stand_in",
]


def complete(adapter: Adapter, request: Request, options: CallOptions) -> Completion:
    """Makes one call of one model.

    Args:
        adapter: Whom to ask.
        request: What to ask.
        options: How.

    Returns:
        The answer, with its attempts, cost, latency and warnings.

    Raises:
        LLMError: The call failed, whatever the reason; `attempts` lists what was tried.
    """
    only = ModelCall(adapter, request, options)
    call = LogicalCall(only, options, request.metadata)
    hit = only.cached_near()
    if hit is not None:
        return call.take(hit)
    return call.complete(lambda: (only, only.answer()))


def open_stream(adapter: Adapter, request: Request, options: CallOptions) -> Stream:
    """Makes one streamed call of one model, up to its first chunk.

    Args:
        adapter: Whom to ask.
        request: What to ask.
        options: How.

    Returns:
        The stream, which has begun.

    Raises:
        LLMError: There was no first chunk.
    """
    only = ModelCall(adapter, request, options, streamed=True)
    call = LogicalCall(only, options, request.metadata)
    return call.stream(lambda: (only, only.begin(call.scope)))
