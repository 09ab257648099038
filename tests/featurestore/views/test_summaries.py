"""Pictures: the counts they are drawn from against pandas, and the files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import CLASSES, TABLES
from matplotlib import image
from matplotlib.figure import Figure

from featurestore import FeatureStore, StoreSpec
from featurestore.console import plots
from featurestore.errors import ArtifactError
from featurestore.png import png
from featurestore.views import summaries

FAT = [0.29, 0.3, 0.5, 0.58, 1.0, 0.05, 0.05, 0.1, 0.2, 0.0, 0.0, 0.0]
MUSCLE = [0.0, 0.1, 0.0, 0.0, 0.0, 0.7, 0.7, 0.0, 0.1, 0.9, 1.0, 0.0]


@pytest.fixture
def store(artifacts: TABLES) -> FeatureStore:
    tiles = {"roi_coverage_Fat": FAT, "roi_coverage_Muscle": MUSCLE}
    places = {key.removeprefix("data."): value for key, value in artifacts(tiles).items()}
    return FeatureStore(
        StoreSpec(**{**CLASSES, **places}, single_class=False, tissue_prop_min=0.2)
    )  # fmt: skip


def test_survival_counts_dominant_tiles_that_a_threshold_can_touch(store: FeatureStore):
    frame = pd.DataFrame({"Fat": FAT, "Muscle": MUSCLE})
    touched = frame[frame.sum(axis=1) >= 0.2]
    own = touched.max(axis=1).groupby(touched.idxmax(axis=1))
    survival = summaries.survival_view(store.view("fates"), store.view("coverages"))
    rows = survival.to_pyarrow().to_pylist()
    assert [row["at_least"] for row in rows] == [step / 50 for step in range(51)] * 2
    for row in rows:
        assert row["tiles"] == (own.get_group(row["class"]) >= row["at_least"]).sum(), row
    assert rows[29]["at_least"] == 0.58
    assert rows[29]["tiles"] == 2  # the threshold itself is reached


def test_histogram_is_numpys(store: FeatureStore):
    rows = summaries.histogram_view(store.view("coverages"), bins=4).to_pyarrow().to_pylist()
    for name, shares in (("Fat", FAT), ("Muscle", MUSCLE)):
        counts = {row["low"]: row["tiles"] for row in rows if row["class"] == name}
        expected, lows = np.histogram([s for s in shares if s > 0], bins=4, range=(0, 1))
        assert {round(low, 6): count for low, count in counts.items()} == {
            round(low, 6): count for low, count in zip(lows, expected, strict=False) if count
        }


def test_slides_are_counted_largest_first(store: FeatureStore):
    rows = summaries.slide_view(store.view("fates")).to_pyarrow().to_pylist()
    assert [(row["slide_id"], row["kept"], row["dropped"]) for row in rows] == [
        ("s0", 1, 2), ("s1", 3, 0), ("s2", 1, 2), ("s3", 2, 1),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(plots.PICTURES))
def test_each_picture_is_a_png_with_something_on_it(name: str, store: FeatureStore, tmp_path: Path):
    store.survivors("")
    folder = tmp_path / "pictures"
    paths = plots.draw(store.view("fates"), store.classes(), folder, [name])
    assert [path.name for path in paths] == {"thresholds": ["thresholds.png", "coverages.png"]}.get(
        name, [f"{name}.png"]
    )
    for path in paths:
        pixels = image.imread(path)
        assert min(pixels.shape[:2]) >= 100
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10
    assert len(list((tmp_path / "pictures").iterdir())) == len(paths)


def test_survival_marks_the_chosen_thresholds(store: FeatureStore):
    survival = summaries.survival_view(store.view("fates"), store.view("coverages")).to_pyarrow()
    axes = plots.survival_figure(survival, {"Fat": 0.5, "Muscle": 0.9}).axes[0]
    marks = {
        (round(float(x), 3), round(float(y), 3))
        for points in axes.collections
        for x, y in points.get_offsets()
    }
    marks |= {
        (round(float(line.get_xdata()[0]), 3), round(float(line.get_ydata()[0]), 3))
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }
    # Fat: 3 of its 6 dominant tiles reach 0.5; muscle: 2 of 4 reach 0.9.
    assert {(0.5, 0.5), (0.9, 0.5)} <= marks


def test_empty_folds_stand_out(store: FeatureStore):
    figure = plots.folds_figure(store.label_distribution(), ["Fat", "Muscle"])
    assert {text.get_text() for text in figure.axes[0].texts} >= {"1\n25%", "none"}


def test_many_classes_are_drawn_in_pictures_of_one_size():
    thresholds = {f"class {number}": number / 200 for number in range(200)}
    names = list(thresholds)
    histogram = pa.table({"class": names, "low": [0.95] * 200, "tiles": [3] * 200})
    survival = pa.table({
        "class": names * 2, "at_least": [0.0] * 200 + [1.0] * 200, "tiles": [4] * 200 + [1] * 200
    })  # fmt: skip
    counts = pa.table({"fold": [0, 1] * 100, "label": names, "tiles": [1] * 200})
    figures = [
        plots.histogram_figure(histogram, thresholds),
        plots.survival_figure(survival, thresholds),
        plots.folds_figure(counts, names),
    ]
    assert [max(figure.get_size_inches()) <= 14 for figure in figures] == [True] * 3
    assert [len(figure.axes) <= 2 for figure in figures] == [True] * 3
    assert not figures[2].axes[0].texts
    shown = figures[0].axes[0].images[0].get_array()
    assert (shown.shape, int(shown.sum()), shown[7, 19]) == ((200, plots.summaries.BINS), 600, 3)
    assert len(figures[1].legends[0].get_texts()) == plots.LINES + 1  # and how many others


def test_a_picture_is_that_of_a_figure_that_is_drawn_twice(tmp_path: Path):
    """Matplotlib itself draws a figure a first time, to measure what is on it."""

    def drawn() -> Figure:
        figure = Figure(figsize=(4, 3), dpi=90, layout="constrained")
        left, right = figure.subplots(1, 2)
        left.set_ylabel("what is long and must be measured")
        right.legend([right.plot([1, 2], [3, 1])[0]], ["a line"])
        figure.colorbar(left.imshow([[1, 2]]), ax=left)
        return figure

    drawn().savefig(tmp_path / "twice.png", dpi=110)
    (tmp_path / "once.png").write_bytes(png(drawn(), 110))
    once, twice = (image.imread(tmp_path / name) for name in ("once.png", "twice.png"))
    assert np.array_equal(once, twice)


def test_a_folder_that_cannot_be_written(store: FeatureStore, tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ArtifactError, match="could not be written"):
        plots.draw(store.view("fates"), store.classes(), tmp_path / "taken", ["funnel"])
