"""Few-shot heads: k slides of each class, drawn again and again; intervals over both."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import TABLES
from hypothesis import given
from hypothesis import strategies as st
from refused import arguments

from featurestore.errors import ConfigError
from train import probe
from train.config.load import load
from train.config.sweep import Setting
from train.engine.shard import DROPPED
from train.evaluation.unit_sums import ConfusionCells
from train.fitting.few_shot import drawn, with_draws
from train.fitting.selection import combined_jackknife, mean_f1_macro
from train.fitting.tile_table import TileTable

TILES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans()), min_size=1, max_size=40
)


@given(TILES, st.integers(1, 4))
def test_the_tiles_of_each_class_on_its_first_slides_are_drawn(
    tiles: list[tuple[int, int, bool]], shots: int
):
    frame = pd.DataFrame(tiles, columns=["target", "rank", "candidate"])
    allowed = frame[frame.candidate].drop_duplicates(["target", "rank"]).sort_values("rank")
    first = allowed.groupby("target").head(shots)[["target", "rank"]].assign(drawn=True)
    expected = frame.merge(first, "left").drawn.eq(True) & frame.candidate
    columns = [frame[name].to_numpy() for name in ("target", "rank", "candidate")]
    assert drawn(*columns, shots).tolist() == expected.tolist()


def test_fewer_slides_are_among_more_and_draws_differ():
    """Whatever is drawn lies outside the validation fold, which stays whole."""
    slide, target = np.divmod(np.arange(60), 3)
    fold = (slide % 4)[:, None]
    keys = pa.table({"slide_id": [f"s{n}" for n in slide], "x": slide, "y": target})
    table = TileTable(keys, target[:, None], fold, matrix=None)  # type: ignore[arg-type]
    settings = [Setting({}, 0, 1.0, 0.1, 0, 0, shots=k, draw=d) for k, d in product((1, 3), (0, 1))]
    more, variants = with_draws(table, settings, [0, 2], seed=0)
    assert sorted(variants.values()) == list(range(1, 9))
    for held_out in (0, 2):
        sets = []
        for number, setting in enumerate(settings):
            kept = more.fold[:, variants[number, held_out]]
            assert (kept[fold[:, 0] == held_out] == held_out).all()
            train = (kept != DROPPED) & (kept != held_out)
            for kind in range(3):
                assert len(np.unique(slide[train & (target == kind)])) == setting.shots
            sets.append(set(np.flatnonzero(train)))
        assert sets[0] < sets[2]
        assert sets[1] < sets[3]
        assert sets[0] != sets[1]
    assert with_draws(table, settings[:1], [0], 1)[0].fold.tolist() != more.fold[:, :2].tolist()


def test_the_variance_is_that_over_slides_plus_that_over_draws():
    without_slide, by_draw = np.array([0.7, 0.72, 0.75, 0.69, 0.74]), np.array([0.6, 0.7, 0.86])
    value = by_draw.mean()
    together = combined_jackknife(without_slide, by_draw)
    assert len(together) == 8
    over_slides = 4 / 5 * ((without_slide - value) ** 2).sum()
    expected = over_slides + by_draw.var(ddof=1) / 3
    assert 7 / 8 * ((together - value) ** 2).sum() == pytest.approx(expected)


def test_draws_that_differ_widen_the_interval():
    right, wrong = np.array([[8, 2], [2, 8]]), np.array([[5, 5], [5, 5]])
    slides = [right, right + 1, right + wrong, wrong, right, right + 3]
    worse = [matrix + 9 * wrong for matrix in slides]

    def width(*draws: list[np.ndarray]) -> float:
        matrices = np.array(draws).reshape(-1, 4)
        unit, index = np.nonzero(matrices)
        counts = matrices[unit, index]
        cells = ConfusionCells(unit * 4 + index, counts, len(matrices), 2)
        estimate = mean_f1_macro(cells, len(draws), len(draws))
        return estimate.high - estimate.low

    assert width(slides, slides, slides) == pytest.approx(width(slides), rel=0.2)
    assert width(slides, worse, slides) > 1.2 * width(slides)


@pytest.mark.slow
def test_a_curve_is_told_by_console_page_and_picture(
    artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    argv = arguments(
        artifacts(), "fold=all", "probe=prototype", "sweep.shots=[1,2]", "sweep.draw=[0,1,2]",
        "tracking.enabled=false", "output=out",
    )  # fmt: skip
    assert probe.main(argv) == 0
    printed = capsys.readouterr().out.partition("few-shot curve")[2]
    assert "95 % over slides and draws" in printed
    assert "Few-shot curve" in Path("out/report.html").read_text()
    assert Path("out/few_shot.png").exists()


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["sweep.draw=[0,1]"], "sweep.shots"),
        (["sweep.shots=[1]", "sweep.train_fraction=[0.5]"], "train_fraction"),
        (["sweep.shots=[1]", "final=true"], "final=true"),
        (["sweep.shots=[0]"], "shots"),
    ],
)
def test_draws_of_nothing_or_twice_over_are_refused(argv: list[str], word: str):
    with pytest.raises(ConfigError, match=word):
        load(["fold=0", *argv])
