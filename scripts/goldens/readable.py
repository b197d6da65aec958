"""JSON that a person can read and git can diff: short values on one line, long ones opened."""

import json
from pathlib import Path


def write(path: Path, value, width: int = 140) -> None:
    """Writes `value` as JSON; anything that fits in `width` columns, and any list of numbers, stays on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(value, "", width) + "\n", encoding="utf-8")


def _text(value, indent: str, width: int) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= width or not isinstance(value, (dict, list)) or _is_numbers(value):
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {_text(item, inner, width)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    lines = [inner + _text(item, inner, width) for item in value]
    return "[\n" + ",\n".join(lines) + f"\n{indent}]"


def _is_numbers(value) -> bool:
    return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)
