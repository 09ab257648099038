"""Losses that are not numbers: refused as soon as no head can be saved."""

from torch import Tensor

from featurestore.errors import FeatureStoreError
from train.config.rules import steadier
from train.config.schema import Config
from train.engine.trainer import Epoch


class DivergedError(FeatureStoreError):
    """The loss is not a finite number."""


def check_finite(epoch: Epoch, config: Config) -> None:
    """Refuse to go on with a single head whose loss is not a number.

    Raises
    ------
    DivergedError
        It is not.
    """
    validation, train = float(epoch.validation_loss), float(epoch.train_loss)
    if not epoch.validation_loss.isfinite().all():
        raise DivergedError(
            f"Training diverged in epoch {epoch.number}",
            found=f"validation/loss {validation}, train/loss {train}",
            fix=steadier(config),
        )


def check_result(best_loss: Tensor, loss: Tensor, config: Config) -> None:
    """Refuse heads none of which has ever had a finite loss.

    Parameters
    ----------
    best_loss, loss
        Of each head at its best epoch, and of the weights that it has now, shape (H,).

    Raises
    ------
    DivergedError
        There is no other.
    """
    if not best_loss.isfinite().any():
        raise DivergedError(
            "Training diverged in every setting and fold",
            found=f"validation losses {sorted(set(loss.tolist()))[:3]}",
            fix=steadier(config),
        )
