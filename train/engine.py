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

from train.affine import Affine, Standard
from train.graph import Steps
from train.losses import Aims
from train.optimizers import OPTIMIZERS
from train.pool import NOWHERE, Heads, Pool, Sum, picked, seen
from train.product import times


def gradient(pool: Pool, affine: Affine, heads: Heads, aims: Aims) -> tuple[Affine, Tensor]:
    """Return the gradient of the summed losses over the own rows, and the sums.

    Returns
    -------
    gradient : Affine
    sums : Tensor of double, shape (2, H)
        Losses, and weights of the tiles.
    """
    number, classes, dim = affine.weight.shape
    device = affine.weight.device
    weight = torch.zeros((0, dim), device=device)
    bias = torch.zeros((number, classes), device=device)
    sums = torch.zeros((2, number), dtype=torch.float64, device=device)
    for block in pool.blocks():
        x = block.x.to(device, non_blocking=True)
        residual, added = aims.residuals(
            affine.logits(x), block.target[heads.variant], seen(block, heads)
        )
        part = times(residual.view(number * classes, -1).to(x.dtype), x.T).float()
        weight = weight.add_(part) if len(weight) else part  # most batches are one block
        bias += residual.sum(dim=-1)
        sums += added
    if not len(weight):  # this process owns no tile of the batch
        weight = torch.zeros_like(affine.weight)
    return Affine(weight.view_as(affine.weight), bias), sums


@dataclass(frozen=True)
class Plan:
    """How heads are trained.

    Parameters
    ----------
    optimizer
        A name in `train.optimizers`.
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
class Fitted:
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

    affine: Affine
    epoch: Tensor
    loss: Tensor
    evidence: dict[str, Tensor] = field(default_factory=dict)


Told = Callable[[int, Tensor, Tensor, Tensor, Tensor], None]
"""Hears of each epoch: number, heads that are left, their training and validation losses, and the
cube of `evaluate`, empty unless asked for."""


class Memory(Protocol):
    """Keeps what training needs to go on after it was killed."""

    def recall(self) -> dict[str, Any] | None:
        """Return what was kept last; None at a first start."""

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep the state of an epoch: tensors, numbers, lists and dictionaries of them."""


class Oblivion:
    """Keeps nothing."""

    def recall(self) -> None:
        """Return that nothing was kept."""

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Do not even ask for the state."""


def train(
    pool: Pool,
    heads: Heads,
    aims: Aims,
    start: Affine,
    plan: Plan,
    total: Sum,
    body: Standard | None = None,
    told: Told = lambda *_: None,
    held: Pool | None = None,
    counted: bool = False,
    memory: Memory | None = None,
) -> Fitted:
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
    memory = memory or Oblivion()
    race = Race.start(heads, start, plan)
    if kept := memory.recall():
        race = Race.restored(kept, heads, plan, start.weight.device)
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
        race.judge(outer, loss.cpu(), (own.fold == NOWHERE).cpu())
        memory.keep(race.state)
    return race.best


@dataclass
class Race:
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

    plan: Plan
    epoch: int
    left: Tensor
    best: Fitted
    reference: Tensor
    waited: Tensor
    stepper: "Stepper"
    rng: np.random.Generator

    @classmethod
    def start(cls, heads: Heads, affine: Affine, plan: Plan) -> "Race":
        """Return all heads before their first epoch."""
        number = len(heads)
        never = torch.full((number,), float("inf"), dtype=torch.float64)
        epoch = torch.zeros(number, dtype=torch.int64)
        return cls(
            plan=plan,
            epoch=0,
            left=torch.arange(number),
            best=Fitted(affine.copy(), epoch, never),
            reference=never.clone(),
            waited=epoch.clone(),
            stepper=Stepper(plan.optimizer, heads, affine.copy()),
            rng=np.random.default_rng(plan.seed),
        )

    @classmethod
    def restored(
        cls, state: dict[str, Any], heads: Heads, plan: Plan, device: torch.device
    ) -> "Race":
        """Return the heads as `state` told of them."""
        best = Fitted(Affine(*state["best"]).on(device), state["best_epoch"], state["best_loss"])
        affine = Affine(*state["affine"]).on(device)
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

    def judge(self, affine: Affine, loss: Tensor, blind: Tensor) -> None:
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


class Stepper:
    """The optimizer's state and the weights of the heads that are left, in one piece of memory.

    Heads side by side with one learning rate and weight decay are one parameter, a view into the
    whole, so that torch's own optimizer takes its steps in few calls.

    Parameters
    ----------
    optimizer
        A name in `train.optimizers`.
    heads
        With their learning rates and weight decays.
    affine
        Initial weights.
    sizes
        Heads of each parameter, where they are not to be found out.
    """

    def __init__(
        self, optimizer: str, heads: Heads, affine: Affine, sizes: list[int] | None = None
    ) -> None:
        self.affine = affine
        learning = torch.stack([heads.rate, heads.decay], dim=1)
        _, counts = learning.unique_consecutive(dim=0, return_counts=True)
        self.sizes: list[int] = counts.tolist() if sizes is None else sizes
        groups = []
        for (weight, bias), first in zip(
            self._views(), np.cumsum([0, *self.sizes[:-1]]).tolist(), strict=True
        ):
            both = [torch.nn.Parameter(weight), torch.nn.Parameter(bias)]
            rate, decay = learning[first].tolist()
            groups.append({"params": both, "lr": rate, "weight_decay": decay})
        self.optimizer = OPTIMIZERS[optimizer](groups, 0.0, 0.0)
        for group in self.optimizer.param_groups:
            if "capturable" in group:  # its steps can be recorded, if on a GPU
                group["capturable"] = affine.weight.is_cuda

    def _views(self) -> list[tuple[Tensor, Tensor]]:
        pieces = (self.affine.weight.split(self.sizes), self.affine.bias.split(self.sizes))
        return list(zip(*pieces, strict=True))

    def steps(
        self, pool: Pool, size: int, heads: Heads, aims: Aims, body: Standard | None, total: Sum
    ) -> Steps:
        """Return the steps of epochs in batches of ``size``."""

        def step(parts: list[Pool]) -> Tensor:
            return self.step(parts, heads, aims, body, total)

        capturable = [group.get("capturable") for group in self.optimizer.param_groups]
        return Steps(pool, size, step, recorded=all(capturable))

    @torch.no_grad()
    def step(
        self, parts: list[Pool], heads: Heads, aims: Aims, body: Standard | None, total: Sum
    ) -> Tensor:
        """Take a step on one batch; return the sums of losses and weights, shape (2, H)."""
        outer = body.moved(self.affine) if body else self.affine
        found = [gradient(part, outer, heads, aims) for part in parts]
        summed = [
            total(torch.stack(list(pieces)).sum(dim=0) if len(found) > 1 else pieces[0])
            for pieces in zip(*((own.weight, own.bias, sums) for own, sums in found), strict=True)
        ]
        whole, sums = Affine(summed[0], summed[1]), summed[2]
        inner = body.back(whole) if body else whole
        mass = sums[1].clamp(min=1e-12).float()
        inner.weight.div_(mass[:, None, None])
        inner.bias.div_(mass[:, None])
        pieces = zip(
            self.optimizer.param_groups, inner.weight.split(self.sizes),
            inner.bias.split(self.sizes), strict=True,
        )  # fmt: skip
        for group, weight, bias in pieces:
            group["params"][0].grad, group["params"][1].grad = weight, bias
        self.optimizer.step()
        return sums

    def keep(self, places: Tensor) -> None:
        """Let the other heads go, with their part of the optimizer's state."""
        owner = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        first = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        self.affine = self.affine.of(places)
        groups, sizes = [], []
        for number, group in enumerate(self.optimizer.param_groups):
            own = places[owner[places] == number] - first[number]
            if len(own):
                groups.append(group)
                sizes.append(len(own))
            for parameter in group["params"]:
                if not len(own):
                    del self.optimizer.state[parameter]
                    continue
                state = self.optimizer.state[parameter]
                for name, value in state.items():
                    if torch.is_tensor(value) and value.shape == parameter.shape:
                        state[name] = value[own].clone()
                parameter.grad = None
        self.optimizer.param_groups, self.sizes = groups, sizes
        for group, (weight, bias) in zip(groups, self._views(), strict=True):
            group["params"][0].data, group["params"][1].data = weight, bias


@torch.no_grad()
def evaluate(
    pool: Pool, affine: Affine, heads: Heads, aims: Aims, total: Sum, counted: bool = True
) -> tuple[Tensor, Tensor]:
    """Apply each head to the tiles of its own validation fold.

    Returns
    -------
    loss : Tensor of double, shape (H,)
        Mean cross entropy, weighted by class, without label smoothing; 0 for a head without a
        validation fold.
    cube : Tensor of int, shape (H, slides, K, K)
        Head x slide x true x predicted; empty unless ``counted``.
    """
    number, classes, _ = affine.weight.shape
    device, plain = pool.target.device, aims.plain()
    sums = torch.zeros((2, number), dtype=torch.float64, device=device)
    cube = torch.zeros((number if counted else 0, pool.slides * classes**2), dtype=torch.int64)
    cube = cube.to(device)
    room = torch.empty(0)
    for _, section in pool.sections():
        for variant, fold, members in heads.groups():
            if fold == NOWHERE:
                continue
            held = (section.fold[variant] == fold).nonzero()[:, 0]
            some, aim = affine.of(members), plain.of(members)
            for rows in held.split(pool.block):
                assert isinstance(section.x, Tensor)
                x, room = picked(section.x, rows, room, pool.block)
                logits = some.logits(x.to(device))
                target = section.target[variant, rows].expand(len(members), -1)
                if counted:
                    cell = section.slide[rows] * classes + target
                    cell = cell * classes + logits.argmax(dim=1)
                    cube[members] = cube[members].scatter_add(1, cell, torch.ones_like(cell))
                _, added = aim.residuals(logits, target, torch.ones_like(target, dtype=torch.bool))
                sums[:, members] += added
    sums, cube = total(sums), total(cube)
    return sums[0] / sums[1].clamp(min=1e-12), cube.view(-1, pool.slides, classes, classes)


@torch.no_grad()
def out_of_fold(pool: Pool, affine: Affine, heads: Heads) -> Tensor:
    """Return each own tile's probabilities from the head that validates on it, shape (rows, K).

    Zero where no head does; of several, the last one's.
    """
    number, classes, _ = affine.weight.shape
    probabilities = torch.zeros((pool.owned, classes), device=pool.target.device)
    room = torch.empty(0)
    for start, section in pool.sections():
        for head in range(number):
            held = section.fold[heads.variant[head]] == heads.fold[head]
            one = affine.of(torch.tensor([head], device=held.device))
            for rows in held.nonzero()[:, 0].split(pool.block):
                assert isinstance(section.x, Tensor)
                x, room = picked(section.x, rows, room, pool.block)
                logits = one.logits(x.to(probabilities.device))
                probabilities[start + rows] = logits[0].softmax(dim=0).T
    return probabilities
