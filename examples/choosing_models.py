"""Which models there are, what they can do and cost, and which to ask.

python examples/choosing_models.py [--fake]

Nothing is sent. With --fake it looks as if every vendor's key were set.
"""

from llmkit import (
    estimate_cost,
    find_alternative_model,
    get_model_info,
    list_available_models,
    register_model,
    select_models,
)

from _fake import prepare

prepare("")

# The first model to ask, and those to ask when it fails, of the vendors whose key is set.
for strategy in ("default", "cheapest", "fastest", "largest_context"):
    primary, fallbacks = select_models(strategy=strategy)
    print(f"{strategy}: {primary}, then {', '.join(fallbacks) or 'none'}")

primary, fallbacks = select_models(
    task_context={"required_capabilities": ["chat"], "estimated_tokens": 1500},
    strategy="cheapest",
)
print("the cheapest for 1,500 tokens:", primary)

# What is known of a model; None means unknown.
info = get_model_info("claude-haiku-5-5")
print(f"{info.full_name}: a window of {info.context_window} tokens, as of {info.as_of}")
print("USD per million tokens:", {kind: str(usd) for kind, usd in (info.prices or {}).items()})
print("can do:", ", ".join(sorted(info.capabilities)))

able = list_available_models(required_capabilities=["vision", "tools"], min_token_limit=500_000)
print(f"{len(able)} models see pictures, use tools and hold 500,000 tokens:", *able[:3])
print("instead of it:", find_alternative_model("claude-haiku-5-5", ["vision"]))

estimate = estimate_cost("Why is the sky blue?", "claude-haiku-5-5", max_tokens=500)
print(f"{estimate.input_tokens} tokens in, at most ${estimate.usd}")

# A model that the registry lacks; LLMKIT_MODELS_FILE does the same for every process.
register_model(
    "vllm:our-tuned-8b",
    context_window=32_768,
    capabilities=["chat", "streaming"],
    prices={"input": 0, "output": 0},
)
print(get_model_info("our-tuned-8b").full_name, get_model_info("our-tuned-8b")["token_limit"])
