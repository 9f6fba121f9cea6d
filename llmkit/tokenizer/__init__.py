"""How many tokens a text takes, without a network: exactly where a vocabulary lies on disk.

For OpenAI's models whose vocabulary is public the count is tiktoken's, once the vocabulary is on
disk: `pip install "llmkit[tokens]"`, or `llmkit tokens download`. Everything else is an estimate,
and says so. Nothing here ever opens a connection but `vocabulary.download_vocabulary`; what a
vendor itself counts is told by `Client.count_tokens(…, exact=True)`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmkit.errors import InvalidRequestError
from llmkit.models import get_model_info
from llmkit.models.registry import get_registry
from llmkit.request import Message
from llmkit.tokenizer.rates import RATES, estimate

if TYPE_CHECKING:
    import tiktoken

__all__ = ["TokenCount", "count_tokens", "fits", "get_token_limit"]

TextOrMessages = str | Sequence[Mapping[str, Any] | Message]


class TokenCount(int):
    """A number of tokens that says how good it is.

    Args:
        value: The number.
        estimated: See below.

    Attributes:
        estimated: Whether it is an estimate rather than the model's own count.
    """

    estimated: bool

    def __new__(cls, value: int, *, estimated: bool) -> TokenCount:
        """Makes the number."""
        count = super().__new__(cls, value)
        count.estimated = estimated
        return count

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, bool]]:
        return (int(self),), {"estimated": self.estimated}


# What a model is taken to use whose encoding the registry does not know, by its provider: every
# OpenAI model from gpt-4o to gpt-5.6 uses the first, but nobody has said so of the later ones.
_TAKEN = {"openai": "o200k_base", "local": "smollm2"}
_USUAL = "o200k_base"

# What the chat framing of each message costs besides its role, of a name, and of the answer's
# beginning: OpenAI's published recipe for counting chat messages.
_PER_MESSAGE = 3
_PER_NAME = 1
_PER_REPLY = 3

# tiktoken's expression for o200k_base panics at a million blanks in a row (not at 700,000). A run
# of two blocks holds a whole one, wherever it begins.
_BLOCK = 300_000

# The longest token of both vocabularies, in bytes.
_LONGEST_TOKEN = 128


def count_tokens(model: str, text_or_messages: TextOrMessages) -> TokenCount:
    """Counts the tokens of a text or of messages, without a network.

    Exact for a model whose encoding the registry knows (OpenAI's up to gpt-5.6), when tiktoken is
    installed and the vocabulary is on disk; the first such count loads it, in about a second. The
    framing of messages follows OpenAI's published recipe. OpenAI's later models are counted with
    the vocabulary of the former, and the count is marked as an estimate: which one they use is not
    published. No estimate has a margin for safety in it; whoever needs a bound adds one.

    Otherwise an estimate from the kinds of characters. Against OpenAI's vocabularies and that of
    the embedded model it was within 22 % for whole texts in each of 26 languages and for code, and
    within 30 % for most pieces of 1,500 characters; texts full of digests can be 70 % off,
    and single sentences half. For the
    models of Anthropic, Google and all other vendors it is OpenAI's figure, *not measured against
    the vendor*.

    Args:
        model: The model that would read it. A name that the registry does not know is no error.
        text_or_messages: A text, whose own tokens are counted, or messages `{"role", "content"}`,
            whose framing is counted, too. Pictures are not counted; tool calls and the like as the
            JSON that they are. With either, the count is an estimate.

    Returns:
        The tokens, an `int` with `.estimated`.

    Raises:
        InvalidRequestError: It is neither, or stands in the model's place.
    """
    _check_order(model, text_or_messages)
    counter = _Counter(model)
    total = counter.add(text_or_messages)
    return TokenCount(total, estimated=counter.estimated)


def fits(model: str, text_or_messages: TextOrMessages, limit: int) -> bool:
    """Says whether a text or messages have no more tokens than a limit, counting only if need be.

    A token stands for at least one byte, so that a short text is certain to fit; where the count
    would be exact, a very long one is certain not to.

    Args:
        model: The model that would read it.
        text_or_messages: As in `count_tokens`.
        limit: The most tokens.

    Returns:
        What `count_tokens(model, text_or_messages) <= limit` says.

    Raises:
        InvalidRequestError: It is neither a text nor messages.
    """
    counter = _Counter(model)
    if counter.has_vocabulary:
        text = text_or_messages if isinstance(text_or_messages, str) else ""
        if len(text) > limit * _LONGEST_TOKEN and not _has_endless_blanks(text):
            return False
        if _Bound(model).add(text_or_messages) <= limit:
            return True
    return counter.add(text_or_messages) <= limit


def get_token_limit(model: str) -> int | None:
    """Returns a model's context window in tokens (prompt and answer together).

    Args:
        model: Its name.

    Returns:
        The window; None when the registry does not say.

    Raises:
        ModelNotFoundError: The registry does not know the model.
    """
    return get_model_info(model).context_window


class _Counter:
    """Counts for one model, and notes whether anything had to be estimated."""

    def __init__(self, model: str) -> None:
        self._name, certain = _encoding_of(model)
        self._encoding: tiktoken.Encoding | None = None
        if self._name is not None:
            # Loads files and digests: not with every `import llmkit.tokenizer`.
            from llmkit.tokenizer.vocabulary import VOCABULARIES, load_encoding

            if self._name in VOCABULARIES:
                self._encoding = load_encoding(self._name)
        self.estimated = not certain or self._encoding is None

    @property
    def has_vocabulary(self) -> bool:
        """Whether tokens are counted rather than guessed."""
        return self._encoding is not None

    def add(self, text_or_messages: TextOrMessages) -> int:
        if isinstance(text_or_messages, str):
            return self._text(text_or_messages)
        if isinstance(text_or_messages, Mapping) or not isinstance(text_or_messages, Iterable):
            raise _not_countable(text_or_messages)
        return _PER_REPLY + sum(map(self._message, text_or_messages))

    def _text(self, text: str) -> int:
        if self._encoding is not None and not _has_endless_blanks(text):
            # Control tokens are ordinary text here, and lone surrogates become U+FFFD.
            return len(self._encoding.encode_ordinary(text))
        self.estimated = True
        return estimate(text, self._name if self._name in RATES else _USUAL)

    def _message(self, message: Mapping[str, Any] | Message) -> int:
        if isinstance(message, Message):
            fields = {
                each.name: getattr(message, each.name) for each in dataclasses.fields(message)
            }
        elif isinstance(message, Mapping):
            fields = dict(message)
        else:
            raise _not_countable(message)
        role, name = fields.pop("role", None), fields.pop("name", None)
        total = _PER_MESSAGE + (self._text(str(role)) if self.has_vocabulary else 1)
        content = fields.pop("content", None)
        parts = [content] if isinstance(content, str | Mapping) else content or ()
        if not isinstance(parts, Iterable):
            raise _not_countable(content)
        total += sum(map(self._part, parts))
        if isinstance(name, str):
            total += _PER_NAME + self._text(name)
        for value in filter(None, fields.values()):
            self.estimated = True
            total += self._text(json.dumps(value, ensure_ascii=False, default=repr))
        return total

    def _part(self, part: Any) -> int:
        text = part.get("text") if isinstance(part, Mapping) else part
        if isinstance(text, str):
            return self._text(text)
        self.estimated = True
        return 0


class _Bound(_Counter):
    """Counts bytes instead: a token of a byte-level vocabulary stands for at least one."""

    def _text(self, text: str) -> int:
        return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _check_order(model: str, text: TextOrMessages) -> None:
    """Refuses a text with blanks before the name of a known model."""
    if not (isinstance(model, str) and " " in model and isinstance(text, str)):
        return
    if get_registry().find(text) is not None:
        raise InvalidRequestError(
            f"the model comes first: count_tokens({text!r:.80}, {model!r:.80})"
        )


def _encoding_of(model: str) -> tuple[str, bool]:
    """Returns the name of a model's encoding, "" for an unknown one, and whether it is certain."""
    if not isinstance(model, str):
        raise InvalidRequestError(f"model={model!r:.80}: expected a name such as 'gpt-6-luna'")
    info = get_registry().find(model)
    if info is None:
        return "", False
    if info.encoding is not None:
        return info.encoding, True
    return _TAKEN.get(info.provider, ""), False


def _not_countable(value: object) -> InvalidRequestError:
    return InvalidRequestError(
        "expected a text or messages [{'role': …, 'content': …}] to count, "
        f"got {type(value).__name__}: {value!r:.80}"
    )


def _has_endless_blanks(text: str) -> bool:
    starts = range(0, len(text) - _BLOCK + 1, _BLOCK)
    return any(text[at : at + _BLOCK].isspace() for at in starts)
