"""Validation with confusion matrices of many slides and classes: time and memory.

    python -m benchmarks.confusion --heads 1 --slides 500 --classes 50 --dim 256
    python -m benchmarks.confusion --heads 40 --slides 5000 --classes 200

Random tiles, of which every head validates on a fifth: losses alone; losses and matrices; matrices
by slide as well, from which a setting's interval is made. Processor seconds of one thread.
"""

import argparse
import resource
import time

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.engine import make_heads, same
from train.engine.evaluate import evaluate, evaluate_by_cluster
from train.engine.problem import Problem
from train.engine.shard import Shard
from train.engine.weights import LinearHeads
from train.fitting.selection import mean_f1_macro

FOLDS = 5


def peak() -> float:
    """Return the most memory that this process has had, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def random_problem(options: argparse.Namespace) -> Problem:
    """Return heads of five folds, or one head, on random tiles."""
    rng, number = torch.Generator().manual_seed(0), torch.arange(options.rows)
    shard = Shard(
        x=torch.randn((options.rows, options.dim), generator=rng),
        target=torch.randint(options.classes, (1, options.rows), generator=rng),
        fold=(number % FOLDS)[None],
        cluster=number * options.slides // options.rows,
        slide_rank=torch.full((options.rows,), 0.5),
        clusters=options.slides,
        rows=options.rows,
    )
    folds = min(FOLDS, options.heads)
    heads = make_heads(folds, options.heads // folds, torch.device("cpu"))
    return Problem.prepare((shard, shard), heads, options.classes, same)


def main() -> None:
    """Measure each way; print seconds and how far memory rose."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("rows", 100_000), ("dim", 64), ("heads", 40), ("slides", 5000),
                        ("classes", 200), ("repeats", 3)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    problem = random_problem(options)
    number, folds = len(problem.heads), min(FOLDS, options.heads)
    weight = torch.randn((number, options.classes, options.dim)) / 16
    weights = LinearHeads(weight, torch.zeros((number, options.classes)))

    def by_slide() -> None:
        _, cells = evaluate_by_cluster(problem, weights)
        size = folds * options.slides
        for setting in range(number // folds):
            mean_f1_macro(cells.select(setting * size, (setting + 1) * size), folds)

    ways = {
        "losses": lambda: evaluate(problem, weights, counted=False),
        "and matrices": lambda: evaluate(problem, weights),
        "matrices by slide, with the intervals of all settings": by_slide,
    }
    title = ", ".join(f"{getattr(options, name):,} {name}" for name in
                      ("rows", "dim", "heads", "slides", "classes"))  # fmt: skip
    table = Table("", "CPU seconds", "memory, GB", title=title)
    before = peak()
    for name, way in ways.items():
        seconds = []
        for _ in range(options.repeats):
            start = time.process_time()
            way()
            seconds.append(time.process_time() - start)
        table.add_row(name, f"{min(seconds):.3f}", f"{peak() - before:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
