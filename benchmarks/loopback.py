"""A provider server in a process of its own, so that its work is not measured."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from llmkit.testing import Answer, ProviderServer


@contextmanager
def provider_process(answer: Answer) -> Iterator[str]:
    """Runs a provider that gives one answer.

    Args:
        answer: The answer.

    Yields:
        Its address, such as http://127.0.0.1:1234.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, answer))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join(10)
        if process.is_alive():
            process.kill()


def _serve(pipe: Connection, answer: Answer) -> None:
    with ProviderServer(answer=answer) as server:
        pipe.send(server.url)
        pipe.recv()
