"""Servers: the links to one Redis server, and which server has a key."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from llmkit.cache.breaker import Breaker, StoreFailed, StoreSkipped, StoreTimeout
from llmkit.cache.redis_link import TELLING, Link, Refused
from llmkit.threads import TooManyThreadsError, run_detached

__all__ = ["Server", "Waited", "again"]

T = TypeVar("T")

# Links to one server at most, and how many are opened at a time. A link is busy for 0.1 ms per
# question, so a few serve very many threads.
MAX_LINKS = 32
MAX_OPENING = 4

# Seconds after which a link that lay idle is looked at before it is used: servers close idle ones.
TRUSTED = 1.0


class Server:
    """One Redis server: links to it, shared by the threads of this process.

    Args:
        open_link: Opens one more link, or raises StoreFailed.
        breaker: Says whether the server may be asked.
    """

    def __init__(self, open_link: Callable[[], Link], breaker: Breaker) -> None:
        self.breaker = breaker
        self._open_link = open_link
        self._changed = threading.Condition()
        self._idle: collections.deque[Link] = collections.deque()
        self._links: set[Link] = set()
        self._opening = 0
        self._waiting = 0
        self._failures = 0
        self._error = StoreFailed("not connected yet")
        self._closed = False

    def ask(self, until: float, *command: Any, again: bool = True) -> Any:
        """Asks the server.

        Args:
            until: When the answer has to be there, by `time.monotonic`.
            *command: The command and its arguments.
            again: Whether the command may be sent a second time, when a link that lay idle turns
                out to be dead.

        Returns:
            The answer.

        Raises:
            Refused: The server won't do it.
            StoreSkipped: The server is failing, or all links are busy.
            StoreFailed: There was no answer.
        """
        self.breaker.check()
        try:
            answer = self._ask(until, command, again)
        except Refused:  # it answers
            self.breaker.succeeded()
            raise
        except StoreFailed as error:
            self.breaker.failed(error)
            raise
        self.breaker.succeeded()
        return answer

    def close(self) -> None:
        """Closes all links; those in use end where they are."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.abandon()
        self._links.clear()
        self._idle.clear()

    def abandon(self) -> None:
        """Closes this process's side of all links, without any lock."""
        for link in list(self._links):
            link.close()

    def _ask(self, until: float, command: tuple[Any, ...], again: bool) -> Any:
        while True:
            link = self._take(until)
            if time.monotonic() >= until:
                self._give(link)
                raise StoreSkipped("no time is left")
            opened = link.used_at == 0.0
            try:
                answer = link.ask(until, *command)
            except Refused:
                self._give(link)
                raise
            except StoreFailed as error:
                self._drop(link)
                if opened or not again or isinstance(error, StoreTimeout):
                    raise
                self._drop_idle()  # the server went away: what lies idle is dead as well
                again = False
            except BaseException:  # Ctrl-C and a cut: its place is free, and it is not used again
                self._drop(link)
                raise
            else:
                self._give(link)
                return answer

    def _take(self, until: float) -> Link:
        """Returns a link, opening one more where that may help."""
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                link = self._wait(until)
            if not link.used_at or time.monotonic() - link.used_at < TRUSTED or link.is_quiet():
                return link
            self._drop(link)

    def _wait(self, until: float) -> Link:
        """Opens one more link, if there may be more, and returns the first that is free."""
        failures = self._failures
        opened = False
        while True:
            with self._changed:
                # Before the look at what is idle: who gives a link back looks at this afterwards.
                self._waiting += 1
                try:
                    link = self._look(until, failures, opened)
                finally:
                    self._waiting -= 1
            if link is not None:
                return link
            self._open_more()
            opened = True

    def _look(self, until: float, failures: int, opened: bool) -> Link | None:
        """Returns a free link, waiting for one; None to open another."""
        begin = time.monotonic()
        while True:
            if self._closed:
                raise StoreSkipped("the cache is being closed")
            with contextlib.suppress(IndexError):  # somebody who didn't have to wait was faster
                return self._idle.pop()
            if self._failures != failures:
                raise again(self._error) from self._error
            lives = self._opening + len(self._links)
            if (not opened or not lives) and self._opening < MAX_OPENING and lives < MAX_LINKS:
                self._opening += 1
                return None
            left = until - time.monotonic()
            if left <= 0.0:
                break
            self._changed.wait(left)
        if self._links:
            raise StoreSkipped("all connections are busy")
        raise StoreTimeout("no connection in time", time.monotonic() - begin < TELLING)

    def _open_more(self) -> None:
        try:
            run_detached(self._open, "redis")
        except TooManyThreadsError as error:
            with self._changed:
                self._opening -= 1
            raise StoreSkipped(str(error)) from error

    def _open(self) -> None:
        link = None
        failure = StoreFailed("not connected")
        try:
            link = self._open_link()
        except StoreFailed as error:
            failure = error
        except Exception as error:  # whatever a TLS library or a wrong option raises: told, waited
            failure = StoreFailed(f"{type(error).__name__}: {error}")
        with self._changed:
            self._opening -= 1
            if link is None:
                self._failures += 1
                self._error = failure
            elif self._closed:
                link.close()
            else:
                self._links.add(link)
                self._idle.append(link)
            self._changed.notify_all()

    def _give(self, link: Link) -> None:
        if self._closed:
            self._drop(link)
            return
        self._idle.append(link)
        self._tell()

    def _drop(self, link: Link) -> None:
        self._links.discard(link)
        link.close()
        self._tell()

    def _tell(self) -> None:
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _drop_idle(self) -> None:
        while self._idle:
            try:
                self._drop(self._idle.pop())
            except IndexError:  # another thread took the last one
                return


class Waited(Generic[T]):
    """Something that takes its time to find out, once for all threads that wait for it.

    Args:
        find: Finds it out, or raises StoreFailed.
        name: What it is, in words.
    """

    def __init__(self, find: Callable[[], T], name: str) -> None:
        self._find = find
        self._name = name
        self._lock = threading.Lock()
        self._future: Future[T] | None = None

    def get(self, until: float) -> T:
        """Returns it, having waited for it until the given moment of `time.monotonic` at most.

        Raises:
            StoreSkipped: It can't be looked for now.
            StoreFailed: It can't be found, or not in time.
        """
        begin = time.monotonic()
        future = self._future or self._begin()
        try:
            return future.result(max(0.0, until - begin))
        except TimeoutError:
            message = f"{self._name} is not known yet"
            raise StoreTimeout(message, until - begin < TELLING) from None
        except StoreFailed as error:
            self._forget(future)
            raise again(error) from error

    def forget(self, found: T) -> None:
        """Finds it out anew at the next `get`, unless somebody already has."""
        future = self._future
        if future is not None and future.done() and future.result() is found:
            self._forget(future)

    def _begin(self) -> Future[T]:
        with self._lock:
            if self._future is None:
                try:
                    self._future = run_detached(self._find, "redis-find")
                except TooManyThreadsError as error:
                    raise StoreSkipped(str(error)) from error
            return self._future

    def _forget(self, future: Future[T]) -> None:
        with self._lock:
            if self._future is future:
                self._future = None


def again(error: StoreFailed) -> StoreFailed:
    """Returns an error like this one, for one more thread to raise."""
    return type(error)(str(error))
