"""A content filter of one's own, as middleware: no prompt and no answer passes against the policy.

It asks a provider on loopback, so it runs as it stands. To ask a real one, leave the server and
`api_base` out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeVar

from llmkit import Client, Completion, ContentFilterError, Request, Stream, get_logger
from llmkit.testing import Answer, ProviderServer

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


def main() -> None:
    with ProviderServer(Answer("Buy it from ACME.")) as server:
        os.environ["LLMKIT_OPENAI_API_BASE"] = server.base_url("openai")
        os.environ["LLMKIT_OPENAI_API_KEY"] = "any"
        with Client(model="openai:gpt-6-luna", middleware=[content_filter]) as client:
            for prompt in ("My card is 4111 1111 1111 1111.", "Where do I get a new anvil?"):
                try:
                    print(client.complete(prompt))
                except ContentFilterError as error:
                    print(f"refused: {error.category}, after {len(server.requests)} requests")
            server.answer = Answer("At the smithy.")
            print(client.complete("Where else?"))


if __name__ == "__main__":
    main()
