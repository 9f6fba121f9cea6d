"""Processes that ask the same questions at once, and the provider that counts them.

As a program: `asking.py CACHE_URL PORT THREADS QUESTIONS`, which waits for a line before it begins.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class Provider(socketserver.ThreadingTCPServer):
    """Answers each question after a while; counts them, and who took the answer home."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, delay: float) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.delay = delay
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.under_way: Counter[int] = Counter()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Call(socketserver.StreamRequestHandler):
    server: Provider

    def handle(self) -> None:
        question, process = self.rfile.readline().decode().split()
        with self.server.lock:
            self.server.asked[question] += 1
            self.server.under_way[int(process)] += 1
        time.sleep(self.server.delay)
        taken = b""
        try:
            self.wfile.write(f"answer to {question}\n".encode())
            taken = self.rfile.readline()  # once it is in the cache
        except OSError:  # the caller was killed
            pass
        with self.server.lock:
            self.server.under_way[int(process)] -= 1
            if not taken:
                self.server.lost[question] += 1


def start(url: str, provider: Provider, threads: int, questions: int) -> subprocess.Popen[str]:
    """Starts a process that waits to be told to begin."""
    here = (__file__, url, str(provider.port), str(threads), str(questions))
    process = subprocess.Popen(
        [sys.executable, *here],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    """Tells a process to begin."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def main(url: str, port: int, threads: int, questions: int) -> None:
    """Asks all questions in each of some threads, each beginning with another one."""
    from llmkit.cache.opening import open_cache
    from llmkit.cache.replies import CacheUse, ReplyCache
    from llmkit.scope import Scope
    from llmkit.types import Completion

    store = open_cache(url)
    assert store is not None
    replies = ReplyCache(store)
    store.read("warm up: connections and modules")
    right = []

    def ask(question: str) -> str:
        calls: list[socket.socket] = []

        def fresh() -> Completion:
            call = socket.create_connection(("127.0.0.1", port))
            calls.append(call)
            call.sendall(f"{question} {os.getpid()}\n".encode())
            text = call.makefile().readline().strip()
            return Completion(text, "m", "p", "stop")

        with Scope(60).entered():
            reply = replies.answer(question, CacheUse(), fresh)
        for call in calls:
            call.sendall(b"kept\n")
            call.close()
        return reply.text

    def run(number: int) -> None:
        first = (number * 37 + os.getpid() * 11) % questions
        for n in range(questions):
            question = f"q{(first + n) % questions}"
            right.append(ask(question) == f"answer to {question}")

    print("ready", flush=True)
    sys.stdin.readline()
    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    print(json.dumps([right.count(True), store.stats()]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
