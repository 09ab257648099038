"""Whole cohorts predicted in a stream, a file a slide, and gone on with after a kill."""

import importlib
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, environment_with, launch_ranks
from programs import Program

from train import compare, probe
from train.inference.writer import PredictionWriter
from train.models import checkpoint
from train.models.checkpoint import ModelSpec, TrainedModel
from train.predictions import files, partitions

PROBE = str(ROOT / "train" / "probe.py")
NAMES = ["a b", "c/d", "e'\";--", "Öl=%20", "001", "f*?[g]", "..", "#&+"]
# What readers of folder names take for a number, for nothing, or for each other on some disks.
ALIKE = ["1", "01", "001", "A", "a", "__HIVE_DEFAULT_PARTITION__", "null", "n" * 300,
         "n" * 299 + "m", "2020-01-01", "1e3", "true", "..", "x\ty"]  # fmt: skip
DIM, TILES = 6, 40
KEY = ["slide_id", "x", "y"]
Cohort = Callable[..., list[str]]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Return a function that writes 40 tiles of each of 8 slides, and names them as arguments."""

    def write(
        normalize: str = "none", head: str = "linear", *, kind: pa.DataType | None = None,
        labels: bool = True, order: str = "sorted",
        faults: dict[int, list[float]] | None = None, names: list[str] = NAMES,
    ) -> list[str]:  # fmt: skip
        rng, rows = np.random.default_rng(0), len(names) * TILES
        number = np.arange(rows)
        keys = {"slide_id": [names[n // TILES] for n in number], "x": number % 5, "y": number // 5}
        vectors: list[list[float]] = rng.normal(size=(rows, DIM)).tolist()
        for row, vector in (faults or {}).items():
            vectors[row] = vector
        lists = pa.array(vectors, pa.list_(kind or pa.float64()))
        table = pa.table({**keys, "embedding": lists}).slice(0, rows - 3)  # three lack an embedding
        if order == "shuffled":
            table = table.take(rng.permutation(len(table)))
        Path("in").mkdir(exist_ok=True)
        for file, (first, last) in enumerate([(0, 75), (75, 76), (76, len(table))]):
            part = table.slice(first, last - first)
            pq.write_table(part, f"in/part-{file}.parquet", row_group_size=23)
        shares = {"roi_coverage_Fat": (number % 2) * 0.9, "roi_coverage_Muscle": (number + 1) % 2}
        pq.write_table(pa.table({**keys, **(shares if labels else {})}), "tiles.parquet")
        spec = ModelSpec(head, 4, normalize, DIM, ["Fat", "Muscle"], [1.0, 2.0])
        torch.manual_seed(0)
        network = spec.build()
        if normalize == "zscore":
            network.backbone.mean += 0.5
        checkpoint.save(Path("head.safetensors"), TrainedModel(network, spec))
        Path("two.yaml").write_text(
            "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
        )
        Path("own.yaml").write_text("data: {name: own}\n")
        return ["mode=predict", "data=own.yaml", "classes=two.yaml", "data.embeddings=in",
                "data.predict_tiles=tiles.parquet", "checkpoint=head.safetensors"]  # fmt: skip

    return write


QUIET = "tracking.enabled=false"


def expected() -> pa.Table:
    """Gather the embeddings of all tiles by their keys, and apply the network to them at once."""
    tiles = pq.read_table("tiles.parquet").select(KEY)
    together = pa.concat_tables(pq.read_table(file) for file in sorted(Path("in").iterdir()))
    rows = together.select(KEY).append_column("row", pa.array(np.arange(len(together))))
    joined = tiles.join(rows, KEY, join_type="inner").sort_by([(key, "ascending") for key in KEY])
    vectors = np.array(together["embedding"].to_pylist())[joined["row"].to_numpy()]
    network = checkpoint.load(Path("head.safetensors")).network
    shares = network(torch.tensor(vectors, dtype=torch.float32)).numpy()
    columns = {"prob_Fat": shares[:, 0], "prob_Muscle": shares[:, 1]}
    return pa.table({**{key: joined[key] for key in KEY}, **columns})


def same(result: pa.Table, wanted: pa.Table) -> bool:
    return all(result[key].to_pylist() == wanted[key].to_pylist() for key in KEY) and all(
        np.allclose(result[name], wanted[name], atol=1e-6) for name in ("prob_Fat", "prob_Muscle")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {},
        *(pytest.param(how, marks=pytest.mark.slow) for how in (
            {"order": "shuffled"}, {"normalize": "zscore", "kind": pa.float32()},
            {"normalize": "l2", "order": "shuffled"}, {"head": "mlp"}, {"kind": pa.float16()},
        )),
    ],
)  # fmt: skip
def test_probabilities_are_those_of_the_network_on_gathered_rows(cohort: Cohort, how: dict):
    """Slides span row groups and files, rows lie in any order, names are hostile."""
    assert probe.main([*cohort(**how), QUIET, "output=out"]) == 0
    table = partitions.read(Path("out/predictions"))
    assert table.column_names == [*KEY, "target", "pred", "predicted", "prob_Fat", "prob_Muscle"]
    assert len(table) == len(NAMES) * TILES - 3
    assert same(table, expected())
    shares = np.stack([table["prob_Fat"], table["prob_Muscle"]], axis=1)
    np.testing.assert_array_equal(table["pred"], shares.argmax(axis=1))
    names = [["Fat", "Muscle"][index] for index in table["pred"].to_pylist()]
    assert table["predicted"].to_pylist() == names
    lacking = pq.read_table("out/without_embedding.parquet").to_pylist()
    assert lacking == pq.read_table("tiles.parquet").select(KEY).to_pylist()[-3:]


@pytest.mark.slow
def test_a_mask_limits_what_is_predicted(cohort: Cohort, capsys: pytest.CaptureFixture[str]):
    """It is part of what determines predictions; those outside are neither there nor missing."""
    argv = [*cohort(), QUIET, "output=out"]
    assert probe.main([*argv, "where=slide_id in ('a b', '#&+') and x >= 3"]) == 0
    assert "2 of 32 tiles have no embedding, listed in out/without" in capsys.readouterr().out
    table = partitions.read(Path("out/predictions"))
    tiles = pq.read_table("tiles.parquet").select(KEY).to_pylist()
    asked = [row for row in tiles if row["slide_id"] in ("a b", "#&+") and row["x"] >= 3]
    assert table.select(KEY).to_pylist() == sorted(
        asked[:-2], key=lambda row: tuple(row.values())
    )  # fmt: skip
    assert probe.main([*argv, "where=x < 2", "resume=true"]) == 2
    assert "another where" in capsys.readouterr().err
    assert probe.main([*argv, "where=x > 99"]) == 2
    assert "No tiles to predict have an embedding" in capsys.readouterr().err
    assert probe.main([*argv, "where=slide_id = 'a b'"]) == 0  # what was there is replaced
    assert len(partitions.read(Path("out/predictions"))) == TILES
    assert not Path("out/without_embedding.parquet").exists()


READERS = {
    "pyarrow": lambda folder: pq.read_table(folder),
    "datasets of pyarrow": lambda folder: ds.dataset(folder).to_table(),
    "duckdb": lambda folder: duckdb.sql(f"from '{folder}/*.parquet'").to_arrow_table(),
    "pandas": lambda folder: pa.Table.from_pandas(pd.read_parquet(folder)),
    "polars": lambda folder: importlib.import_module("polars").read_parquet(
        f"{folder}/*.parquet").to_arrow(),
}  # fmt: skip
if importlib.util.find_spec("polars") is None:  # Spark: test_engines.py
    del READERS["polars"]


@pytest.mark.slow
@pytest.mark.parametrize("names", [NAMES, ALIKE], ids=["hostile", "alike"])
def test_every_reader_gets_the_very_names_of_the_slides(cohort: Cohort, names: list[str]):
    """A file a slide, whose names differ on every disk; nothing else that readers would take."""
    assert probe.main([*cohort(names=names, labels=False), QUIET, "output=out"]) == 0
    folder = Path("out/predictions")
    files = [file.name for file in folder.iterdir() if not file.name.startswith("_")]
    assert len({name.casefold() for name in files}) == len(names)
    assert all(name.isascii() and len(name) < 64 and "=" not in name for name in files)
    wanted = sorted(keys(names))
    for reader, read in READERS.items():
        table = read("out/predictions").select([*KEY, "prob_Fat"])
        assert sorted(zip(*(table[key].to_pylist() for key in KEY), strict=True)) == wanted, reader
    ours = partitions.read(folder)
    assert ours.equals(pq.read_table(folder).sort_by([(key, "ascending") for key in KEY]))


def test_no_two_slides_have_one_file_on_any_disk():
    """Case, Unicode's forms, length, and names that say nothing in ASCII."""
    names = [
        "a",
        "A",
        "\u00e9",
        "e\u0301",
        "n" * 300,
        "n" * 299 + "m",
        "..",
        ".",
        "",
        "病理",
        "CON",
    ]
    files = [partitions.file_name(name) for name in names]
    assert len({file.casefold() for file in files}) == len(names)
    assert all(file[0].isalnum() and file.isascii() and len(file) < 64 for file in files)


def keys(names: list[str]) -> list[tuple[str, int, int]]:
    """Return the keys of the tiles that have embeddings."""
    return [(names[n // TILES], n % 5, n // 5) for n in range(len(names) * TILES - 3)]


@pytest.mark.parametrize("name", ["001", "__HIVE_DEFAULT_PARTITION__"])
def test_predictions_in_folders_of_hive_are_read_as_they_were_meant(name: str):
    """Those written before slides' names stood in the files; a name is text."""
    shares = pa.table({"x": [1], "y": [2], "pred": [0], "prob_Fat": [0.75]})
    for slide in (name, "c%2Fd"):
        folder = Path("id=7/predictions") / f"slide_id={slide}"
        folder.mkdir(parents=True)
        pq.write_table(shares, folder / "tiles.parquet")
    [table] = files.all_predictions("id=7/predictions", None)
    assert table["slide_id"].to_pylist() == sorted([name, "c/d"])
    assert table.column_names == ["x", "y", "pred", "prob_Fat", "slide_id"]


@pytest.mark.slow
def test_labels_are_there_or_not(cohort: Cohort, capsys: pytest.CaptureFixture[str]):
    """With a label of every tile the predictions are judged as well."""
    assert probe.main([*cohort(labels=False), QUIET, "output=bare", "abstain_below=0.6"]) == 0
    assert partitions.read(Path("bare/predictions"))["target"].null_count == 317
    assert "not all have labels" in capsys.readouterr().out
    review = pq.read_table("bare/review.parquet")
    assert 0 < len(review) < 317
    assert review["confidence"].to_numpy().max() < 0.6

    assert probe.main([*cohort(), QUIET, "output=out"]) == 0
    table = partitions.read(Path("out/predictions"))
    right = np.mean(table["target"].to_numpy() == table["pred"].to_numpy())
    assert f"{right:.4f}" in capsys.readouterr().out
    assert Path("out/confusion.png").exists()


@pytest.mark.slow
def test_faulty_embeddings_spoil_their_slides_alone(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
):
    """Infinite, of another length, NaN; a fault of a tile that nobody asks for does not count."""
    faults = {3: [1.0] * 5 + [float("inf")], 90: [1.0], 95: [float("nan")] * DIM}
    argv = [*cohort(faults=faults), QUIET, "output=out"]
    assert probe.main(argv) == 2
    error = capsys.readouterr().err
    for words in ("not all of one length (6", "1 of 317 rows", "slide_id='e\\'\"", "length 1"):
        assert words in error
    table = partitions.read(Path("out/predictions"))
    assert set(table["slide_id"].to_pylist()) == set(NAMES) - {"a b", "e'\";--"}
    tiles = pq.read_table("tiles.parquet")
    some = tiles.filter(pa.compute.is_in(tiles["slide_id"], pa.array(["a b", "..", "c/d"])))
    pq.write_table(some, "tiles.parquet")
    assert probe.main(argv) == 2
    assert "NaN, null or infinite" in (error := capsys.readouterr().err)
    assert "1 of 120 rows" in error
    pq.write_table(some.slice(TILES), "tiles.parquet")
    assert probe.main(argv) == 0
    assert len(partitions.read(Path("out/predictions"))) == 80  # what was there is replaced


def occupy() -> None:
    Path("out/predictions").mkdir(parents=True)
    Path("out/predictions/thesis.txt").write_text("all of it")


def move(tiles: pa.Table) -> None:
    pq.write_table(tiles.set_column(1, "x", pa.array(np.arange(len(tiles)) + 99)), "tiles.parquet")


def elsewhere(tiles: pa.Table) -> pa.Table:
    """Return two tiles as those of a slide that was not embedded."""
    two = tiles.slice(0, 2)
    return two.set_column(0, "slide_id", pa.array(["s-new"] * 2, two.schema.field(0).type))


REFUSED: dict[str, tuple[Callable[[pa.Table], object], list[str]]] = {
    "other classes": (
        lambda _: Path("two.yaml").write_text("class_indices: {Fat: 1, Muscle: 0}\n"),
        ["trained on other classes"],
    ),
    "empty join": (move, ["the join is empty"]),
    "a slide without embeddings": (
        lambda tiles: pq.write_table(pa.concat_tables([tiles, elsewhere(tiles)]), "tiles.parquet"),
        ["1 of ", "slides lack embeddings of their tiles to predict", "'s-new'"],
    ),
    "occupied": (lambda _: occupy(), ["is no folder of predictions", "thesis.txt"]),
    "duplicates": (
        lambda tiles: pq.write_table(pa.concat_tables([tiles, tiles]), "tiles.parquet"),
        ["more than once"],
    ),
    "dimension": (
        lambda _: checkpoint.save(Path("head.safetensors"), TrainedModel((
            seven := ModelSpec("linear", 4, "none", 7, ["Fat", "Muscle"], [1.0, 2.0])
        ).build(), seven)),
        ["embeddings of another length", "7 in the checkpoint, 6 in the embeddings"],
    ),
    "nothing to resume": (lambda _: None, ["nothing to resume", "out/predictions"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_written(
    cohort: Cohort, name: str, capsys: pytest.CaptureFixture[str]
):
    argv = [
        *cohort(),
        QUIET,
        "output=out",
        *(["resume=true"] if name.startswith("nothing") else []),
    ]
    change, words = REFUSED[name]
    change(pq.read_table("tiles.parquet"))
    before = sorted(Path().rglob("*"))
    assert probe.main(argv) == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error
    assert sorted(Path().rglob("*")) == before


class KilledError(Exception):
    """Stands for the end of a process."""


def killed_after(slides: int, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the script in this process until some slides are written."""
    write, done = PredictionWriter._write, []

    def counted(self: PredictionWriter, slide: int, table: pa.Table) -> None:
        if len(done) < slides:  # else it is dead, whatever its threads still wanted to do
            write(self, slide, table)
            done.append(slide)
        if len(done) == slides:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(PredictionWriter, "_write", counted)
        with pytest.raises(KilledError):
            probe.main(argv)


@pytest.mark.slow
@pytest.mark.parametrize("output", [["output=out"], []])
def test_what_is_whole_is_not_read_again(
    cohort: Cohort, output: list[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    """In the same MLflow run; without an output, the predictions are in MLflow alone at the end."""
    argv = [
        *cohort(),
        *output,
        f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}",
        "threads=1",
    ]
    killed_after(3, argv, monkeypatch)
    (folder,) = {file.parent for file in tmp_path.rglob("predictions/*.parquet")} or {
        file.parent for file in tmp_path.rglob(".featurestore/fits/*/*.parquet")
    }
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*.parquet")}
    assert len(times) == 3
    part = folder / (partitions.file_name("x") + partitions.UNFINISHED)  # a killed writer's
    part.write_bytes(b"PAR1")
    capsys.readouterr()
    assert probe.main([*argv, "resume=true"]) == 0
    printed = capsys.readouterr().out
    assert "197 tiles of 5 slides" in printed
    assert "3 slides were there" in printed
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("tissue-probe").experiment_id])
    assert run.info.status == "FINISHED"
    tags = {tag.key for item in run.inputs.dataset_inputs for tag in item.tags}
    assert {"sha256", "stamp"} <= tags  # the embeddings are not read a second time
    [table] = files.all_predictions(run.info.run_id, None)
    assert same(table.sort_by([(key, "ascending") for key in KEY]), expected())
    logged = [item.path for item in client.list_artifacts(run.info.run_id)]
    assert "predictions" in logged
    if output:
        assert all(file.stat().st_mtime_ns == time for file, time in times.items())
        assert not part.exists()
        assert probe.main([*argv, "resume=auto"]) == 0
        assert "0 tiles of 0 slides" in capsys.readouterr().out
        assert probe.main(argv) == 0
        assert f"predictions of run {run.info.run_id} are replaced" in capsys.readouterr().out
    else:
        assert not folder.exists()
        assert probe.main([*argv, "resume=true"]) == 2
        assert "nothing to resume" in capsys.readouterr().err


@pytest.mark.slow
def test_predictions_of_something_else_are_not_gone_on_with(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
):
    argv = [*cohort(), QUIET, "output=out"]
    assert probe.main(argv) == 0
    before = partitions.read(Path("out/predictions"))
    os.utime("in/part-0.parquet")
    cohort(normalize="l2")
    for resume in ("true", "auto"):
        assert probe.main([*argv, f"resume={resume}"]) == 2
        error = capsys.readouterr().err
        assert "made of something else" in error
        assert "another checkpoint, embeddings" in error
    assert partitions.read(Path("out/predictions")).equals(before)


@pytest.mark.slow
def test_a_cut_partition_is_written_again(cohort: Cohort):
    argv = [*cohort(), QUIET, "output=out"]
    assert probe.main(argv) == 0
    folder = Path("out/predictions")
    file = folder / partitions.file_name("001")
    pq.write_table(pq.read_table(file).slice(5), file)
    (folder / partitions.file_name("..")).write_bytes(b"PAR1")
    assert probe.main([*argv, "resume=true"]) == 0
    assert same(partitions.read(Path("out/predictions")), expected())


@pytest.mark.slow
def test_folders_of_predictions_are_compared(cohort: Cohort, capsys: pytest.CaptureFixture[str]):
    assert probe.main([*cohort(), QUIET, "output=one"]) == 0
    assert probe.main([*cohort(normalize="l2"), QUIET, "output=two"]) == 0
    assert compare.main(["one/predictions", "two/predictions"]) == 0
    assert "317 tiles" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_two_ranks_write_what_one_process_writes(cohort: Cohort, order: str, tmp_path: Path):
    """Bit for bit, slides that span ranks too; faults of both are counted together."""
    bad = [float("nan")] * DIM
    argv = [*cohort(order=order, faults={3: bad, 310: bad} if order == "sorted" else None), QUIET]
    assert probe.main([*argv, "output=one"]) == (2 if order == "sorted" else 0)
    done = launch_ranks(2, [PROBE, *argv, "output=two"], tmp_path)
    counts = done.stderr.count("2 of 317 rows"), done.stdout.count("317 tiles of 8 slides")
    assert counts == ((1, 0) if order == "sorted" else (0, 1)), done.stderr
    ours, theirs = (partitions.read(Path(f"{name}/predictions")) for name in ("one", "two"))
    assert len(ours) == (240 if order == "sorted" else 317)
    assert ours.equals(theirs)


@pytest.mark.slow
def test_a_killed_process_leaves_whole_slides(cohort: Cohort, tmp_path: Path):
    """SIGKILL while partitions are written; then the same as without."""
    rng, slides, tiles = np.random.default_rng(0), 400, 50
    argv = [*cohort(), QUIET]
    number = np.arange(slides * tiles)
    keys = {"slide_id": [f"s{n // tiles:03d}" for n in number], "x": number, "y": number}
    pq.write_table(pa.table(keys), "tiles.parquet")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=len(number) * DIM)), DIM)
    for file in Path("in").iterdir():
        file.unlink()
    pq.write_table(pa.table({**keys, "embedding": vectors}), "in/a.parquet", row_group_size=50)
    process = Program([PROBE, *argv, "output=out"], tmp_path, environment_with({}))
    while len(written_files := list(Path("out/predictions").rglob("*.parquet"))) < 20:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.001)
    process.kill()
    process.communicate()
    times = {file: file.stat().st_mtime_ns for file in written_files}
    assert probe.main([*argv, "output=out", "resume=true"]) == 0
    assert probe.main([*argv, "output=whole"]) == 0
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    files = [sorted(Path(name).rglob("*.parquet")) for name in ("out", "whole")]
    assert [len(some) for some in files] == [slides, slides]
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()
