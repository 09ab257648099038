"""One step of all heads: their gradient, and the optimizer that applies it."""

import numpy as np
import torch
from torch import Tensor

from train.engine.cuda_graph import Epochs
from train.engine.heads import HeadSpecs, train_mask
from train.engine.losses import HeadLosses
from train.engine.matmul import matmul
from train.engine.optimizers import OPTIMIZERS
from train.engine.shard import Reduce, Shard
from train.engine.standardizer import Standardizer
from train.engine.weights import LinearHeads


def gradient(
    pool: Shard, affine: LinearHeads, heads: HeadSpecs, aims: HeadLosses
) -> tuple[LinearHeads, Tensor]:
    """Return the gradient of the summed losses over the own rows, and the sums.

    Returns
    -------
    gradient : LinearHeads
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
            affine.logits(x), block.target[heads.variant], train_mask(block, heads)
        )
        part = matmul(residual.view(number * classes, -1).to(x.dtype), x.T).float()
        weight = weight.add_(part) if len(weight) else part  # most batches are one block
        bias += residual.sum(dim=-1)
        sums += added
    if not len(weight):  # this process owns no tile of the batch
        weight = torch.zeros_like(affine.weight)
    return LinearHeads(weight.view_as(affine.weight), bias), sums


class Stepper:
    """The optimizer's state and the weights of the heads that are left, in one piece of memory.

    Heads side by side with one learning rate and weight decay are one parameter, a view into the
    whole, so that torch's own optimizer takes its steps in few calls.

    Parameters
    ----------
    optimizer
        A name in `train.engine.optimizers`.
    heads
        With their learning rates and weight decays.
    affine
        Initial weights.
    sizes
        Heads of each parameter, where they are not to be found out.
    """

    def __init__(
        self, optimizer: str, heads: HeadSpecs, affine: LinearHeads, sizes: list[int] | None = None
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
        self,
        pool: Shard,
        size: int,
        heads: HeadSpecs,
        aims: HeadLosses,
        body: Standardizer | None,
        total: Reduce,
    ) -> Epochs:
        """Return the steps of epochs in batches of ``size``."""

        def step(parts: list[Shard]) -> Tensor:
            return self.step(parts, heads, aims, body, total)

        capturable = [group.get("capturable") for group in self.optimizer.param_groups]
        return Epochs(pool, size, step, recorded=all(capturable))

    @torch.no_grad()
    def step(
        self,
        parts: list[Shard],
        heads: HeadSpecs,
        aims: HeadLosses,
        body: Standardizer | None,
        total: Reduce,
    ) -> Tensor:
        """Take a step on one batch; return the sums of losses and weights, shape (2, H)."""
        outer = body.moved(self.affine) if body else self.affine
        found = [gradient(part, outer, heads, aims) for part in parts]
        summed = [
            total(torch.stack(list(pieces)).sum(dim=0) if len(found) > 1 else pieces[0])
            for pieces in zip(*((own.weight, own.bias, sums) for own, sums in found), strict=True)
        ]
        whole, sums = LinearHeads(summed[0], summed[1]), summed[2]
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
