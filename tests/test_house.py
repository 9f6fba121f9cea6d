"""Rules that hold for the whole package, whoever adds a file to it."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import llmkit

PACKAGE = Path(llmkit.__file__).parent
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
MODULES = tuple(
    ".".join(("llmkit", *Path(name).with_suffix("").parts)).removesuffix(".__init__")
    for name in FILES
)

# fmt: off
EXPORTS = [
    "APIConnectionError", "AllModelsFailedError", "AnthropicAdapter", "Attempt",
    "AuthenticationError", "BaseLLMAdapter", "Budget", "BudgetExceededError", "CallRecord",
    "CancelledError", "Chunk", "CircuitOpenError", "Client", "Completion", "ConfigurationError",
    "ContentFilterError", "ContextLengthError", "ErrorCode", "Fallback", "GeminiAdapter", "Image",
    "InvalidRequestError", "LLMCache", "LLMError", "LLMTimeoutError", "LocalAdapter", "Message",
    "ModelInfo", "ModelNotFoundError", "OpenAIAdapter", "PermissionDeniedError", "ProviderError",
    "QuotaExceededError", "RateLimit", "RateLimitError", "Request", "ResponseFormatError", "Scope",
    "Settings", "Stream", "StreamInterruptedError", "TokenCount", "ToolCall", "Usage",
    "__version__", "cache_result", "cached", "cleanup_connection_pools", "clear_cache",
    "count_tokens", "deadline", "estimate_cost", "execute_llm_with_fallback", "execute_parallel",
    "execute_with_fallbacks", "find_alternative_model", "get_adapter", "get_cache",
    "get_connection_pool", "get_llm_factory", "get_logger", "get_model_info",
    "get_performance_tracker", "get_settings", "get_token_limit", "health_check",
    "initialize_llm_module", "list_available_models", "race_models", "register_model",
    "reload_settings", "retry_with_exponential_backoff", "select_models", "shutdown",
]
# fmt: on

# What neither importing llmkit nor making a Client may load.
HEAVY = {
    *("openai", "anthropic", "google.genai", "google.generativeai", "xllamacpp", "tiktoken"),
    *("httpx2", "httpcore2", "pydantic", "redis", "tenacity", "cachetools", "dotenv"),
    *("asyncio", "ssl", "sqlite3", "urllib.request", "http.client", "multiprocessing"),
}

ENVIRONMENT_READERS = {
    "settings/variables.py",
    # Shows which certificates Python's own `ssl` takes from the environment; no setting has a say.
    "cli/doctor.py",
}

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 40
LONG_FUNCTIONS = {
    # The facade's own methods: their length is that of the list of their parameters, twice.
    ("client/__init__.py", "complete"),
    ("client/__init__.py", "stream"),
}


def loaded_by(code: str, directory: Path) -> set[str]:
    """The modules that a program loads, beyond those of a bare interpreter."""
    program = (
        f"import json, sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
        "before = set(sys.modules)\n"
        f"{code}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def names_used(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a file mentions in its code, also as an attribute or in an import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.name, node.lineno


# --- weight ---------------------------------------------------------------------------------------


def test_importing_llmkit_loads_next_to_nothing(tmp_path: Path) -> None:
    """The root fetches each name on first use: only `typing` and what it needs is loaded."""
    loaded = loaded_by("import llmkit", tmp_path)
    assert not HEAVY & loaded
    assert {name for name in loaded if name.startswith("llmkit")} <= {"llmkit", "llmkit.version"}
    assert len(loaded) <= 40


def test_making_a_client_loads_no_sdk(tmp_path: Path) -> None:
    """A Client costs a few small modules; what talks to a network comes with the first call."""
    loaded = loaded_by("import llmkit; llmkit.Client()", tmp_path)
    assert not HEAVY & loaded
    assert len(loaded) <= 150


def test_every_name_can_be_had_without_an_sdk(tmp_path: Path) -> None:
    """Looking at the whole interface, as a notebook's completion does, loads no vendor's SDK."""
    loaded = loaded_by("import llmkit; [getattr(llmkit, n) for n in llmkit.__all__]", tmp_path)
    assert not HEAVY & loaded


# --- exports --------------------------------------------------------------------------------------


def test_the_exports_are_these() -> None:
    """A public name appears or goes only by decision."""
    assert sorted(llmkit.__all__) == sorted(EXPORTS)
    assert len(set(llmkit.__all__)) == len(llmkit.__all__)


def test_every_export_resolves() -> None:
    """Each name leads to the object of its module, and is offered by `dir`."""
    for name in llmkit.__all__:
        assert getattr(llmkit, name) is not None
        assert name in dir(llmkit)
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        llmkit.Cleint  # noqa: B018


@pytest.mark.parametrize("package", ["adapters", "budget", "cache"])
def test_a_package_offers_what_it_loads_when_asked(package: str, tmp_path: Path) -> None:
    """`dir` and `help` show a package's names before anybody has used them, and each resolves."""
    asked = f"from llmkit import {package} as p"
    loaded_by(f"{asked}; assert set(p.__all__) <= set(dir(p)), dir(p)", tmp_path)
    loaded_by(f"{asked}; [getattr(p, name) for name in p.__all__]", tmp_path)


def test_type_checkers_see_the_same_exports() -> None:
    """The imports for type checkers and the table for the interpreter name the same things."""
    for_checkers = {
        alias.asname: node.module
        for block in TREES["__init__.py"].body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_checkers == {name: f"llmkit.{home}" for name, home in llmkit._HOMES.items()}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "llmkit"])
def test_what_a_module_exports_exists(name: str) -> None:
    """A module's `__all__` lists only what it has."""
    module = importlib.import_module(name)
    missing = [each for each in getattr(module, "__all__", ()) if not hasattr(module, each)]
    assert missing == []


def test_every_module_can_be_imported_first(tmp_path: Path) -> None:
    """No module relies on another one having been imported before it."""
    failed = """
import importlib, traceback
failed = []
for name in {names!r}:
    for loaded in [each for each in sys.modules if each.partition(".")[0] == "llmkit"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except Exception:
        failed.append(name + traceback.format_exc())
assert not failed, failed
"""
    loaded_by(failed.format(names=MODULES), tmp_path)


# --- imports --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_nothing_inside_imports_the_package_root(name: str) -> None:
    """The root stands above all: an import of it from inside would close a loop."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            assert "llmkit" not in [alias.name for alias in node.names], node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.module != "llmkit", node.lineno
            assert node.level == 0, node.lineno


@pytest.mark.parametrize("name", FILES)
def test_only_the_settings_read_the_environment(name: str) -> None:
    """Who wants to know a variable asks the Settings, so that tests and `.env` are obeyed."""
    if name in ENVIRONMENT_READERS or name.startswith("testing/"):
        return
    strangers = {"environ", "environb", "getenv", "putenv", "expandvars"}
    assert [use for use in names_used(TREES[name]) if use[0] in strangers] == []


@pytest.mark.parametrize("name", FILES)
def test_only_one_place_starts_threads(name: str) -> None:
    """Threads are named, bounded and carry their caller's context, because one file starts them."""
    if name == "threads.py" or name.startswith("testing/"):
        return
    strangers = {
        *("Thread", "Timer", "start_new_thread", "ThreadPoolExecutor", "ProcessPoolExecutor"),
        *("ThreadPool", "run_in_executor", "to_thread"),
    }
    assert [use for use in names_used(TREES[name]) if use[0] in strangers] == []


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_asynchronous(name: str) -> None:
    """No event loop in the user's threads: not a single coroutine."""
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert [node for node in ast.walk(TREES[name]) if isinstance(node, kinds)] == []


# --- form -----------------------------------------------------------------------------------------


def undocumented(body: list[ast.stmt], owner: str) -> Iterator[str]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(each) for each in node.decorator_list}
        # Another form, or the setter, of something that is documented once.
        repeated = decorators & {"overload", f"{node.name}.setter"}
        if not repeated and not ast.get_docstring(node):
            yield f"{owner}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{owner}.{node.name}")


@pytest.mark.parametrize("name", FILES)
def test_everything_public_is_documented(name: str) -> None:
    """Each module, and each class and function without an underscore, says what it does."""
    tree = TREES[name]
    assert ast.get_docstring(tree)
    assert list(undocumented(tree.body, name)) == []


def unexplained(thing: Any) -> Iterator[str]:
    """Gives the arguments that a docstring neither explains nor says where that is done."""
    text = inspect.getdoc(thing) or ""
    for name in inspect.signature(thing).parameters:
        said = re.search(rf"^\s*\**{name}: |\bsee `|given the same", text, re.M | re.I)
        if name not in ("self", "cls") and not name.startswith("_") and not said:
            yield name


@pytest.mark.parametrize("name", EXPORTS)
def test_what_users_call_explains_its_arguments(name: str) -> None:
    """Units, and what None means, are said for whatever the package's root exports."""
    thing = getattr(llmkit, name)
    if not isinstance(thing, type):
        assert not callable(thing) or list(unexplained(thing)) == []
    elif not issubclass(thing, Enum):
        # A class that takes what its base takes is explained there.
        assert not {"__init__", "__new__"} & vars(thing).keys() or list(unexplained(thing)) == []
        for method, function in inspect.getmembers(thing, inspect.isroutine):
            home = str(getattr(function, "__module__", None))
            if not method.startswith("_") and home.startswith("llmkit."):
                assert list(unexplained(function)) == [], method


@pytest.mark.parametrize("name", FILES)
def test_modules_and_functions_stay_small(name: str) -> None:
    """What doesn't fit on a few screens is split before it grows further."""
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_MODULE_LINES
    for function in functions(TREES[name]):
        written = range(function.lineno, (function.end_lineno or 0) + 1)
        doc = function.body[0]
        if ast.get_docstring(function):
            documented = range(doc.lineno, (doc.end_lineno or 0) + 1)
        else:
            documented = range(0)
        code = [
            number
            for number in written
            if number not in documented
            and lines[number - 1].strip()
            and not lines[number - 1].lstrip().startswith("#")
        ]
        if (name, function.name) not in LONG_FUNCTIONS:
            assert len(code) <= MAX_FUNCTION_LINES, function.name


def test_the_exceptions_to_the_rules_are_still_needed() -> None:
    """A list of exceptions doesn't outlive its reasons."""
    for name, function in LONG_FUNCTIONS:
        assert function in [each.name for each in functions(TREES[name])]
    for name in ENVIRONMENT_READERS:
        assert "environ" in [use for use, _ in names_used(TREES[name])]
