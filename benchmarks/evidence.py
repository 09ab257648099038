"""Intervals over slides: all figures of many tiles, against leaving out the slides' rows.

    python -m benchmarks.evidence --tiles 200000 --slides 500

Then the same tiles by group: two columns of a few values each, which slides have at random.

The rival leaves out one slide after another, gathers the tiles of the others and calls
scikit-learn's F1, kappa and AUROC; a few slides are left out and the time is scaled.
"""

import argparse
import resource
import time

import numpy as np
import pyarrow as pa
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score

from train.evaluation.confusion import confusions
from train.evaluation.estimates import estimate
from train.evaluation.groups import by_group
from train.evaluation.unit_sums import confusion_matrix
from train.predictions.table import Predictions


def main() -> None:
    """Measure both, print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=200_000)
    parser.add_argument("--slides", type=int, default=500)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--values", type=int, default=5, help="of a column of groups")
    parser.add_argument("--rivals", type=int, default=3, help="slides that the rival leaves out")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    slide = np.sort(rng.integers(options.slides, size=options.tiles))
    target = rng.integers(options.classes, size=options.tiles)
    logits = rng.normal(size=(options.tiles, options.classes))
    logits[np.arange(options.tiles), target] += 2
    shares = np.exp(logits)
    shares = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    names = [f"class {index}" for index in range(options.classes)]
    keys = {"slide_id": [f"slide {number}" for number in slide], "x": slide, "y": slide}
    for column in ("organ", "scanner"):
        keys[column] = rng.integers(options.values, size=options.slides)[slide]
    predictions = Predictions(pa.table(keys), target, shares, names)
    start = time.perf_counter()
    metrics = estimate(predictions)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    confusion = confusion_matrix(target, predictions.predicted, options.classes)
    confusions(predictions, confusion)
    groups = by_group(predictions, ["organ", "scanner"])
    of_groups = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    for number in range(options.rivals):
        rows = slide != number
        guess = shares[rows].argmax(axis=1)
        f1_score(target[rows], guess, average="macro")
        cohen_kappa_score(target[rows], guess)
        roc_auc_score(target[rows], shares[rows], multi_class="ovr")
    theirs = (time.perf_counter() - start) / options.rivals * options.slides
    print(f"{len(metrics)} figures with intervals: {ours:.1f} s")
    print(f"top confusions, and {len(groups)} groups of 2 columns: {of_groups:.1f} s")
    print(f"peak memory of the process: {peak / 2**30:.1f} GiB")
    print(f"three of them by rows (scaled from {options.rivals}): {theirs:.0f} s")


if __name__ == "__main__":
    main()
