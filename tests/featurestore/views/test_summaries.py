"""Pictures: the counts they are drawn from against pandas, and the files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CLASSES, TABLES
from matplotlib import image

from featurestore import FeatureStore, StoreSpec
from featurestore.console import plots
from featurestore.errors import ArtifactError
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


def test_a_folder_that_cannot_be_written(store: FeatureStore, tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ArtifactError, match="could not be written"):
        plots.draw(store.view("fates"), store.classes(), tmp_path / "taken", ["funnel"])
