"""What can go wrong, by ErrorCode: the same codes for every vendor.

python examples/error_handling.py [--fake]

With --fake each of the questions meets another fault.
"""

from typing import Any

from llmkit import Client, ErrorCode, LLMError, get_logger

from _fake import Answer, prepare

prepare(
    "Sunlight, scattered by the air.",
    Answer(delay=1.0),
    Answer(status=429, headers={"retry-after": "60"}),
    Answer(status=401),
    Answer(blocked=True),
)

logger = get_logger("example")
client = Client(timeout=20)


def answer(question: str, **options: Any) -> str:
    """Returns an answer, or what to tell the user instead."""
    try:
        return client.complete(question, max_tokens=40, **options).text
    except LLMError as error:
        match error.code:
            case ErrorCode.LLM_TIMEOUT | ErrorCode.LLM_CONNECTION_ERROR:
                return "That took too long. Try again."
            case ErrorCode.LLM_RATE_LIMIT | ErrorCode.LLM_QUOTA_EXCEEDED:
                wait = "later" if error.retry_after is None else f"in {error.retry_after:.0f} s"
                return f"Too many questions now. Come back {wait}."
            case ErrorCode.LLM_CONTENT_FILTER:
                return "I can't answer that."
            case ErrorCode.AUTHENTICATION_ERROR | ErrorCode.CONFIGURATION_ERROR:
                logger.critical("%s", error)  # the operator's to mend, not the user's
                return "We are out of order."
            case _ if error.retryable:
                return "Something broke. Try again."
            case _:
                logger.error("%s", error)
                return f"This should not have happened ({error.code})."


print(answer("Why is the sky blue?"))
print(answer("Why is the sky blue in a very long poem?", timeout=0.2))
print(answer("Why is the sea blue?"))
print(answer("Why is my jacket blue?"))
print(answer("Why am I blue?"))
print(answer("Why is blue blue?", temperature=9))
