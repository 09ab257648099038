"""Heads side by side: which ones a configuration asks for, their tiles, and what came of them."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from featurestore.errors import EmptyViewError
from train import resample
from train.data import slide_numbers
from train.metrics import Counts, confusion_metrics, f1_macro
from train.pool import NOWHERE, Heads
from train.resample import Floats
from train.schema import Config
from train.tiles import Tiles, draws

RULES = ("kfold_strategy", "tissue_prop_min")  # with the thresholds: what makes a variant
LEARNING = ("train_fraction", "learning_rate", "weight_decay", "label_smoothing")
RESAMPLES = 1000


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
        As in `train.engine.Heads`.
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


def variants(config: Config) -> list[dict[str, Any]]:
    """Return the rules of each variant that is swept, as changes of the configured ones."""
    axes = [[(key, value) for value in getattr(config.sweep, key)] for key in RULES]
    for name, values in config.sweep.thresholds.items():
        axes.append([(f"thresholds.{name}", value) for value in values])
    return [dict(chosen) for chosen in itertools.product(*filter(None, axes))]


def settings(config: Config) -> list[Setting]:
    """Return every combination of the swept values, variants of the rules first."""
    axes = [[(key, value) for value in getattr(config.sweep, key)] for key in LEARNING]
    found = []
    for variant, rules in enumerate(variants(config)):
        for chosen in itertools.product(*filter(None, axes)):
            own = {key: getattr(config, key, 1.0) for key in LEARNING} | dict(chosen)
            found.append(Setting(rules | dict(chosen), variant, *(own[key] for key in LEARNING)))
    return found


@dataclass(frozen=True)
class Pack:
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
        Tiles and slides that each head trains on, shape (H, 2).
    """

    tiles: Tiles
    settings: list[Setting]
    folds: list[int]
    heads: Heads
    counts: npt.NDArray[np.int64]


def pack(tiles: Tiles, chosen: list[Setting], folds: list[int], seed: int) -> Pack:
    """Return the heads of some settings and folds.

    A setting's fraction is that of the slides outside the validation fold, at least one of them:
    the first in an order that only the seed decides, so that a larger share holds a smaller one.

    Raises
    ------
    EmptyViewError
        A head has no tile to train on.
    """
    draw = draws(tiles.keys, seed)
    slide, _ = slide_numbers(tiles.keys)
    rows, counts = [], []
    for setting, fold in itertools.product(chosen, folds):
        own = tiles.fold[:, setting.variant]
        others = (own != NOWHERE) & (own != fold)
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
    return Pack(tiles, chosen, folds, Heads(*whole, *some), np.array(counts))


@dataclass(frozen=True)
class Score:
    """How good a setting is.

    Parameters
    ----------
    folds
        Metrics of each fold, see `train.metrics.confusion_metrics`, and ``loss``.
    low, high
        95 % interval of the macro F1 over all its folds' predictions, units resampled.
    """

    folds: list[dict[str, float]]
    low: float
    high: float

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the folds."""
        return float(np.mean([fold[metric] for fold in self.folds]))

    def spread(self, metric: str) -> float:
        """Return its standard deviation over the folds, 0 for a single one."""
        values = [fold[metric] for fold in self.folds]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def score(losses: Sequence[float], cube: Counts, classes: list[str], seed: int) -> Score:
    """Return how good a setting is.

    Parameters
    ----------
    losses
        Validation loss of each fold.
    cube
        Counts, shape (folds, units, K, K); see `evidence.resample`.
    """
    folds = [
        confusion_metrics(own.sum(axis=0), classes) | {"loss": float(loss)}
        for loss, own in zip(losses, cube, strict=True)
    ]
    return Score(folds, *interval(cube.sum(axis=0), seed))


def interval(cube: Counts, seed: int) -> tuple[float, float]:
    """Return a 95 % percentile interval of the macro F1, the units resampled.

    Tiles of a slide are not independent: an interval over tiles would be far too narrow.

    Parameters
    ----------
    cube
        Counts, shape (units, K, K).
    """
    there = cube[cube.sum(axis=(1, 2)) > 0].astype(float)

    def drawn(counts: Floats) -> Floats:
        return f1_macro(np.tensordot(counts, there, axes=1))[None]

    low, high = resample.interval(len(there), drawn, seed, RESAMPLES)
    return float(low[0]), float(high[0])


def best(scores: Sequence[Score]) -> int:
    """Return the setting with the highest mean macro F1; the lower loss decides a tie."""
    order = [(-round(s.mean("f1_macro"), 12), s.mean("loss")) for s in scores]
    return order.index(min(order))
