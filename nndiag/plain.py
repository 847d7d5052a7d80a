"""Data and text made plain: fit for any reader of JSON, for UTF-8 and for a terminal."""

from __future__ import annotations

import json
import math
from typing import Any


def as_json(data: Any) -> str:
    """`data` as JSON that any reader takes: null stands for numbers that are not finite."""
    try:
        return json.dumps(data, indent=1, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(data), indent=1, allow_nan=False)


def _finite(data: Any) -> Any:
    match data:
        case float():
            return data if math.isfinite(data) else None
        case list() | tuple():
            return [_finite(item) for item in data]
        case dict():
            return {key: _finite(value) for key, value in data.items()}
    return data


def as_utf8(text: str) -> str:
    """`text` with halves of characters, which JSON and names can hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """`text` with control characters written as escapes, so that nothing from a run can steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
