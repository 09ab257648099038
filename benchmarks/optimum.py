"""Who is how far from the optimum: L-BFGS here, and scikit-learn's, against a reference.

    OMP_NUM_THREADS=1 python -m benchmarks.optimum --rows 2000 --dim 32

The reference is Newton's method with the exact Hessian in double, its objectives summed in long
double; embeddings, classes and weights as of `benchmarks.solver`. Beside each relative distance
stands what the solver says of itself: the bound that it proves (`gap`), and whether it says that it
has converged.
"""

import argparse
import warnings

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from benchmarks.solver import CLASSES, FOLDS, make_heads, make_shard, same
from train.engine.heads import train_mask
from train.engine.problem import Problem, TrainPlan
from train.engine.solvers.lbfgs import LbfgsTrainer
from train.engine.weights import LinearHeads

Doubles = npt.NDArray[np.float64]


class Reference:
    """The objective of one head around the mean, biases as a last column of the weights."""

    def __init__(self, problem: Problem, head: int) -> None:
        shard, heads = problem.train, problem.heads
        rows = train_mask(shard, heads.select(torch.tensor([head])))[0].numpy()
        x, self.y = shard.x.numpy()[rows].astype(float), shard.target[0].numpy()[rows]
        self.mean, self.decay = x.mean(axis=0), float(heads.weight_decay[head])
        self.x = np.c_[x - self.mean, np.ones(len(x))]
        self.weight = problem.losses.class_weights[head].double().numpy()[self.y]
        self.penalty = np.r_[np.full(x.shape[1], self.decay), 0.0]

    def value(self, weights: Doubles) -> np.longdouble:
        """Return the objective, in long double."""
        logits = self.x.astype(np.longdouble) @ weights.T.astype(np.longdouble)
        logits -= logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(self.y)), self.y]
        mean = (self.weight * losses).sum() / self.weight.sum()
        return mean + (self.penalty * weights.astype(np.longdouble) ** 2).sum() / 2

    def newton(self, weights: Doubles) -> Doubles:
        """Return the weights at the optimum: steps that are halved until the objective falls."""
        share, (classes, dim) = self.weight / self.weight.sum(), weights.shape
        for _ in range(60):
            logits = self.x @ weights.T
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            gradient = ((p - np.eye(classes)[self.y]) * share[:, None]).T @ self.x
            gradient += self.penalty * weights
            hessian = np.empty((classes, dim, classes, dim))
            for one in range(classes):
                for other in range(classes):
                    curvature = share * p[:, one] * ((one == other) - p[:, other])
                    hessian[one, :, other] = (self.x * curvature[:, None]).T @ self.x
            hessian = hessian.reshape(classes * dim, -1) + np.diag(np.tile(self.penalty, classes))
            step = np.linalg.lstsq(hessian, gradient.ravel(), rcond=1e-15)[0].reshape(classes, dim)
            size, before = 1.0, self.value(weights)
            while size > 1e-6 and self.value(weights - size * step) > before:
                size /= 2
            if size <= 1e-6 or (gradient * step).sum() < 1e-13 * before:
                return weights
            weights = weights - size * step
        return weights


def main() -> None:
    """Solve at penalties from 1e-8 to 1e-2, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=500)
    options = parser.parse_args()
    decays = torch.logspace(-8, -2, 7)
    heads = make_heads(decays).select(torch.arange(0, FOLDS * len(decays), FOLDS))
    shard = make_shard(options.rows, options.dim)
    problem = Problem.prepare((shard, shard), heads, CLASSES, same)
    number = len(heads)
    zeros = LinearHeads(torch.zeros(number, CLASSES, options.dim), torch.zeros(number, CLASSES))
    trainer = LbfgsTrainer(problem, TrainPlan("lbfgs", 0, options.iterations, 0, 0.0, 0), zeros)
    for _ in trainer:
        pass
    result = trainer.result()
    table = Table("penalty", "iterations", "above the optimum", "bound", "converged",
                  "scikit-learn above")  # fmt: skip
    warnings.simplefilter("ignore")  # of iterations that are used up
    for head in range(number):
        reference = Reference(problem, head)
        assert result.weights
        weight, bias = (part[head].double().numpy() for part in vars(result.weights).values())
        ours = np.c_[weight, bias + weight @ reference.mean]
        best = reference.value(reference.newton(ours))
        model = LogisticRegression(
            C=1 / (reference.decay * reference.weight.sum()), tol=1e-10, max_iter=20_000
        )
        model.fit(reference.x[:, :-1], reference.y, reference.weight)
        theirs = np.c_[model.coef_, model.intercept_]
        bound = float(result.diagnostics["gap"][head]) / float(best)
        table.add_row(
            f"{reference.decay:.0e}",
            str(int(result.best_epoch[head])),
            f"{float(reference.value(ours) / best - 1):.0e}",
            f"{bound:.0e}",
            "yes" if result.diagnostics["converged"][head] else "no",
            f"{float(reference.value(theirs) / best - 1):.0e}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
