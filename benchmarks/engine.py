"""The training engine alone: rows a second, products against the processor's peak, memory.

    pip install -e '.[bench]' && python -m benchmarks.engine --rows 200000 --dim 2560
    python -m benchmarks.engine --device cuda --rows 1000000 --dim 2560

Linear heads by AdamW on embeddings in memory, 7 classes, batches of 1024: one head, five folds,
and five folds of eight settings; validation apart, as with the rivals. Beside them, in turns: a
plain PyTorch loop over the same matrix (``index_select`` of shuffled rows, a linear layer,
``cross_entropy``, ``AdamW``), Lightning over a shuffled DataLoader in the main process, reading the
matrix once, and the largest rate of a square product. Medians. Without Lightning its line is left
out.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from train.engine.cuda_graph import EpochRunner
from train.engine.evaluate import evaluate
from train.engine.heads import HeadSpecs
from train.engine.matmul import matmul
from train.engine.problem import Problem
from train.engine.shard import Shard
from train.engine.stepper import Stepper
from train.engine.weights import LinearHeads

BATCH, CLASSES, FOLDS = 1024, 7, 5


def same(value: torch.Tensor) -> torch.Tensor:
    return value


def random_shard(rows: int, dim: int, device: torch.device, kind: torch.dtype) -> Shard:
    """Return random tiles of five folds."""
    rng = torch.Generator(device=device).manual_seed(0)
    x = torch.empty((rows, dim), dtype=kind, device=device)
    for block in x.split(65536):
        block.copy_(torch.randn(block.shape, generator=rng, device=device))
    number = torch.arange(rows, device=device)
    return Shard(
        x=x,
        target=torch.randint(CLASSES, (1, rows), generator=rng, device=device),
        fold=(number % FOLDS)[None],
        cluster=number // 1000,
        slide_rank=torch.full((rows,), 0.5, device=device),
        clusters=rows // 1000 + 1,
        rows=rows,
    )


def make_heads(folds: int, settings: int, device: torch.device) -> HeadSpecs:
    """Return the heads of some folds and learning rates."""
    number = folds * settings
    return HeadSpecs(
        variant=torch.zeros(number, dtype=torch.int64),
        fold=torch.arange(folds).repeat(settings),
        max_slide_rank=torch.ones(number),
        learning_rate=torch.logspace(-5, -3, settings).repeat_interleave(folds),
        weight_decay=torch.full((number,), 1e-3),
        label_smoothing=torch.zeros(number),
    ).to(device)


def epoch(shard: Shard, heads: HeadSpecs) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return an epoch of training, and one of validation."""
    problem = Problem.prepare((shard, shard), heads, CLASSES, same)
    shape = (len(heads), CLASSES, shard.dim)
    device = shard.device
    weights = LinearHeads(torch.zeros(shape, device=device), torch.zeros(shape[:2], device=device))
    stepper, rng = Stepper("adamw", heads, weights), np.random.default_rng(0)
    runner = EpochRunner(
        shard, BATCH, lambda pieces: stepper.step(pieces, problem), capturable=stepper.capturable
    )

    def train() -> None:
        runner.run(rng)

    def validate() -> None:
        evaluate(problem, stepper.weights, counted=False)

    return train, validate


def lightning(shard: Shard) -> Callable[[], None] | None:
    """Return an epoch over the training tiles of one fold, as one writes it in Lightning."""
    try:
        from benchmarks.rival import rival_epoch
    except ImportError:
        return None
    rows = shard.fold[0] != 0
    x, target = shard.x[rows].float(), shard.target[0, rows]
    run = rival_epoch(x, target, torch.ones(CLASSES), 0)
    return lambda: run() and None


def plain_loop(shard: Shard) -> Callable[[], None]:
    """Return an epoch over the training tiles of one fold, as one writes it by hand in PyTorch."""
    assert isinstance(shard.x, torch.Tensor)
    rows = (shard.fold[0] != 0).nonzero()[:, 0]
    head = torch.nn.Linear(shard.dim, CLASSES).to(shard.x)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-4, weight_decay=1e-3)
    weights = torch.ones(CLASSES, dtype=shard.x.dtype, device=shard.device)

    def run() -> None:
        for batch in rows[torch.randperm(len(rows), device=rows.device)].split(BATCH):
            x, target = shard.x.index_select(0, batch), shard.target[0].index_select(0, batch)
            loss = torch.nn.functional.cross_entropy(head(x), target, weight=weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def clock(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that something takes: of one thread, those of the processor."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    now = time.process_time if alone else time.perf_counter
    start = now()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return now() - start


def peak(dim: int, device: torch.device, kind: torch.dtype) -> float:
    """Return the rate of the engine's own product on large square-ish matrices, in flop/s."""
    left, right = (torch.randn((4096, dim), device=device).to(kind) for _ in range(2))
    products = [lambda: matmul(left, right), lambda: torch.mm(left, right.T)]
    seconds = min(clock(product, device) for product in products for _ in range(4))
    return 2 * 4096 * 4096 * dim / seconds


def main() -> None:
    """Take turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--settings", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rival", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    device = torch.device(options.device)
    for precision in options.precision:
        measure(options, device, getattr(torch, precision))


def measure(options: argparse.Namespace, device: torch.device, kind: torch.dtype) -> None:
    """Measure and print one precision."""
    shard = random_shard(options.rows, options.dim, device, kind)
    many = f"5 folds x {options.settings}"
    sizes = {"one head": (1, 1), "5 folds": (5, 1), many: (5, options.settings)}
    ways: dict[str, Callable[[], object]] = {}
    for name, size in sizes.items():
        ways[name], ways[f"{name}, validation"] = epoch(shard, make_heads(*size, device))
    ways["plain PyTorch loop, one head of one fold"] = plain_loop(shard)
    ways["reading the matrix once"] = shard.x.view(torch.float32).sum
    asked = options.rival and device.type == "cpu" and kind == torch.float32
    rival = lightning(shard) if asked else None
    if rival:
        ways["Lightning, one head of one fold"] = rival
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    fastest = 0.0
    for _ in range(options.repeats):
        fastest = max(fastest, peak(options.dim, device, kind))
        for name, way in ways.items():
            taken[name].append(clock(way, device))
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    title = f"{options.rows:,} x {options.dim}, {kind}, {device}; peak {fastest / 1e9:,.0f} Gflop/s"
    table = Table("", "seconds", "rows/s", "Gflop/s", "of peak", title=title)
    for name, median in seconds.items():
        rows, cells = options.rows * (0.8 if "of one fold" in name else 1), []
        if name in sizes:
            flops = 4 * options.rows * options.dim * CLASSES * np.prod(sizes[name])
            cells = [f"{flops / median / 1e9:,.0f}", f"{flops / median / fastest:.0%}"]
        table.add_row(name, f"{median:.2f}", f"{rows / median:,.0f}", *cells)
    Console().print(table)
    bandwidth = seconds["reading the matrix once"] / seconds["one head"]
    print(f"one head: {bandwidth:.0%} of the speed of reading the matrix once")
    by_hand = seconds["plain PyTorch loop, one head of one fold"] / 0.8
    print(f"one head: {by_hand / seconds['one head']:.1f} times the plain loop's rows/s")
    if rival:
        theirs, runs = seconds["Lightning, one head of one fold"], 5 * options.settings
        print(f"one head: {theirs / 0.8 / seconds['one head']:.1f} times Lightning's rows/s")
        print(f"{many}: {theirs * runs / seconds[many]:.0f} times less than {runs} such epochs")


if __name__ == "__main__":
    main()
