"""A prompt is made to fit, and two models race for the first good answer; the loser is cut.

python examples/race_with_optimizing.py [--fake]

With --fake the first model takes ten seconds, so the second one wins.
"""

from llmkit import Client, count_tokens
from llmkit.prompt_optimizer import optimize_prompt

from _fake import Answer, prepare

prepare(
    lambda request: Answer(
        "The pump fails when it is cold.", delay=10.0 if request.vendor == "openai" else 0.0
    ),
    vendors=("openai", "anthropic"),
)

MODELS = ["gpt-6-luna", "claude-haiku-5-5"]  # the likelier winner first

log = "\n".join(f"{hour:02}:{minute:02} pump ok" for hour in range(24) for minute in range(60))
prompt = f"What is wrong with this pump?\n\n{log}\n23:59 pump failed at -9 C\n\nAnswer in one line."

# The question before the long middle and the instruction after it stay whole.
short = optimize_prompt(prompt, MODELS[0], target_token_count=500)
print(f"{count_tokens(MODELS[0], prompt)} tokens, made to fit: {count_tokens(MODELS[0], short)}")

client = Client(timeout=20)
reply = client.race(short, MODELS, max_tokens=60)
print(f"{reply.model} won after {reply.latency:.2f} s: {reply.text}")
for attempt in reply.attempts:
    print(f"  {attempt.model}: {attempt.code or 'won'} after {attempt.duration:.2f} s")

# Cheaper: the second model is asked only if the first has not answered within 0.5 s.
reply = client.race(short, MODELS, hedge_after=0.5, max_tokens=60, use_cache=False)
print(f"{reply.model} won the second race after {reply.latency:.2f} s")
