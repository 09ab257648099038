"""Predictions of tiles by heads that have not seen them, and the temperature fitted on them."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from train.config.schema import Config
from train.engine.trainer import FitResult
from train.evaluation.calibration import Calibration, calibrate, cross_entropy
from train.fitting.grid import HeadGrid
from train.fitting.selection import Choice
from train.fitting.tile_table import Rows, TileTable
from train.predictions.table import Predictions, encode_clusters


@dataclass(frozen=True)
class HeldOut:
    """The tiles that the heads of the best setting validate on.

    Parameters
    ----------
    grid, choice
        Which setting it is.
    tiles
        All tiles, on the main process; the others have a table of none.
    """

    grid: HeadGrid
    choice: Choice
    tiles: TileTable

    @property
    def validated(self) -> npt.NDArray[np.bool_]:
        """Whether a head of the setting validates on a tile, shape (tiles,)."""
        return np.isin(self.fold, self.grid.folds)

    @property
    def target(self) -> Rows:
        """The classes of the tiles under the rules of the setting, shape (tiles,)."""
        target: Rows = self.tiles.target[:, self._variant]
        return target

    @property
    def fold(self) -> Rows:
        """Their folds under the rules of the setting, shape (tiles,)."""
        fold: Rows = self.tiles.fold[:, self._variant]
        return fold

    @property
    def keys(self) -> pa.Table:
        """Their keys, with ``target`` under the rules of the setting."""
        if self.grid.is_single:
            return self.tiles.keys
        return self.tiles.keys.append_column("target", pa.array(self.target))

    @property
    def _variant(self) -> int:
        return self.grid.settings[self.choice.setting].variant

    def learned(self, result: FitResult) -> npt.NDArray[np.bool_]:
        """Return whether the head that validates on a tile has seen its class, shape (tiles,).

        Of the others no temperature is right: their class weighs nothing.
        """
        grid, setting = self.grid, self.choice.setting
        weights = result.problem.losses.class_weights[grid.of_setting(setting)].cpu().numpy()
        fold, learned = self.fold, np.zeros(len(self.tiles), dtype=bool)
        for number, of_head in zip(grid.folds, weights, strict=True):
            at = fold == number
            learned[at] = of_head[self.target[at]] > 0
        return learned

    def calibrate(
        self, logits: Tensor, result: FitResult, config: Config
    ) -> tuple[Calibration, Choice]:
        """Return the temperature of these tiles and what it does, and the choice with its loss.

        Parameters
        ----------
        logits
            Of every tile, shape (tiles, K).
        result
            The heads, which know the weights of classes.
        """
        mask = self.validated
        cluster = encode_clusters(self.keys, config.evidence.resample)[0]
        calibration = calibrate(
            logits.numpy()[mask], self.target[mask], cluster[mask], self.learned(result)[mask]
        )
        return calibration, self._with_loss(logits / calibration.temperature, result)

    def _with_loss(self, logits: Tensor, result: FitResult) -> Choice:
        """Return the choice with the loss of its head on its fold, by other logits than it had."""
        choice, mask = self.choice, self.fold == self.choice.fold
        weights = result.problem.losses.class_weights[choice.head].double().cpu().numpy()
        return replace(choice, loss=cross_entropy(logits.numpy()[mask], self.target[mask], weights))

    def predictions(self, probabilities: Tensor, config: Config) -> Predictions:
        """Return the predictions of the tiles that the setting's heads validate on.

        Of several folds, ``fold`` is the last column.

        Parameters
        ----------
        probabilities
            Of every tile, shape (tiles, K); of no meaning where no head validates.
        """
        predictions = Predictions.of(
            self.keys, probabilities.numpy(), config.class_names, config.evidence.resample
        )
        if not self.grid.is_single:
            predictions = predictions.with_column("fold", self.fold)
        return predictions.select(self.validated)
