"""A content filter of one's own, as middleware: no prompt and no answer passes against the policy.

python examples/content_filter.py [--fake]
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from llmkit import Client, Completion, ContentFilterError, Request, Stream, get_logger

POLICY = {
    "card-number": re.compile(r"\b(?:\d[ -]?){15}\d\b"),
    "competitor": re.compile(r"\bacme\b", re.IGNORECASE),
}
logger = get_logger("example.content_filter")
Reply = TypeVar("Reply", Completion, Stream)


def check(text: str, where: str) -> None:
    """Raises and logs, without the text, when a text is against the policy."""
    for category, pattern in POLICY.items():
        if pattern.search(text):
            logger.warning("%s refused: %s", where, category)
            raise ContentFilterError(f"the {where} is against the policy", category=category)


def content_filter(request: Request, call_next: Callable[[Request], Reply]) -> Reply:
    """Checks the prompt before anything is sent, and the answer before anyone sees it.

    A stream's answer is not known when the stream begins: check its `completion` at its end.
    """
    check("\n".join(message.text for message in request.messages), "prompt")
    reply = call_next(request)
    if isinstance(reply, Completion):
        check(reply.text, "answer")
    return reply


if __name__ == "__main__":
    from _fake import prepare

    prepare("Buy it from ACME.", "At the smithy.")
    client = Client(middleware=[content_filter])
    for prompt in (
        "My card is 4111 1111 1111 1111.",
        "Where do I get a new anvil?",
        "Where else do I get one?",
    ):
        try:
            print(client.complete(prompt, max_tokens=40, timeout=20))
        except ContentFilterError as error:
            print(f"{error.message}: {error.category}")
