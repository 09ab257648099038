"""Two models on the same tiles: differences with intervals, and a test over slides."""

from dataclasses import dataclass

import numpy as np

from train.evaluation.estimates import Estimate, estimates, jackknifed, limits_of, units_of
from train.evaluation.jackknife import Floats
from train.evaluation.metrics import final_metrics
from train.evaluation.unit_sums import leave_one_out
from train.predictions.table import Ints, Predictions

EXCHANGES = 9999  # of a permutation test, where there are more
AT_ONCE = 1000  # exchanges in memory


@dataclass(frozen=True)
class PermutationTest:
    """Whether two models are right equally often.

    Parameters
    ----------
    only_one, only_other
        Tiles that only one of them is right on.
    p
        Two-sided: the share of exchanges between the models, slide by slide, that make their
        accuracies differ at least as much.
    """

    only_one: int
    only_other: int
    p: float


@dataclass(frozen=True)
class Jackknife:
    """The metrics of one model, and each without a cluster.

    Parameters
    ----------
    names
        Of M metrics.
    value, left_out
        Their values, shape (M,), and those without each of n clusters, shape (M, n).
    units
        On how many clusters each rests, shape (M,).
    """

    names: list[str]
    value: Floats
    left_out: Floats
    units: Floats


def jackknife(predictions: Predictions, cluster: Ints, ordered: bool = False) -> Jackknife:
    """Return the metrics of a model's predictions, clusters left out one by one.

    Parameters
    ----------
    cluster
        The number of each tile's cluster, shape (tiles,).
    ordered
        Whether the order of the classes means something.
    """
    sums = leave_one_out(predictions.target, predictions.probabilities, cluster)
    names, value, left_out = jackknifed(sums, predictions.classes, final_metrics(ordered))
    return Jackknife(names, value, left_out, units_of(sums, predictions.classes, names))


def above(one: Jackknife, other: Jackknife) -> dict[str, Estimate]:
    """Return by how much each metric of ``other`` is above that of ``one``.

    A cluster is left out of both: what makes a slide hard for both cancels.

    Parameters
    ----------
    one, other
        Of the same tiles, with the same clusters.
    """
    extent = np.diff(limits_of(one.names), axis=1)
    return estimates(
        one.names, other.value - one.value, other.left_out - one.left_out,
        np.hstack([-extent, extent]), one.units,
    )  # fmt: skip


def differences(one: Predictions, other: Predictions, ordered: bool = False) -> dict[str, Estimate]:
    """Return by how much each metric of ``other`` is above that of ``one``, on the same tiles.

    See `above`. The clusters are those of ``one``, whatever the other's predictions know of them.
    """
    first, second = (jackknife(each, one.cluster, ordered) for each in (one, other))
    return above(first, second)


def permutation_test(one: Predictions, other: Predictions, seed: int = 0) -> PermutationTest:
    """Test whether two models are right equally often, clusters exchanged between them whole.

    Were both equally good, which of them gave the predictions of a slide would not matter. Exact
    where all exchanges can be counted. McNemar's test exchanges tiles, which resemble those of
    their slide: it finds differences where there are none.
    """
    from scipy.stats import permutation_test as permuted  # half a second

    right, other_right = (each.predicted == each.target for each in (one, other))
    only_one, only_other = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    if one.clusters < 2:  # exchanged, it differs as much
        return PermutationTest(only_one, only_other, 1.0)
    hits = [np.bincount(one.cluster, each) for each in (right, other_right)]
    result = permuted(
        hits, lambda first, second, axis: (second - first).sum(axis=axis),
        permutation_type="samples", vectorized=True, n_resamples=EXCHANGES, batch=AT_ONCE,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return PermutationTest(only_one, only_other, float(result.pvalue))
