"""A network applied to tiles: chosen ones in one process, or the blocks of one of several."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featurestore.snapshots.tile_set import TileSet
from train.engine.losses import cross_entropy_sum
from train.engine.matmul import matmul
from train.engine.shard import DROPPED

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


def predict_tiles(
    network: nn.Module, tiles: TileSet, threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Return the probabilities of a network in the order of keys, shape (tiles, K).

    The embeddings are read from disk in blocks: memory does not grow with the tiles.
    """
    lines, network = tiles.keys["row"].to_numpy(), network.eval()
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(lines), BLOCK):
            block = tiles.matrix.read_rows(lines[start : start + BLOCK], threads=threads)
            blocks.append(network(torch.from_numpy(block)).numpy())
    return np.concatenate(blocks)


def logits_of(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return what maps rows to their logits, shape (rows, K), by the quickest product there is."""
    backbone, head = network.get_submodule("backbone"), network.get_submodule("head")
    if not isinstance(head, nn.Linear):
        return lambda x: head(backbone(x))
    weight, bias = head.weight, head.bias
    return lambda x: matmul(weight, backbone(x)).T + bias  # what runs over rows is quick
