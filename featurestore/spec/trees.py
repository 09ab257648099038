"""A configuration as a tree of plain values, and changes of it."""

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")
Tree = dict[str, Any]


def leaves(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value with its path, for example ("thresholds", "Fat")."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def changed(settings: T, tree: Tree) -> T:
    """Return a dataclass with what a tree sets: mappings are joined, all else is replaced."""
    changes: Tree = {}
    for name, value in tree.items():
        under = getattr(settings, name)
        if dataclasses.is_dataclass(under):
            changes[name] = changed(under, value)
        else:
            joined = isinstance(under, dict) and isinstance(value, dict)
            changes[name] = {**under, **value} if joined else value
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]
