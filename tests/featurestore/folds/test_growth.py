"""Cohorts that grow: assignments found, extended, kept on this machine and in MLflow."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore, StoreSpec
from featurestore.console import cli
from featurestore.errors import ArtifactError, ConfigError, FoldError
from featurestore.folds import artifact
from featurestore.folds.assign import Folds
from featurestore.folds.assignment import Assignment
from featurestore.graph import ViewGraph
from featurestore.io import cache, digests
from featurestore.io.mlflow_artifacts import use_tracking
from featurestore.snapshots.build import materialise

CLASSES = {"class_indices": {"Fat": 1, "Muscle": 0}, "thresholds": {"Fat": 0.5, "Muscle": 0.5}}
SLIDES = range(10)


def cohort(
    name: str, slides: Iterable[int], patients: dict[int, int] | None = None, **rules: Any
) -> StoreSpec:
    """Write slides of unlike mixes, as data would; return the store of them, over three folds."""
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    keys = [(slide, x) for slide in slides for x in range(4 + slide % 3)]
    columns = {
        "slide_id": [f"s{slide:02d}" for slide, _ in keys],
        "x": [x for _, x in keys],
        "y": [0] * len(keys),
    }
    fat = [0.9 if x < 2 or (x + slide) % 3 == 0 else 0.0 for slide, x in keys]
    tiles = columns | {
        "patient_id": [f"p{(patients or {}).get(slide, slide)}" for slide, _ in keys],
        "roi_coverage_Fat": fat,
        "roi_coverage_Muscle": [0.0 if share else 0.8 for share in fat],
    }
    pq.write_table(pa.table(tiles), folder / "tiles.parquet")
    vectors = columns | {"embedding": [[float(slide), float(x), 1.0] for slide, x in keys]}
    pq.write_table(pa.table(vectors), folder / "embeddings.parquet")
    places = {key: str(folder / f"{key}.parquet") for key in ("tiles", "embeddings")}
    grouped = {"kfold_strategy": "stratified_group", "k": 3}
    return StoreSpec(**{**CLASSES, **places, **grouped, **rules})


def kept(spec: StoreSpec, remember: bool = False) -> Assignment:
    """Return the assignment of a store, which is kept on this machine."""
    made = FeatureStore(spec, remember=remember).assignment
    assert made is not None
    artifact.keep(made)
    return made


def folds(assignment: Assignment) -> dict[str, int]:
    rows = assignment.present
    return dict(zip(rows["slide_id"].to_pylist(), rows["fold"].to_pylist(), strict=True))


def lineage(assignment: Assignment) -> tuple[str, int, int, int]:
    origin = assignment.origin
    return origin.why, origin.known, origin.new, origin.gone


def entries() -> list[str]:
    return sorted(cache.names(artifact.NAME))


@pytest.mark.slow
def test_slides_that_join_move_nobody():
    before = kept(cohort("a", SLIDES))
    after = kept(cohort("b", range(13)))
    assert folds(before).items() <= folds(after).items()
    assert after.present.column_names == ["slide_id", "fold"]
    assert lineage(before) == ("first", 0, 10, 0)
    assert lineage(after) == ("extends", 10, 3, 0)
    assert after.origin.extends == before.origin.digest
    assert kept(cohort("a", SLIDES)).origin == before.origin


@pytest.mark.slow
def test_a_slide_that_leaves_is_remembered_for_its_return():
    before = kept(cohort("a", SLIDES))
    fewer = kept(cohort("b", range(2, 12)))
    assert lineage(fewer) == ("extends", 8, 2, 2)
    again = kept(cohort("c", range(13)))
    assert again.origin.extends == fewer.origin.digest
    assert {**folds(before), **folds(fewer)}.items() <= folds(again).items()


@pytest.mark.slow
def test_who_leaves_is_remembered_though_the_column_becomes_numbers():
    """Patients were p0 to p9; as numbers, 0 to 7 have the folds of their slides."""
    first = kept(cohort("first", SLIDES, kfold_group="patient_id"))
    names = entries()
    spec = cohort("second", range(8), kfold_group="patient_id")
    tiles = pq.read_table(spec.tiles)
    number = pa.array([int(name[1:]) for name in tiles["patient_id"].to_pylist()])
    pq.write_table(tiles.set_column(3, "patient_id", number), spec.tiles)
    second = kept(spec)
    assert folds(second).items() <= folds(first).items()
    assert second.origin.gone == len(SLIDES)
    fates = FeatureStore(spec).view("fates")
    assert fates.fold.notnull().all().to_pyarrow().as_py()
    for name in names:
        cache.remove(cache.place(artifact.NAME, name))
    assert folds(kept(cohort("third", SLIDES, kfold_group="patient_id"))) == folds(first)


@pytest.mark.slow
def test_the_assignment_that_knows_the_most_is_extended_of_equal_ones_the_latest():
    small, large = kept(cohort("a", range(7))), kept(cohort("b", range(20, 32)))
    assert lineage(large)[0] == "first"
    assert kept(cohort("c", [*range(6), 20, 21])).origin.extends == small.origin.digest
    first = folds(kept(cohort("d", range(40, 50))))
    latest = kept(replace(cohort("e", range(40, 51)), folds="new"))
    assert folds(latest) != first
    grown = kept(cohort("f", range(40, 53)))
    assert grown.origin.extends == latest.origin.digest


def test_under_other_rules_nothing_is_extended():
    kept(cohort("a", SLIDES))
    assert lineage(kept(cohort("b", range(13), seed=1)))[0] == "first"


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["greedy", "optimal"])
def test_folds_stay_even_as_slides_join(balance: str):
    """Slide by slide, three times as many in the end; no fold has half as much again of a class."""
    for last in range(10, 31, 4):
        made = kept(cohort("a", range(last), balance=balance))
    store = FeatureStore(cohort("a", range(30), balance=balance))
    assert lineage(made)[:2] == ("extends", 26)
    assert made.imbalance[balance] < 0.2
    for label in ("Fat", "Muscle"):
        rows = store.label_distribution().to_pylist()
        tiles = [row["tiles"] for row in rows if row["label"] == label]
        assert max(tiles) < 1.5 * sum(tiles) / 3


@pytest.mark.slow
def test_folds_made_anew_on_demand_are_the_current_ones():
    kept(cohort("a", SLIDES))
    spec = cohort("b", range(13))
    extended = kept(spec)
    fresh = kept(replace(spec, folds="new"))
    assert lineage(fresh) == ("new, as asked for", 0, 13, 0)
    assert folds(fresh) != folds(extended)
    assert kept(spec).origin == fresh.origin
    before = entries()
    assert kept(replace(spec, folds="new")).origin == fresh.origin  # which are new already
    assert entries() == before
    shutil.rmtree(".featurestore")
    assert folds(kept(spec)) == folds(fresh)  # what scikit-learn assigns


@pytest.mark.slow
def test_patients_that_become_one_are_refused_and_nothing_is_left(capsys):
    patients = {slide: slide // 2 for slide in SLIDES}
    before = kept(cohort("a", SLIDES, patients, kfold_group="patient_id"))
    assert before.present.column_names == ["patient_id", "slide_id", "fold"]
    fold_of = folds(before)
    other = next(slide for slide in SLIDES if fold_of[f"s{slide:02d}"] != fold_of["s00"])
    merged = cohort("b", range(12), {**patients, other: 0}, kfold_group="patient_id")
    with pytest.raises(FoldError, match="patient_id p0: "):
        materialise(FeatureStore(merged))
    names = ("tiles", "embeddings")
    config = {key: value for key, value in vars(merged).items() if key in vars(StoreSpec()) and
              value not in (None, {}) and key not in names}  # fmt: skip
    config["data"] = {name: getattr(merged, name) for name in names}
    Path("config.yaml").write_text(json.dumps(config))
    assert cli.main(["--config", "config.yaml", "materialise"]) == 2
    assert "folds=new" in capsys.readouterr().err
    assert {file.parent.name for file in Path(".featurestore").glob("*/[!.]*")} == {"folds"}
    assert entries() == [before.origin.name[:16]]
    Path("config.yaml").write_text(json.dumps(config | {"folds": "new"}))
    assert cli.main(["--config", "config.yaml", "materialise"]) == 0
    assert "folds: new, as asked for, " in capsys.readouterr().out


@pytest.mark.slow
def test_a_snapshot_is_named_by_folds_not_by_their_history():
    kept(cohort("a", SLIDES))
    spec = cohort("b", range(13))
    made = materialise(FeatureStore(spec))
    grown = FeatureStore(spec).assignment
    rows = grown.present
    said = json.loads((made.folder / "manifest.json").read_text())["assignment"]
    assert (said["why"], said["known"], said["new"], said["gone"]) == ("extends", 10, 3, 0)
    made.entry.lock.close()
    shutil.rmtree(".featurestore")
    origin = replace(grown.origin, made="2001-01-01 00:00:00.000000", extends="0" * 64)
    scratch = Assignment.of(Folds(rows, grown.rare, 0, 13), None, origin)
    artifact.keep(scratch)
    again = materialise(FeatureStore(spec))
    assert again.digest == made.digest
    assert again.manifest["assignment"]["extends"] == "0" * 64
    other = materialise(FeatureStore(replace(spec, folds="new")))
    assert other.digest != made.digest


@pytest.mark.slow
def test_a_second_run_asks_no_view(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(digests, "SETTLED", 0)  # else what was just written is hashed again
    spec = cohort("a", SLIDES)
    first = materialise(FeatureStore(spec))
    monkeypatch.setattr(ViewGraph, "view", lambda *_: pytest.fail("a view was built"))
    second = materialise(FeatureStore(spec))
    assert second.manifest == first.manifest
    assert second.lineage == f"as before ({first.lineage} then)"  # nothing was dealt


def test_questions_keep_no_folds():
    store = FeatureStore(cohort("a", SLIDES))
    store.funnel()
    assert store.sql("select * from assigned_folds").count().to_pyarrow().as_py() == 10
    assert not Path(".featurestore").exists()


@pytest.mark.slow
def test_growth_goes_on_on_another_machine(tmp_path: Path):
    use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    made = materialise(FeatureStore(cohort("a", SLIDES), remember=True))
    fold_of = folds(kept(cohort("a", SLIDES)))
    made.keep_folds()
    made.entry.lock.close()
    shutil.rmtree(".featurestore")
    grown = materialise(FeatureStore(cohort("b", range(13)), remember=True))
    uri = grown.keep_folds()
    tags = mlflow.get_run(uri.split("/")[1]).data.tags
    assert tags["featurestore.folds.why"] == "extends"
    assert [tags[f"featurestore.folds.{name}"] for name in ("known", "new")] == ["10", "3"]
    assert tags["featurestore.folds.extends"] == made.manifest["assignment"]["digest"]
    assert fold_of.items() <= folds(kept(cohort("b", range(13)))).items()
    assert grown.lineage.startswith(f"extends {tags['featurestore.folds.extends'][:16]}")


@pytest.mark.slow
def test_a_replay_reads_what_its_run_has_logged(tmp_path: Path):
    """Whatever is current now, and though the run has asked for folds anew."""
    use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    kept(cohort("a", SLIDES))
    spec = cohort("b", range(13))
    extended = materialise(FeatureStore(spec, remember=True))
    uri = extended.keep_folds()
    fresh = materialise(FeatureStore(replace(spec, folds="new"), remember=True))
    assert fresh.digest != extended.digest
    assert materialise(FeatureStore(spec, remember=True)).digest == fresh.digest
    for words in ("extend", "new"):
        store = FeatureStore(replace(spec, folds=words), remember=True, folds=["runs:/0/x", uri])
        assert materialise(store).digest == extended.digest


@pytest.mark.slow
def test_a_damaged_assignment_is_refused_not_made_again():
    made = kept(cohort("a", SLIDES))
    file = cache.place(artifact.NAME, made.origin.name) / artifact.FILE
    content = file.read_bytes()
    for damaged in (content[:-20], content[:4] + bytes([content[4] ^ 1]) + content[5:]):
        file.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="assignment of folds cannot be read"):
            kept(cohort("a", SLIDES))


def test_groups_are_not_hashed():
    with pytest.raises(ConfigError, match="fold_rule=hash takes tiles one by one"):
        cohort("a", SLIDES, fold_rule="hash")


@pytest.mark.slow
def test_hashed_folds_are_kept_nowhere_and_stay_as_tiles_join():
    rules = {"kfold_strategy": "stratified", "fold_rule": "hash"}

    def hashed(name: str, slides: Iterable[int]) -> dict[tuple, int]:
        made = materialise(FeatureStore(cohort(name, slides, **rules)))
        assert made.manifest["assignment"] is None
        assert not (made.folder / artifact.FILE).exists()
        rows = made.fates().to_pyarrow().to_pylist()
        return {(row["slide_id"], row["x"]): row["fold"] for row in rows}

    before, after = hashed("a", SLIDES), hashed("b", range(3, 13))
    assert {key: after[key] for key in before if key in after} == {
        key: fold for key, fold in before.items() if key in after
    }
    assert set(after.values()) == {0, 1, 2}
    assert entries() == []
