"""The recipes that come with the package; found without importing the trainer."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from scaleport.errors import UsageError

RECIPES = Path(__file__).parent / "recipes"


def find_recipe(name: str) -> Path:
    """A recipe's path: a file, or the name of one that comes with the package.

    Raises:
        UsageError: if there is neither.
    """
    path, shipped = Path(name), RECIPES / f"{name}.yaml"
    if path.is_file():
        return path
    if shipped.is_file():
        return shipped
    names = [p.relative_to(RECIPES).with_suffix("").as_posix() for p in shipped_recipes()]
    close = get_close_matches(name, names)
    if close:
        raise UsageError(f"no recipe {name}; recipes of a similar name: {', '.join(close)}")
    raise UsageError(f"no recipe {name}: give a YAML file or one of {', '.join(names)}")


def shipped_recipes() -> list[Path]:
    """Paths of the recipes in the package, sorted."""
    return sorted(RECIPES.rglob("*.yaml"))
