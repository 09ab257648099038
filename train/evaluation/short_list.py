"""The metrics that people look at: a run logs these, and all there are as a table."""

from functools import lru_cache

from train.evaluation.metrics import CLASS, METRICS

MOST_CLASSES = 20  # of which each has metrics of its own
TABLES = frozenset({"class_weight", "folds", "learning_rate", "registered_fold"})
"""What the names of metrics begin with that stand in tables alone."""
MAIN = "f1_macro"  # has its interval in the list
OVERALL = frozenset({"best", "mean"})
"""What the names begin with that tell of all folds, or of a whole split."""
OF_FOLD = frozenset({"f1_macro", "accuracy", "loss", "converged"})
ENDS = ("_low", "_high", "_sd")  # of the names of what tells how sure a metric is


@lru_cache(maxsize=10_000)  # those of an epoch are those of the one before
def is_short(name: str, classes: int) -> bool:
    """Return whether a metric is logged by itself, and not in a table alone.

    Of a whole evaluation these are the metrics over all classes, F1 and recall of each class where
    there are at most `MOST_CLASSES`; of a setting's folds together F1 alone (``mean/...``); of an
    epoch the losses and what is over all classes, of a fold its `OF_FOLD`; intervals of the macro
    F1 alone.

    Parameters
    ----------
    name
        As it is recorded.
    classes
        How many there are.

    Examples
    --------
    >>> names = ["best/test/f1/Fat", "best/test/auroc/Fat", "best/test/kappa_low", "train/loss"]
    >>> [is_short(name, 7) for name in names]
    [True, False, False, True]
    """
    parts = name.split("/")
    begin, middle, last = parts[0], parts[1:-1], parts[-1]
    if begin in TABLES or "group" in middle[1:2] or middle[-1:] == ["slide_accuracy"]:
        return False
    if begin.removeprefix("fold").isdecimal():
        return last in OF_FOLD and middle in ([], ["validation"])
    if begin == "funnel":
        return last == "kept"
    kind = middle[-1] if middle else ""
    if of_class := METRICS.get(f"{kind.removesuffix('_low').removesuffix('_high')}/{CLASS}"):
        is_value, is_final = f"{kind}/{CLASS}" in METRICS, begin in OVERALL and of_class.final
        return is_value and is_final and classes <= MOST_CLASSES and "compare" in of_class.shown_in
    if last.startswith(MAIN):
        return True
    if begin == "difference" or last.endswith(ENDS):
        return False
    return last not in METRICS or METRICS[last].final
