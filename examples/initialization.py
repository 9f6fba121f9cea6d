"""Starting up: check the settings once, see what can be had, then make the first call.

python examples/initialization.py [--fake]

None of it is needed: a Client reads the settings and opens connections when it first needs them.
A server that does this at its start says what is missing before its first user does.
"""

import sys

from llmkit import Client, get_settings, health_check, initialize_llm_module, shutdown

from _fake import prepare

prepare("Ready.")

settings = get_settings()  # the environment, then .env in the working directory
print("first model", settings.PRIMARY_LLM, "from", settings.source("PRIMARY_LLM"))
print("then", settings.FALLBACK_LLM or "none")
print("a call lasts", settings.REQUEST_TIMEOUT, "s at most")
print("OpenAI", settings.LLM_PROVIDERS_CONFIG["openai"])  # keys are masked wherever they are shown

report = initialize_llm_module()  # sends nothing
for warning in report["warnings"]:
    print("warning:", warning)
if not report["providers"] and not report["models"]:
    sys.exit("no model can be asked")
print("keys for", report["providers"], "models checked", report["models"])

client = Client()
health = client.health_check()  # asks the provider, without paying
print("health", health["status"], health["circuit"])
print(client.complete("Say that you are ready.", max_tokens=20, timeout=20))
print("pools", health_check())

shutdown()
