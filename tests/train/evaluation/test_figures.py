"""What docs/figures.md says of every figure is computed, by scikit-learn."""

import re

import numpy as np
import pytest
from conftest import ROOT
from predicted import predictions
from sklearn import metrics

from train.evaluation.estimates import estimate
from train.evaluation.metrics import CLASS, METRICS, confusion_metrics
from train.evaluation.unit_sums import confusion_matrix

CLASSES = ["Fat", "Muscle", "Nerve"]
ROWS = re.findall(
    r"^\| `(.+?)` \|.*\| (-?\d) to (\d) \| `(.+?)`(?: with `(.+?)`)? \|$",
    (ROOT / "docs" / "figures.md").read_text(),
    re.MULTILINE,
)


def test_every_metric_is_defined():
    assert {name for name, *_ in ROWS} == set(METRICS)


@pytest.mark.parametrize("row", ROWS, ids=[name for name, *_ in ROWS])
def test_a_figure_is_what_is_said_of_it(row: tuple[str, ...]):
    name, low, high, expression, given = row
    assert METRICS[name].limits == (float(low), float(high))
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=90)
    p = rng.dirichlet(np.ones(3), size=90) / 2
    p[np.arange(90), y] += 0.5
    p = p.astype(np.float32).astype(float)
    names = {"np": np, "y": y, "p": p, "hat": p.argmax(axis=1), "K": 3} | vars(metrics)
    if given:
        variable, value = given.split(" = ")
        names[variable] = eval(value, names)
    tiles = predictions(y, p, np.arange(90) // 9, CLASSES)
    confusion = confusion_matrix(y, p.argmax(axis=1), 3)
    computed = confusion_metrics(confusion, CLASSES)
    computed |= {key: each.value for key, each in estimate(tiles, ordered=True).items()}
    for index, of_class in enumerate(CLASSES):
        expected = eval(expression, names | {"k": index})
        assert computed[name.replace(CLASS, of_class)] == pytest.approx(expected, abs=1e-6)
