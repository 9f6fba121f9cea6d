"""Figures of what llmkit does not call itself, beside those of what it does.

python examples/tracker_by_hand.py [--fake]

The tracker belongs to the process and sees every call of every Client. Calls that you make in
another way can be told to it; where the registry knows the model, `select_models` with the strategy
"fastest" and hedged races take them into account.
"""

import time

from llmkit import Client, get_performance_tracker

from _fake import prepare

prepare("It rains.")

tracker = get_performance_tracker()


def ask_in_house_model(question: str) -> str:
    """Stands for a model that is reached in a way of your own."""
    if "yesterday" in question:
        raise ConnectionResetError("gone")
    time.sleep(0.02)
    return "It does not rain."


for question in ("Does it rain?", "Did it rain yesterday?", "Will it rain?"):
    tracker.record_request("in-house-1", "in-house")
    started = time.perf_counter()
    try:
        answer = ask_in_house_model(question)
    except ConnectionError as error:
        tracker.record_failure("in-house-1", "in-house", error)
        reply = Client().complete(question, max_tokens=20)
        tracker.record_fallback("in-house-1", reply.model, "connection")
        continue
    milliseconds = 1000 * (time.perf_counter() - started)
    tracker.record_success(
        "in-house-1",
        "in-house",
        milliseconds,
        prompt_tokens=len(question.split()),
        completion_tokens=len(answer.split()),
    )

for model, figures in tracker.get_stats().items():
    print(
        f"{model}: {figures['requests']} requests, {figures['failures']} failed "
        f"{figures['errors']}, median {figures['p50_latency_ms']:.0f} ms, "
        f"{figures['total_tokens']} tokens, fallbacks {figures['fallbacks']}"
    )
