"""A configuration as plain values, as YAML and as flat keys."""

import dataclasses
from typing import Any

from featurestore.spec.trees import leaves
from featurestore.spec.yaml_text import dumped
from train.config.schema import Config


def plain(config: Config) -> dict[str, Any]:
    """Return the configuration as plain containers, for YAML and for the store."""
    return dataclasses.asdict(config)


def text(config: Config) -> str:
    """Return the configuration as YAML: what a run logs and ``featurestore --config`` reads."""
    return dumped(plain(config))


def flat(config: Config) -> dict[tuple[str, ...], Any]:
    """Return the keys that are set, each with its path, for example ("thresholds", "Fat")."""
    return {
        path: value for path, value in leaves(plain(config)) if value is not None and value != []
    }
