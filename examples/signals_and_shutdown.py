"""SIGTERM or Ctrl-C ends every call at once, and no job is lost.

python examples/signals_and_shutdown.py [--fake]

Two threads work on jobs whose answers take long. After a second this program sends itself the
signal that systemd, Docker and gunicorn send.
"""

import os
import queue
import signal
import threading
from types import FrameType

from llmkit import CancelledError, Client, Scope, initialize_llm_module

from _fake import Answer, prepare

prepare(Answer("The end.", delay=30))

# Cancelling this ends the calls in it, and refuses the ones that would begin afterwards.
running = Scope()


def stop(number: int, frame: FrameType | None) -> None:
    running.cancel("told to stop")


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
# llmkit's own handlers close everything, and then call those that were there before.
initialize_llm_module(install_signal_handlers=True)

jobs: queue.Queue[str] = queue.Queue()
for hero in ("a fox", "a ship", "a king"):
    jobs.put(hero)


def work() -> None:
    """Takes jobs until there are none, or until the program is told to stop."""
    client = Client(timeout=60)
    while True:
        try:
            hero = jobs.get_nowait()
        except queue.Empty:
            return
        try:
            with running.entered():
                story = client.complete(f"Tell me a very long story of {hero}.", temperature=0)
            print(story)
        except CancelledError:
            jobs.put(hero)
            return


workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers:
    worker.start()
threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
for worker in workers:
    worker.join()
print("stopped; to be done next time:", ", ".join(sorted(jobs.queue)))
