"""The retry decorator, around functions of your own.

python examples/retry_decorator.py [--fake]

A Client tries its own calls again by itself; the decorator is for what stands around them.
"""

import llmkit
from llmkit import Client, retry_with_exponential_backoff

from _fake import prepare

prepare("As an assistant I would say that…", "Positive")

client = Client()
failures = iter([ConnectionResetError("the shop hung up"), TimeoutError("the shop is slow")])


# By default: connections, time-outs, and those LLMErrors that a second try may mend.
@retry_with_exponential_backoff(max_retries=3, base_delay=0.1, max_delay=2)  # seconds
def fetch_review() -> str:
    for failure in failures:
        print("  fetching fails:", failure)
        raise failure
    return "I love this phone, it is wonderful."


# An answer that can't be used is worth another try, too. Without use_cache=False that would be
# the same answer again.
@retry_with_exponential_backoff(max_retries=3, base_delay=0.1, retry_on=ValueError)
def classify(review: str) -> str:
    reply = client.complete(
        f"Is this review positive or negative? Answer with one word. {review}",
        max_tokens=10,
        use_cache=False,
    )
    word = reply.text.strip(" .\n").lower()
    if word not in ("positive", "negative"):
        print(f"  no word that was asked for: {reply.text!r}")
        raise ValueError(f"not a class: {reply.text!r}")
    return word


with llmkit.deadline(20):  # for all tries and the pauses between them
    review = fetch_review()
    print(review)
    try:
        print("It is", classify(review))
    except ValueError as error:
        print("This model can't do it:", error)
