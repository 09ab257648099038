"""Heads side by side: which ones a configuration asks for, their tiles, and what came of them."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from featurestore.errors import EmptyViewError
from featurestore.spec.rules import FoldRules, LabelRules, field_names
from train.config.schema import Config, Sweep
from train.engine.heads import HeadSpecs
from train.engine.shard import DROPPED
from train.fitting.load import TileTable, slide_rank
from train.predictions.table import encode_slides

SWEPT = set(field_names(Sweep)) - {"thresholds"}  # whose classes are swept one by one
RULES = tuple(name for name in field_names(FoldRules, LabelRules) if name in SWEPT)
"""The rules that can be swept: with the thresholds, what makes a variant."""
LEARNING = ("train_fraction", "learning_rate", "weight_decay", "label_smoothing")


@dataclass(frozen=True)
class Setting:
    """One combination of the swept values.

    Parameters
    ----------
    swept
        The values by key, for people: ``{"learning_rate": 0.01}``.
    variant
        Which variant of the rules.
    fraction, rate, decay, smoothing
        As in `train.engine.trainer.Heads`.
    """

    swept: dict[str, Any]
    variant: int
    fraction: float
    rate: float
    decay: float
    smoothing: float

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return " ".join(f"{key}={value}" for key, value in self.swept.items()) or "as configured"


def rule_variants(config: Config) -> list[dict[str, Any]]:
    """Return the rules of each variant that is swept, as changes of the configured ones."""
    axes = [[(key, value) for value in getattr(config.sweep, key)] for key in RULES]
    for name, values in config.sweep.thresholds.items():
        axes.append([(f"thresholds.{name}", value) for value in values])
    return [dict(chosen) for chosen in itertools.product(*filter(None, axes))]


def settings(config: Config) -> list[Setting]:
    """Return every combination of the swept values, variants of the rules first."""
    axes = [[(key, value) for value in getattr(config.sweep, key)] for key in LEARNING]
    found = []
    for variant, rules in enumerate(rule_variants(config)):
        for chosen in itertools.product(*filter(None, axes)):
            own = {key: getattr(config, key, 1.0) for key in LEARNING} | dict(chosen)
            found.append(Setting(rules | dict(chosen), variant, *(own[key] for key in LEARNING)))
    return found


@dataclass(frozen=True)
class HeadGrid:
    """The heads that a configuration asks for: one for each setting and fold.

    Parameters
    ----------
    tiles
        The tiles that any of them needs.
    settings, folds
        Head ``s * len(folds) + f`` has setting s and validates on the f-th fold.
    heads
        The same as columns.
    counts
        TileTable and slides that each head trains on, shape (H, 2).
    """

    tiles: TileTable
    settings: list[Setting]
    folds: list[int]
    heads: HeadSpecs
    counts: npt.NDArray[np.int64]


def head_grid(tiles: TileTable, chosen: list[Setting], folds: list[int], seed: int) -> HeadGrid:
    """Return the heads of some settings and folds.

    A setting's fraction is that of the slides outside the validation fold, at least one of them:
    the first in an order that only the seed decides, so that a larger share holds a smaller one.

    Raises
    ------
    EmptyViewError
        A head has no tile to train on.
    """
    draw = slide_rank(tiles.keys, seed)
    slide, _ = encode_slides(tiles.keys)
    rows, counts = [], []
    for setting, fold in itertools.product(chosen, folds):
        own = tiles.fold[:, setting.variant]
        others = (own != DROPPED) & (own != fold)
        there = np.unique(draw[others])
        if not len(there):
            raise EmptyViewError(
                f"Fold {fold} leaves no tile to train on",
                found=f"every kept tile is in it ({setting.name})",
                fix="choose other folds, or loosen the thresholds",
            )
        share = math.ceil(setting.fraction * len(there))
        last = 1.0 if setting.fraction == 1 else there[share - 1]
        seen = others & (draw <= last)
        counts.append((seen.sum(), len(np.unique(slide[seen]))))
        learning = (setting.rate, setting.decay, setting.smoothing)
        rows.append((setting.variant, fold, float(last), *learning))
    columns = list(zip(*rows, strict=True))
    whole = [torch.tensor(column, dtype=torch.int64) for column in columns[:2]]
    some = [torch.tensor(column, dtype=torch.float32) for column in columns[2:]]
    return HeadGrid(tiles, chosen, folds, HeadSpecs(*whole, *some), np.array(counts))
