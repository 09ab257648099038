"""A network applied to tiles, or to blocks of rows."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from featurestore.snapshots.tile_set import TileSet
from train.engine.losses import cross_entropy_sum
from train.engine.matmul import matmul
from train.engine.shard import DROPPED
from train.models.checkpoint import TrainedModel

BLOCK = 4096  # rows in memory at a time: large enough to be fast, small to hold


@dataclass(frozen=True)
class Applied:
    """What a network makes of some rows.

    Parameters
    ----------
    probabilities
        Shape (rows, K).
    predicted
        Class index, shape (rows,).
    sums
        Weighted cross entropies, and weights, of the rows with a label; double, shape (2,).
    """

    probabilities: Tensor
    predicted: Tensor
    sums: Tensor

    @property
    def loss(self) -> float | None:
        """The mean cross entropy of these rows; None where none weighs anything."""
        return mean_loss(self.sums)


@torch.no_grad()
def apply_network(
    network: Callable[[Tensor], Tensor],
    blocks: Iterable[tuple[Tensor, Tensor]],
    class_weights: Tensor,
) -> Applied:
    """Apply a network to blocks of rows.

    Parameters
    ----------
    network
        Embeddings (rows, dim) to logits (rows, K).
    blocks
        Embeddings and class indices, negative without a label, on any device.
    class_weights
        Of the loss, shape (K,), on the network's device.
    """
    device = class_weights.device
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    probabilities = [torch.zeros((0, len(class_weights)), device=device)]
    predicted = [torch.zeros(0, dtype=torch.int64, device=device)]
    for x, target in blocks:
        logits, target = network(x.to(device)), target.to(device)
        probabilities.append(logits.softmax(dim=-1))
        predicted.append(logits.argmax(dim=-1))
        labelled = target != DROPPED
        if labelled.any():
            sums[0] += cross_entropy_sum(logits[labelled], target[labelled], class_weights)
            sums[1] += class_weights[target[labelled]].sum()
    return Applied(torch.cat(probabilities), torch.cat(predicted), sums)


def apply_to_tiles(model: TrainedModel, tiles: TileSet, threads: int | None = None) -> Applied:
    """Apply a network to tiles in the order of their keys.

    The embeddings are read from disk in blocks: memory does not grow with the tiles.

    Parameters
    ----------
    tiles
        Of their keys, ``row`` and ``target`` are asked for.
    threads
        That read embeddings.
    """
    rows = tiles.keys["row"].to_numpy()
    tiles.matrix.check(rows)
    target = torch.from_numpy(tiles.keys["target"].fill_null(DROPPED).to_numpy())

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            x = tiles.matrix.read_rows(rows[block], threads=threads)
            yield torch.from_numpy(x), target[block]

    network = model.network.eval()
    weights = torch.tensor(model.spec.weights, device=next(network.parameters()).device)
    backbone_and_head = network[:2]  # type: ignore[index]  # of a Sequential
    return apply_network(backbone_and_head, blocks(), weights)


def mean_loss(sums: Tensor) -> float | None:
    """Return the mean of weighted cross entropies, given their sum and that of the weights.

    None where all weigh nothing: rows without a label, or of classes without a training tile.
    """
    loss, weight = sums.tolist()
    return float(loss / weight) if weight else None


def logits_of(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return what maps rows to their logits, shape (rows, K), by the quickest product there is."""
    backbone, head = network.get_submodule("backbone"), network.get_submodule("head")
    if not isinstance(head, nn.Linear):
        return lambda x: head(backbone(x))
    weight, bias = head.weight, head.bias
    return lambda x: matmul(weight, backbone(x)).T + bias  # what runs over rows is quick
