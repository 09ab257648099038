"""A configuration as a dataclass and as a tree of plain values: its keys, leaves and changes."""

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

from featurestore.errors import ConfigError

T = TypeVar("T")
Tree = dict[str, Any]


def documented(schema: type, prefix: str = "", of: str = "") -> list[tuple[str, Any, str]]:
    """List the keys with their defaults and lines; one without a line has that of its section."""
    rows = []
    for entry in dataclasses.fields(schema):
        factory = entry.default_factory
        default = entry.default if factory is dataclasses.MISSING else factory()
        name, line = prefix + entry.name, entry.metadata.get("doc", of)
        if dataclasses.is_dataclass(default):
            rows += documented(type(default), name + ".", line)
        else:
            rows.append((name, default, line))
    return rows


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


def unset(key: str, argument: str) -> ConfigError:
    """Return the refusal of a configuration without a value that it must have."""
    example = f"{key}=5f1c0d9a7e8b4c62" if key.startswith("data.runs.") else f"{key}=..."
    return ConfigError(
        f"{key} is not set",
        found=argument,
        fix=f"set it on the command line, for example {example}",
    )
