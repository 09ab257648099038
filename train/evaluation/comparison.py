"""Two models on the same tiles: differences with intervals, and a test over slides."""

from dataclasses import dataclass

import numpy as np

from train.evaluation.estimates import Estimate, estimates, jackknifed, limits_of, units_of
from train.evaluation.metrics import final_metrics
from train.evaluation.unit_sums import leave_one_out
from train.predictions.table import Predictions

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


def differences(one: Predictions, other: Predictions, ordered: bool = False) -> dict[str, Estimate]:
    """Return by how much each metric of ``other`` is above that of ``one``, on the same tiles.

    A cluster is left out of both: what makes a slide hard for both cancels. The clusters are those
    of ``one``, whatever the other's predictions know of them.
    """
    sums = [leave_one_out(each.target, each.probabilities, one.cluster) for each in (one, other)]
    names, value, left_out = jackknifed(sums[0], one.classes, final_metrics(ordered))
    _, other_value, other_left_out = jackknifed(sums[1], one.classes, final_metrics(ordered))
    extent = np.diff(limits_of(names), axis=1)
    return estimates(
        names, other_value - value, other_left_out - left_out, np.hstack([-extent, extent]),
        units_of(sums[0], one.classes, names),
    )  # fmt: skip


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
