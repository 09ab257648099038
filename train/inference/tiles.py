"""A network applied to the tiles of a split, which all processes share."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from featurestore.snapshots.tile_set import TileSet
from train.engine.shard import DROPPED
from train.models.checkpoint import ModelSpec
from train.models.inference import BLOCK, apply_network
from train.runtime.processes import Processes


def predict_split(
    model: tuple[nn.Module, ModelSpec],
    tiles: TileSet,
    processes: Processes,
    threads: int | None = None,
) -> tuple[Tensor, float]:
    """Return probabilities in the order of keys, shape (tiles, K), and the loss.

    The loss is the mean cross entropy of the tiles with a label, each weighted by its class; 0
    where there are none. The embeddings are read from disk in blocks.
    """
    network, spec = model
    network = network.to(processes.device)
    rows = tiles.keys["row"].to_numpy()[processes.rank :: processes.world]
    target = torch.from_numpy(tiles.keys["target"].fill_null(DROPPED).to_numpy())
    local = target[processes.rank :: processes.world]

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            x = tiles.matrix.gather(rows[block], threads=threads)
            yield torch.from_numpy(x), local[block]

    weights = torch.tensor(spec.weights, device=processes.device)
    logits = network[:2]  # type: ignore[index]  # backbone and head of a Sequential
    applied = apply_network(logits, blocks(), weights)
    loss, weight = processes.all_reduce(applied.sums).tolist()
    probabilities = processes.assemble(applied.probabilities, len(target))
    return probabilities, loss / max(weight, 1e-12)
