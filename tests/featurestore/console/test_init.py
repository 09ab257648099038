"""`featurestore init`: what pandas wrote becomes one file that `featurestore` and train/ read."""

import io
import subprocess
import sys
from pathlib import Path

import cohorts
import pandas as pd
import pytest
import yaml
from conftest import ROOT

from featurestore.console import cli
from featurestore.console import init as console
from featurestore.spec.store_spec import StoreSpec
from featurestore.spec.typed import Reader
from train.config.load import load

FAT, MUSCLE = cohorts.CLASSES
NAMES = ("Slide", "left", "coord_y", "uni v1")


def init(*argv: str) -> int:
    uri = f"sqlite:///{Path('mlflow.db').absolute()}"  # MLflow keeps stores by name
    return cli.main(["--tracking-uri", uri, "init", *argv])


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run what must be refused, with nothing written; return what it said."""
    before = sorted(Path().rglob("*"))
    assert init(*argv) == 2
    assert sorted(Path().rglob("*")) == before
    return capsys.readouterr().err


def test_a_cohort_is_written_down_as_both_read_it(capsys: pytest.CaptureFixture[str]):
    """Blanks, quotes, signs and umlauts of folders and classes; columns of other names."""
    folder = cohorts.write(Path("its #1 'cohort' ä"), NAMES)
    assert init(str(folder)) == 0
    said = capsys.readouterr().out
    assert "s0" in said
    assert "s99" in said
    # Named as in the file, whichever argument it was found below.
    assert init(str(folder / "kfold_tiles.parquet"), str(folder / "embeddings"), "--force") == 0
    where = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "test_tiles" not in where
    assert init(str(folder), "--force") == 0
    assert "featurestore check data=data.yaml" in said
    assert "accelerate launch train/probe.py data=data.yaml fold=0" in said
    assert sorted(path.name for path in Path().iterdir()) == ["data.yaml", folder.name]
    written = yaml.safe_load(Path("data.yaml").read_text())
    assert written["data"] == {
        "name": folder.name,
        "root": ".",
        "tiles": f"{folder}/kfold_tiles.parquet",
        "test_tiles": f"{folder}/test_tiles.parquet",
        "embeddings": f"{folder}/embeddings",
        "slides": f"{folder}/slides.parquet",
        "columns": dict(zip(("slide_id", "x", "y", "embedding"), NAMES, strict=True)),
    }
    assert written["class_indices"] == {FAT: 0, MUSCLE: 1}
    assert written["thresholds"] == {FAT: 0.5, MUSCLE: 0.5}
    assert (written["kfold_strategy"], written["kfold_group"]) == ("stratified_group", "patient_id")
    store = StoreSpec.from_yaml(Path("data.yaml").read_bytes(), "data.yaml")
    scripts = load(["data=data.yaml", "fold=0"])
    assert store.tiles == scripts.data.tiles == str(folder.absolute() / "kfold_tiles.parquet")
    assert store.thresholds == scripts.thresholds
    assert store.columns == vars(scripts.data.columns)


def test_where_things_lie_is_said_from_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """That of the file that is written, whichever argument they were found below."""
    cohorts.write(tmp_path / "c")
    rows: list[dict] = []
    monkeypatch.setattr(console, "print_table", lambda table, *_: rows.extend(table.to_pylist()))
    assert init("c/kfold_tiles.parquet", "c/embeddings", "c/slides.parquet") == 0
    names = ["c/kfold_tiles.parquet", "c/embeddings", "c/slides.parquet"]
    assert [row["where"] for row in rows] == names


@pytest.mark.slow
def test_what_was_written_is_asked_from_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Moved with its folder; arguments go before what it says."""
    cohorts.write(tmp_path / "a")
    assert init("a", "--to", "a/own.yaml", f"thresholds.{MUSCLE}=0.9", "where=x > 0") == 0
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    asked = ["data=../b/own.yaml", f"thresholds.{MUSCLE}=0.8", "where=null"]
    query = "select label, count(*) as n from fates where dropped_by is null group by label"
    capsys.readouterr()
    assert cli.main(["sql", *asked, f"{query} order by label", "--format", "csv"]) == 0
    tiles = pd.read_parquet(tmp_path / "b/kfold_tiles.parquet")
    tiles = tiles[tiles.slide_id != "s0"]  # which has no embedding
    expected = {name: int((tiles[f"roi_coverage_{name}"] >= least).sum())
                for name, least in ((FAT, 0.5), (MUSCLE, 0.8))}  # fmt: skip
    assert pd.read_csv(io.StringIO(capsys.readouterr().out)).values.tolist() == [
        list(row) for row in expected.items()
    ]


def test_what_a_file_brings_and_what_is_dropped_is_not_suggested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Folds of the tiles stand; a class that is merged or dropped has no index."""
    folder = cohorts.write(tmp_path / "c")
    tiles = pd.read_parquet(folder / "kfold_tiles.parquet").assign(fold=3, roi_coverage_Pen=0.0)
    tiles.to_parquet(folder / "kfold_tiles.parquet")
    (folder / "test_tiles.parquet").unlink()
    (tmp_path / "mine.yaml").write_text(f"thresholds: {{{FAT}: 0.25}}")
    assert init("c", "classes=mine.yaml", "drop=[Pen]", "data.slides=null") == 0
    written = yaml.safe_load(Path("data.yaml").read_text())
    assert written["class_indices"] == {FAT: 0, MUSCLE: 1}
    assert written["thresholds"] == {FAT: 0.25, MUSCLE: 0.5}
    assert written["drop"] == ["Pen"]
    assert not {"slides", "test_tiles"} & written["data"].keys()
    assert not any(key.startswith("kfold") for key in written)
    assert f"{MUSCLE} 0.5; 0.5 of {MUSCLE} is a suggestion" in capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text(f"thresholds: {{{FAT}: 0.25, {MUSCLE}: 0.5}}")
    assert init("c", "classes=mine.yaml", "drop=[Pen]", "--force") == 0
    assert "suggestion" not in capsys.readouterr().out


def test_a_class_that_is_misspelt_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Of tiles and of test tiles; in the words of the data, not in those of the typo."""
    cohorts.write(tmp_path / "c")
    Path("mine.yaml").write_text(f"class_indices: {{{FAT}: 0, {MUSCLE}e: 1}}")
    assert init("c", "classes=mine.yaml") == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count(f"no entry for classes of the data: {MUSCLE!r}")) == ("", 1)
    assert f"write class_indices.{MUSCLE} in place of class_indices.{MUSCLE}e" in said.err


def test_few_patients_make_few_folds_and_the_comment_says_so(tmp_path: Path):
    folder = cohorts.write(tmp_path / "c")
    tiles = pd.read_parquet(folder / "kfold_tiles.parquet")
    number = tiles.slide_id.str[1:].astype(int) % 2
    tiles.assign(patient_id="p" + number.astype(str)).to_parquet(folder / "kfold_tiles.parquet")
    assert init("c") == 0
    text = Path("data.yaml").read_text()
    written = yaml.safe_load(text)
    assert (written["kfold_group"], written["k"]) == ("patient_id", 2)
    assert "# Folds keep patients together; 2 folds, not 5: there are no more of them.\n" in text


@pytest.mark.slow
def test_what_may_be_one_of_several_is_asked_or_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = cohorts.write(tmp_path / "c")
    (folder / "uni").mkdir()
    other = pd.read_parquet(folder / "embeddings").rename(columns={"embedding": "a"})
    other.assign(b=other.a).to_parquet(folder / "uni" / "all.parquet")
    said = refused(capsys, "c")
    assert "2 may be the embeddings" in said
    assert "--embeddings c/embeddings" in said
    said = refused(capsys, "c", "--embeddings", "c/uni")
    assert "column embedding of the embeddings" in said
    assert "data.columns.embedding=a" in said
    answers = iter(["x", "3", "2", "", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert init("c") == 0
    data = yaml.safe_load(Path("data.yaml").read_text())["data"]
    assert (data["embeddings"], data["columns"]) == ("c/uni/all.parquet", {"embedding": "a"})
    assert init("c", "--yes", "--force") == 0
    assert yaml.safe_load(Path("data.yaml").read_text())["data"]["embeddings"] == "c/embeddings"


@pytest.mark.slow
def test_what_cannot_be_used_is_refused_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    folder = cohorts.write(tmp_path / "c")
    tiles = pd.read_parquet(folder / "kfold_tiles.parquet")
    for rows, words in [
        (tiles.assign(x=0), ["cannot be used", "more than once"]),
        (tiles.assign(**{f"roi_coverage_{FAT}": 1.5}), ["above 1"]),
        (tiles.assign(**{f"roi_coverage_{FAT}": 0.1, f"roi_coverage_{MUSCLE}": 0.0}),
         ["Every tile is dropped"]),
        (tiles.assign(slide_id="n" + tiles.slide_id), ["join is empty"]),
        (tiles.drop(columns="x"), ["key column x"]),
        (tiles[["slide_id", "x", "y"]], ["no tiles in c"]),
    ]:  # fmt: skip
        rows.to_parquet(folder / "kfold_tiles.parquet")
        (folder / "test_tiles.parquet").unlink(missing_ok=True)
        said = refused(capsys, "c")
        assert not [word for word in words if word not in said], said
    tiles.to_parquet(folder / "kfold_tiles.parquet")
    Path("data.yaml").write_text("data: {}")
    assert "data.yaml is there already" in refused(capsys, "c")
    assert "not the name of a file of YAML" in refused(capsys, "c", "--to", "data.txt")
    assert "There is no place to look at" in refused(capsys, "--to", "o.yaml")
    assert "did you mean 'thresholds'" in refused(capsys, "c", "tresholds.a=1", "--to", "o.yaml")
    folder.rename("${HOME}")
    assert "would not be read as it is" in refused(capsys, "${HOME}", "--to", "o.yaml")


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("train", "torch", "omegaconf", "accelerate", "torchmetrics"):
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Blocker())
from featurestore.console import cli
cli_main = lambda line: cli.main(line.split("|"))
for line in sys.argv[1:]:
    assert cli_main(line) == 0, line
"""


@pytest.mark.slow
def test_all_of_featurestore_needs_no_torch_and_no_checkout(tmp_path: Path):
    """In a process that can import neither train/ nor what it alone needs."""
    cohorts.write(tmp_path / "c")
    own = "data=data.yaml"
    lines = ["init|c", f"check|{own}|allow_missing=1", f"funnel|{own}|tissue_prop_min=0.3",
             f"sql|select count(*) from fates|{own}|fold_rule=hash|kfold_strategy=stratified",
             f"describe|{own}|k=3",
             f"export|--to|set|{own}|k=3|allow_missing=1", "snapshots"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *lines], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={"PATH": "", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert Reader().root((tmp_path / "data.yaml").read_bytes()).value
    assert (tmp_path / "set/train/tiles.parquet").exists()
