"""What the user of a model should know: that it ends, or that nothing is known of it."""

from __future__ import annotations

import datetime

from llmkit.log import get_logger
from llmkit.models.info import ModelInfo

__all__ = ["SOON", "notices_of"]

# So long before its end a model is warned of.
SOON = datetime.timedelta(days=60)

_logged: set[str] = set()


def notices_of(info: ModelInfo, on: datetime.date | None = None) -> list[str]:
    """Says what the user of a model should know, and logs it once per process and model.

    Args:
        info: The model.
        on: The day; None is today.

    Returns:
        A sentence each, that it was shut down, that it will be within 60 days, or that the registry
        does not know it; the same at every call.
    """
    notices = []
    day = on or datetime.date.today()
    if info.shutdown is not None and info.shutdown - day <= SOON:
        when = "was shut down" if info.retired(day) else "will be shut down"
        instead = f"; its successor is {info.successor}" if info.successor else ""
        notices.append(f"{info.name} {when} on {info.shutdown}{instead}")
    if not info.known:
        notices.append(f"the registry does not know {info.name}: its price is unknown")
    # Without its provider, "openai/gpt-oss-120b" would be two models.
    if notices and info.full_name not in _logged:
        _logged.add(info.full_name)
        for notice in notices:
            get_logger("models").warning("%s", notice)
    return notices
