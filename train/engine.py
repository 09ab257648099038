"""Many linear heads in one pass over the embeddings.

The heads of all folds and settings stand side by side in one matrix, so that a batch is read once
and multiplied once. A tile that a head must not see, because it is in the head's validation fold or
its setting leaves it out, has weight 0 in that head's loss: masks are all that tells heads apart.
Every head has its own class weights, optimizer state, early stopping and best epoch; one that has
stopped leaves the product.

No autograd: the gradient of a linear head is ``residuals' @ embeddings``, and both products of a
block of rows are done while the block is in the cache.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from train.losses import class_weights
from train.optimizers import OPTIMIZERS
from train.order import windows
from train.product import times

NOWHERE = -1  # fold and target of a tile that a variant drops
BLOCK = 1024  # rows whose embeddings stay in the cache between the two products
BLOCK_CUDA = 16384

Sum = Callable[[Tensor], Tensor]
"""Adds a tensor up over the processes."""


@dataclass(frozen=True)
class Pool:
    """The tiles that this process owns: positions rank, rank + world, ... of an order of all.

    Parameters
    ----------
    x
        Embeddings, shape (own rows, dim).
    target, fold
        Class and fold under each variant of the rules, `NOWHERE` where it drops the tile; shape
        (variants, own rows).
    slide
        Number of the slide, shape (own rows,).
    draw
        Place of the slide in a random order of slides, in (0, 1], shape (own rows,).
    slides, rows
        Numbers of slides and of tiles, over all processes.
    rank, world
        Which of how many processes this is.
    """

    x: Tensor
    target: Tensor
    fold: Tensor
    slide: Tensor
    draw: Tensor
    slides: int
    rows: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.rows

    def own(self, start: int, stop: int) -> "Pool":
        """Return the own rows among positions start .. stop: views."""
        low, high = ((edge - self.rank + self.world - 1) // self.world for edge in (start, stop))
        return self.cut(slice(low, high))

    def cut(self, rows: slice | Tensor) -> "Pool":
        """Return some of the own rows."""
        return replace(
            self,
            x=self.x[rows],
            target=self.target[:, rows],
            fold=self.fold[:, rows],
            slide=self.slide[rows],
            draw=self.draw[rows],
        )

    def blocks(self) -> Iterator["Pool"]:
        """Yield the own rows in blocks."""
        size = BLOCK_CUDA if self.target.device.type == "cuda" else BLOCK
        for start in range(0, len(self.x), size):
            yield self.cut(slice(start, start + size))


@dataclass(frozen=True)
class Heads:
    """What tells the heads apart, each a tensor of length H.

    Parameters
    ----------
    variant
        Which variant of the rules gives labels and folds.
    fold
        The fold that the head validates on; `NOWHERE` for a head that trains on all.
    fraction
        It trains on slides whose draw is at most this.
    rate, decay, smoothing
        Learning rate, weight decay and label smoothing.
    """

    variant: Tensor
    fold: Tensor
    fraction: Tensor
    rate: Tensor
    decay: Tensor
    smoothing: Tensor

    def __len__(self) -> int:
        return len(self.variant)

    def of(self, heads: Tensor) -> "Heads":
        """Return some of the heads."""
        return Heads(**{name: column[heads] for name, column in vars(self).items()})

    def on(self, device: torch.device) -> "Heads":
        """Return the columns on a device."""
        return Heads(**{name: column.to(device) for name, column in vars(self).items()})

    def groups(self) -> list[tuple[int, int, Tensor]]:
        """Return (variant, fold, heads) of the heads that validate on the same tiles."""
        pairs = torch.stack([self.variant, self.fold], dim=1).unique(dim=0).tolist()
        return [
            (variant, fold, ((self.variant == variant) & (self.fold == fold)).nonzero()[:, 0])
            for variant, fold in pairs
        ]


@dataclass(frozen=True)
class Affine:
    """The heads' weights: logits = x @ weight' + bias.

    Parameters
    ----------
    weight
        Shape (H, K, dim).
    bias
        Shape (H, K).
    """

    weight: Tensor
    bias: Tensor

    def of(self, heads: Tensor) -> "Affine":
        """Return some of the heads."""
        return Affine(self.weight[heads], self.bias[heads])

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of some rows, shape (H, K, rows): what runs over rows is quick."""
        heads, classes, dim = self.weight.shape
        flat = self.weight.reshape(heads * classes, dim).to(x.dtype)
        return times(flat, x).float().view(heads, classes, -1) + self.bias[..., None]


@dataclass(frozen=True)
class Standard:
    """Standardisation of the embeddings, a mean and a scale for each head's training tiles.

    The heads learn on ``(x - mean) / scale``; the product is on ``x`` all the same, since the map
    can be moved into the weights, and the gradient back.

    Parameters
    ----------
    mean, scale
        Shape (H, dim).
    """

    mean: Tensor
    scale: Tensor

    def of(self, heads: Tensor) -> "Standard":
        """Return that of some heads."""
        return Standard(self.mean[heads], self.scale[heads])

    def moved(self, affine: Affine) -> Affine:
        """Return the weights that act on embeddings as they are."""
        weight = affine.weight / self.scale[:, None]
        return Affine(weight, affine.bias - torch.einsum("hkd,hd->hk", weight, self.mean))

    def back(self, gradient: Affine) -> Affine:
        """Return the gradient on standardised embeddings, given that on the ones as they are."""
        shifted = gradient.weight - gradient.bias[..., None] * self.mean[:, None]
        return Affine(shifted / self.scale[:, None], gradient.bias)


def seen(pool: Pool, heads: Heads) -> Tensor:
    """Return which tiles each head trains on, shape (H, rows)."""
    fold = pool.fold[heads.variant]
    others = (fold != NOWHERE) & (fold != heads.fold[:, None])
    return others & (pool.draw <= heads.fraction[:, None])


def balanced(pool: Pool, heads: Heads, classes: int, total: Sum) -> Tensor:
    """Return each head's class weights, from its own training tiles, shape (H, K)."""
    counts = torch.zeros((len(heads), classes), dtype=torch.int64, device=pool.target.device)
    for block in pool.blocks():
        target = block.target[heads.variant]
        own = seen(block, heads)
        for index in range(classes):
            counts[:, index] += ((target == index) & own).sum(dim=1)
    return torch.stack([class_weights(row) for row in total(counts)])


def standard(pool: Pool, heads: Heads, total: Sum) -> Standard:
    """Return mean and standard deviation of each head's training tiles, in two passes.

    Heads of the same tiles share them; sums are in double, around the mean of all tiles, where the
    second moment cancels little.
    """
    tiles = torch.stack([heads.variant, heads.fold, heads.fraction], dim=1)
    kinds, kind = tiles.unique(dim=0, return_inverse=True)
    some = heads.of(torch.stack([(kind == k).nonzero()[0, 0] for k in range(len(kinds))]))
    device = pool.target.device

    def moment(power: int, centre: Tensor) -> Tensor:
        sums = torch.zeros((len(some), pool.x.shape[1] + 1), dtype=torch.float64, device=device)
        for block in pool.blocks():
            own = seen(block, some).double()
            x = (block.x.to(device).double() - centre) ** power
            sums += own @ torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        sums = total(sums)
        return sums[:, :-1] / sums[:, -1:].clamp(min=1)

    everything = torch.zeros(pool.x.shape[1], dtype=torch.float64, device=device)
    for block in pool.blocks():
        everything += block.x.to(device).double().sum(dim=0)
    centre = total(everything) / max(pool.rows, 1)
    mean = moment(1, centre)
    scale = (moment(2, centre) - mean**2).clamp(min=0).sqrt()
    scale = torch.where(scale > 1e-6 * scale.max(), scale, 1.0)  # a constant dimension stays at 0
    return Standard((mean + centre).float()[kind], scale.float()[kind])


@dataclass(frozen=True)
class Aims:
    """The weighted cross entropy of each head, with label smoothing, as sums over tiles.

    A tile's loss is ``-(1 - s) w[t] log p[t] - s / K * sum over c of w[c] log p[c]`` with its class
    t and the head's class weights w, as in `torch.nn.CrossEntropyLoss`; the sums are to be divided
    by the sum of ``w[t]``.

    Parameters
    ----------
    weights
        Class weights, shape (H, K).
    smoothing
        Label smoothing s, shape (H,).
    """

    weights: Tensor
    smoothing: Tensor

    def of(self, heads: Tensor) -> "Aims":
        """Return those of some heads."""
        return Aims(self.weights[heads], self.smoothing[heads])

    def plain(self) -> "Aims":
        """Return the same without label smoothing, to validate by."""
        return Aims(self.weights, torch.zeros_like(self.smoothing))

    def residuals(self, logits: Tensor, target: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient with respect to the logits, and sums of losses and weights.

        Parameters
        ----------
        logits
            Shape (H, K, rows).
        target
            Shape (H, rows).
        own
            Which tiles count, shape (H, rows).

        Returns
        -------
        residuals : Tensor, shape (H, K, rows)
        sums : Tensor of double, shape (2, H)
            Losses, and weights of the tiles.
        """
        known = target.clamp(min=0)
        mass = self.weights.gather(1, known) * own
        logs = logits.log_softmax(dim=1)
        aimed = (1 - self.smoothing[:, None]) * mass
        losses = -aimed * logs.gather(1, known[:, None])[:, 0]
        pull = aimed
        smooth = bool(self.smoothing.any())
        if smooth:
            even = self.weights * (self.smoothing[:, None] / self.weights.shape[1])
            losses -= torch.einsum("hkr,hk->hr", logs, even) * own
            pull = aimed + even.sum(dim=1, keepdim=True) * own
        residual = logs.exp_().mul_(pull[:, None])
        residual.scatter_add_(1, known[:, None], -aimed[:, None])
        if smooth:
            residual -= even[..., None] * own[:, None]
        sums = torch.stack(
            [losses.sum(dim=1, dtype=torch.float64), mass.sum(dim=1, dtype=torch.float64)]
        )
        return residual, sums


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
