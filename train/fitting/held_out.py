"""Probabilities of tiles by heads that have not seen them, and the temperature fitted on them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from train.config.schema import Config
from train.engine.trainer import FitResult
from train.evaluation.calibration import Calibration, calibrate, cross_entropy
from train.fitting.grid import HeadGrid
from train.fitting.selection import Choice
from train.fitting.tile_table import Rows
from train.predictions.table import Predictions


@dataclass(frozen=True)
class HeldOut:
    """Out-of-fold probabilities of the best setting, by position.

    Parameters
    ----------
    grid, choice
        Which setting it is.
    order
        The tile of every position, shape (rows,).
    probabilities
        Shape (rows, K); of no meaning where none of the setting's heads validates.
    """

    grid: HeadGrid
    choice: Choice
    order: Rows
    probabilities: Tensor

    def calibrated(self, result: FitResult) -> tuple["HeldOut", Calibration]:
        """Return the same with a temperature, and what it does; the loss becomes that with it."""
        grid, choice = self.grid, self.choice
        mask = grid.validated(choice.setting)[self.order]
        target = grid.target(choice.setting)[self.order]
        scaled, calibration = calibrate(self.probabilities[mask].numpy(), target[mask])
        probabilities = self.probabilities.clone()
        probabilities[mask] = torch.from_numpy(scaled)
        of_fold = grid.fold(choice.setting)[self.order] == choice.fold
        weights = result.problem.losses.class_weights[choice.head].double().cpu().numpy()
        loss = cross_entropy(probabilities[of_fold].numpy(), target[of_fold], weights)
        choice = replace(choice, loss=loss, temperature=calibration.temperature)
        return replace(self, choice=choice, probabilities=probabilities), calibration

    def predictions(self, config: Config) -> Predictions:
        """Return the predictions of the tiles that the setting's heads validate on.

        Of several folds, ``fold`` is the last column.
        """
        grid, setting = self.grid, self.choice.setting
        predictions = Predictions.of(
            grid.keys(setting), self.order, self.probabilities.numpy(), config.class_names,
            config.evidence.resample,
        )  # fmt: skip
        if grid.is_single:
            return predictions
        by_key = np.sort(self.order)
        predictions = predictions.with_column("fold", grid.fold(setting)[by_key])
        return predictions.select(grid.validated(setting)[by_key])
