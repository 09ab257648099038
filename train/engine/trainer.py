"""What every way to train is: an iterator over epochs that can be saved, and its result."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from torch import Tensor

from train.engine.confusion import ConfusionCells
from train.engine.evaluate import evaluate, evaluate_by_cluster, out_of_fold
from train.engine.problem import Problem
from train.engine.weights import LinearHeads


@dataclass(frozen=True)
class Epoch:
    """What there is to say of an epoch, or of an iteration of a solver.

    Parameters
    ----------
    number
        Counted from 0.
    active
        Heads that took part, shape (A,).
    train_loss, validation_loss
        Their mean losses, shape (A,).
    confusion
        Of a single head, by true and predicted class on its validation tiles, shape (K, K); None
        where nobody asked.
    """

    number: int
    active: Tensor
    train_loss: Tensor
    validation_loss: Tensor
    confusion: Tensor | None = None


@dataclass
class FitResult:
    """Heads as they were at their best epoch.

    Parameters
    ----------
    problem
        What they were trained on.
    weights
        On embeddings as they are; None where there are only votes.
    best_epoch
        Shape (H,); iterations of a solver.
    best_loss
        The validation losses of that epoch, shape (H,).
    diagnostics
        What a solver proves of its heads, by name, each of shape (H,).
    temperature
        By which the weights were divided after the fit.
    """

    problem: Problem
    weights: LinearHeads | None
    best_epoch: Tensor
    best_loss: Tensor
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    temperature: float = 1.0

    def evaluate(self, counted: bool = True) -> tuple[Tensor, Tensor]:
        """Return loss and confusion of each head on its fold, see `train.engine.evaluate`."""
        assert self.weights
        return evaluate(self.problem, self.weights, counted)

    def evaluate_by_cluster(self) -> tuple[Tensor, ConfusionCells]:
        """Return loss and confusion of each head and cluster, see `train.engine.evaluate`."""
        assert self.weights
        return evaluate_by_cluster(self.problem, self.weights)

    def out_of_fold(self, heads: Tensor) -> Tensor:
        """Return each local validation row's probabilities by the head that has not seen it.

        Shape (local rows, K); zero where none of the heads validates.
        """
        assert self.weights
        return out_of_fold(self.problem.select(heads), self.weights.select(heads))

    def out_of_fold_logits(self, heads: Tensor) -> Tensor:
        """Return the logits that `out_of_fold` makes probabilities of."""
        assert self.weights
        return out_of_fold(self.problem.select(heads), self.weights.select(heads), logits=True)

    def with_temperature(self, temperature: float) -> Self:
        """Return the heads with their logits divided by a temperature."""
        assert self.weights
        return replace(self, weights=self.weights.divided(temperature), temperature=temperature)


class Trainer(Protocol):
    """Trains heads: an iterator over epochs that can be stopped, saved and gone on with.

    ``for epoch in trainer`` trains; a solver yields its iterations, a closed form nothing.
    """

    problem: Problem
    """What it trains on."""

    def __iter__(self) -> Iterator[Epoch]:
        """Train until every head has stopped, telling of each epoch when it is done."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next epoch needs: tensors, numbers, lists and dictionaries."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state: what comes out is bit for bit the same as without a break."""

    def result(self) -> FitResult:
        """Return every head as it was at its best epoch so far."""
