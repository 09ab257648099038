"""L-BFGS to the optimum, all folds and penalties at once, against scikit-learn one after another.

    python -m benchmarks.solver --rows 20000 --dim 2560

Embeddings whose spectrum falls as those of foundation models do, 7 classes, 5 folds and 10
penalties. Of scikit-learn's 50 fits a few penalties of one fold are run, and their time is scaled;
it is given doubles and a tolerance of 1e-5: on floats its line search ends 1e-4 above the optimum.
The last column says how far its objective is from this solver's. Then the same heads by closed
forms, against one fit of its RidgeClassifier, scaled.
"""

import argparse
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from train.engine.heads import HeadSpecs, balanced_class_weights, train_mask
from train.engine.losses import HeadLosses
from train.engine.shard import Shard
from train.engine.solvers.closed_form import solve_closed_form
from train.engine.solvers.gram_matrix import gram_matrices
from train.engine.solvers.lbfgs import solve
from train.engine.weights import LinearHeads

CLASSES, FOLDS = 7, 5


def same(value: torch.Tensor) -> torch.Tensor:
    return value


def tiles(rows: int, dim: int) -> Shard:
    """Return embeddings with a falling spectrum around class centres, turned and shifted."""
    rng = torch.Generator().manual_seed(0)
    spectrum = 10 * torch.arange(1, dim + 1).float() ** -0.7
    turned, _ = torch.linalg.qr(torch.randn((dim, dim), generator=rng))
    y = torch.randint(CLASSES, (rows,), generator=rng)
    centres = 0.4 * torch.randn((CLASSES, dim), generator=rng)
    x = ((torch.randn((rows, dim), generator=rng) + centres[y]) * spectrum) @ turned + 3
    number = torch.arange(rows)
    return Shard(
        x, y[None], number[None] % FOLDS, number // 200, torch.ones(rows), rows // 200 + 1, rows
    )


def theirs(
    shard: Shard, heads: HeadSpecs, losses: HeadLosses, head: int, best: float
) -> tuple[float, float]:
    """Return the seconds of scikit-learn's fit of a head, and how far its objective is off."""
    rows = train_mask(shard, heads.select(torch.tensor([head])))[0].numpy()
    x, y = shard.x.numpy()[rows].astype(float), shard.target[0].numpy()[rows]
    own, decay = losses.class_weights[head].numpy()[y], float(heads.weight_decay[head])
    model = LogisticRegression(C=1 / (decay * own.sum()), tol=1e-5, max_iter=20_000)
    start = time.perf_counter()
    model.fit(x, y, sample_weight=own)
    seconds = time.perf_counter() - start
    logs = torch.from_numpy(x @ model.coef_.T + model.intercept_).log_softmax(dim=1)
    loss = -(own * logs.numpy()[np.arange(len(y)), y]).sum() / own.sum()
    off = (loss + decay / 2 * (model.coef_**2).sum()) / best - 1
    return seconds, off


def main() -> None:
    """Solve the pack, run some of the rival's fits, print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--penalties", type=int, default=10)
    parser.add_argument("--fits", type=int, default=3)
    options = parser.parse_args()
    shard = tiles(options.rows, options.dim)
    decay = torch.logspace(-4, 0, options.penalties)
    number = FOLDS * options.penalties
    heads = HeadSpecs(
        torch.zeros(number, dtype=torch.int64), torch.arange(FOLDS).repeat(options.penalties),
        torch.ones(number), torch.zeros(number), decay.repeat_interleave(FOLDS),
        torch.zeros(number),
    )  # fmt: skip
    losses = HeadLosses(balanced_class_weights(shard, heads, CLASSES, same), heads.label_smoothing)
    first = LinearHeads(torch.zeros(number, CLASSES, options.dim), torch.zeros(number, CLASSES))
    start = time.perf_counter()
    found = solve(shard, heads, losses, first, same)
    ours = time.perf_counter() - start
    table = Table("penalty", "iterations", "scikit-learn's seconds", "its objective, relative")
    seconds = []
    for place in np.linspace(0, options.penalties - 1, options.fits).round().astype(int).tolist():
        head = place * FOLDS
        taken, off = theirs(shard, heads, losses, head, float(found.objective[head]))
        seconds.append(taken)
        table.add_row(
            f"{decay[place]:.1e}", f"{found.iterations[head]}", f"{taken:.1f}", f"{off:+.1e}"
        )
    Console().print(table)
    scaled = float(np.mean(seconds)) * number
    print(f"{number} heads at once: {ours:.1f} s, at most {int(found.iterations.max())} iterations")
    print(f"{number} fits of scikit-learn (scaled from {options.fits}): {scaled:.0f} s")
    print(f"{scaled / ours:.1f} times as fast")
    ridges(shard, heads, losses)


def ridges(shard: Shard, heads: HeadSpecs, losses: HeadLosses) -> None:
    """Time all heads of probe=ridge and probe=lda, and scikit-learn's ridge of one head."""
    for name in ("ridge", "lda"):
        start = time.perf_counter()
        solve_closed_form(name, gram_matrices(shard, heads, CLASSES, same), heads, losses)
        taken = time.perf_counter() - start
        print(f"probe={name}, {len(heads)} heads: {taken:.1f} s")
        if name == "ridge":
            ours = taken
    rows = train_mask(shard, heads.select(torch.tensor([0])))[0].numpy()
    x, y = shard.x.numpy()[rows].astype(float), shard.target[0].numpy()[rows]
    model = RidgeClassifier(alpha=float(heads.weight_decay[0]) * len(x), class_weight="balanced")
    start = time.perf_counter()
    model.fit(x, y)
    scaled = (time.perf_counter() - start) * len(heads)
    print(
        f"{len(heads)} fits of RidgeClassifier (one, scaled): {scaled:.0f} s, {scaled / ours:.1f}"
    )


if __name__ == "__main__":
    main()
