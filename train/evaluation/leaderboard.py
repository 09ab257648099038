"""Encoders on the same tiles: the best first, and by how much each pair of them differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from train.evaluation.comparison import PermutationTest, above, jackknife, permutation_test
from train.evaluation.estimates import Estimate
from train.predictions.table import KEYS, Predictions

RANKED_BY = "f1_macro"  # as settings are
Metrics = Mapping[str, Estimate]


@dataclass(frozen=True)
class Entry:
    """How good the model of one encoder is.

    Parameters
    ----------
    encoder
        Its name.
    predictions
        Of the tiles that all encoders are compared on.
    metrics
        With their intervals, see `train.evaluation.estimates.estimate`.
    """

    encoder: str
    predictions: Predictions
    metrics: Metrics


@dataclass(frozen=True)
class Difference:
    """By how much an encoder is above another one that ranks below it, on the same tiles.

    Parameters
    ----------
    encoder, other
        Their names.
    metrics
        By how much each metric is higher, with the interval of that, clusters left out of both.
    test
        Whether they are right equally often; ``only_one`` counts the tiles of ``other``.
    """

    encoder: str
    other: str
    metrics: Metrics
    test: PermutationTest


@dataclass(frozen=True)
class Leaderboard:
    """Encoders side by side.

    Parameters
    ----------
    split
        Which tiles they are compared on: ``validation``, ``oof`` or ``test``.
    entries
        The best first.
    differences
        Of each pair; none of a single encoder.
    """

    split: str
    entries: Sequence[Entry]
    differences: Sequence[Difference]

    @property
    def tiles(self) -> int:
        """How many tiles they are compared on."""
        return len(self.entries[0].predictions)


def leaderboard(
    split: str, entries: Sequence[Entry], seed: int = 0, ordered: bool = False
) -> Leaderboard:
    """Return encoders side by side; of two that are equally good the first stays first.

    Parameters
    ----------
    entries
        Of the same tiles, in any order.
    seed
        Of the exchanges of permutation tests.
    ordered
        Whether the order of the classes means something.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from train.evaluation.estimates import estimate
    >>> keys = {"slide_id": ["a", "a", "b"], "x": [0, 1, 0], "y": [0, 0, 0], "target": [0, 1, 1]}
    >>> fat = {"good": [0.9, 0.1, 0.2], "poor": [0.9, 0.6, 0.2]}
    >>> entries = []
    >>> for name, of_fat in fat.items():
    ...     muscle = [1 - probability for probability in of_fat]
    ...     table = pa.table(keys | {"prob_Fat": of_fat, "prob_Muscle": muscle})
    ...     predictions = Predictions.from_table(table, ["Fat", "Muscle"])
    ...     entries.append(Entry(name, predictions, estimate(predictions)))
    >>> board = leaderboard("validation", entries)
    >>> [entry.encoder for entry in board.entries]
    ['good', 'poor']
    >>> [difference] = board.differences
    >>> round(difference.metrics["accuracy"].value, 3), difference.test.only_other
    (0.333, 1)
    """
    ranked = sorted(entries, key=_rank)
    by_key = [entry.predictions.by_key() for entry in ranked]
    cluster = by_key[0].cluster
    _check_alike(by_key)
    jackknives = [jackknife(predictions, cluster, ordered) for predictions in by_key]
    differences = [
        Difference(
            ranked[one].encoder,
            ranked[other].encoder,
            above(jackknives[other], jackknives[one]),
            permutation_test(by_key[other], by_key[one], seed),
        )
        for one, other in combinations(range(len(ranked)), 2)
    ]
    return Leaderboard(split, ranked, differences)


def _rank(entry: Entry) -> float:
    value = entry.metrics[RANKED_BY].value
    return np.inf if np.isnan(value) else -value


def _check_alike(by_key: Sequence[Predictions]) -> None:
    """Hold what snapshots of equal content promise, or differences would mean nothing."""
    first, *others = by_key
    for other in others:
        assert other.keys.select(KEYS) == first.keys.select(KEYS)
        assert (other.target == first.target).all()
