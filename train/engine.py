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

import numpy as np
import torch
from torch import Tensor

from train.affine import Affine, Standard
from train.losses import Aims
from train.optimizers import OPTIMIZERS
from train.order import windows
from train.pool import BLOCK, NOWHERE, Heads, Pool, Sum, seen
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


Told = Callable[[int, Tensor, Tensor, Tensor], None]
"""Hears of each epoch: number, heads that are left, their training and validation losses."""


def train(
    pool: Pool,
    heads: Heads,
    aims: Aims,
    start: Affine,
    plan: Plan,
    total: Sum,
    body: Standard | None = None,
    told: Told = lambda *_: None,
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
    """
    best = Fitted(
        Affine(start.weight.clone(), start.bias.clone()),
        torch.zeros(len(heads), dtype=torch.int64),
        torch.full((len(heads),), float("inf"), dtype=torch.float64),
    )
    left = torch.arange(len(heads))
    reference, waited = best.loss.clone(), torch.zeros(len(heads), dtype=torch.int64)
    affine = Affine(start.weight.clone(), start.bias.clone())
    stepper = Stepper(plan.optimizer, heads, affine)
    rng = np.random.default_rng(plan.seed)
    for epoch in range(plan.epochs):
        own, aim = heads.of(left), aims.of(left)
        inner = body.of(left) if body else None
        sums = torch.zeros((2, len(left)), dtype=torch.float64, device=pool.target.device)
        for window in windows(pool.rows, plan.batch, rng):
            sums += stepper.step([pool.own(*part) for part in window], own, aim, inner, total)
        outer = inner.moved(stepper.affine) if inner else stepper.affine
        held, _ = evaluate(pool, outer, own, aim, total, counted=False)
        held = held.cpu()
        told(epoch, left, (sums[0] / sums[1]).cpu(), held)
        blind = (own.fold == NOWHERE).cpu()  # trains on all: its last epoch is its best
        better = (held < best.loss[left]) | blind
        for place in better.nonzero()[:, 0].tolist():
            head = int(left[place])
            best.affine.weight[head], best.affine.bias[head] = (
                outer.weight[place], outer.bias[place]
            )  # fmt: skip
            best.epoch[head], best.loss[head] = epoch, held[place]
        # min_delta decides on patience alone: the best epoch is the best, by any margin.
        falling = (held < reference[left] - plan.min_delta) | blind
        reference[left] = torch.where(falling, held, reference[left])
        waited[left] = torch.where(falling, 0, waited[left] + 1)
        going = (waited[left] < plan.patience) & held.isfinite()
        if not going.all():
            stepper.keep(going.nonzero()[:, 0])
            left = left[going]
        if not len(left):
            break
    return best


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
    """

    def __init__(self, optimizer: str, heads: Heads, affine: Affine) -> None:
        self.affine = affine
        learning = torch.stack([heads.rate, heads.decay], dim=1)
        _, counts = learning.unique_consecutive(dim=0, return_counts=True)
        self.sizes = counts.tolist()
        groups = []
        for (weight, bias), first in zip(
            self._views(), np.cumsum([0, *self.sizes[:-1]]).tolist(), strict=True
        ):
            both = [torch.nn.Parameter(weight), torch.nn.Parameter(bias)]
            rate, decay = learning[first].tolist()
            groups.append({"params": both, "lr": rate, "weight_decay": decay})
        self.optimizer = OPTIMIZERS[optimizer](groups, 0.0, 0.0)

    def _views(self) -> list[tuple[Tensor, Tensor]]:
        pieces = (self.affine.weight.split(self.sizes), self.affine.bias.split(self.sizes))
        return list(zip(*pieces, strict=True))

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
    room = torch.empty((BLOCK, pool.x.shape[1]), dtype=pool.x.dtype, device=pool.x.device)
    for variant, fold, members in heads.groups():
        if fold == NOWHERE:
            continue
        held = (pool.fold[variant] == fold).nonzero()[:, 0]
        some, aim = affine.of(members), plain.of(members)
        for rows in held.split(BLOCK):
            # Into memory that is there: new memory for every block costs more than the copy.
            x = torch.index_select(pool.x, 0, rows.to(room.device), out=room[: len(rows)])
            logits = some.logits(x.to(device))
            target = pool.target[variant, rows].expand(len(members), -1)
            if counted:
                cell = (pool.slide[rows] * classes + target) * classes + logits.argmax(dim=1)
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
    probabilities = torch.zeros((len(pool.x), affine.weight.shape[1]), device=pool.target.device)
    for head in range(len(heads)):
        held = (pool.fold[heads.variant[head]] == heads.fold[head]).nonzero()[:, 0]
        one = affine.of(torch.tensor([head], device=held.device))
        for rows in held.split(BLOCK):
            logits = one.logits(pool.x[rows].to(probabilities.device))
            probabilities[rows] = logits[0].softmax(dim=0).T
    return probabilities
