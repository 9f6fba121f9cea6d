"""Ctrl-C at the worst moments: no Scope may go on being the current one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import llmkit.scope
from llmkit.scope import Scope, current_scope, deadline


def interrupting(method: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """A method at whose beginning, or end, Ctrl-C comes in."""

    def interrupted(*arguments: Any) -> Any:
        if before:
            raise KeyboardInterrupt
        method(*arguments)
        raise KeyboardInterrupt

    return interrupted


def interrupted() -> bool:
    """Enters a Scope for a while; says whether Ctrl-C came."""
    try:
        with Scope(5).entered():
            pass
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("_Entered", "__enter__"),
        ("_Entered", "__exit__"),
        ("_Entered", "__init__"),
        ("_Entry", "begin"),
        ("_Entry", "__init__"),
    ],
)
def test_ctrl_c_leaves_no_scope_behind(
    name: str, method: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that was interrupted on its way in or out ends no later call of the thread."""
    kind = getattr(llmkit.scope, name)
    with deadline(60) as around:
        with monkeypatch.context() as patch:
            patch.setattr(kind, method, interrupting(getattr(kind, method), before=before))
            assert interrupted()
        assert current_scope() is around
        assert not around._children
    assert current_scope() is None
    with monkeypatch.context() as patch:
        patch.setattr(kind, method, interrupting(getattr(kind, method), before=before))
        assert interrupted()
    assert current_scope() is None
    assert not llmkit.scope._outermost.get()
