"""Mutations that keep JSON valid: libFuzzer's own rarely get past the parser."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import atheris

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    3,
    255,
    65536,
    1 << 31,
    1 << 53,
    1 << 63,
    1 << 64,
    10**400,
    0.5,
    -0.0,
    1e308,
    5e-324,
    "",
    "x",
    "..",
    "../x",
    "/x",
    "a/b",
    "C:x",
    "a\\b",
    "\0",
    "\n",
    "\u202e",
    "e\u0301",
    "x" * 600,
    "x" * 5000,
    "manifest.json",
    "liif",
    "edsr",
    "fp16",
    [],
    {},
    [[]],
    [1, 2],
    {"name": "x"},
    ["N", 3, "H", "W"],
)


def mutate_json(data: bytes, max_size: int, seed: int) -> bytes:
    """Change one place of a JSON document; bytes that are none are changed as bytes."""
    rng = random.Random(seed)
    if rng.random() < 0.2:
        return bytes(atheris.Mutate(data, max_size))
    try:
        content = json.loads(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            content = _changed(content, rng)
        made = json.dumps(content).encode("utf-8", "surrogatepass")
    except (ValueError, OverflowError, RecursionError):
        return bytes(atheris.Mutate(data, max_size))
    return made if len(made) <= max_size else bytes(atheris.Mutate(data, max_size))


def _places(node: Any, found: list[tuple[Any, Any]], depth: int = 0) -> list[tuple[Any, Any]]:
    if depth > 60:
        return found
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in inner:
        found.append((node, key))
        if isinstance(value, dict | list):
            _places(value, found, depth + 1)
    return found


def _changed(content: Any, rng: random.Random) -> Any:
    if not isinstance(content, dict | list) or not content:
        return copy.deepcopy(rng.choice(VALUES))
    places = _places(content, [])
    holder, key = rng.choice(places)
    action = rng.randrange(7)
    if action == 0:
        holder.pop(key)
    elif action == 1 and isinstance(holder, dict):
        holder[str(rng.choice(VALUES))] = holder.pop(key)
    elif action == 2:
        other, name = rng.choice(places)
        holder[key] = copy.deepcopy(other[name])
    elif action == 3 and isinstance(holder, list):
        holder.extend(copy.deepcopy(holder[key]) for _ in range(rng.choice((1, 2, 70))))
    elif action == 4 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * rng.choice((-1, 2, 3, 1000)) + rng.choice((-1, 0, 1))
    elif action == 5:
        for _ in range(rng.choice((1, 5, 40))):
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    return content
