"""A configuration as a tree of plain values: merged, filled in, and made a dataclass."""

import dataclasses
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, TypeVar, get_type_hints

from featurestore.errors import ConfigError
from featurestore.typed import Reader, holds_text, nearest

T = TypeVar("T")
Tree = dict[str, Any]
REFERENCE = r"\\\$\{|\$\{([^${}]*)\}|\$\{"


class Unset(Enum):
    """What stands for a value that somebody must set."""

    MISSING = "???"


MISSING: Any = Unset.MISSING


@dataclasses.dataclass(frozen=True)
class Template:
    """Text of a file of configs/ that names other keys: ``runs:/${data.runs.tiles}/tiles.parquet``.

    Parameters
    ----------
    kind
        The type of its key.
    text
        As it was written; ``\\${`` stands for the characters themselves.
    key
        Where it stands.
    """

    kind: Any
    text: str
    key: str


def later(kind: Any, word: str, key: str) -> object:
    """Return what stands for a word of a file of configs/ until it can be read, if it must."""
    if word == MISSING.value:
        return MISSING
    return Template(kind, word, key) if "${" in word else None


def defaults(schema: type) -> Tree:
    """Return the defaults of a dataclass."""
    rows: Tree = {}
    for entry in dataclasses.fields(schema):
        factory = entry.default_factory
        default = entry.default if factory is dataclasses.MISSING else factory()
        whole = dataclasses.is_dataclass(default) and not isinstance(default, type)
        rows[entry.name] = defaults(type(default)) if whole else default
    return rows


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


def merged(under: Tree, over: Tree) -> Tree:
    """Return a tree with another on top: mappings are joined, all else is replaced."""
    both = {
        name: merged(under[name], value)
        for name, value in over.items()
        if isinstance(value, dict) and isinstance(under.get(name), dict)
    }
    return {**under, **over, **both}


def leaves(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value with its path, for example ("thresholds", "Fat")."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def built(schema: type[T], tree: Tree) -> T:
    """Return the dataclass that a whole tree is."""
    kinds = get_type_hints(schema)
    return schema(
        **{
            name: built(kinds[name], value) if dataclasses.is_dataclass(kinds[name]) else value
            for name, value in tree.items()
        }
    )


def filled(tree: Tree) -> Tree:
    """Return a tree whose templates have become the values that they name.

    Raises
    ------
    ConfigError
        A template names no key, one that is not set, or asks for more than a key's value: nothing
        is looked up elsewhere, above all not in the environment, since a configuration is recorded.
    """
    values = {".".join(path): value for path, value in leaves(tree)}

    def fill(node: Tree) -> Tree:
        return {
            name: fill(value) if isinstance(value, dict) else _value(value, values)
            for name, value in node.items()
        }

    return fill(tree)


def _value(value: Any, values: Tree) -> Any:
    if isinstance(value, list):
        return [_value(one, values) for one in value]
    if not isinstance(value, Template):
        return value
    text = _text(value, values, ())
    return text if holds_text(value.kind) else Reader().argument(value.kind, text, value.key)


def _text(template: Template, values: Tree, chain: tuple[str, ...]) -> str:
    """Return the text of a template, the texts of the keys that it names in place."""
    written = f"{template.key}: {template.text}"

    def named(found: re.Match[str]) -> str:
        name = found.group(1)
        if found.group() == "\\${":
            return "${"
        if name is None or ":" in name:
            raise ConfigError(
                f"{template.key} asks for more than the value of a key",
                found=written,
                fix=f"name a key, as in ${{data.name}}, or set {template.key} on the command line; "
                r"\${ stands for the characters",
            )
        if name not in values:
            raise ConfigError(
                f"{template.key} names {name!r}, which is no key",
                found=written + nearest(name, values),
                fix="correct the name",
            )
        return _spelled(name, values, (*chain, template.key), written)

    return re.sub(REFERENCE, named, template.text)


def _spelled(name: str, values: Tree, chain: tuple[str, ...], written: str) -> str:
    """Return the value of a key as text."""
    value = values[name]
    if value is MISSING:
        raise unset(name, written)
    if name in chain or value is None or isinstance(value, list):
        raise ConfigError(
            f"{name} has no text that could be put in its place",
            found=f"{written}, and {name} is "
            + ("made of it" if name in chain else "null" if value is None else "a list"),
            fix=f"set {chain[-1]} to another value",
        )
    if isinstance(value, Template):
        return _text(value, values, chain)
    return str(value).lower() if isinstance(value, bool) else str(value)


def unset(key: str, found: str) -> ConfigError:
    """Return the refusal of a configuration without a value that it must have."""
    example = f"{key}=5f1c0d9a7e8b4c62" if key.startswith("data.runs.") else f"{key}=..."
    return ConfigError(
        f"{key} is not set",
        found=found,
        fix=f"set it on the command line, for example {example}",
    )
