"""A network applied to tiles: to chosen ones in one process, which scripts beside the fit need."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featurestore.spec import TileSet
from train.product import times

BLOCK = 4096  # rows in memory at a time


def probabilities(
    network: nn.Module, tiles: TileSet, threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Return the probabilities of a network in the order of keys, shape (tiles, K).

    The embeddings are read from disk in blocks: memory does not grow with the tiles.
    """
    lines, network = tiles.keys["row"].to_numpy(), network.eval()
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(lines), BLOCK):
            block = tiles.matrix.gather(lines[start : start + BLOCK], threads=threads)
            blocks.append(network(torch.from_numpy(block)).numpy())
    return np.concatenate(blocks)


def logits(network: nn.Module, x: Tensor) -> Tensor:
    """Return the logits of some rows, shape (rows, K), by the quickest product there is."""
    x, head = network.get_submodule("backbone")(x), network.get_submodule("head")
    if isinstance(head, nn.Linear):
        return times(head.weight, x).T + head.bias  # what runs over rows is quick
    scores: Tensor = head(x)
    return scores
