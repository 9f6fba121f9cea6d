"""How the examples run without a key. Your own code needs nothing of this.

`python examples/simple_generation.py` asks the vendor whose key is set, in the environment or in
.env; without any key, the embedded model. With `--fake` it asks a provider on loopback.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import llmkit
from llmkit.adapters.local import find_weights
from llmkit.testing import Answer, AnswerSource, ProviderServer

__all__ = ["Answer", "prepare"]

VENDORS = ("openai", "anthropic", "gemini")


def prepare(*answers: str | AnswerSource, vendors: tuple[str, ...] = ()) -> None:
    """Sees to it that there is somebody to ask, or ends the program with what to set.

    Args:
        answers: What the provider on loopback answers under `--fake`, one after the other; the
            last one from then on.
        vendors: Whose keys the example needs, because it names models of theirs; none: it asks
            whatever model there is.
    """
    if "--fake" in sys.argv:
        *script, last = [Answer(each) if isinstance(each, str) else each for each in answers]
        server = ProviderServer(last).start()
        server.script(*script)
        os.environ.update(server.environment(), LLMKIT_PRIMARY_LLM="gpt-6-luna", no_proxy="*")
        llmkit.reload_settings()
        return
    settings = llmkit.get_settings()
    missing = [vendor for vendor in vendors if not settings.api_key(vendor)]
    if missing:
        names = " and ".join(f"{vendor.upper()}_API_KEY" for vendor in missing)
        sys.exit(f"Set {names}, or run this with --fake.")
    if settings.PRIMARY_LLM or any(settings.api_key(vendor) for vendor in VENDORS):
        return
    if find_spec("xllamacpp") is None or find_weights() is None:
        sys.exit("Set OPENAI_API_KEY, or run `llmkit demo` once, or run this with --fake.")
    # Named as enabled, too: a model at home is chosen only for those who want it.
    os.environ.update(LLMKIT_PRIMARY_LLM="local:", LLMKIT_ENABLED_MODELS="local:smollm2-135m")
    llmkit.reload_settings()
