"""What a JSON parser lets pass and a file from a stranger may not hold."""

from __future__ import annotations

import json
from typing import Any, Final

MOST_DEPTH: Final = 32
MOST_VALUES: Final = 250_000
LONGEST_TEXT: Final = 4096
LARGEST_INTEGER: Final = 1 << 63


def refuse_duplicates(data: bytes) -> None:
    """Refuse a JSON document in which an object names a key twice.

    Parsers differ in which of the two they keep, so that what was checked need not be what is used.

    Raises:
        ValueError: with one line; also if it is not JSON.
        RecursionError: if it is nested beyond what the parser takes.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"duplicate key {twice[:80]!r}")
        return found

    json.loads(data, object_pairs_hook=unique)


def refuse_excess(value: Any, label: str) -> None:
    """Refuse a JSON value of free form that is deep, large or holds texts or numbers beyond reason.

    Raises:
        ValueError: with one line that starts with ``label``.
    """
    level, count = [value], 0
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item)
                inner.extend(item.values())
            elif isinstance(item, list | tuple):
                inner.extend(item)
            elif isinstance(item, str) and len(item) > LONGEST_TEXT:
                raise ValueError(f"{label} holds a text of {len(item)} characters")
            elif isinstance(item, int) and not -LARGEST_INTEGER <= item < LARGEST_INTEGER:
                raise ValueError(f"{label} holds an integer of {item.bit_length()} bits")
        count += len(inner)
        if count > MOST_VALUES:
            raise ValueError(f"{label} holds more than {MOST_VALUES} values")
        if not inner:
            return
        level = inner
    raise ValueError(f"{label} is nested more than {MOST_DEPTH} deep")
