"""Many linear heads in one pass over the embeddings.

The heads of all folds and settings stand side by side in one matrix, so that a batch is read once
and multiplied once. A tile that a head must not see, because it is in the head's validation fold or
its setting leaves it out, has weight 0 in that head's loss: masks are all that tells heads apart.
Every head has its own class weights, optimizer state, early stopping and best epoch; one that has
stopped leaves the product.

No autograd: the gradient of a linear head is ``residuals' @ embeddings``, and both products of a
block of rows are done while the block is in the cache.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from train.engine.evaluate import evaluate
from train.engine.heads import HeadSpecs
from train.engine.losses import HeadLosses
from train.engine.shard import DROPPED, Reduce, Shard
from train.engine.standardizer import Standardizer
from train.engine.stepper import Stepper
from train.engine.weights import LinearHeads


@dataclass(frozen=True)
class TrainPlan:
    """How heads are trained.

    Parameters
    ----------
    optimizer
        A name in `train.engine.optimizers`.
    batch
        Tiles a step, over all processes.
    epochs
        Most epochs.
    patience, min_delta
        Epochs without a validation loss better by so much before a head stops.
    seed
        Decides the order of batches.
    """

    optimizer: str
    batch: int
    epochs: int
    patience: int
    min_delta: float
    seed: int


@dataclass
class FitResult:
    """Heads as they were at their best epoch.

    Parameters
    ----------
    affine
        Their weights, on embeddings as they are.
    epoch, loss
        Best epoch and its validation loss, shape (H,).
    evidence
        What a solver proves of its heads, by name, each of shape (H,).
    """

    affine: LinearHeads
    epoch: Tensor
    loss: Tensor
    evidence: dict[str, Tensor] = field(default_factory=dict)


Told = Callable[[int, Tensor, Tensor, Tensor, Tensor], None]
"""Hears of each epoch: number, heads that are left, their training and validation losses, and the
cube of `evaluate`, empty unless asked for."""


class Checkpointer(Protocol):
    """Keeps what training needs to go on after it was killed."""

    def recall(self) -> dict[str, Any] | None:
        """Return what was kept last; None at a first start."""

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep the state of an epoch: tensors, numbers, lists and dictionaries of them."""


class NullCheckpointer:
    """Keeps nothing."""

    def recall(self) -> None:
        """Return that nothing was kept."""

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Do not even ask for the state."""


def train(
    pool: Shard,
    heads: HeadSpecs,
    aims: HeadLosses,
    start: LinearHeads,
    plan: TrainPlan,
    total: Reduce,
    body: Standardizer | None = None,
    told: Told = lambda *_: None,
    held: Shard | None = None,
    counted: bool = False,
    memory: Checkpointer | None = None,
) -> FitResult:
    """Train all heads with mini-batches, each until its validation loss stops falling.

    The batches are the same whatever the heads and however many processes: a head trained in a
    pack is the head trained alone.

    Parameters
    ----------
    pool
        All tiles; a head's mask takes its own.
    heads, aims
        What each head is, and its loss.
    start
        Initial weights.
    plan
        Optimizer, batches and patience.
    total
        Adds up over the processes.
    body
        Standardisation, or None.
    told
        Hears of each epoch.
    held
        Tiles to validate on, if they are not in the pool.
    counted
        Whether the cube of each epoch is wanted.
    memory
        Where each epoch is kept, and found again after a kill: what comes out is bit for bit the
        same as without one.
    """
    memory = memory or NullCheckpointer()
    race = TrainState.start(heads, start, plan)
    if kept := memory.recall():
        race = TrainState.restored(kept, heads, plan, start.weight.device)
    together = 0
    while len(race.left) and race.epoch < plan.epochs:
        if len(race.left) != together:  # at first, and whenever heads have left
            together = len(race.left)
            own, aim = heads.of(race.left), aims.of(race.left)
            inner = body.of(race.left) if body else None
            steps = race.stepper.steps(pool, plan.batch, own, aim, inner, total)
        sums = steps.epoch(race.rng)
        outer = inner.moved(race.stepper.affine) if inner else race.stepper.affine
        loss, cube = evaluate(held or pool, outer, own, aim, total, counted)
        told(race.epoch, race.left, (sums[0] / sums[1]).cpu(), loss.cpu(), cube)
        race.judge(outer, loss.cpu(), (own.fold == DROPPED).cpu())
        memory.keep(race.state)
    return race.best


@dataclass
class TrainState:
    """Heads in training: which are left, how they do, and what they need for the next epoch.

    Parameters
    ----------
    plan
        Optimizer, batches and patience.
    epoch
        The next one.
    left
        Heads that have not stopped.
    best
        Every head at its best epoch so far.
    reference, waited
        The loss that patience is counted from, and epochs since, shape (H,).
    stepper
        Weights and optimizer of the heads that are left.
    rng
        Draws the order of batches.
    """

    plan: TrainPlan
    epoch: int
    left: Tensor
    best: FitResult
    reference: Tensor
    waited: Tensor
    stepper: "Stepper"
    rng: np.random.Generator

    @classmethod
    def start(cls, heads: HeadSpecs, affine: LinearHeads, plan: TrainPlan) -> "TrainState":
        """Return all heads before their first epoch."""
        number = len(heads)
        never = torch.full((number,), float("inf"), dtype=torch.float64)
        epoch = torch.zeros(number, dtype=torch.int64)
        return cls(
            plan=plan,
            epoch=0,
            left=torch.arange(number),
            best=FitResult(affine.copy(), epoch, never),
            reference=never.clone(),
            waited=epoch.clone(),
            stepper=Stepper(plan.optimizer, heads, affine.copy()),
            rng=np.random.default_rng(plan.seed),
        )

    @classmethod
    def restored(
        cls, state: dict[str, Any], heads: HeadSpecs, plan: TrainPlan, device: torch.device
    ) -> "TrainState":
        """Return the heads as `state` told of them."""
        best = FitResult(
            LinearHeads(*state["best"]).on(device), state["best_epoch"], state["best_loss"]
        )
        affine = LinearHeads(*state["affine"]).on(device)
        stepper = Stepper(plan.optimizer, heads.of(state["left"]), affine, state["sizes"])
        stepper.optimizer.load_state_dict(state["optimizer"])
        rng = np.random.default_rng()
        rng.bit_generator.state = state["rng"]
        return cls(
            plan, state["epoch"], state["left"], best, state["reference"], state["waited"],
            stepper, rng,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return all of it as tensors, numbers, lists and dictionaries."""
        return {
            "epoch": self.epoch,
            "left": self.left,
            "best": (self.best.affine.weight, self.best.affine.bias),
            "best_epoch": self.best.epoch,
            "best_loss": self.best.loss,
            "reference": self.reference,
            "waited": self.waited,
            "affine": (self.stepper.affine.weight, self.stepper.affine.bias),
            "sizes": self.stepper.sizes,
            "optimizer": self.stepper.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
        }

    def judge(self, affine: LinearHeads, loss: Tensor, blind: Tensor) -> None:
        """Keep what is better, let go of heads that have waited for too long.

        Parameters
        ----------
        affine
            Weights of the heads that are left, on embeddings as they are.
        loss
            Their validation losses.
        blind
            Which of them train on all tiles: their last epoch is their best.
        """
        left = self.left
        for place in ((loss < self.best.loss[left]) | blind).nonzero()[:, 0].tolist():
            head = int(left[place])
            self.best.affine.weight[head] = affine.weight[place]
            self.best.affine.bias[head] = affine.bias[place]
            self.best.epoch[head], self.best.loss[head] = self.epoch, loss[place]
        # min_delta decides on patience alone: the best epoch is the best, by any margin.
        falling = (loss < self.reference[left] - self.plan.min_delta) | blind
        self.reference[left] = torch.where(falling, loss, self.reference[left])
        self.waited[left] = torch.where(falling, 0, self.waited[left] + 1)
        going = (self.waited[left] < self.plan.patience) & loss.isfinite()
        if not going.all():
            self.stepper.keep(going.nonzero()[:, 0])
            self.left = left[going]
        self.epoch += 1
