"""Replies: their size, their compression, and redirects."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest

from llmkit import connection_pool
from llmkit.connection_pool import get_connection_pool
from llmkit.errors import LLMError, ProviderError
from llmkit.testing import Answer, ProviderServer
from tests.deadline.calling import VENDORS, Vendor, adapter

LIMIT = 1_000_000
REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-6-luna",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "compressed well"},
                "finish_reason": "stop",
            }
        ],
    }
).encode()


def bare_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def compressed(body: bytes, encoding: str = "gzip", **faults: float | int | bool) -> Answer:
    return Answer(body=body, headers={"content-encoding": encoding}, **faults)  # type: ignore[arg-type]


def ask(server: ProviderServer) -> str:
    return adapter("openai", server.base_url("openai")).generate("hi", max_retries=0).text


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_reply_over_the_limit_is_refused(
    server: ProviderServer, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply larger than the limit ends the call, and is not fetched a second time."""
    monkeypatch.setattr(connection_pool, "MAX_BODY", LIMIT)
    server.answer = Answer("x" * (LIMIT + 1))
    with pytest.raises(ProviderError, match="1,000,000 bytes"):
        adapter(vendor, server.base_url(vendor)).generate("hi")
    assert len(server.requests) == 1
    server.answer = Answer("x" * (LIMIT // 2))
    assert len(adapter(vendor, server.base_url(vendor)).generate("hi").text) == LIMIT // 2


def test_the_limit_is_64_megabytes_unless_set() -> None:
    """The stated default is the default."""
    assert connection_pool.MAX_BODY == 64 * 2**20


def test_the_bare_pool_says_it_in_an_ordinary_error(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who uses a pool without a deadline can catch the refusal with `except Exception`."""
    monkeypatch.setattr(connection_pool, "MAX_BODY", LIMIT)
    server.answer = Answer("x" * (LIMIT + 1))
    with pytest.raises(ProviderError, match="larger than"):
        get_connection_pool("openai").post(server.base_url("openai") + "/chat/completions", json={})


def test_a_bomb_does_not_unfold_in_memory(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit counts decompressed bytes, and far fewer than a bomb's are ever held."""
    monkeypatch.setattr(connection_pool, "MAX_BODY", LIMIT)
    server.answer = compressed(gzip.compress(bytes(100 * LIMIT), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(ProviderError, match="larger than"):
            ask(server)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * LIMIT


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
        ("identity", bytes),
    ],
    ids=["gzip", "x-gzip", "upper case", "deflate", "bare deflate", "identity"],
)
@pytest.mark.parametrize("drip", [None, 0.0001], ids=["at once", "byte by byte"])
def test_compressed_replies_are_read(
    server: ProviderServer, encoding: str, compress: object, drip: float | None
) -> None:
    """Whatever a proxy on the way compresses with is read, in pieces of any size."""
    assert callable(compress)
    faults = {} if drip is None else {"drip": drip}
    server.answer = compressed(compress(REPLY), encoding, **faults)
    assert ask(server) == "compressed well"
    server.answer = compressed(compress(REPLY), encoding)
    assert ask(server) == "compressed well"
    first, second = server.requests
    assert first.connection == second.connection


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(REPLY)[:-9], "gzip"),
        (gzip.compress(REPLY)[:40], "gzip"),
        (gzip.compress(REPLY) + b"more", "gzip"),
        (b"not compressed at all", "gzip"),
        (REPLY, "br"),
        (gzip.compress(gzip.compress(REPLY)), "gzip, gzip"),
    ],
    ids=["no end", "half", "goes on", "not gzip", "unknown", "twice"],
)
def test_broken_compression_is_said(server: ProviderServer, body: bytes, encoding: str) -> None:
    """A reply that can't be decompressed whole is an `LLMError`, never half an answer."""
    server.answer = compressed(body, encoding)
    with pytest.raises(LLMError):
        ask(server)
    server.answer = Answer("next")
    assert ask(server) == "next"


def test_an_empty_body_needs_no_compression(server: ProviderServer) -> None:
    """An error without a body keeps its status, whatever its headers say of compression."""
    server.answer = compressed(b"", status=503)
    with pytest.raises(ProviderError) as caught:
        ask(server)
    assert caught.value.status == 503


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_redirect_takes_no_key_along(server: ProviderServer, vendor: Vendor) -> None:
    """A provider that redirects to another host does not get our key sent there."""
    with ProviderServer() as other:
        location = other.base_url(vendor) + "/elsewhere"
        server.answer = Answer(status=307, headers={"location": location}, body="")
        with pytest.raises(LLMError):
            adapter(vendor, server.base_url(vendor)).generate("hi", max_retries=0)
        with pytest.raises(LLMError):
            adapter(vendor, server.base_url(vendor)).stream("hi", max_retries=0)
        assert other.connections_accepted == 0
    assert len(server.requests) == 2


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("cookie", ["session=of-somebody-else", "name=\xff"])
def test_a_cookie_reaches_no_other_call(
    server: ProviderServer, vendor: Vendor, cookie: str
) -> None:
    """Calls of all keys share a client: a vendor's cookie for one is not sent with the others'."""
    server.script(Answer("first", headers={"set-cookie": f"{cookie}; path=/"}))
    assert adapter(vendor, server.base_url(vendor)).generate("hi").text == "first"
    server.answer = Answer("second")
    assert adapter(vendor, server.base_url(vendor)).generate("hi").text == "second"
    assert "cookie" not in server.requests[-1].headers
