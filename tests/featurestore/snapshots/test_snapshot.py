"""Snapshots: their name, what is read again, what a reader sees, what the guard proves."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TABLES
from programs import fork_server
from snapshots import RULES, slides, snapshot, spec

from featurestore import FeatureStore, StoreSpec
from featurestore.console import cli
from featurestore.embeddings import conversion, near
from featurestore.embeddings import folder as parts_folder
from featurestore.embeddings.damage import damage
from featurestore.embeddings.part import Part
from featurestore.errors import ArtifactError, FeatureStoreWarning, LeakageError
from featurestore.examples import TISSUES, SyntheticConfig, uris, write_synthetic
from featurestore.graph import ViewGraph
from featurestore.io import cache, digests
from featurestore.snapshots.build import materialise
from featurestore.snapshots.collection import listing
from featurestore.snapshots.export import export
from featurestore.snapshots.layout import SNAPSHOTS
from featurestore.snapshots.snapshot import Snapshot
from featurestore.spec.rules import FoldRules, LabelRules, field_names
from train.inference.cohort import prediction_set as cohort_of


def test_embeddings_are_those_of_the_keys(artifacts: TABLES):
    tiles = snapshot(artifacts()).fit_set(1)
    gathered = tiles.matrix.read_rows(tiles.keys["row"].to_numpy())
    x = tiles.keys["x"].to_numpy()
    np.testing.assert_array_equal(gathered, np.stack([x % 2, x * 0 + 1, x], axis=1))


@pytest.mark.slow
def test_same_inputs_same_name_wherever_they_lie(artifacts: TABLES, tmp_path: Path):
    named = artifacts()
    here = snapshot(named)
    shutil.copytree(tmp_path / "in", tmp_path / "there")
    moved = {key: value.replace("/in/", "/there/") for key, value in named.items()}
    assert snapshot(moved).digest == here.digest


@pytest.mark.slow
def test_a_folder_may_bear_any_name(artifacts: TABLES, tmp_path: Path, monkeypatch):
    named = artifacts()
    for name in ("it's", 'say "it"', "50 % [a-z]*"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert len(snapshot(named).fit_set(1).keys) == 12


CHANGES: dict[str, dict] = {
    "threshold": {"thresholds": {"Fat": 0.5, "Muscle": 0.6}},
    "class index": {"class_indices": {"Fat": 0, "Muscle": 1}},
    "least tissue": {"tissue_prop_min": 0.3},
    "single class": {"single_class": False},
    "label rule": {"label_rule": "any_passing"},
    "absent coverage": {"absent_coverage": "zero"},
    "where": {"where": "x < 99"},
    "merged": {
        "merge": {"Muscle": ["Fat"]},
        "class_indices": {"Muscle": 0},
        "thresholds": {"Muscle": 0.5},
    },
    "dropped": {"drop": ["Fat"], "class_indices": {"Muscle": 0}, "thresholds": {"Muscle": 0.5}},
    "strategy": {"kfold_strategy": "stratified_group"},
    "group": {"kfold_group": "patient_id"},
    "hash": {"fold_rule": "hash"},
    "seed": {"seed": 1},
    "k": {"k": 6},
    "balance": {"balance": "optimal"},
    "empty class": {"allow_empty_class": True},
    "storage": {"storage": "float16"},
}


def test_every_rule_is_changed_below():
    """A rule that is added wants a case of its own: without one its name could go unnoticed."""
    changed = {rule for change in CHANGES.values() for rule in change}
    assert changed == {*field_names(LabelRules, FoldRules), "storage"}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_any_other_rule_gives_another_name(change: str, artifacts: TABLES):
    named = artifacts()
    assert snapshot(named, **CHANGES[change]).digest != snapshot(named).digest


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["tiles", "embeddings"])
def test_any_other_artifact_gives_another_name(changed: str, artifacts: TABLES):
    before = snapshot(artifacts()).digest
    other = artifacts(
        {"roi_coverage_Fat": [0.95 if n % 2 else 0.0 for n in range(12)]},
    ) if changed == "tiles" else artifacts(None, {"embedding": [[1.0, 2.0, 3.0]] * 12})  # fmt: skip
    assert snapshot(other).digest != before


@pytest.mark.slow
def test_other_code_of_the_views_gives_another_name(artifacts: TABLES, monkeypatch):
    from featurestore.snapshots import build

    named = artifacts()
    before = snapshot(named).digest
    monkeypatch.setattr(build.fingerprints, "of_code", lambda *_: "other")
    assert snapshot(named).digest != before


@pytest.mark.slow
def test_thresholds_are_swept_without_reading_an_embedding_again(artifacts: TABLES, monkeypatch):
    named = artifacts({"roi_coverage_Fat": [n / 12 if n % 2 else 0.0 for n in range(12)]})
    snapshot(named)
    monkeypatch.setattr(
        conversion, "convert", lambda *_, **__: pytest.fail("embeddings were read again")
    )
    kept = [
        len(snapshot(named, thresholds={"Fat": fat / 10, "Muscle": 0.5}).fit_set(1).keys)
        for fat in range(10)
    ]
    expected = [6 + sum(n / 12 >= max(fat / 10, 0.2) for n in range(1, 12, 2)) for fat in range(10)]
    assert kept == expected
    assert len(cache.names(SNAPSHOTS)) == 11 - 1  # the first sweep's 0.5 is the default's


@pytest.mark.slow
def test_a_second_run_builds_no_view(artifacts: TABLES, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", 0)  # else what was just written is hashed again
    named = artifacts()
    first = snapshot(named)
    monkeypatch.setattr(ViewGraph, "view", lambda *_: pytest.fail("a view was built"))
    again = snapshot(named)
    assert again.fit_set(0).keys == first.fit_set(0).keys
    assert again.manifest == first.manifest


def rewrite(named: dict[str, str], key: str) -> None:
    """Write other rows under the name of an artifact."""
    table = pq.read_table(named[key])
    pq.write_table(table.slice(2), named[key])


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["data.tiles", "data.embeddings", "slides"])
def test_what_a_store_remembers_is_not_called_by_other_files_digest(
    changed: str, artifacts: TABLES, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A notebook looks, the artifact is replaced, and every answer of that store is refused.

    Nothing is remembered of the others, though they have lain still for long.
    """
    monkeypatch.setattr(digests, "SETTLED", 0)
    named = artifacts() | {"slides": slides(tmp_path)}
    store = FeatureStore(spec(named))
    store.sql("select * from slides")
    rewrite(named, changed)
    answers = [
        lambda: materialise(store), store.funnel, store.label_distribution, store.sources.digests,
        lambda: store["fates"], lambda: store.sql("select 1"),
    ]  # fmt: skip
    for answer in answers:
        with pytest.raises(ArtifactError, match="changed since this store first read"):
            answer()
    assert not Path(".featurestore").exists()
    manifest = snapshot(named, allow_missing=1.0).manifest
    assert manifest["cohorts"]["tiles"]["rows"] == 12 - 2 * ("tiles" in changed)


@pytest.mark.slow
def test_a_store_is_not_exported_with_slides_of_another_time(artifacts: TABLES, tmp_path: Path):
    named = artifacts() | {"slides": slides(tmp_path)}
    store = FeatureStore(spec(named))
    made = materialise(store)
    rewrite(named, "slides")
    with pytest.raises(ArtifactError, match="slides were changed since this store first read"):
        export(store, made, "out")
    assert not Path("out").exists()


@pytest.mark.parametrize("changed", ["data.tiles", "data.embeddings"])
def test_what_a_store_remembers_is_not_predicted_of_other_files(changed: str, artifacts: TABLES):
    named = artifacts()
    store = FeatureStore(spec(named, predict_tiles=named["data.tiles"], tiles=None))
    assert len(cohort_of(store, "checkpoint")) == 12
    rewrite(named, changed)
    with pytest.raises(ArtifactError, match="were changed since this store first read"):
        cohort_of(store, "checkpoint")


def test_a_link_that_is_led_elsewhere_is_another_artifact(artifacts: TABLES, tmp_path: Path):
    named = artifacts()
    shutil.copytree(tmp_path / "in", tmp_path / "other")
    Path("now").symlink_to(tmp_path / "in")
    store = FeatureStore(spec(named, tiles="now/tiles.parquet"))
    store.funnel()
    Path("now").unlink()
    Path("now").symlink_to(tmp_path / "other")
    with pytest.raises(ArtifactError, match="tiles were changed since this store first read"):
        materialise(store)


@pytest.mark.slow
def test_a_store_reads_what_it_opened_wherever_the_process_goes(
    artifacts: TABLES, tmp_path: Path, monkeypatch
):
    """Relative URIs are those of the folder in which the artifacts were opened."""
    named = artifacts()
    expected = snapshot(named).digest
    other = tmp_path / "other" / "in"
    other.mkdir(parents=True)
    for name in ("tiles.parquet", "embeddings.parquet"):
        pq.write_table(pq.read_table(tmp_path / "in" / name).slice(2), other / name)
    relative = {"tiles": "in/tiles.parquet", "embeddings": "in/embeddings.parquet"}
    store = FeatureStore(StoreSpec(**RULES, **relative))
    store.funnel()
    monkeypatch.chdir(tmp_path / "other")
    made = materialise(store)
    assert (made.digest, made.manifest["cohorts"]["tiles"]["rows"]) == (expected, 12)


@pytest.mark.parametrize("key", [None, "embeddings", "slides"])
def test_a_store_without_tiles_makes_no_snapshot(key: str | None, artifacts: TABLES):
    named = {key: artifacts()["data.embeddings"]} if key else {}
    with pytest.raises(ArtifactError, match=r"neither data.tiles nor data.test_tiles is set"):
        snapshot(named)
    assert not Path(".featurestore").exists()


def test_test_tiles_alone_are_made_and_listed(artifacts: TABLES, capsys):
    named = artifacts()
    Path("config.yaml").write_text(
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
        f"data: {{test_tiles: {named['data.tiles']}, embeddings: {named['data.embeddings']}}}\n"
    )
    assert cli.main(["--config", "config.yaml", "materialise"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("test tiles")
    assert "100.0%" in output
    assert [(row["kept"], row["dim"]) for row in listing().to_pylist()] == [(12, 3)]
    assert cli.main(["snapshots"]) == 0
    assert "12 of 12" in capsys.readouterr().out


@pytest.mark.slow
def test_warnings_are_repeated_when_a_snapshot_is_found(artifacts: TABLES):
    named = artifacts({"label": ["wrong"] * 12})
    for _ in range(2):
        with pytest.warns(FeatureStoreWarning, match="bring columns that the views make: label"):
            snapshot(named)


def test_manifest_tells_inputs_rules_funnel_and_labels(artifacts: TABLES):
    made = snapshot(artifacts())
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert len(manifest["digest"]) == len(manifest["inputs"]["tiles"]) == 64
    assert manifest["rules"]["thresholds"] == {"Fat": 0.5, "Muscle": 0.5}
    assert manifest["cohorts"]["tiles"]["funnel"][-1] == {"step": 7, "reason": "kept", "tiles": 12}
    assert {"fold": 0, "label": "Fat", "tiles": 3, "slides": 2} in manifest["labels"]


COHORT = SyntheticConfig(rows=3000, dim=64, slides=12, patients=9)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_synthetic(folder, COHORT, block=256)
    return folder


MATERIALISE = """
import sys
from featurestore import FeatureStore, StoreSpec
from featurestore.examples import TISSUES, uris
from featurestore.snapshots.build import materialise
spec = StoreSpec(**uris(sys.argv[1]), thresholds=dict.fromkeys(TISSUES, 0.0),
                 class_indices={name: n for n, name in enumerate(TISSUES)})
import sklearn.model_selection
print("ready", flush=True)
print(materialise(FeatureStore(spec)).digest)
"""


def write(cohort: Path, folder: Path, pipe: Connection) -> None:
    """Materialise in a process of its own; say when the work begins, and what came out."""
    os.chdir(folder)
    rules = {"class_indices": {name: n for n, name in enumerate(TISSUES)},
             "thresholds": dict.fromkeys(TISSUES, 0.0)}  # fmt: skip
    pipe.send("ready")
    pipe.send(materialise(FeatureStore(StoreSpec(**uris(cohort), **rules))).digest)


def start(cohort: Path, folder: Path) -> tuple[BaseProcess, Connection]:
    """Start a writer as a copy of a process that has imported the libraries but opened nothing."""
    ours, theirs = fork_server().Pipe(duplex=False)
    writer = fork_server().Process(target=write, args=(cohort, folder, theirs))
    writer.start()
    theirs.close()
    assert ours.recv() == "ready"
    return writer, ours


def is_complete(folder: Path) -> bool:
    """Return whether a snapshot holds all that the manifest promises."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return all(
        len(pq.read_table(folder / f"{name.removesuffix('tiles')}fates.parquet")) == part["rows"]
        for name, part in manifest["cohorts"].items()
    )


@pytest.mark.slow
def test_killed_at_any_moment_a_reader_sees_the_whole_or_none(cohort: Path, tmp_path: Path):
    """Twenty writers are killed at twenty moments of their work; the last one is let be."""
    start(cohort, tmp_path)[0].join()  # the first waits for the server
    shutil.rmtree(tmp_path / ".featurestore")
    _, pipe = start(cohort, tmp_path)
    before = time.perf_counter()
    digest = pipe.recv()
    took = time.perf_counter() - before
    shutil.rmtree(tmp_path / ".featurestore")
    moments = random.Random(0)
    cut = 0
    for number in range(20):
        if number % 4 == 0:  # so that early steps are killed as well as late ones
            shutil.rmtree(tmp_path / ".featurestore", ignore_errors=True)
        writer, _ = start(cohort, tmp_path)
        time.sleep(moments.uniform(0, took))
        writer.kill()
        writer.join()
        cut += writer.exitcode == -signal.SIGKILL
        if writer.exitcode == 0:  # it was measured in a busier moment
            took *= 0.7
        seen = (tmp_path / ".featurestore/snapshots").glob("[!.]*")
        assert all(is_complete(folder) for folder in seen if folder.is_dir())
        assert not [name for name in parts_folder.names() if damage(Part.read(name))]
    assert cut >= 10  # most of them were killed, not done
    assert start(cohort, tmp_path)[1].recv() == digest
    assert is_complete(cache.place("snapshots", digest))
    assert not list((tmp_path / ".featurestore").rglob(".building-*"))


@pytest.mark.slow
def test_two_writers_at_once_both_succeed_and_leave_one(cohort: Path, tmp_path: Path):
    writers = [start(cohort, tmp_path) for _ in range(2)]
    first, second = (pipe.recv() for _, pipe in writers)
    assert first == second
    assert len(cache.names("snapshots")) == 1
    assert len(parts_folder.names()) == len(list((cohort / "embeddings").iterdir()))


@pytest.mark.slow
def test_a_disk_that_is_full_in_the_middle_is_one_error_and_leaves_nothing(cohort: Path):
    """A limit on the size of files stands in for the disk: the system refuses to write more."""
    done = subprocess.run(
        [sys.executable, "-c", MATERIALISE, str(cohort)], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )  # fmt: skip
    assert done.returncode == 1  # a script that does not catch our errors
    assert "could not be written" in done.stderr.splitlines()[-3]
    assert "File too large" in done.stderr.splitlines()[-2]
    assert not Path(".featurestore").exists()


# -- the guard ----------------------------------------------------------------------------------


def counts_of(made: Snapshot) -> dict[str, int]:
    return {finding.check: finding.count for finding in made.findings if finding.count}


ALTERNATING = {"fold": [n % 2 for n in range(12)]}


def test_sound_folds_leave_nothing_to_find(artifacts: TABLES, tmp_path: Path):
    made = snapshot(artifacts(), slides=slides(tmp_path), kfold_strategy="stratified_group")
    assert counts_of(made) == {}
    assert len(made.findings) == 3
    assert made.shared(0) == {"slide_id": 0}


@pytest.mark.slow
def test_divided_slides_are_counted_or_refused(artifacts: TABLES, tmp_path: Path):
    named = artifacts(ALTERNATING)
    made = snapshot(named)
    assert counts_of(made) == {"values of slide_id in several folds": 4}
    assert made.shared(0) == {"slide_id": 4}
    with pytest.raises(LeakageError, match="4; the first: slide_id s0"):
        snapshot(named, kfold_strategy="stratified_group")
    allowed = snapshot(named, kfold_strategy="stratified_group", leakage="warn")
    assert counts_of(allowed) == {"values of slide_id in several folds": 4}


@pytest.mark.slow
def test_a_leak_through_a_patient_is_refused_though_slides_are_whole(artifacts: TABLES):
    named = artifacts({"patient_id": [f"p{(n // 3) % 2}" for n in range(12)]})
    by_slide = {"kfold_strategy": "stratified_group"}
    assert counts_of(snapshot(named, **by_slide)) == {"values of patient_id in several folds": 2}
    with pytest.raises(LeakageError, match="2; the first: patient_id p0"):
        snapshot(named, **by_slide, kfold_group="patient_id")


def test_tiles_of_no_patient_are_not_one_patient(artifacts: TABLES):
    made = snapshot(artifacts({"patient_id": [None, *["p"] * 4, *[None] * 7]}))
    assert counts_of(made) == {}
    assert made.shared(0) == {"slide_id": 0}


def test_a_slide_that_folds_over_patients_divide_is_refused(artifacts: TABLES):
    """Of slide s1, half the tiles have another patient: each patient is in one fold."""
    named = artifacts({"patient_id": [f"p{n // 4}" for n in range(12)],
                       "fold": [int(n >= 4) for n in range(12)]})  # fmt: skip
    by_patient = {"kfold_strategy": "stratified_group", "kfold_group": "patient_id"}
    with pytest.raises(LeakageError, match="values of slide_id in several folds") as refusal:
        snapshot(named, **by_patient)
    assert "1; the first: slide_id s1" in str(refusal.value)
    assert not Path(".featurestore").exists()


def test_overlapping_tiles_are_found_by_their_grid(artifacts: TABLES):
    """A row of tiles 10 wide, but for one that lies between two of another fold."""
    named = artifacts({"slide_id": ["s0"] * 12, "x": [*range(0, 110, 10), 44],
                       "fold": [0] * 5 + [1] * 7},
                      {"x": [*range(0, 110, 10), 44]})  # fmt: skip
    finding = next(f for f in snapshot(named).findings if f.check.startswith("overlapping"))
    assert (finding.count, finding.is_error) == (1, False)
    assert finding.first == ("slide_id s0, x 40, y 0, fold 0, other_x 44, other_y 0, other_fold 1")


def test_it_is_said_where_the_size_of_tiles_cannot_be_told(artifacts: TABLES):
    """No two tiles of a slide are in one row or column."""
    named = artifacts({"y": list(range(12)), **ALTERNATING}, {"y": list(range(12))})
    with pytest.warns(FeatureStoreWarning, match="4 slides are divided by the folds, and how"):
        snapshot(named)


@pytest.mark.slow
def test_overlapping_tiles_across_folds_are_found(artifacts: TABLES, tmp_path: Path):
    """Tiles lie one apart; they are one wide, then one and a half."""
    named = artifacts(ALTERNATING)
    key = "overlapping tiles of one slide in different folds"
    assert key not in counts_of(snapshot(named, slides=slides(tmp_path)))
    wide = slides(tmp_path, tile_extent_x=[2, 1, 1, 1])
    assert counts_of(snapshot(named, slides=wide))[key] == 2  # 0-1 and 1-2, of one slide alone


@pytest.mark.slow
def test_slides_of_the_test_set_among_the_training_tiles(artifacts: TABLES, tmp_path: Path):
    named = artifacts()
    table = pq.read_table(named["data.tiles"]).drop_columns(["fold"])
    shared = table.filter(pa.array([n in (0, 5) for n in range(12)]))
    pq.write_table(shared, tmp_path / "test.parquet")
    made = snapshot(named, test_tiles=str(tmp_path / "test.parquet"))
    assert counts_of(made) == {
        "values of slide_id among both training and test tiles": 2,
        "tiles with the embedding of a tile in another fold or in the test set": 4,
    }
    with pytest.raises(LeakageError, match="both training and test tiles"):
        snapshot(named, test_tiles=str(tmp_path / "test.parquet"),
                 kfold_strategy="stratified_group")  # fmt: skip


def test_one_embedding_under_two_keys_across_the_folds(artifacts: TABLES):
    """Tiles 0 and 1 of fold 0 share one too, which leaks nothing."""
    vectors = [[float(n), 1.0, 2.0] for n in range(12)]
    vectors[1] = vectors[0]
    vectors[11] = vectors[3]
    made = snapshot(artifacts(None, {"embedding": vectors}))
    finding = made.findings[-1]
    assert (finding.count, finding.is_error) == (2, False)
    assert "slide_id s1, x 3, y 0, side 0; slide_id s3, x 11, y 0, side 1" in finding.first


def test_different_embeddings_of_one_cell_are_no_leak(artifacts: TABLES, monkeypatch):
    monkeypatch.setattr(near, "cells", lambda block, _: np.zeros((len(block), near.GRIDS), int))
    assert counts_of(snapshot(artifacts())) == {}


@pytest.mark.slow
def test_training_refuses_what_the_folds_promise_not_to_do(artifacts: TABLES, capsys):
    from test_refusals import arguments

    from train import probe

    vectors = [[float(n % 2), 1.0, float(n)] for n in range(12)]
    vectors[11] = vectors[3]
    named = artifacts(None, {"embedding": vectors})
    more = ["fold=1", "tracking.enabled=false", "kfold_strategy=stratified_group", "output=out"]
    assert probe.main(arguments(named, *more)) == 2
    assert "tiles with the embedding of a tile in another fold" in capsys.readouterr().err
    assert probe.main(arguments(named, *more, "leakage=warn")) == 0
    assert "leak: 2 tiles with the embedding" in capsys.readouterr().out


def test_test_set_without_test_tiles_is_refused(artifacts: TABLES):
    with pytest.raises(ArtifactError, match="needs the artifact test_tiles"):
        snapshot(artifacts()).test_set()


@pytest.mark.slow
def test_a_row_is_the_tiles_own_in_each_cohort(cohort: Path):
    """The last tile of each cohort carries its own embedding, read straight from Parquet."""
    from featurestore.examples import TISSUES

    rules = {"thresholds": dict.fromkeys(TISSUES, 0.0),
             "class_indices": {name: n for n, name in enumerate(TISSUES)}}  # fmt: skip
    made = materialise(FeatureStore(replace(StoreSpec(**uris(cohort)), **rules)))
    table = pq.read_table(cohort / "embeddings")
    for tiles in (made.fit_set(2), made.test_set()):
        last = tiles.keys.slice(len(tiles.keys) - 1).to_pylist()[0]
        row = next(n for n, key in enumerate(table.select(["slide_id", "x", "y"]).to_pylist())
                   if all(key[name] == last[name] for name in key))  # fmt: skip
        np.testing.assert_array_equal(
            tiles.matrix.read_rows(np.array([last["row"]]))[0],
            np.array(table["embedding"][row].as_py(), dtype=np.float32),
        )
