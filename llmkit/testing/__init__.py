"""Tools for testing code that calls language models.

`ProviderServer` is a provider on loopback: it speaks OpenAI's, Anthropic's and Gemini's wire
protocols over real sockets, gives the answers and makes the faults that a test scripts, and
records what it was asked. It needs no SDK. `no_sleeping` is the switch that removes the pauses
between tries; `reset_state` makes a test begin like a new process.
"""

from __future__ import annotations

from llmkit.retry import no_sleeping
from llmkit.testing.answer import Answer
from llmkit.testing.provider_server import AnswerSource, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from llmkit.testing.state import reset_state

__all__ = [
    "Answer",
    "AnswerSource",
    "ProviderServer",
    "RecordedRequest",
    "no_sleeping",
    "reset_state",
]
