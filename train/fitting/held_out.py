"""Predictions of tiles by heads that have not seen them, and the temperature fitted on them."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from train.config.schema import Config
from train.engine.trainer import FitResult
from train.evaluation.calibration import Calibration, calibrate, cross_entropy
from train.fitting.grid import HeadGrid
from train.fitting.selection import Choice
from train.fitting.tile_table import Rows
from train.predictions.table import Predictions, encode_clusters


@dataclass(frozen=True)
class HeldOut:
    """The tiles that the heads of the best setting validate on.

    Parameters
    ----------
    grid, choice
        Which setting it is.
    order
        The tile of every position, shape (rows,).
    """

    grid: HeadGrid
    choice: Choice
    order: Rows

    @property
    def validated(self) -> npt.NDArray[np.bool_]:
        """Whether a head of the setting validates on the tile of a position, shape (rows,)."""
        return self.grid.validated(self.choice.setting)[self.order]

    @property
    def target(self) -> Rows:
        """The classes under the rules of the setting, shape (rows,)."""
        return self.grid.target(self.choice.setting)[self.order]

    @property
    def fold(self) -> Rows:
        """The folds of the tiles under the rules of the setting, shape (rows,)."""
        return self.grid.fold(self.choice.setting)[self.order]

    def learned(self, result: FitResult) -> npt.NDArray[np.bool_]:
        """Return whether the head that validates on a tile was trained on its class, shape (rows,).

        Of the others no temperature is right: their class weighs nothing.
        """
        grid, setting = self.grid, self.choice.setting
        weights = result.problem.losses.class_weights[grid.of_setting(setting)].cpu().numpy()
        fold, learned = self.fold, np.zeros(len(self.order), dtype=bool)
        for number, of_head in zip(grid.folds, weights, strict=True):
            at = self.validated & (fold == number)
            learned[at] = of_head[self.target[at]] > 0
        return learned

    def calibrate(self, logits: Tensor, result: FitResult, config: Config) -> Calibration:
        """Return the temperature of all these tiles, and what it does.

        Parameters
        ----------
        logits
            Of every position, shape (rows, K).
        result
            The heads, which know the weights of classes.
        """
        keys, mask = self.grid.keys(self.choice.setting), self.validated
        cluster = encode_clusters(keys, config.evidence.resample)[0][self.order]
        return calibrate(
            logits.numpy()[mask], self.target[mask], cluster[mask], self.learned(result)[mask]
        )

    def with_loss(self, logits: Tensor, result: FitResult) -> Choice:
        """Return the choice with the loss of its head on its fold, by other logits than it had.

        Parameters
        ----------
        logits
            Of every position, shape (rows, K).
        result
            The heads, which know the weights of classes.
        """
        choice, mask = self.choice, self.fold == self.choice.fold
        weights = result.problem.losses.class_weights[choice.head].double().cpu().numpy()
        return replace(choice, loss=cross_entropy(logits.numpy()[mask], self.target[mask], weights))

    def predictions(self, probabilities: Tensor, config: Config) -> Predictions:
        """Return the predictions of the tiles that the setting's heads validate on.

        Of several folds, ``fold`` is the last column.

        Parameters
        ----------
        probabilities
            Of every position, shape (rows, K); of no meaning where no head validates.
        """
        grid, setting = self.grid, self.choice.setting
        predictions = Predictions.of(
            grid.keys(setting), self.order, probabilities.numpy(), config.class_names,
            config.evidence.resample,
        )  # fmt: skip
        if grid.is_single:
            return predictions
        by_key = np.sort(self.order)
        predictions = predictions.with_column("fold", grid.fold(setting)[by_key])
        return predictions.select(grid.validated(setting)[by_key])
