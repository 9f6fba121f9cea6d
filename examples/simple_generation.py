"""Ask a model, in one piece and as a stream.

python examples/simple_generation.py [--fake]
"""

from llmkit import Client, get_adapter

from _fake import prepare

prepare("A rainbow is sunlight, split into its colours by drops of rain.")  # not for your code

client = Client()
reply = client.complete(
    "What is a rainbow?",
    system="Answer in one sentence.",
    max_tokens=60,
    timeout=20,  # seconds, for everything together
)
print(reply.text)
print(f"{reply.model} took {reply.latency:.2f} s and {reply.usage.total_tokens} tokens")
print("It cost", "an unknown amount" if reply.cost is None else f"${reply.cost}")

with client.stream("What is the sea?", max_tokens=60) as stream:
    for chunk in stream:
        print(chunk.text, end="", flush=True)
print(f" [{stream.completion.finish_reason}]")

# An adapter asks one model only; its answers can be read like the older completion interface's.
adapter = get_adapter(reply.model, max_tokens=60)
response = adapter.generate("What is a river?", temperature=0)
print(response["choices"][0]["text"], response["usage"]["completion_tokens"])
