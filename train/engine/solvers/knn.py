"""Votes of the nearest tiles: the baseline that has no weights.

A tile's neighbours are taken from the tiles that a head would train on: the nearest ones by
Euclidean distance, which with embeddings of length 1 is the order of the cosine. Each has one vote,
as in scikit-learn's KNeighborsClassifier.
"""

import torch
from torch import Tensor

from train.engine.heads import HeadSpecs, train_mask
from train.engine.losses import HeadLosses
from train.engine.matmul import matmul
from train.engine.shard import DROPPED, Reduce, Shard
from train.engine.standardizer import Standardizer

QUERIES, BANK = 1024, 65536  # rows of a product of distances
LEAST = 1e-3  # share of votes that a class without any is given in the loss


def votes(
    pool: Shard,
    bank: Shard,
    head: HeadSpecs,
    body: Standardizer | None,
    neighbours: int,
    classes: int,
) -> tuple[Tensor, Tensor]:
    """Return the shares of votes of each own tile in the validation fold of one head.

    Parameters
    ----------
    pool
        The tiles that this process asks for.
    bank
        All tiles of all processes.
    head
        Says which tiles are asked for and which may vote.
    body
        Standardisation of its embeddings, or None.
    neighbours
        How many vote.
    classes
        K.

    Returns
    -------
    rows : Tensor, shape (asked,)
        Own rows.
    share : Tensor, shape (asked, K)
    """
    variant = int(head.variant)
    rows = (pool.fold[variant] == head.fold).nonzero()[:, 0]
    share = torch.zeros((len(rows), classes), device=rows.device)
    for start in range(0, len(rows), QUERIES):
        some = slice(start, start + QUERIES)
        share[some] = _shares(_taken(pool, rows[some], body), bank, head, body, neighbours, classes)
    return rows, share


def _taken(pool: Shard, rows: Tensor, body: Standardizer | None) -> Tensor:
    assert isinstance(pool.x, Tensor)
    x = pool.x[rows.to(pool.x.device)].to(rows.device).float()
    return (x - body.mean[0]) / body.scale[0] if body else x


def _shares(
    query: Tensor,
    bank: Shard,
    head: HeadSpecs,
    body: Standardizer | None,
    neighbours: int,
    classes: int,
) -> Tensor:
    variant = int(head.variant)
    nearest = torch.full((len(query), 0), torch.inf, device=query.device)
    label = torch.zeros((len(query), 0), dtype=torch.int64, device=query.device)
    voters = train_mask(bank, head)[0].nonzero()[:, 0]
    for own in voters.split(BANK):
        x = _taken(bank, own, body)
        distance = (x**2).sum(dim=1) - 2 * matmul(query, x)  # but for the query's own length
        nearest = torch.cat([nearest, distance], dim=1)
        label = torch.cat([label, bank.target[variant, own].expand(len(query), -1)], dim=1)
        kept = nearest.topk(min(neighbours, nearest.shape[1]), dim=1, largest=False)
        nearest, label = kept.values, label.gather(1, kept.indices)
    counts = torch.zeros((len(query), classes), device=query.device)
    return counts.scatter_add(1, label, torch.ones_like(nearest)) / label.shape[1]


def knn_predict(
    pool: Shard,
    bank: Shard,
    heads: HeadSpecs,
    aims: HeadLosses,
    total: Reduce,
    neighbours: int,
    body: Standardizer | None = None,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Ask the neighbours of every head's validation tiles.

    Returns
    -------
    loss, cube
        As `train.engine.evaluate.evaluate` returns them.
    shares : list of Tensor, each of shape (own rows, K)
        Votes by head, zero for tiles that it does not validate on.
    """
    number, classes = aims.weights.shape
    device = pool.target.device
    sums = torch.zeros((2, number), dtype=torch.float64, device=device)
    cube = torch.zeros((number, pool.slides * classes**2), dtype=torch.int64, device=device)
    shares = []
    for place in range(number):
        one = torch.tensor([place], device=heads.fold.device)
        head, whole = heads.of(one), torch.zeros((pool.owned, classes), device=device)
        if int(head.fold) != DROPPED:
            own = body.of(one) if body else None
            rows, share = votes(pool, bank, head, own, neighbours, classes)
            target = pool.target[int(head.variant), rows]
            mass = aims.weights[place, target]
            aimed = share.gather(1, target[:, None])[:, 0]
            sums[0, place] = -(mass * aimed.clamp(min=LEAST).log()).sum(dtype=torch.float64)
            sums[1, place] = mass.sum(dtype=torch.float64)
            cell = (pool.slide[rows] * classes + target) * classes + share.argmax(dim=1)
            cube[place] = torch.bincount(cell, minlength=cube.shape[1])
            whole[rows] = share
        shares.append(whole)
    sums, cube = total(sums), total(cube)
    loss = sums[0] / sums[1].clamp(min=1e-12)
    return loss, cube.view(number, pool.slides, classes, classes), shares
