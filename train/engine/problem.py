"""What heads are trained on, and how."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from train.engine.heads import HeadSpecs, TileWeights, balanced_class_weights
from train.engine.losses import HeadLosses
from train.engine.schedule import CONSTANT, Schedule
from train.engine.shard import Reduce, Shard
from train.engine.standardizer import Standardizer, fit_standardizer
from train.engine.weights import LinearHeads, initial_weights


@dataclass(frozen=True)
class Problem:
    """What heads are trained on: fixed before the first step.

    Parameters
    ----------
    train
        The tiles; a head's mask takes its own.
    validation
        The tiles to validate on: the same object where the folds of ``train`` hold them.
    heads, losses
        What each head is, and its loss.
    standardizer
        None where heads learn on embeddings as they are.
    reduce
        All-reduce over the processes.
    """

    train: Shard
    validation: Shard
    heads: HeadSpecs
    losses: HeadLosses
    standardizer: Standardizer | None
    reduce: Reduce

    @classmethod
    def prepare(
        cls,
        shards: tuple[Shard, Shard],
        heads: HeadSpecs,
        classes: int,
        reduce: Reduce,
        zscore: bool = False,
    ) -> "Problem":
        """Return the problem with class weights and standardisation of the heads' training tiles.

        Parameters
        ----------
        shards
            To train and to validate on.
        classes
            Their number.
        zscore
            Whether embeddings are standardised.
        """
        train, validation = shards
        weights = balanced_class_weights(train, heads, classes, reduce)
        losses = HeadLosses(weights, heads.label_smoothing)
        standardizer = fit_standardizer(train, heads, reduce) if zscore else None
        return cls(train, validation, heads, losses, standardizer, reduce)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.losses.class_weights.shape[1]

    @cached_property
    def tile_weights(self) -> TileWeights:
        """What tiles weigh: asked once, since to ask a GPU is to wait for it."""
        return TileWeights.of(self.heads, self.losses.class_weights)

    def select(self, heads: Tensor) -> "Problem":
        """Return the problem of some of the heads."""
        return Problem(
            self.train,
            self.validation,
            self.heads.select(heads),
            self.losses.select(heads),
            self.standardizer.select(heads) if self.standardizer else None,
            self.reduce,
        )

    def on_raw(self, weights: LinearHeads) -> LinearHeads:
        """Return weights that act on embeddings as they are."""
        return self.standardizer.fold_into(weights) if self.standardizer else weights

    def initial_weights(self, seed: int) -> LinearHeads:
        """Return the weights that training starts from."""
        first = initial_weights(len(self.heads), self.train.dim, self.classes, seed)
        return first.to(self.train.device)


@dataclass(frozen=True)
class TrainPlan:
    """How heads are trained.

    Parameters
    ----------
    optimizer
        A name in `train.engine.optimizers`.
    batch_size
        Tiles a step, over all processes.
    max_epochs
        Most epochs.
    patience, min_delta
        Epochs without a monitored figure better by so much before a head stops.
    seed
        Decides the order of batches.
    monitor
        The figure that says which epoch is kept, one of `train.engine.monitor.MONITORS`.
    schedule
        The share of each head's learning rate in an epoch.
    """

    optimizer: str
    batch_size: int
    max_epochs: int
    patience: int
    min_delta: float
    seed: int
    monitor: str = "validation/loss"
    schedule: Schedule = CONSTANT
