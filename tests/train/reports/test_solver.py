"""Heads that ended before their optimum: in MLflow, in print and on the page."""

from pathlib import Path

import pytest
import torch
from conftest import TABLES
from engine_problems import make_heads, make_problem, solve
from refused import arguments
from sklearn_shards import load_shard

from train import probe
from train.reports.solver import record, unconverged
from train.tracking.tracker import NullTracker


@pytest.mark.slow
def test_a_head_that_is_cut_off_is_said_once_and_marked(
    artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    more = ("fold=0", "optimizer=lbfgs", "max_epochs=1", "tracking.enabled=false", "output=out")
    assert probe.main(arguments(artifacts(), *more)) == 0
    words = "L-BFGS ended before the optimum: 1 of 1 heads, after 1 iterations"
    printed = capsys.readouterr()
    assert " ".join((printed.out + printed.err).split()).count(words) == 1
    page = Path("out/report.html").read_text()
    assert words in page
    assert "not at its optimum" in page


def test_what_is_proven_of_a_head_is_recorded():
    """What is no number is left out: without a penalty there is no bound."""
    shard, classes = load_shard("wine")
    heads = make_heads(fold=[0], weight_decay=[1e-2, 0.0])
    problem, recorded = make_problem(shard, heads, classes=classes), []
    tracker = NullTracker()
    tracker.metrics = recorded.append
    for head in range(2):
        record(tracker, solve(problem.select(torch.tensor([head])), 5), "solver")
    bounded, unbounded = recorded
    assert set(bounded) == {f"solver/{n}" for n in ("objective", "gradient", "gap", "converged")}
    assert set(bounded) - set(unbounded) == {"solver/gap"}
    assert bounded["solver/converged"] == 0
    assert 0 < bounded["solver/gap"] < bounded["solver/objective"]


def test_of_several_heads_the_furthest_is_named():
    shard, classes = load_shard("wine")
    heads = make_heads(fold=[0, 1, 2], weight_decay=[1.0, 1e-2, 0.0])
    problem = make_problem(shard, heads, classes=classes)
    names = unconverged(solve(problem.select(torch.tensor([0, 1])), 7), ["first", "second"])
    assert names
    assert "1 of 2 heads, after 7 iterations" in names
    assert "the furthest, second," in names
    without_bound = unconverged(solve(problem, 3), ["first", "second", "third"])
    assert without_bound
    assert "third" in without_bound
    assert "no bound that is known" in without_bound
    assert unconverged(solve(problem.select(torch.tensor([0]))), ["first"]) is None
