"""A fit of any head by autograd: the loop for heads that the engine does not know."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train.config.rules import steadier
from train.engine.losses import class_weights, cross_entropy_sum
from train.engine.optimizers import OPTIMIZERS
from train.engine.sampler import batch_windows
from train.engine.shard import UNKNOWN, Split, count_targets
from train.evaluation.confusion import Counts, Cube
from train.fitting.linear import DivergedError
from train.models import checkpoint
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.heads import Standardize
from train.reports.history import History
from train.runtime.fit_state import FileCheckpointer
from train.runtime.processes import all_reduce
from train.runtime.progress import EpochBar
from train.runtime.run import Run
from train.tracking.names import encode_name

BLOCK = 4096  # rows of a product outside training: large enough to be fast, small to hold


def fit(session: Run, splits: dict[str, Split], dim: int, classes: list[str]) -> TrainedModel:
    """Train a head, stop early, and return the network as it was at its best epoch."""
    config, accelerator, train = session.config, session.accelerator, splits["train"]
    weights = class_weights(count_targets(train.targets, len(classes)))
    blueprint = ModelSpec(
        config.head, config.hidden, config.normalize, dim, classes, weights.tolist()
    )
    network = blueprint.build().to(accelerator.device)
    body, head = network.get_submodule("backbone"), network.get_submodule("head")
    if isinstance(body, Standardize):
        standardize(body, splits, session)
    featurize(body, splits, accelerator.device)
    weights = weights.to(accelerator.device)
    named = zip(classes, blueprint.weights, strict=True)
    session.tracker.metrics({f"class_weight/{encode_name(name)}": weight for name, weight in named})

    history = History(session, classes)

    def best(state: dict[str, Any]) -> None:
        head.load_state_dict(state["best"])
        checkpoint.save(session.folder / checkpoint.FILE, TrainedModel(network, blueprint))

    memory = FileCheckpointer(session, "head", history.rows, best)
    race = Race.start(session, head)
    if kept := memory.recall():
        race.restore(kept)
    trained, race.optimizer = accelerator.prepare(head, race.optimizer)
    with EpochBar(session.console, config.max_epochs, len(train)) as bar:
        while race.epoch < config.max_epochs and race.waited < config.patience:
            started = time.perf_counter()
            loss = train_epoch(session, trained, race.optimizer, train, weights, race.rng)
            seconds = time.perf_counter() - started
            held, cube, _ = apply(session, head, splits["validation"], weights)
            bar.epoch(race.epoch, seconds, loss, held)
            if not math.isfinite(held):
                raise DivergedError(
                    f"Training diverged in epoch {race.epoch}",
                    found=f"validation/loss {held}, train/loss {loss}",
                    fix=steadier(config),
                )
            if session.is_first:
                losses = {"train/loss": loss, "validation/loss": held}
                losses["learning_rate"] = config.learning_rate
                history.epoch(race.epoch, losses, cube.sum(axis=0))
            race.judge(held, config.min_delta)
            memory.keep(race.state)
    history.close()
    head.load_state_dict(race.best)
    if session.is_first:
        checkpoint.save(session.folder / checkpoint.FILE, TrainedModel(network, blueprint))
    return TrainedModel(network.eval().requires_grad_(False), blueprint)


@dataclass
class Race:
    """A head in training: how it does, and what it needs for the next epoch."""

    head: nn.Module
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator  # the same on every process: so are the batches
    best: dict[str, Tensor]
    epoch: int = 0
    lowest: float = math.inf
    reference: float = math.inf
    waited: int = 0

    @classmethod
    def start(cls, session: Run, head: nn.Module) -> "Race":
        """Return the head before its first epoch."""
        config = session.config
        optimizer = OPTIMIZERS[config.optimizer](
            head.parameters(), config.learning_rate, config.weight_decay
        )
        rng = np.random.default_rng(config.seed)
        return cls(head, optimizer, rng, checkpoint.copy_state(head))

    def judge(self, loss: float, min_delta: float) -> None:
        """Keep the head if it is better than ever; count epochs without a better loss."""
        if loss < self.lowest:
            self.best, self.lowest = checkpoint.copy_state(self.head), loss
        # min_delta decides on patience alone: the best checkpoint is the best, by any margin.
        falling = loss < self.reference - min_delta
        self.reference = loss if falling else self.reference
        self.waited = 0 if falling else self.waited + 1
        self.epoch += 1

    def state(self) -> dict[str, Any]:
        """Return all of it as tensors, numbers and dictionaries."""
        return {
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "best": self.best,
            "counts": (self.epoch, self.lowest, self.reference, self.waited),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` told of."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.best = state["best"]
        self.epoch, self.lowest, self.reference, self.waited = state["counts"]


def featurize(body: nn.Module, splits: dict[str, Split], device: torch.device) -> None:
    """Replace all embeddings by the backbone's features, in place.

    The backbone is frozen, so nobody needs the embeddings again.
    """
    if isinstance(body, nn.Identity):
        return
    for split in splits.values():
        for block in split.x.split(BLOCK):
            block.copy_(body(block.to(device)))


def standardize(body: Standardize, splits: dict[str, Split], session: Run) -> None:
    """Fit the backbone on the training tiles.

    Two passes in double, since a one-pass variance cancels where the mean is large.
    """
    train, accelerator = splits["train"], session.accelerator

    def moment(power: int, centre: Tensor | float) -> Tensor:
        own = torch.zeros_like(body.mean, dtype=torch.float64)
        for block in train.x.split(BLOCK):
            own += ((block.to(accelerator.device).double() - centre) ** power).sum(dim=0)
        return all_reduce(accelerator, own) / len(train)

    mean = moment(1, 0.0)
    scale = moment(2, mean).sqrt()
    body.mean.copy_(mean)
    body.scale.copy_(torch.where(scale > 0, scale, 1.0))  # a constant dimension stays at zero


def train_epoch(
    session: Run,
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Split,
    weights: Tensor,
    rng: np.random.Generator,
) -> float:
    """Take one step per batch; return the mean loss, each tile weighted by its class."""
    accelerator = session.accelerator
    # The weight of a batch over all processes is known without asking them.
    mass = torch.cat([torch.zeros(1), weights.cpu()[train.targets]]).double().cumsum(0)
    summed = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    for window in batch_windows(len(train), session.config.batch_size, rng):
        x, target = train.batch(window, accelerator.device)
        loss = cross_entropy_sum(head(x), target, weights, session.config.label_smoothing)
        batch_mass = sum(float(mass[stop] - mass[start]) for start, stop in window)
        # Processes average their gradients; times their number, that is the sum we want.
        accelerator.backward(loss * (accelerator.num_processes / batch_mass))
        optimizer.step()
        optimizer.zero_grad()
        summed += loss.detach()
    return float(all_reduce(accelerator, summed) / mass[-1])


@torch.no_grad()
def apply(
    session: Run, logits: nn.Module, split: Split, weights: Tensor
) -> tuple[float, Counts, Tensor]:
    """Apply a network to a split.

    Returns
    -------
    loss : float
        Weighted mean over the tiles with a label.
    cube : ndarray of int, shape (slides, K, K)
        Slide x true x predicted, over all processes.
    own : Tensor, shape (own rows, K)
        Probabilities of this process's rows.
    """
    accelerator = session.accelerator
    cube = Cube(split.slides, len(weights)).to(accelerator.device)
    sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    own = [torch.zeros((0, len(weights)), device=accelerator.device)]
    for start in range(0, len(split.x), BLOCK):
        rows = slice(start, start + BLOCK)
        scores = logits(split.x[rows].to(accelerator.device))
        own.append(scores.softmax(dim=-1))
        target = split.target[rows].to(accelerator.device)
        known = target != UNKNOWN
        if known.any():
            cube.update(
                split.slide[rows].to(accelerator.device)[known],
                target[known],
                scores[known].argmax(dim=-1),
            )
            sums[0] += cross_entropy_sum(scores[known], target[known], weights)
            sums[1] += weights[target[known]].sum()
    loss, mass = all_reduce(accelerator, sums).tolist()
    return loss / max(mass, 1e-12), cube.compute().cpu().numpy(), torch.cat(own)
