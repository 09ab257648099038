"""A cohort that grows: which parts snapshots share, name, and let go of."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snapshots import snapshot

from featurestore.console import cli
from featurestore.embeddings import folder
from featurestore.errors import ArtifactError, LeakageError
from featurestore.snapshots import collection
from featurestore.snapshots.diff import changed_parts
from featurestore.snapshots.snapshot import Snapshot


class Cohort:
    """Slides of three tiles, a file of embeddings each, in the working folder."""

    def __init__(self) -> None:
        self.slides: dict[str, int] = {}
        Path("embeddings").mkdir()

    def write(self, name: str, first: int = 0) -> None:
        """Write a slide, or write it again; its embeddings tell of ``first``."""
        self.slides[name] = first
        keys = {"slide_id": [name] * 3, "x": [0, 1, 2], "y": [0] * 3}
        number = ord(name) * 10 + first + np.arange(3.0)
        vectors = np.stack([number % 2, number, number**2], axis=1)
        table = pa.table(keys | {"embedding": vectors.tolist()})
        pq.write_table(table, f"embeddings/{name}.parquet")

    def snapshot(self, **rules: object) -> Snapshot:
        """Make the snapshot of the slides that there are."""
        names = sorted(self.slides)
        rows = [(name, x) for name in names for x in range(3)]
        pq.write_table(pa.table({
            "slide_id": [name for name, _ in rows], "x": [x for _, x in rows],
            "y": [0] * len(rows), "fold": [ord(name) % 2 for name, _ in rows],
            "roi_coverage_Fat": [0.9 * (x % 2) for _, x in rows],
            "roi_coverage_Muscle": [0.8 * (x % 2 == 0) for _, x in rows],
        }), "tiles.parquet")  # fmt: skip
        return snapshot({"tiles": "tiles.parquet", "embeddings": "embeddings"}, **rules)


@pytest.fixture
def cohort() -> Cohort:
    cohort = Cohort()
    for name in "abcd":
        cohort.write(name)
    return cohort


def close(*made: Snapshot) -> None:
    for one in made:
        one.entry.lock.close()


@pytest.mark.slow
def test_a_grown_cohort_has_the_name_that_it_has_from_scratch(cohort: Cohort):
    before = cohort.snapshot()
    cohort.write("e")
    grown = cohort.snapshot()
    assert len(folder.names()) == 5
    close(before, grown)
    shutil.rmtree(".featurestore")
    scratch = cohort.snapshot()
    assert (scratch.digest, scratch.content) == (grown.digest, grown.content)


@pytest.mark.slow
def test_another_threshold_shares_all_parts(cohort: Cohort):
    cohort.snapshot()
    cohort.snapshot(thresholds={"Fat": 0.6, "Muscle": 0.5})
    assert len(collection.names()) == 2
    assert len(folder.names()) == 4


@pytest.mark.slow
def test_gc_frees_the_parts_that_no_kept_snapshot_names(cohort: Cohort):
    close(cohort.snapshot())
    cohort.write("e")
    cohort.write("a", first=5)
    kept = cohort.snapshot()
    close(kept)
    assert len(folder.names()) == 6
    assert cli.main(["gc", "--keep", "1"]) == 0
    assert collection.names() == [kept.folder.name]
    assert len(folder.names()) == 5
    assert len(collection.opened(kept.folder.name).fit_set(0).keys) == 15


@pytest.mark.slow
def test_gc_leaves_parts_that_somebody_is_about_to_name(cohort: Cohort):
    close(cohort.snapshot())
    with folder.lease():
        assert cli.main(["gc", "--keep", "0"]) == 0
        assert len(folder.names()) == 4
    assert cli.main(["gc", "--keep", "0"]) == 0
    assert not Path(".featurestore/parts").exists()


@pytest.mark.slow
def test_a_refusal_removes_what_it_has_converted_and_nothing_else(cohort: Cohort):
    """Slide e has the embeddings of slide a, in the other fold."""
    close(cohort.snapshot(kfold_strategy="stratified_group"))
    table = pq.read_table("embeddings/a.parquet")
    table = table.set_column(0, "slide_id", pa.array(["f"] * 3))
    cohort.write("f")
    pq.write_table(table, "embeddings/f.parquet")
    with pytest.raises(LeakageError, match="tiles with the embedding of a tile in another fold"):
        cohort.snapshot(kfold_strategy="stratified_group")
    assert len(folder.names()) == 4


@pytest.mark.slow
def test_diff_tells_which_parts_changed(cohort: Cohort, capsys: pytest.CaptureFixture[str]):
    before = cohort.snapshot()
    cohort.write("a", first=5)
    cohort.write("e")
    cohort.slides.pop("b")
    Path("embeddings/b.parquet").unlink()
    Path("embeddings/c.parquet").rename("embeddings/other.parquet")
    after = cohort.snapshot()
    assert changed_parts(before, after).to_pylist() == [
        {"change": "added", "file": "e.parquet", "rows": 3},
        {"change": "changed", "file": "a.parquet", "rows": 3},
        {"change": "gone", "file": "b.parquet", "rows": 3},
    ]
    assert cli.main(["diff", before.folder.name, after.folder.name]) == 0
    assert "parts of the embeddings" in capsys.readouterr().out


@pytest.mark.slow
def test_a_tag_names_a_snapshot_and_keeps_it(cohort: Cohort, capsys: pytest.CaptureFixture[str]):
    first = cohort.snapshot()
    close(first)
    assert cli.main(["snapshots", "--tag", "march"]) == 0
    cohort.write("e")
    second = cohort.snapshot()
    close(second)
    assert cli.main(["gc", "--keep", "1"]) == 0
    assert collection.opened("march").digest == first.digest
    assert len(collection.names()) == 2
    capsys.readouterr()
    assert cli.main(["snapshots", "--tag", "march", second.folder.name]) == 2
    assert "is that of another snapshot" in capsys.readouterr().err
    assert cli.main(["snapshots", "--tag", "fade"]) == 2
    assert "cannot name a snapshot" in capsys.readouterr().err
    assert cli.main(["snapshots", "--untag", "march"]) == 0
    assert cli.main(["snapshots", "--untag", "march"]) == 2


@pytest.mark.slow
def test_a_missing_part_is_one_error_by_name_and_made_again_else(cohort: Cohort):
    made = cohort.snapshot()
    (Path(".featurestore/parts") / f"{made.matrices[''].parts[1].name}.npy").unlink()
    with pytest.raises(ArtifactError, match=r"The part .* is damaged\n.*npy is missing"):
        collection.opened(made.folder.name)
    with pytest.warns(UserWarning, match="npy is missing.*made again"):
        again = cohort.snapshot()
    assert len(collection.opened(again.folder.name).fit_set(0).keys) == 12
    Path(".featurestore/parts").joinpath(f"{made.matrices[''].parts[2].name}.npy").unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        again.matrices[""].read_rows(np.arange(12))


@pytest.mark.slow
def test_verify_names_the_part(cohort: Cohort, capsys: pytest.CaptureFixture[str]):
    cohort.snapshot()
    Path("config.yaml").write_text(
        "class_indices: {Fat: 1, Muscle: 0}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
        "data: {tiles: tiles.parquet, embeddings: embeddings}\n"
    )
    verify = ["--config", "config.yaml", "verify"]
    assert cli.main(verify) == 0
    assert "nothing is damaged" in capsys.readouterr().out
    name = folder.names()[0]
    file = Path(".featurestore/parts") / f"{name}.npy"
    content = bytearray(file.read_bytes())
    content[-40] ^= 1
    file.write_bytes(content)
    assert cli.main(verify) == 2
    output = capsys.readouterr().out
    assert name[:12] in output
    assert "`featurestore materialise`" in output
    assert cli.main(verify) == 0  # it is set aside
