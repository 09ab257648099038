"""Pictures of few and of many classes can be read: no text leaves the picture or meets another."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from featurestore.console import plots
from featurestore.views.thresholds import REASONS
from train.evaluation.comparison import PermutationTest
from train.evaluation.curves import Curve
from train.evaluation.estimates import Estimate, without_interval
from train.evaluation.groups import Group
from train.evaluation.leaderboard import Difference, Entry, Leaderboard
from train.evaluation.metrics import shown_in
from train.plots import evaluation, settings
from train.plots.encoders import encoders_png
from train.plots.overview import OverviewImage, overview_png
from train.plots.palette import colours
from train.predictions.table import Predictions

SLIDES = 5_000


def long_name(number: int, length: int = 60) -> str:
    return f"{number}-{'Connective-$Tissue_of_the_Duodenum' * 2}"[:length]


def names(count: int) -> list[str]:
    return [long_name(number) for number in range(count)]


def estimate(number: int, count: int) -> Estimate:
    """Return one of many: some are 1, some are absent, some have no interval."""
    if number % 5 == 4:
        return without_interval(float("nan") if number % 2 else 0.5)
    return Estimate(1 - number / count / 2, 0.9 - number / count, 1.0)


def curves(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    of_class = rng.random(60) < 0.5
    scores = [(of_class * n / count + rng.random(60)).astype(np.float32) for n in range(count)]
    by_class = {long_name(n): Curve.of(of_class, score) for n, score in enumerate(scores)}
    evaluation.curves_png(path, by_class)


def reliability(path: Path, count: int) -> None:
    tiles = np.arange(1.0, count + 1)
    bins = np.stack([1e6 * tiles, 1e6 * tiles * tiles / count, 9e5 * tiles], axis=1)
    evaluation.reliability_png(path, bins, 0.12345)


def classes(path: Path, count: int) -> None:
    f1 = {long_name(n): estimate(n, count) for n in range(count)}
    evaluation.classes_png(path, f1, long_name(0))


def groups(path: Path, count: int) -> None:
    shown = [
        Group(
            column=long_name(0), value=long_name(n), tiles=10**6, slides=10**4, clusters=9,
            metrics={"f1_macro": estimate(n, count), "accuracy": estimate(n + 1, count)},
            most_confused="", is_shown=True,
        )
        for n in range(min(count, 20))
    ]  # fmt: skip
    overall = {"f1_macro": Estimate(1, 1, 1), "accuracy": Estimate(0, 0, 0)}
    evaluation.groups_png(path, shown, overall, long_name(0))


def slides(path: Path, count: int) -> None:
    number = count if count < 200 else SLIDES
    accuracy = np.linspace(0, 1, number).tolist()
    evaluation.slides_png(path, accuracy, [10**6, *range(1, number)])


def risk(path: Path, count: int) -> None:
    points = np.linspace(1 / count, 1, count).tolist()
    curve = {"coverage": points, "risk": [0.0] * count, "confidence": points[::-1]}
    evaluation.risk_png(path, curve)


def differences(path: Path, count: int) -> None:
    metrics = shown_in("compare")
    by_run = {
        long_name(run): {name: estimate(n, count) for n, name in enumerate(metrics)}
        for run in range(min(count, 20))
    }
    evaluation.differences_png(path, long_name(0), by_run, long_name(0))


def confusion(path: Path, count: int) -> None:
    counts = np.full((count, count), 123_456, dtype=np.int64)
    evaluation.confusion_png(path, counts, names(count), long_name(0))


def points(count: int) -> list[settings.SettingPoint]:
    return [
        settings.SettingPoint(
            f"thresholds.{long_name(0)}={n % 20} learning_rate={n}",
            {f"thresholds.{long_name(0)}": f"0.{n % 20:06d}", "learning_rate": n // 20},
            10**6, 0.5 + n / count / 2, 0.01, (0.4, 1.0),
        )
        for n in range(count)
    ]  # fmt: skip


def setting_points(path: Path, count: int) -> None:
    settings.settings_png(path, points(count), count - 1, long_name(0))


def swept_key(path: Path, count: int) -> None:
    settings.axis_png(path, f"thresholds.{long_name(0)}", points(count), long_name(0))


def swept_lines(path: Path, count: int) -> None:
    settings.axis_png(path, "learning_rate", points(count), long_name(0))


def encoders(path: Path, count: int) -> None:
    table = pa.table({
        "slide_id": ["s"], "x": [0], "y": [0], "target": [0], "prob_a": [1.0], "prob_b": [0.0],
    })  # fmt: skip
    predictions = Predictions.from_table(table, ["a", "b"])
    number = min(count, 5)
    entries = [
        Entry(long_name(n), predictions, {"f1_macro": estimate(n, count)}) for n in range(number)
    ]
    pairs = [
        Difference(a.encoder, b.encoder, b.metrics, PermutationTest(0, 0, 1.0))
        for a, b in itertools.combinations(entries, 2)
    ]
    encoders_png(path, Leaderboard("test", entries, pairs))


def overview(path: Path, count: int) -> None:
    label = np.arange(400).reshape(20, 20) % count
    image = OverviewImage(
        long_name(0), label, np.full((20, 20), 0.5), label, np.zeros((20, 20), dtype=np.int64),
        (0.0, 9.0, 9.0, 0.0),
    )  # fmt: skip
    overview_png(path, image, dict(zip(names(count), colours(count), strict=True)))


def funnel(path: Path, count: int) -> None:
    reasons = ["input", *REASONS, "no_embedding", "kept"]
    rows = [{"reason": name, "tiles": 10**count if count < 9 else 10**9} for name in reasons]
    plots.save(plots.funnel_figure(rows), path)


def survival(path: Path, count: int) -> None:
    rows = [
        {"class": name, "at_least": at, "tiles": int(10**7 * (1 - at))}
        for name in names(count)
        for at in (0.0, 0.5, 1.0)
    ]
    thresholds = {name: n / count for n, name in enumerate(names(count))}
    plots.save(plots.survival_figure(pa.Table.from_pylist(rows), thresholds), path)


def coverages(path: Path, count: int) -> None:
    rows = [
        {"class": name, "low": low, "tiles": 10 ** (n % 7 + 1)}
        for n, name in enumerate(names(count))
        for low in (0.0, 0.5)
    ]
    thresholds = dict.fromkeys(names(count), 0.5)
    plots.save(plots.histogram_figure(pa.Table.from_pylist(rows), thresholds), path)


def folds(path: Path, count: int) -> None:
    rows = [
        {"fold": fold, "label": name, "tiles": 1_234_567 * (fold != n), "slides": 3}
        for fold in range(min(count, 20))
        for n, name in enumerate(names(count))
    ]
    plots.save(plots.folds_figure(pa.Table.from_pylist(rows), names(count)), path)


def tiles_per_slide(path: Path, count: int) -> None:
    number = count if count < 200 else SLIDES
    table = pa.table({
        "slide_id": names(number), "kept": range(10**6, 10**6 + number), "dropped": range(number),
    })  # fmt: skip
    plots.save(plots.slides_figure(table), path)


def drawn(axis: Axis) -> list[Text]:
    """Return the labels of an axis that are drawn: those of ticks within its limits."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    return [
        label
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if low - slack <= tick.get_loc() <= high + slack
    ]


def texts(figure: Figure) -> list[Text]:
    """Return the texts that can be seen, but for those of ticks beyond their axes."""
    axes = [each for each in figure.axes if each.axison]
    every = [axis for each in axes for axis in (each.xaxis, each.yaxis)]
    ticks = {label for axis in every for label in drawn(axis)}
    of_ticks = {
        label
        for each in figure.axes
        for axis in (each.xaxis, each.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    }
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible()
        and text.get_text().strip()
        and (text in ticks or text not in of_ticks)
    ]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return a list of the figures that would have been written."""
    saved: list[Figure] = []

    def lay_out(figure: Figure, *_: Any, **__: Any) -> None:
        figure.draw_without_rendering()
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", lay_out)
    return saved


PICTURES = (
    curves, reliability, classes, groups, slides, risk, differences, confusion, setting_points,
    swept_key, swept_lines, encoders, overview, funnel, survival, coverages, folds, tiles_per_slide,
)  # fmt: skip


@pytest.mark.parametrize("count", [2, 7, pytest.param(40, marks=pytest.mark.slow), 200])
@pytest.mark.parametrize("draw", PICTURES, ids=lambda draw: draw.__name__)
def test_no_text_leaves_the_picture_or_meets_another(
    draw: Callable[[Path, int], None], count: int, figures: list[Figure], tmp_path: Path
):
    draw(tmp_path / "picture.png", count)
    [figure] = figures
    shown = [(text, text.get_window_extent()) for text in texts(figure)]
    frame = figure.bbox
    for text, box in shown:
        assert min(box.x0, box.y0) >= -1, text
        assert box.x1 <= frame.x1 + 1 and box.y1 <= frame.y1 + 1, text
    for (one, a), (other, b) in itertools.combinations(shown, 2):
        assert not a.overlaps(b), (one, other)
