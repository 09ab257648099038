"""Scaling laws of the engine: how processor time grows with each size, as a log-log slope.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling
    OMP_NUM_THREADS=1 python -m benchmarks.scaling slides classes

One size grows, all others stay. A slope of 1 is linear, above `MOST` it is named, and the exit
status is 1. A slope is that of a straight line through the upper half of the sizes: below it,
what a step costs however small it is would flatter them. Memory is bounded by 2 GB.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.confusion import random_problem
from benchmarks.processes import epoch_seconds
from train.engine.evaluate import evaluate_by_cluster
from train.engine.minibatch import MiniBatchTrainer
from train.engine.problem import TrainPlan
from train.fitting.selection import mean_f1_macro

MOST = 1.1


@dataclass(frozen=True)
class Sizes:
    """What is trained and validated."""

    rows: int = 20_000
    dim: int = 256
    heads: int = 5
    slides: int = 100
    classes: int = 7
    epochs: int = 1
    processes: int = 1


def train(sizes: Sizes) -> float:
    """Train for some epochs."""
    problem = random_problem(argparse.Namespace(**vars(sizes)))
    plan = TrainPlan("adamw", 1024, sizes.epochs, 10**6, 0.0, 0)
    start = time.process_time()
    for _ in MiniBatchTrainer(problem, plan):
        pass
    return time.process_time() - start


def validate(sizes: Sizes) -> float:
    """Validate by slide, with the intervals of all settings."""
    problem = random_problem(argparse.Namespace(**vars(sizes)))
    folds = min(5, sizes.heads)
    start = time.process_time()
    _, cells = evaluate_by_cluster(problem, problem.initial_weights(0))
    for setting in range(sizes.heads // folds):
        size = folds * sizes.slides
        mean_f1_macro(cells.select(setting * size, (setting + 1) * size), folds)
    return time.process_time() - start


def train_together(sizes: Sizes) -> float:
    """Train for an epoch on some processes; more than there are cores would wait for each other."""
    return epoch_seconds(sizes.processes, sizes.rows, sizes.dim)


Work = Callable[[Sizes], float]
"""Returns the processor seconds that it took."""

PROCESSES = [number for number in (1, 2, 4, 8, 16) if number <= max(2, os.cpu_count() or 1)]
LAWS: dict[str, tuple[Work, Sizes, list[int]]] = {
    "rows": (train, Sizes(dim=64), [10_000, 30_000, 100_000, 300_000, 1_000_000]),
    "dim": (train, Sizes(), [64, 256, 1024, 2048, 4096]),
    "heads": (train, Sizes(), [1, 5, 20, 50, 100, 200]),
    "classes": (train, Sizes(), [2, 7, 50, 150, 500]),
    "epochs": (train, Sizes(), [1, 4, 16]),
    "processes": (train_together, Sizes(rows=100_000, dim=1024), PROCESSES),
    "slides": (validate, Sizes(dim=64), [10, 100, 1000, 3000, 10_000]),
    "classes, validation": (validate, Sizes(dim=64), [2, 7, 50, 150, 500]),
    "heads, validation": (validate, Sizes(dim=64), [1, 5, 20, 50, 100, 200]),
}


def measure(name: str, repeats: int) -> list[tuple[int, float]]:
    """Return each size of a law and its processor seconds, the least of some turns."""
    work, base, values = LAWS[name]
    points = []
    for value in values:
        sizes = replace(base, **{name.partition(",")[0]: value})
        points.append((value, min(work(sizes) for _ in range(repeats))))
    return points


def slope(points: list[tuple[int, float]]) -> float:
    """Return the slope of the upper half of some points, both axes as logarithms.

    Examples
    --------
    >>> round(slope([(1, 5.0), (10, 5.0), (100, 50.0), (1000, 500.0)]), 3)
    1.0
    """
    upper = np.log(points[(len(points) - 1) // 2 :])
    return float(np.polyfit(*upper.T, deg=1)[0])


def main() -> int:
    """Measure the laws that are asked for, print the table; 1 if one of them is too steep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("laws", nargs="*", help=f"of {', '.join(LAWS)}; by default all")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table, steep = Table("size", "CPU seconds", "slope of the upper half"), []
    for name in options.laws or LAWS:
        points = measure(name, options.repeats)
        law = slope(points)
        steep += [name] * (law > MOST)
        seconds = ", ".join(f"{size:,}: {taken:.3f}" for size, taken in points)
        table.add_row(name, seconds, f"{law:.2f}")
    Console().print(table)
    print(f"steeper than {MOST}: {', '.join(steep) or 'none'}")
    return int(bool(steep))


if __name__ == "__main__":
    sys.exit(main())
