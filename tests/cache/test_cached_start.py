"""What a script costs whose answer is in the second level."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmkit.testing import ProviderServer
from tests.cache.client_calls import KEY, OTHER, file_at, make_client
from tests.cache.servers import RedisServer

ROOT = Path(__file__).parent.parent.parent
# `google` alone is an empty namespace, which an installed google-generativeai makes in every
# interpreter that starts.
HEAVY = {
    *("openai", "anthropic", "google.genai", "google.ai", "google.auth", "httpx2", "httpcore2"),
    *("pydantic", "pydantic_core", "tiktoken", "tenacity", "anyio", "asyncio", "redis"),
}
SCRIPT = """
import sys
from llmkit import Client
reply = Client().complete("Why?")
with Client().stream("Why?") as stream:
    assert "".join(stream.text_stream) == reply.text
print(reply.cached, *sorted(sys.modules))
"""


@pytest.mark.parametrize("model", ["openai:gpt-6-luna", OTHER, "gemini-3.8-flash"])
@pytest.mark.parametrize("level", ["sqlite", "redis"])
def test_no_sdk_is_loaded_for_a_hit(
    server: ProviderServer,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    level: str,
    model: str,
) -> None:
    """A script starts, answers from the second level and ends without what only a call needs."""
    url = file_at(tmp_path / "cache.db")
    if level == "redis":
        redis_server: RedisServer = request.getfixturevalue("redis_server")
        url = redis_server.url
    fields = {"cache_url": url, "cache_namespace": "start"}
    make_client(server, model=model, fields=fields).complete("Why?")
    environment = {
        "PYTHONPATH": str(ROOT),
        "PRIMARY_LLM": model,
        "LLMKIT_CACHE_URL": url,
        "LLMKIT_CACHE_NAMESPACE": "start",
        **{f"{name}_API_KEY": KEY for name in ("OPENAI", "ANTHROPIC", "GEMINI")},
        "OPENAI_API_BASE": server.base_url("openai"),
        "ANTHROPIC_API_BASE": server.base_url("anthropic"),
        "GEMINI_API_BASE": server.base_url("gemini"),
    }
    for _ in range(5):  # a machine that is busy may need longer to connect than a call waits
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        cached, *modules = done.stdout.split()
        if cached == level:
            break
    assert cached == level
    allowed = {"redis", "asyncio"} if level == "redis" else set()
    assert not (HEAVY - allowed) & set(modules)
