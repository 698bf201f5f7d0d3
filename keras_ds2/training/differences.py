"""Descriptions of trainings, and what tells one from the other."""

import json
import re
from typing import Any


def to_plain(value):
    """What JSON gives back: tuples become lists, NumPy's numbers Python's."""
    return json.loads(json.dumps(value, default=float))


def find_differences(backup: dict, now: dict) -> list[str]:
    """Compares nested dictionaries; a line of text for each difference."""
    before, after = _flatten(backup), _flatten(now)
    return [
        f"  {name}: {before.get(name)!r} in the backup, {after.get(name)!r} now"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        path = f"{prefix}.{name}" if prefix else name
        # Keras counts optimizers: adam, adam_1 ...
        if not re.fullmatch(r"optimizer\b.*\.name", path):
            flat |= _flatten(item, path)
    return flat
