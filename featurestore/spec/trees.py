"""A configuration as a tree of plain values, and changes of it."""

import dataclasses
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Tree = dict[str, Any]


def leaves(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value with its path, for example ("thresholds", "Fat")."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def is_one_value(kind: Any) -> bool:
    """Return whether a mapping of a type is one value, as where a text or a list may stand for it.

    Such a mapping is replaced by another: encoders of two files are not those of either.
    """
    members = [one for one in get_args(kind) if one is not NoneType]
    may_be_mapping = any(get_origin(one) in (dict, Mapping) for one in members)
    return get_origin(kind) in (Union, UnionType) and len(members) > 1 and may_be_mapping


def one_values(schema: type, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the keys of a dataclass, and of those in it, of which `is_one_value` holds."""
    for name, kind in get_type_hints(schema).items():
        if dataclasses.is_dataclass(kind):
            yield from one_values(kind, (*path, name))  # type: ignore[arg-type]  # a class
        elif is_one_value(kind):
            yield (*path, name)


def changed(settings: T, tree: Tree) -> T:
    """Return a dataclass with what a tree sets: mappings are joined, all else is replaced."""
    changes: Tree = {}
    kinds = get_type_hints(type(settings))
    for name, value in tree.items():
        under = getattr(settings, name)
        if dataclasses.is_dataclass(under):
            changes[name] = changed(under, value)
        else:
            joined = isinstance(under, dict) and isinstance(value, dict)
            joined = joined and not is_one_value(kinds[name])
            changes[name] = {**under, **value} if joined else value
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]
