"""A request of your own over the pool: llmkit's connections, proxies, certificates and deadlines.

python examples/own_request_over_the_pool.py [--fake]

For whatever a vendor's API offers that llmkit does not. Here: which models may this key use?
"""

import llmkit

from _fake import prepare

prepare("", vendors=("openai",))

settings = llmkit.get_settings()
base_url = settings.openai_api_base or "https://api.openai.com/v1"
pool = llmkit.get_connection_pool("openai")  # an httpx2.Client; don't close it, it is everybody's

try:
    with llmkit.deadline(5):  # for the look-up, the handshake, and every byte of the reply
        response = pool.get(
            f"{base_url}/models", headers={"authorization": f"Bearer {settings.openai_api_key}"}
        )
except llmkit.LLMTimeoutError as error:
    raise SystemExit(f"no answer: {error}") from None

response.raise_for_status()
names = [model["id"] for model in response.json()["data"]]
print(f"HTTP {response.status_code}, {len(names)} models:", *names[:10])
print(llmkit.health_check("openai"))
