"""Settings that were trained side by side: how good each is, as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from train.config.sweep import Setting
from train.evaluation.metrics import nan_mean
from train.fitting.grid import HeadGrid
from train.fitting.selection import Score


@dataclass(frozen=True)
class SettingResults:
    """What came of the settings of a grid.

    Parameters
    ----------
    grid
        Its settings, folds and how many tiles each head trains on.
    scores
        How good each setting is.
    best
        The index of the best.
    losses
        Epoch, setting, training loss and validation loss.
    diagnostics
        Of a solver, by name: a number for each head, setting by setting.
    curve
        Where slides are drawn: how good the draws of each few-shot setting are together.
    """

    grid: HeadGrid
    scores: Sequence[Score]
    best: int
    losses: Sequence[tuple[int, int, float, float]] = ()
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    curve: Sequence[Score] = ()

    @property
    def settings(self) -> list[Setting]:
        """The settings."""
        return self.grid.settings

    @property
    def folds(self) -> list[int]:
        """The folds that each was validated on."""
        return self.grid.folds

    @property
    def tiles(self) -> list[int]:
        """How many tiles a head of each setting trains on, the mean over the folds."""
        return self._counts[0]

    @property
    def _counts(self) -> list[list[int]]:
        shape = (len(self.settings), len(self.folds), 2)
        counts = self.grid.counts.reshape(shape).mean(axis=1).round().astype(int)
        return counts.T.tolist()

    def columns(self) -> dict[str, list[Any]]:
        """Return the table of settings by column."""
        swept = list(self.settings[0].overrides) or ["setting"]
        tiles, slides = self._counts
        return {
            **{
                key: [setting.overrides.get(key, "as configured") for setting in self.settings]
                for key in swept
            },
            "tiles": tiles,
            "slides": slides,
            "f1_macro": [score.mean("f1_macro") for score in self.scores],
            "sd": [score.spread("f1_macro") for score in self.scores],
            "low": [score.f1_macro.low for score in self.scores],
            "high": [score.f1_macro.high for score in self.scores],
            "accuracy": [score.mean("accuracy") for score in self.scores],
            "loss": [score.mean("loss") for score in self.scores],
            "best": ["best" if n == self.best else "" for n in range(len(self.scores))],
        }

    def printed(self, clusters: str) -> pa.Table:
        """Return what fits a terminal of the table; the intervals are over clusters."""
        columns, swept = self.columns(), list(self.settings[0].overrides) or ["setting"]
        spread = zip(columns["f1_macro"], columns["sd"], columns["best"], strict=True)
        return pa.table(
            {
                **{key: columns[key] for key in [*swept, "tiles"]},
                "macro F1": [f"{mean:.4f} ± {sd:.4f} {best and '*'}" for mean, sd, best in spread],
                f"95 % over {clusters}": [score.f1_macro.text() for score in self.scores],
            }
        )

    def few_shot(self) -> dict[str, list[Any]]:
        """Return the few-shot curve by column: a row for the draws of a setting together."""
        draws = self.grid.draws
        tiles = np.array(self.tiles).reshape(-1, draws).mean(axis=1).round().astype(int)
        first = self.settings[::draws]
        keys = [key for key in first[0].overrides if key != "draw"]
        by_draw = [
            np.array([fold["f1_macro"] for fold in score.folds]).reshape(draws, -1).mean(axis=1)
            for score in self.curve
        ]
        return {
            **{key: [setting.overrides[key] for setting in first] for key in keys},
            "draws": [draws] * len(first),
            "tiles": tiles.tolist(),
            "f1_macro": [score.mean("f1_macro") for score in self.curve],
            "sd": [float(np.std(values, ddof=1)) if draws > 1 else 0.0 for values in by_draw],
            "low": [score.f1_macro.low for score in self.curve],
            "high": [score.f1_macro.high for score in self.curve],
        }

    def leak_gap(self) -> float | None:
        """Return how much better heads look under folds that share slides, the mean over settings.

        None unless both strategies were swept.
        """
        by_strategy: dict[str, list[float]] = {}
        for setting, score in zip(self.settings, self.scores, strict=True):
            strategy = setting.overrides.get("kfold_strategy", "")
            by_strategy.setdefault(strategy, []).append(score.mean("f1_macro"))
        if {"stratified", "stratified_group"} - set(by_strategy):
            return None
        mean = {strategy: np.mean(values) for strategy, values in by_strategy.items()}
        return float(mean["stratified"] - mean["stratified_group"])


def summary(score: Score) -> dict[str, float]:
    """Return what is recorded of a setting: means, deviations and the interval."""
    names = ("f1_macro", "accuracy", "balanced_accuracy", "loss")
    values = {f"validation/{name}": score.mean(name) for name in names}
    values |= {f"validation/{name}_sd": score.spread(name) for name in names}
    if score.f1_macro.has_interval:
        _, low, high = score.f1_macro.ends
        values |= {"validation/f1_macro_low": low, "validation/f1_macro_high": high}
    return values


def class_means(score: Score, classes: Sequence[str]) -> dict[str, float]:
    """Return the mean F1 of each class over the folds that have it, under ``f1/<class>``."""
    names = [f"f1/{name}" for name in classes]
    by_fold = np.array([[fold.get(name, np.nan) for name in names] for fold in score.folds])
    means = zip(names, nan_mean(by_fold.T).tolist(), strict=True)
    return {name: mean for name, mean in means if np.isfinite(mean)}
