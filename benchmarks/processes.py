"""What an epoch costs all processes together, by their number."""

import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.engine import CLASSES, FOLDS, make_heads
from train.engine.lanes import LANES, Lanes, owned
from train.engine.minibatch import MiniBatchTrainer
from train.engine.problem import Problem, TrainPlan
from train.engine.shard import Shard


def epoch_seconds(processes: int, rows: int, dim: int) -> float:
    """Return the processor seconds of an epoch of five heads, of all processes together.

    Each trains on its lanes of random tiles and adds up losses and gradients through gloo.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes) as pool:
            work = [(rank, processes, Path(folder), rows, dim) for rank in range(processes)]
            return sum(pool.starmap(_second_epoch, work, chunksize=1))


def _second_epoch(rank: int, processes: int, folder: Path, rows: int, dim: int) -> float:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/met", rank=rank, world_size=processes)
    heads = make_heads(FOLDS, 1, torch.device("cpu"))
    shard = _shard(owned(rank, processes), rows, dim)
    trainer = iter(
        MiniBatchTrainer(
            Problem.prepare((shard, shard), heads, CLASSES, _all_reduce),
            TrainPlan("adamw", 1024, 2, 10**6, 0.0, 0),
        )
    )
    next(trainer)
    dist.barrier()
    start = time.process_time()
    next(trainer)
    seconds = time.process_time() - start
    dist.destroy_process_group()
    return seconds


def _shard(lanes: range, rows: int, dim: int) -> Shard:
    everyone = Lanes(np.arange(LANES + 1) * rows // LANES)
    positions = np.sort(everyone.positions(lanes))
    rng, number = torch.Generator().manual_seed(lanes.start), torch.from_numpy(positions)
    return Shard(
        x=torch.randn((len(positions), dim), generator=rng),
        target=torch.randint(CLASSES, (1, len(positions)), generator=rng),
        fold=(number % FOLDS)[None],
        cluster=number * 100 // rows,
        slide_rank=torch.full((len(positions),), 0.5),
        clusters=100,
        rows=rows,
        positions=positions,
    )


def _all_reduce(value: Tensor) -> Tensor:
    dist.all_reduce(value)
    return value
