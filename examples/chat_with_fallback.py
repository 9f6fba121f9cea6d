"""A conversation, as messages; when the first model fails, the second one answers.

python examples/chat_with_fallback.py [--fake]

With --fake the first model is overloaded for a minute.
"""

from llmkit import Client, execute_llm_with_fallback

from _fake import Answer, prepare

prepare(
    Answer(status=429, headers={"retry-after": "60"}),
    "Air scatters blue light more than red light.",
    "In the evening the light crosses more air, and little but the red is left.",
    vendors=("openai", "anthropic"),
)

client = Client("gpt-6-luna", fallbacks=["claude-haiku-5-5"], timeout=20)
messages = [{"role": "system", "content": "You are a patient teacher. Be brief."}]

for question in ("Why is the sky blue?", "And why not in the evening?"):
    messages.append({"role": "user", "content": question})
    reply = client.complete(messages, max_tokens=200)
    messages.append({"role": "assistant", "content": reply.text})
    print(f"{question}\n  {reply.model}: {reply.text}")
    for attempt in reply.attempts:  # every HTTP request, failed ones first
        print(f"  asked {attempt.model}: {attempt.code or 'answered'}")

# The same for one question, with the models that the settings name, or those nearest to them.
model, reply = execute_llm_with_fallback(messages, "gpt-6-luna", max_tokens=200, timeout=20)
print(f"{model} answered")
