"""The settings that a configuration sweeps, and the configuration that trains one of them."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

from featurestore.spec.rules import FoldRules, LabelRules, field_names
from featurestore.spec.trees import Tree, changed
from train.config.schema import Config
from train.config.sections import Sweep

SWEPT = set(field_names(Sweep)) - {"thresholds"}  # whose classes are swept one by one
RULES = tuple(name for name in field_names(FoldRules, LabelRules) if name in SWEPT)
"""The rules that can be swept: with the thresholds, what makes a variant."""
LEARNING = (
    "train_fraction", "learning_rate", "weight_decay", "label_smoothing", "neighbours",
    "neighbour_weights", "neighbour_metric", "shots", "draw",
)  # fmt: skip
SLIDES = {"train_fraction": 1.0, "shots": 0, "draw": 0}
"""What decides the slides of a head; it has no key outside the sweep."""


@dataclass(frozen=True)
class Setting:
    """One combination of the swept values.

    Parameters
    ----------
    overrides
        The values by key, for people: ``{"learning_rate": 0.01}``.
    variant
        Which variant of the rules.
    train_fraction, learning_rate, weight_decay, label_smoothing
        As in the configuration.
    neighbours, neighbour_weights, neighbour_metric
        As in the configuration.
    shots, draw
        How many slides of each class, 0 for all, and the number of their draw.
    """

    overrides: dict[str, Any]
    variant: int
    train_fraction: float
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    neighbours: int = 0
    neighbour_weights: str = "uniform"
    neighbour_metric: str = "euclidean"
    shots: int = 0
    draw: int = 0

    @property
    def name(self) -> str:
        """What tells it from the others."""
        named = (f"{key}={value}" for key, value in self.overrides.items())
        return " ".join(named) or "as configured"


def rule_variants(config: Config) -> list[dict[str, Any]]:
    """Return the rules of each variant that is swept, as changes of the configured ones."""
    axes = [[(key, value) for value in getattr(config.sweep, key)] for key in RULES]
    for name, values in config.sweep.thresholds.items():
        axes.append([(f"thresholds.{name}", value) for value in values])
    return [dict(values) for values in itertools.product(*filter(None, axes))]


def settings(config: Config) -> list[Setting]:
    """Return every combination of the swept values, variants of the rules first."""
    axes = [[(key, value) for value in getattr(config.sweep, key)] for key in LEARNING]
    combinations = []
    for variant, rules in enumerate(rule_variants(config)):
        for values in itertools.product(*filter(None, axes)):
            learning = configured(config) | dict(values)
            combinations.append(Setting(rules | dict(values), variant, **learning))
    return combinations


def configured(config: Config) -> dict[str, Any]:
    """Return the values of `LEARNING` that are not swept."""
    return {key: getattr(config, key, SLIDES.get(key)) for key in LEARNING}


def path_of(key: str) -> tuple[str, ...]:
    """Return the path of a setting's key in the configuration: ``thresholds.Fat`` is below one."""
    return tuple(key.split(".", 1))


def trained_config(config: Config, setting: Setting) -> Config:
    """Return the configuration that a setting is trained by: its only setting is that one.

    The values take the place of those that are configured, and no list is left of them; but for
    `SLIDES`, which has no key outside the sweep.
    """
    slides: dict[str, Any] = {
        key: [setting.overrides[key]] for key in SLIDES if key in setting.overrides
    }
    tree: Tree = {}
    for key, value in setting.overrides.items():
        section, *name = path_of(key)
        if name:
            tree.setdefault(section, {})[name[0]] = value
        elif key not in SLIDES:
            tree[key] = value
    return replace(changed(config, tree), sweep=Sweep(**slides))


def chosen_config(config: Config, best: str | None) -> Config:
    """Return the configuration that the best setting of a run was trained by.

    Parameters
    ----------
    best
        The name of the setting, as the run has recorded it; None if it had no other.
    """
    named = {setting.name: setting for setting in settings(config)} if best else {}
    return trained_config(config, named[best]) if best in named else config
