"""What google-generativeai takes as `safety_settings`, in the one form that Google takes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from llmkit.errors import InvalidRequestError
from llmkit.log import brief

__all__ = ["read_safety_settings"]

# The SDK's own words for Google's, in small letters; it takes Google's in small ones, too.
_CATEGORIES = {
    "unspecified": "HARM_CATEGORY_UNSPECIFIED",
    "harassment": "HARM_CATEGORY_HARASSMENT",
    "hate_speech": "HARM_CATEGORY_HATE_SPEECH",
    "hate": "HARM_CATEGORY_HATE_SPEECH",
    "harm_category_sexual": "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "sexually_explicit": "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "sexual": "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "sex": "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "harm_category_dangerous": "HARM_CATEGORY_DANGEROUS_CONTENT",
    "dangerous": "HARM_CATEGORY_DANGEROUS_CONTENT",
    "danger": "HARM_CATEGORY_DANGEROUS_CONTENT",
}
_THRESHOLDS = {
    "unspecified": "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
    "block_threshold_unspecified": "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
    "low": "BLOCK_LOW_AND_ABOVE",
    "medium": "BLOCK_MEDIUM_AND_ABOVE",
    "med": "BLOCK_MEDIUM_AND_ABOVE",
    "high": "BLOCK_ONLY_HIGH",
}
# Those that a single threshold is for.
_ALL = ("harassment", "hate_speech", "sexually_explicit", "dangerous")


def read_safety_settings(settings: Any, sdk: Any) -> list[dict[str, Any]]:
    """Reads safety settings as google-generativeai does, from a request's parameters.

    Args:
        settings: A mapping of categories to thresholds; or a list of mappings with "category" and
            "threshold"; or one threshold for all categories. Both are words (Google's or the SDK's
            short ones) or numbers, as which members of the SDK's enums have become JSON.
        sdk: The module `google.ai.generativelanguage_v1beta`.

    Returns:
        Google's JSON.

    Raises:
        InvalidRequestError: Something else was given; it says what there is.
    """
    if isinstance(settings, str | int):
        settings = dict.fromkeys(_ALL, settings)
    if isinstance(settings, Mapping):
        settings = [
            {"category": category, "threshold": threshold}
            for category, threshold in settings.items()
        ]
    if not isinstance(settings, list):
        raise _misread(settings)
    return [_read_setting(setting, sdk) for setting in settings]


def _read_setting(setting: Any, sdk: Any) -> dict[str, Any]:
    if not isinstance(setting, Mapping) or not {"category", "threshold"} <= setting.keys():
        raise _misread(setting)
    thresholds = sdk.SafetySetting.HarmBlockThreshold
    return {
        **setting,
        "category": _word("category", setting["category"], _CATEGORIES, sdk.HarmCategory),
        "threshold": _word("threshold", setting["threshold"], _THRESHOLDS, thresholds),
    }


def _word(what: str, given: object, short: Mapping[str, str], known: type[enum.IntEnum]) -> str:
    """Returns Google's word for a category or a threshold."""
    if isinstance(given, str) and given.isdecimal():  # a number as an object's key
        given = int(given)
    if isinstance(given, int) and given in known.__members__.values():
        return known(given).name
    word = str(given)
    word = short.get(word.lower(), word.upper())
    if word in known.__members__:
        return word
    raise InvalidRequestError(
        f"safety_settings: there is no {what} {brief(given)}; there are "
        f"{', '.join(known.__members__)}"
    )


def _misread(given: object) -> InvalidRequestError:
    return InvalidRequestError(
        f"safety_settings: {brief(given)} is not understood; expected categories with their "
        "thresholds, such as {'HARM_CATEGORY_HARASSMENT': 'BLOCK_ONLY_HIGH'}"
    )
