"""The keys of a configuration: the line and the interval of each, and those that are not set."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from featurestore.errors import ConfigError

MISSING = "???"
"""What stands for the value of a key that must be set."""
EXAMPLES = {
    "data.tiles": "data.tiles=kfold_tiles.parquet",
    "data.embeddings": "data.embeddings=embeddings",
    "class_indices": "'class_indices={Fat: 0, Muscle: 1}'",
    "thresholds": "'thresholds={Fat: 0.5, Muscle: 0.5}'",
}
"""Arguments that set keys, to show to whoever has not."""


def doc(line: str, within: str | None = None) -> dict[str, str]:
    """Attach the line that --help prints to a key, and the interval in which its numbers lie."""
    return {"doc": line} | ({"within": within} if within else {})


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


def unset(keys: Sequence[str], found: str) -> ConfigError:
    """Return the refusal of a configuration without the values that it must have, all at once."""
    names = " and ".join(filter(None, [", ".join(keys[:-1]), keys[-1]]))
    examples = " ".join(map(_example, keys))
    return ConfigError(
        f"{names} {'is' if len(keys) == 1 else 'are'} not set",
        found=found,
        fix=f"set {'it' if len(keys) == 1 else 'them'} on the command line, for example {examples}"
        + ("; or `featurestore init FOLDER` writes them down" if "data.tiles" in keys else ""),
    )


def _example(key: str) -> str:
    value = "5f1c0d9a7e8b4c62" if key.startswith("data.runs.") else "..."
    return EXAMPLES.get(key, f"{key}={value}")
