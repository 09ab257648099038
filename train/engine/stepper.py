"""One step of all heads: their gradient, and the optimizer that applies it."""

import numpy as np
import torch
from torch import Tensor

from train.engine.heads import HeadSpecs
from train.engine.matmul import matmul
from train.engine.optimizers import OPTIMIZERS
from train.engine.problem import Problem
from train.engine.shard import Shard
from train.engine.weights import LinearHeads


def gradient(shard: Shard, weights: LinearHeads, problem: Problem) -> tuple[LinearHeads, Tensor]:
    """Return the gradient of the summed losses over the local rows of a shard, and the sums.

    No autograd: the gradient of a linear head is ``residuals' @ embeddings``, and both products of
    a block of rows are done while the block is in the cache.

    Returns
    -------
    gradient : LinearHeads
    sums : Tensor of double, shape (2, H)
        Losses, and weights of the tiles.
    """
    number, classes, _ = weights.weight.shape
    device = weights.weight.device
    total: list[Tensor] = []
    for block in shard.blocks():
        x = block.x.to(device, non_blocking=True)
        tile_weight, weight_sums = problem.tile_weights.on(block)
        residual, loss_sums = problem.losses.residuals(
            weights.logits(x), block.target, problem.heads.variant, tile_weight
        )
        weight = matmul(residual.view(number * classes, -1).to(x.dtype), x.T).float()
        sums = torch.stack([loss_sums, weight_sums])
        parts = [weight.view_as(weights.weight), residual.sum(dim=-1), sums]
        if total:
            total = [added.add_(part) for added, part in zip(total, parts, strict=True)]
        else:  # most batches are one block
            total = parts
    if not total:  # this process owns no tile of the batch
        sums = torch.zeros((2, number), dtype=torch.float64, device=device)
        total = [torch.zeros_like(weights.weight), torch.zeros_like(weights.bias), sums]
    return LinearHeads(total[0], total[1]), total[2]


class Stepper:
    """The optimizer's state and the weights of the active heads, in one piece of memory.

    Heads side by side with one learning rate and weight decay are one parameter, a view into the
    whole, so that torch's own optimizer takes its steps in few calls.

    Parameters
    ----------
    optimizer
        A name in `train.engine.optimizers`.
    heads
        With their learning rates and weight decays.
    weights
        Initial weights.
    sizes
        Heads of each parameter, where they are known; those of equal learning rate and decay
        otherwise.
    """

    def __init__(
        self, optimizer: str, heads: HeadSpecs, weights: LinearHeads, sizes: list[int] | None = None
    ) -> None:
        self.weights = weights
        learning = torch.stack([heads.learning_rate, heads.weight_decay], dim=1)
        _, counts = learning.unique_consecutive(dim=0, return_counts=True)
        self.sizes: list[int] = counts.tolist() if sizes is None else sizes
        groups = []
        for (weight, bias), first in zip(
            self._views(), np.cumsum([0, *self.sizes[:-1]]).tolist(), strict=True
        ):
            parameters = [torch.nn.Parameter(weight), torch.nn.Parameter(bias)]
            learning_rate, weight_decay = learning[first].tolist()
            groups.append({
                "params": parameters, "lr": learning_rate, "weight_decay": weight_decay,
                "configured": learning_rate,
            })  # fmt: skip
        self.optimizer = OPTIMIZERS[optimizer](groups, 0.0, 0.0)
        for group in self.optimizer.param_groups:
            if "capturable" in group:  # a CUDA graph can hold its steps
                group["capturable"] = weights.weight.is_cuda

    def _views(self) -> list[tuple[Tensor, Tensor]]:
        pieces = (self.weights.weight.split(self.sizes), self.weights.bias.split(self.sizes))
        return list(zip(*pieces, strict=True))

    @property
    def capturable(self) -> bool:
        """Whether steps never ask the GPU for a number, so that a graph can hold them."""
        return all(group.get("capturable") for group in self.optimizer.param_groups)

    def scale(self, share: float) -> None:
        """Set every learning rate to a share of its configured one, for the steps to come.

        On a GPU it becomes a number that lies there, so that a captured step reads the new one.
        """
        for group in self.optimizer.param_groups:
            learning_rate = group["configured"] * share
            if not group.get("capturable"):
                group["lr"] = learning_rate
            elif torch.is_tensor(group["lr"]) and group["lr"].is_cuda:
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = torch.tensor(learning_rate, device=self.weights.weight.device)

    @torch.no_grad()
    def step(self, pieces: list[Shard], problem: Problem) -> Tensor:
        """Take a step on one batch; return the sums of losses and weights, shape (2, H).

        Parameters
        ----------
        pieces
            The local rows of the batch.
        problem
            Of the active heads.
        """
        raw = problem.on_raw(self.weights)
        parts = [gradient(piece, raw, problem) for piece in pieces]
        tensors = [(grad.weight, grad.bias, sums) for grad, sums in parts]
        for first, *others in zip(*tensors, strict=True):
            for other in others:  # of the batch that begins at the end of the order
                first += other
        weight, bias, sums = map(problem.reduce, tensors[0])
        grad = LinearHeads(weight, bias)
        if problem.standardizer:
            grad = problem.standardizer.pull_back(grad)
        weight_sum = sums[1].clamp(min=1e-12).float()  # 0 where the batch has no tile of a head
        grad.weight.div_(weight_sum[:, None, None])
        grad.bias.div_(weight_sum[:, None])
        by_group = zip(
            self.optimizer.param_groups, grad.weight.split(self.sizes),
            grad.bias.split(self.sizes), strict=True,
        )  # fmt: skip
        for group, weight, bias in by_group:
            group["params"][0].grad, group["params"][1].grad = weight, bias
        self.optimizer.step()
        return sums

    def keep(self, heads: Tensor) -> None:
        """Let the other heads go, with their part of the optimizer's state.

        Parameters
        ----------
        heads
            Places among the active ones, ascending.
        """
        group_of_head = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        first = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        self.weights = self.weights.select(heads)
        groups, sizes = [], []
        for number, group in enumerate(self.optimizer.param_groups):
            kept = heads[group_of_head[heads] == number] - first[number]
            if len(kept):
                groups.append(group)
                sizes.append(len(kept))
            for parameter in group["params"]:
                if not len(kept):
                    del self.optimizer.state[parameter]
                    continue
                state = self.optimizer.state[parameter]
                for name, value in state.items():
                    if torch.is_tensor(value) and value.shape == parameter.shape:
                        state[name] = value[kept].clone()
                parameter.grad = None
        self.optimizer.param_groups, self.sizes = groups, sizes
        for group, (weight, bias) in zip(groups, self._views(), strict=True):
            group["params"][0].data, group["params"][1].data = weight, bias
