from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from hypothesis import given, strategies as st

from llmkit.log import get_logger, redact

WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
KEY = "sk-ant-api03-Zm9v_YmFy-0123456789"
BODY = "Zm9v_YmFy-0123456789"

wide_keys = st.tuples(
    st.sampled_from(["sk-", "sk-ant-api03-", "sk-proj-", "sk-or-v1-", "AIza", "gsk_", "nvapi-"]),
    st.text(WORD + "_-", min_size=16, max_size=80),
)
narrow_keys = st.tuples(
    st.sampled_from(["xai-", "pplx-", "hf_", "r8_", "fw_"]),
    st.text(WORD, min_size=20, max_size=80),
)
anywhere = [
    "{}",
    "the key {} was refused",
    "({}),",
    "'{}'",
    "b'{}'",
    "\\n{}",
    "\\x1b{}",
    "\x1b[31m{}\x1b[0m",
    "%3D{}",
    "\\u003d{}",
    "OPENAI_API_KEY={}",
    "api_key='{}'",
    "Incorrect API key provided: {}.",
]
in_place = [
    "Authorization: Bearer {}",
    "authorization: {}",
    "authorization = Token {}",
    "{{'Authorization': 'Bearer {}'}}",
    '{{"authorization": "Bearer {}"}}',
    '{{\\"authorization\\": \\"Bearer {}\\"}}',
    "[(b'authorization', b'Bearer {}')]",
    "x-api-key: {}",
    "X-Goog-Api-Key:{}",
    "Headers({{'x-api-key': '{}', 'accept': '*/*'}})",
    "[('x-api-key', '{}')]",
    "curl -H 'api-key: {}' https://host/",
    "Client(api_key='{}', timeout=3)",
    "MISTRAL_API_KEY={}",
    "Bearer {}",
    "bearer%20{}",
    "https://host/v1?key={}",
    "https://host/v1?alt=sse&key={}&x=1",
    "https://host/v1?alt=sse&amp;api_key={}",
    "https://host/v1?token={}#end",
    "next=https%3A%2F%2Fhost%3Faccess_token%3D{}",
    "redis://user:{}@host:6379/0",
    "http://:{}@proxy:3128",
]


@given(key=st.one_of(wide_keys, narrow_keys), template=st.sampled_from(anywhere + in_place))
def test_no_known_key_gets_through(key: tuple[str, str], template: str) -> None:
    """A key with a vendor's prefix is replaced wherever it stands in a text."""
    prefix, body = key
    clean = redact(template.format(prefix + body))
    assert body not in clean
    assert body[:16] not in clean
    assert body[-8:] not in clean
    assert redact(clean) == clean


@given(key=st.text(WORD, min_size=16, max_size=80), template=st.sampled_from(in_place))
def test_no_unknown_key_gets_through_in_known_places(key: str, template: str) -> None:
    """A key of any shape is replaced where only keys stand: headers, parameters, passwords."""
    text = template.format(key)
    clean = redact(text)
    assert key not in clean
    assert clean == text.replace(key, "***")
    assert redact(clean) == clean


PIECES = [
    *("sk-", "AIza", "gsk_", "hf_", "Bearer ", "authorization", "x-api-key", "api_key", "?key="),
    *("&token=", "://", ":", "=", "'", '"', "\\", "@", " ", ",", "%3D", "***", "%"),
    *("a" * 16, "Z9" * 12, "\n", "\u017f", "İ", "\u212a"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    """No replacement makes up something that a second pass would replace."""
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a task-force-management-committee-2024 and a risk-assessment-of-everything",
        "desk-sk-1 mask-abcdefghijklmnopqrstuvwxyz sk-learn",
        "The bearer of this letter; Bearer tokens; bearer authentication",
        "set the x-api-key header, or authorization, as you like",
        "authorization: required",
        "key=value and token=abc outside of an address",
        "Missing OPENAI_API_KEY: set it in the environment",
        "OpenAI(api_key=settings.openai_api_key)",
        "https://host/v1/models?page=2&sort=keys",
        "http://localhost:8000/v1 and user@host",
        "gpt-6-luna answered in 1.25 s; hf_hub_download_to_a_local_folder",
        "Incorrect API key provided: sk-abcd****wxyz",
    ],
)
def test_prose_is_left_alone(text: str) -> None:
    """Ordinary text is given back as the same object."""
    assert redact(text) is text


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "sk-", " sk-", "AIza ", "authorization: ", "authorization\\", "x-api-key: "),
        *("api_key=", "?key=", "&amp;", "://a:", "://", "bearer ", "\\", "'", "İ", "hf_"),
        "sk- aiza aq. hf_ xai- bearer authorization: x-api-key api_key= ?key= ://a:",
    ],
)
def test_time_grows_with_the_length_only(unit: str) -> None:
    """A megabyte of near misses is done in a moment; a quadratic pattern would take hours."""
    text = unit * (1_000_000 // len(unit)) + " bearer authorization x-api-key api_key ?key= ://a:"
    start = time.perf_counter()
    redact(text)
    assert time.perf_counter() - start < 10


# --- the logger ----------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A child logger of its own, at level DEBUG and without propagation."""
    logger = get_logger(f"test_{uuid4().hex}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers.clear()


@pytest.fixture
def output(logger: logging.Logger) -> io.StringIO:
    """What a plain handler of the application writes."""
    stream = io.StringIO()
    logger.addHandler(logging.StreamHandler(stream))
    return stream


@pytest.fixture
def records(logger: logging.Logger) -> list[logging.LogRecord]:
    """What a handler that reads the records itself is given."""
    seen: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logger.addHandler(Keeping())
    return seen


@pytest.mark.parametrize(
    ("name", "full"),
    [
        (None, "llmkit"),
        ("", "llmkit"),
        ("llmkit", "llmkit"),
        ("retry", "llmkit.retry"),
        ("llmkit.retry", "llmkit.retry"),
        ("adapters.openai", "llmkit.adapters.openai"),
        ("llmkitten", "llmkit.llmkitten"),
    ],
)
def test_loggers_are_children_of_llmkit(name: str | None, full: str) -> None:
    """Every logger of the library hangs under `llmkit`, so that one line configures all."""
    assert get_logger(name).name == full


def test_the_library_stays_quiet_and_unconfigured() -> None:
    """Only a NullHandler is added, once, no level is set, and the filter is there once."""
    for _ in range(3):
        child = get_logger("quiet")
    root = logging.getLogger("llmkit")
    assert [type(each) for each in root.handlers].count(logging.NullHandler) == 1
    assert child.handlers == []
    assert root.level == child.level == logging.NOTSET
    assert len(child.filters) == 1


def test_messages_and_arguments_are_redacted(
    logger: logging.Logger, output: io.StringIO, records: list[logging.LogRecord]
) -> None:
    """A key is kept out in the format, in the arguments, and in an object's own text."""
    logger.info("using " + KEY)
    logger.info("using %s", KEY)
    logger.info("%(a)s", {"a": 1, "unused": KEY})
    logger.info("starts with %.6s", KEY)
    logger.info("headers %s", {"x-api-key": BODY})
    logger.info(ValueError(KEY))
    assert BODY not in output.getvalue()
    assert output.getvalue().startswith("using sk-***\nusing sk-***\n1\nstarts with sk-ant\n")
    assert BODY not in repr([(record.msg, record.args) for record in records])


def test_a_clean_record_stays_as_it_is(
    logger: logging.Logger, output: io.StringIO, records: list[logging.LogRecord]
) -> None:
    """Without a key the format and the arguments reach the handlers apart, for grouping."""
    logger.info("%s took %.1f s (100%%)", "gpt-6-luna", 1.25)
    assert records[0].msg == "%s took %.1f s (100%%)"
    assert records[0].args == ("gpt-6-luna", 1.25)
    assert output.getvalue() == "gpt-6-luna took 1.2 s (100%)\n"


def test_exceptions_and_stacks_are_redacted(
    logger: logging.Logger, output: io.StringIO, records: list[logging.LogRecord]
) -> None:
    """A traceback with a key in it reaches handlers as clean text only; others stay whole."""
    try:
        raise ValueError(f"refused {KEY}")
    except ValueError:
        logger.exception("it failed", stack_info=True)
    assert BODY not in output.getvalue()
    assert "ValueError: refused sk-***" in output.getvalue()
    assert records[0].exc_info is None
    try:
        raise ValueError("harmless")
    except ValueError:
        logger.exception("it failed")
    assert records[1].exc_info is not None
    assert records[1].stack_info is None


def test_extra_values_are_redacted(
    logger: logging.Logger, records: list[logging.LogRecord]
) -> None:
    """What a JSON formatter would take from `extra` holds no key, nested or not."""

    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError

    headers, numbers = {"x-api-key": BODY}, [1, 2]
    extra = {"url": f"https://h/?key={BODY}", "headers": headers, "numbers": numbers, "n": 1}
    logger.info("sent", extra=extra | {"odd": Unprintable()})
    shown = json.dumps(vars(records[0]), default=str)
    assert BODY not in shown
    assert records[0].__dict__["numbers"] is numbers
    assert records[0].__dict__["odd"] == "<Unprintable without a repr: RuntimeError>"
    assert headers == {"x-api-key": BODY}


def test_arguments_that_do_not_fit_are_said_without_the_key(
    logger: logging.Logger, output: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong format neither raises nor makes logging print the arguments."""
    logger.info("one %s two %s", KEY)
    assert "arguments can't be filled in: TypeError" in output.getvalue()
    assert BODY not in output.getvalue() + "".join(capsys.readouterr())


def test_a_disabled_level_does_no_work(logger: logging.Logger) -> None:
    """Below the level that is set no argument is even turned into text."""

    class Touchy:
        def __repr__(self) -> str:
            raise AssertionError("was formatted")

    logger.setLevel(logging.WARNING)
    logger.info("%r", Touchy())
