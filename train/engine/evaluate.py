"""Heads on the tiles of their validation folds."""

import torch
from torch import Tensor

from train.engine.heads import HeadSpecs
from train.engine.losses import HeadLosses
from train.engine.shard import DROPPED, Reduce, Shard, gather_rows
from train.engine.weights import LinearHeads


@torch.no_grad()
def evaluate(
    pool: Shard,
    affine: LinearHeads,
    heads: HeadSpecs,
    aims: HeadLosses,
    total: Reduce,
    counted: bool = True,
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
            if fold == DROPPED:
                continue
            held = (section.fold[variant] == fold).nonzero()[:, 0]
            some, aim = affine.of(members), plain.of(members)
            for rows in held.split(pool.block):
                assert isinstance(section.x, Tensor)
                x, room = gather_rows(section.x, rows, room, pool.block)
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
def out_of_fold(pool: Shard, affine: LinearHeads, heads: HeadSpecs) -> Tensor:
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
                x, room = gather_rows(section.x, rows, room, pool.block)
                logits = one.logits(x.to(probabilities.device))
                probabilities[start + rows] = logits[0].softmax(dim=0).T
    return probabilities
