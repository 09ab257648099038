"""Do intervals hold what they promise? Simulated cohorts whose true figures are known.

    python -m benchmarks.coverage
    python -m benchmarks.coverage --cohorts 200 --only null

Three tables. Coverage: how often the 95 % interval of a figure holds its true value, the product's
beside the percentile bootstrap over slides. Level: how often two equally good models are told
apart, by the interval of their difference, by the permutation test, and by McNemar's over tiles.
Power: how often `difference: 0.02` of the gate lets a candidate pass, by how much better it is.

A cohort has slides of unlike size and composition. What makes a tile of a class hard on a slide is
drawn once for the slide: weakly, so that slides resemble each other, or strongly. The true value of
a figure is that of 20,000 slides.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyarrow as pa
from scipy.optimize import brentq
from scipy.stats import binomtest

from train.evaluation.areas import areas, areas_of_steps
from train.evaluation.comparison import differences, permutation_test
from train.evaluation.estimates import estimate
from train.evaluation.metrics import compute_metrics
from train.evaluation.unit_sums import UnitSums, unit_sums
from train.predictions.table import Predictions

SHARES = np.array([0.4, 0.3, 0.2, 0.1])  # of the classes
NAMES = ["a", "b", "c", "rare"]
K = len(NAMES)
POPULATION = 20_000  # slides
FIGURES = ["accuracy", "f1_macro", "kappa", "auroc_macro", "brier", "recall/rare"]
KEYS = [name.replace("/rare", "/<class>") for name in FIGURES]
STEPS = 128  # of probabilities, for the areas of bootstrap resamples
RESAMPLES = 400


@dataclass(frozen=True)
class Cohort:
    """What cohorts are drawn from.

    Parameters
    ----------
    effect
        Standard deviation of a slide's effect on the logits of a class.
    skill
        What the logit of the true class is above the others.
    own
        The part of the effect that is each model's own, in two models of one cohort.
    evenness
        How alike the slides' shares of classes are: the sum of the Dirichlet's parameters.
    tiles
        Of a slide, about.
    """

    effect: float
    skill: float = 2.5
    own: float = 0.3
    evenness: float = 4.0
    tiles: int = 60


SETTINGS = {
    "weak": Cohort(0.5),
    "strong": Cohort(1.5),
    "good": Cohort(1.0, skill=6.0),
    "uneven": Cohort(1.0, skill=3.0, evenness=1.0),
}


def drawn(
    cohort: Cohort, slides: int, rng: np.random.Generator, skills: tuple[float, ...] = ()
) -> list[Predictions]:
    """Return what models of these skills say of one cohort; by default one model of its skill."""
    skills = skills or (cohort.skill,)
    tiles = np.maximum(5, (cohort.tiles * rng.lognormal(-0.3, 0.8, slides)).astype(int))
    slide = np.repeat(np.arange(slides), tiles)
    shares = rng.gamma(cohort.evenness * SHARES, size=(slides, K))
    shares /= shares.sum(axis=1, keepdims=True)
    beyond = rng.random(len(slide))[:, None] > shares.cumsum(axis=1)[slide]
    target = beyond.sum(axis=1).clip(0, K - 1)
    common = rng.normal(size=(slides, K, K)) * cohort.effect
    noise = rng.gumbel(size=(len(slide), K)) * (1.0 if len(skills) == 1 else 0.7)
    keys = pa.table({
        "slide_id": pa.array(slide).cast(pa.string()), "x": np.arange(len(slide)),
        "y": np.zeros(len(slide), dtype=np.int64),
    })  # fmt: skip
    models = []
    for skill in skills:
        logits = common[slide, target] + noise
        if len(skills) > 1:
            own = rng.normal(size=(slides, K, K)) * cohort.own * cohort.effect
            logits = logits + own[slide, target] + 0.7 * rng.gumbel(size=logits.shape)
        logits[np.arange(len(target)), target] += skill
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        models.append(Predictions(keys, target, probabilities.astype(np.float32), NAMES))
    return models


@cache
def true_values(cohort: Cohort) -> dict[str, float]:
    """Return the figures of the population."""
    [predictions] = drawn(cohort, POPULATION, np.random.default_rng(1))
    return values(predictions)


def values(predictions: Predictions) -> dict[str, float]:
    """Return figures without intervals."""
    target, probabilities = predictions.target, predictions.probabilities
    sums = unit_sums(target, probabilities, np.zeros_like(target), 1).sum()
    sums = replace(sums, areas=areas(target, probabilities))
    return {name: float(each) for name, each in compute_metrics(sums, NAMES, KEYS).items()}


def percentile_bootstrap(
    predictions: Predictions, rng: np.random.Generator
) -> Mapping[str, np.ndarray]:
    """Return both ends of percentile intervals, slides drawn with replacement."""
    target, probabilities = predictions.target, predictions.probabilities
    slides = predictions.clusters
    sums = unit_sums(target, probabilities, predictions.cluster, slides)
    steps = np.empty((slides, 2, K, STEPS))
    for index in range(K):
        edges = np.quantile(probabilities[:, index], np.linspace(0, 1, STEPS + 1)[1:-1])
        step = np.searchsorted(edges, probabilities[:, index], side="right")
        place = (predictions.cluster * 2 + (target == index)) * STEPS + step
        counted = np.bincount(place, minlength=slides * 2 * STEPS)
        steps[:, :, index] = counted.reshape(slides, 2, STEPS)
    counts = rng.multinomial(slides, np.full(slides, 1 / slides), size=RESAMPLES).astype(float)
    others, of_class = np.moveaxis(np.tensordot(counts, steps, axes=1), 1, 0)
    resampled = UnitSums(**{
        name: np.tensordot(counts, getattr(sums, name), axes=1)
        for name in ("hits", "true", "predicted", "distance", "square", "bins")
    } | {"areas": np.moveaxis(areas_of_steps(others, of_class), 0, -2)})  # fmt: skip
    by_name = compute_metrics(resampled, NAMES, KEYS)
    return {name: np.nanpercentile(by_name[name], [2.5, 97.5]) for name in FIGURES}


def coverage(cohorts: int) -> None:
    """Print how often intervals hold the true value: the product's, then the bootstrap's."""
    print("\n## Coverage of 95 % intervals: jackknife (percentile bootstrap)\n")
    print("| slides | effect | " + " | ".join(FIGURES) + " |\n" + "|---" * (len(FIGURES) + 2) + "|")
    for slides in (5, 10, 30, 100):
        for effect, cohort in SETTINGS.items():
            truth, rng = true_values(cohort), np.random.default_rng(slides)
            held = np.zeros((2, len(FIGURES), cohorts))
            for number in range(cohorts):
                [predictions] = drawn(cohort, slides, rng)
                ours, theirs = estimate(predictions), percentile_bootstrap(predictions, rng)
                for row, name in enumerate(FIGURES):
                    _, *ends = ours[name].ends
                    for column, (low, high) in enumerate((ends, theirs[name])):
                        inside = low <= truth[name] <= high
                        held[column, row, number] = np.nan if np.isnan(low) else inside
            both = np.nanmean(held, axis=2).T
            cells = " | ".join(f"{one:.2f} ({other:.2f})" for one, other in both)
            print(f"| {slides} | {effect} | {cells} |", flush=True)


def level(cohorts: int) -> None:
    """Print how often equally good models are told apart, where 5 % is promised."""
    kinds = ["accuracy", "f1_macro", "kappa", "auroc_macro"]
    print("\n## Equally good models told apart, of 5 % promised\n")
    heads = ["slides", "effect", *kinds, "permutation test", "McNemar over tiles"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for slides in (3, 5, 10, 30):
        for effect in ("weak", "strong"):
            cohort, rng = replace(SETTINGS[effect], own=1.0), np.random.default_rng(slides)
            apart = []
            for _ in range(cohorts):
                one, other = drawn(cohort, slides, rng, (cohort.skill, cohort.skill))
                by_name = differences(one, other)
                test = permutation_test(one, other)
                number = test.only_one + test.only_other
                mcnemar = binomtest(test.only_one, number).pvalue if number else 1.0
                ends = [by_name[name].ends[1:] for name in kinds]
                apart.append([*(low > 0 or high < 0 for low, high in ends),
                              test.p < 0.05, mcnemar < 0.05])  # fmt: skip
            cells = " | ".join(f"{share:.1%}" for share in np.mean(apart, axis=0))
            print(f"| {slides} | {effect} | {cells} |", flush=True)


def power(cohorts: int) -> None:
    """Print how often the gate's `difference: 0.02` lets a candidate pass."""
    cohort, gains = Cohort(0.8, own=0.3), (-0.02, 0.0, 0.02, 0.05)
    print("\n## Candidates that `difference: 0.02` lets pass, by their true gain in macro F1\n")
    print("| slides | " + " | ".join(f"{gain:+.2f}" for gain in gains) + " |\n" + "|---" * 5 + "|")
    skills = [skill_for(cohort, gain) for gain in gains]
    for slides in (10, 30, 100, 300):
        shares = []
        for skill in skills:
            rng, passed = np.random.default_rng(slides), 0
            for _ in range(cohorts):
                models = drawn(cohort, slides, rng, (cohort.skill, skill))
                passed += differences(*models)["f1_macro"].low > -0.02
            shares.append(f"{passed / cohorts:.0%}")
        print(f"| {slides} | " + " | ".join(shares) + " |", flush=True)


def skill_for(cohort: Cohort, gain: float) -> float:
    """Return the skill of a model whose macro F1 is better by so much over the population."""

    def difference(skill: float) -> float:
        rng = np.random.default_rng(1)
        one, other = drawn(cohort, POPULATION // 4, rng, (cohort.skill, skill))
        return values(other)["f1_macro"] - values(one)["f1_macro"] - gain

    if not gain:
        return cohort.skill
    return float(brentq(difference, cohort.skill - 1, cohort.skill + 2, xtol=0.01))


TABLES: dict[str, Callable[[int], None]] = {"coverage": coverage, "null": level, "power": power}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=500, help="simulated for each cell")
    parser.add_argument("--only", choices=TABLES, help="one table")
    options = parser.parse_args()
    start = time.perf_counter()
    for name, table in TABLES.items():
        if options.only in (None, name):
            table(options.cohorts)
    print(f"\n{options.cohorts} cohorts a cell, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
