"""A network applied to tiles: to chosen ones in one process, which scripts beside the fit need."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featurestore.snapshots.tile_set import TileSet
from train.engine.matmul import matmul

BLOCK = 4096  # rows in memory at a time


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
    body, head = network.get_submodule("backbone"), network.get_submodule("head")
    if not isinstance(head, nn.Linear):
        return lambda x: head(body(x))
    weight, bias = head.weight, head.bias
    return lambda x: matmul(weight, body(x)).T + bias  # what runs over rows is quick
