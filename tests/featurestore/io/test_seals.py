"""What lies on the disk is not believed: damage is found and named, and what is lost made anew."""

import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, TABLES
from refused import arguments
from snapshots import slides, snapshot

from featurestore.console import cli
from featurestore.embeddings import conversion
from featurestore.embeddings import damage as embedding_damage
from featurestore.embeddings import folder as parts_folder
from featurestore.embeddings.conversion import Conversion
from featurestore.embeddings.convert import Target
from featurestore.embeddings.damage import damage
from featurestore.embeddings.part import Part
from featurestore.errors import ArtifactError, DamageWarning, FeatureStoreWarning
from featurestore.io import atomic, cache, digests, parquet, seals
from featurestore.io.progress import Rows
from featurestore.snapshots import collection
from featurestore.snapshots import snapshot as snapshots
from featurestore.spec.literals import Storage
from train import probe
from train.inference import stream
from train.models import checkpoint
from train.predictions import partitions
from train.runtime import fit_state
from train.runtime.fit_state import FileCheckpointer

SNAPSHOTS = Path(".featurestore/snapshots")
Damage = Callable[[Path], object]


def flip(file: Path, place: int = -1) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def swap_labels(file: Path) -> None:
    """Make a sound Parquet file of other labels."""
    table = pq.read_table(file)
    place = table.column_names.index("target")
    other = pa.array(1 - table["target"].to_numpy())
    pq.write_table(table.set_column(place, "target", other), file)


def permute(file: Path) -> None:
    """Let two embeddings change places."""
    values = np.load(file, mmap_mode="r+")
    values[[0, 11]] = values[[11, 0]]
    values.flush()


def other_header(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content.replace(b"(12, 3)", b"(3, 12)"))


def other_keys(file: Path) -> None:
    """Make a sound Parquet file of keys of other tiles."""
    table = pq.read_table(file)
    other = pa.array(table["x"].to_numpy() + 1)
    pq.write_table(table.set_column(table.column_names.index("x"), "x", other), file)


def copied(file: Path) -> None:
    shutil.copy(file, file.with_name(f"test_{file.name}"))


def copied_below(file: Path) -> None:
    (file.parent / "more").mkdir()
    shutil.copy(file, file.parent / "more")


DAMAGES: dict[str, tuple[str, Damage, str]] = {
    # name: (file below .featurestore, what happens to it, words of the warning)
    "flipped fate": ("snapshots/*/fates.parquet", flip, "fates.parquet has another SHA-256"),
    "cut fates": ("snapshots/*/fates.parquet", cut, "fates.parquet has .* bytes, .* were written"),
    "no fates": ("snapshots/*/fates.parquet", Path.unlink, "fates.parquet is missing"),
    "swapped labels": ("snapshots/*/fates.parquet", swap_labels, "fates.parquet has "),
    "cut manifest": ("snapshots/*/manifest.json", cut, "manifest.json has .* bytes"),
    "flipped folds": ("snapshots/*/folds.parquet", flip, "folds.parquet has another SHA-256"),
    "flipped slides": ("snapshots/*/slides.parquet", flip, "slides.parquet has another SHA-256"),
    "cut seal": ("snapshots/*.seal", cut, "its seal is damaged"),
    "no seal": ("snapshots/*.seal", Path.unlink, "it has no seal"),
    "null for a seal": ("snapshots/*.seal", lambda f: f.write_text("null"), "its seal is damaged"),
    "text for a seal": ("snapshots/*.seal", lambda f: f.write_text('"x"'), "its seal is damaged"),
    "list for a seal": ("snapshots/*.seal", lambda f: f.write_text("[1]"), "its seal is damaged"),
    "another file": ("snapshots/*/fates.parquet", copied, "test_fates.parquet was added"),
    "a file below": ("snapshots/*/parts.parquet", copied_below, "more/parts.parquet was added"),
    "flipped seal": ("snapshots/*.seal", lambda f: flip(f, 40), "its seal is damaged"),
    "flipped embedding": ("parts/[!.]*.npy", lambda f: flip(f, -40), "npy has 1 rows that are"),
    "permuted rows": ("parts/[!.]*.npy", permute, "npy has 2 rows that are"),
    "cut embeddings": ("parts/[!.]*.npy", cut, "npy has 152 bytes, 304 were"),
    "no embeddings": ("parts/[!.]*.npy", Path.unlink, "npy is missing"),
    "other header": ("parts/[!.]*.npy", other_header, "has another header"),
    "cut keys": ("parts/[!.]*.parquet", cut, "parquet (has another SHA|cannot be read)"),
    "other keys": ("parts/[!.]*.parquet", other_keys, "parquet has another SHA-256"),
    "flipped list": ("snapshots/*/parts.parquet", flip, "parts.parquet has another SHA-256"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a cohort, its snapshot, and a configuration that names it."""
    folder = tmp_path_factory.mktemp("made")
    number = np.arange(12)
    keys = {"slide_id": [f"s{n // 3}" for n in number], "x": number, "y": number * 0}
    tiles = {"roi_coverage_Fat": np.where(number % 2, 0.9, 0.0),
             "roi_coverage_Muscle": np.where(number % 2, 0.0, 0.8)}  # fmt: skip
    vectors = np.stack([number % 2, number * 0 + 1, number], axis=1).astype(float)
    pq.write_table(pa.table(keys | tiles), folder / "tiles.parquet")
    embedded = pa.table(keys | {"embedding": vectors.tolist()})
    pq.write_table(embedded, folder / "embeddings.parquet")
    slides(folder)
    (folder / "config.yaml").write_text(
        "class_indices: {Fat: 1, Muscle: 0}\nthresholds: {Fat: 0.5, Muscle: 0.5}\nk: 2\n"
        "data: {tiles: tiles.parquet, embeddings: embeddings.parquet, slides: slides.parquet}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        materialised()
    return folder


NAMED = {name: f"{name}.parquet" for name in ("tiles", "embeddings", "slides")}


def materialised() -> snapshots.Snapshot:
    return snapshot(NAMED, k=2)


def embeddings(snapshot: snapshots.Snapshot) -> list[list[float]]:
    matrix = snapshot.fit_set(1).matrix
    return matrix.read_rows(np.arange(matrix.rows)).tolist()


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """Return a copy of it, the working folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def target(pattern: str) -> Path:
    (file,) = Path(".featurestore").glob(pattern)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_set_aside_and_made_again(damage: str, here: Path):
    pattern, hurt, words = DAMAGES[damage]
    whole = materialised()
    before = whole.fates().order_by("x").to_pyarrow(), embeddings(whole)
    whole.entry.lock.close()
    del whole
    hurt(target(pattern))
    with pytest.warns(FeatureStoreWarning) as heard:
        again = materialised()
    said = [str(one.message) for one in heard if one.category is DamageWarning]
    assert len(said) == 1
    assert re.search(rf"is damaged \(.*{words}.*set aside as .broken-.*made again", said[0]), said
    assert again.fates().order_by("x").to_pyarrow() == before[0]
    assert embeddings(again) == before[1]
    assert list(Path(".featurestore").rglob(".broken-*"))
    assert cli.main(["gc"]) == 0
    assert not list(Path(".featurestore").rglob(".broken-*"))


@pytest.mark.slow
def test_a_hidden_file_beside_is_no_damage(here: Path):
    """A network disk leaves them where a file was open, and nothing reads them."""
    made = materialised()
    (made.folder / ".nfs0001").write_text("")
    assert materialised().folder == made.folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_and_opened_by_name_is_one_error(
    damage: str, here: Path, capsys: pytest.CaptureFixture[str]
):
    """By its name alone it cannot be made again, and it stays where it is."""
    pattern, hurt, words = DAMAGES[damage]
    hurt(target(pattern))
    (name,) = collection.names()
    assert cli.main(["diff", name, name]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"^error: .* is damaged\n  found: .*{words}.*\n  to do: make it again", error)
    assert not list(Path(".featurestore").rglob(".broken-*"))


@pytest.mark.parametrize("damage", ["cut manifest", "no seal"])
def test_the_listing_and_gc_survive_it(damage: str, here: Path, capsys: pytest.CaptureFixture[str]):
    pattern, hurt, words = DAMAGES[damage]
    hurt(target(pattern))
    assert cli.main(["snapshots"]) == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert re.search(rf"is damaged or of an earlier version \(.*{words}", said)
    assert cli.main(["gc"]) == 0
    assert not collection.names()
    assert not parts_folder.names()


def test_a_snapshot_under_the_name_of_another_is_not_it(here: Path):
    (name,) = collection.names()
    other = "0" * 16
    for suffix in ("", ".seal"):
        (SNAPSHOTS / (name + suffix)).rename(SNAPSHOTS / (other + suffix))
    with pytest.raises(ArtifactError, match=f"it is {name} by its seal"):
        collection.opened(other)


def test_a_copy_is_not_made_again(here: Path, monkeypatch: pytest.MonkeyPatch):
    """A large file that is not the one that was written is read once, and found whole."""
    monkeypatch.setattr(seals, "SMALL", 0)

    def fail(*_: object, **__: object) -> None:
        pytest.fail("embeddings were read again")

    monkeypatch.setattr(conversion, "convert", fail)
    materialised()
    digests._HASHED.clear()  # as another process
    monkeypatch.setattr(embedding_damage, "damage", None)  # read no more
    materialised()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped embedding", "permuted rows", "flipped fate"])
def test_verify_finds_what_the_file_system_does_not_tell(
    damage: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Bits that a disk has lost leave size, times and file as they were."""
    pattern, hurt, _ = DAMAGES[damage]
    file = target(pattern)
    monkeypatch.setattr(seals, "SMALL", 0)  # large files are believed by what the system says
    if file.parent.name == "parts":
        part = Part.read(file.stem)
        hurt(file)
        embedding_damage.remember([part])
    else:
        hurt(file)
        said = seals._read(file.parent)
        said["files"][file.name] |= {"is": seals._is(file), "bytes": file.stat().st_size}
        seals._write(file.parent, said)
    materialised()
    assert cli.main(["--config", "config.yaml", "check", "--verify"]) == 2
    out = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert "1 error" in out
    assert "nothing: it is" in out
    assert not file.exists()
    materialised()
    assert cli.main(["--config", "config.yaml", "check", "--verify"]) == 0


@pytest.mark.slow
def test_what_is_damaged_and_in_use_is_one_error(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "PATIENCE", 0.1)
    used = materialised()
    flip(target("snapshots/*/fates.parquet"))
    with pytest.raises(ArtifactError, match="is damaged, and in use"):
        materialised()
    used.entry.lock.close()
    with pytest.warns(FeatureStoreWarning, match="made again"):
        materialised()


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_any_flipped_bit_of_a_part_is_found(storage: Storage, dim: int, tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(5, dim))
    keys = {"slide_id": ["s"] * 5, "x": range(5), "y": range(5)}
    table = pa.table({**{k: list(v) for k, v in keys.items()}, "embedding": values.tolist()})
    pq.write_table(table, tmp_path / "e.parquet")
    dataset = parquet.dataset(str(tmp_path / "e.parquet"))
    work = Conversion(dataset, Target(dim, storage), digests.sums(dataset.files))
    work.run(Rows(None))
    (part,) = work.matrix.parts
    assert damage(part) is None
    for file in (part.values, part.keys):
        whole = file.read_bytes()
        for place in range(0, len(whole), 1 if file == part.values else 29):
            content = bytearray(whole)
            content[place] ^= 1 << place % 8
            file.write_bytes(content)
            assert damage(part), place
        file.write_bytes(whole)


# -- states of fits, predictions ------------------------------------------------------------------


@pytest.mark.slow
def test_a_damaged_state_is_one_error(
    artifacts: TABLES, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    save = FileCheckpointer.save

    def killed(self: FileCheckpointer) -> None:
        save(self)
        raise KeyboardInterrupt

    argv = [
        *arguments(artifacts(), "fold=1", "tracking.enabled=false", "max_epochs=9"),
        "output=out",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpointer, "save", killed)
        assert probe.main(argv) == 130
    (file,) = Path(".featurestore/fits").glob("*/*.pt")
    flip(file, 400)
    capsys.readouterr()
    assert probe.main([*argv, "resume=true"]) == 2
    error = capsys.readouterr().err
    assert re.search(
        r"error: The state of the fit in \S+\.pt is broken\n  found: .*\n  to do: leave", error
    )
    assert probe.main(argv) == 0


def test_a_state_comes_back_as_it_was_or_not_at_all(tmp_path: Path):
    state, file = {"epochs": 3, "state": {"a": torch.arange(4.0)}, "log": [1]}, tmp_path / "s.pt"
    fit_state.write(file, state)
    again = fit_state.read(file)
    assert torch.equal(again["state"]["a"], state["state"]["a"])  # type: ignore[index]
    assert fit_state.epochs(file) == 3
    whole = file.read_bytes()
    for content in (b"", whole[:5], whole[:-1], whole[:32], whole + b"x", whole[32:]):
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match="broken"):
            fit_state.read(file)


@pytest.fixture
def predicted(artifacts: TABLES) -> Iterator[list[str]]:
    """Return the arguments of a prediction that is done."""
    blueprint = checkpoint.ModelSpec("linear", 0, "none", 3, ["Fat", "Muscle"], [1.0, 1.0])
    torch.manual_seed(0)
    checkpoint.save(Path("c.safetensors"), checkpoint.TrainedModel(blueprint.build(), blueprint))
    argv = arguments(artifacts(), "mode=predict", "checkpoint=c.safetensors", "output=out",
                     "tracking.enabled=false")  # fmt: skip
    argv.append(next(one for one in argv if one.startswith("data.tiles=")).replace(
        "data.tiles", "data.predict_tiles"))  # fmt: skip
    assert probe.main(argv) == 0
    yield argv


@pytest.mark.slow
@pytest.mark.parametrize("hurt", [cut, flip, Path.unlink])
def test_a_damaged_slide_is_predicted_again(hurt: Damage, predicted: list[str], capsys):
    before = partitions.read(Path("out/predictions"))
    file = min(Path("out/predictions").rglob("[!_.]*.parquet"))
    hurt(file)
    capsys.readouterr()
    assert probe.main([*predicted, "resume=true"]) == 0
    assert "3 tiles of 1 slides" in capsys.readouterr().out
    assert partitions.read(Path("out/predictions")) == before


@pytest.mark.slow
def test_any_flipped_byte_of_a_slide_is_found_or_changes_nothing(predicted: list[str]):
    folder = Path("out/predictions")
    [file], wanted = folder.glob("s0-*.parquet"), {"slide_id", "x", "y", "target", "pred"}
    wanted |= {"predicted", "prob_Fat", "prob_Muscle"}
    whole, before = file.read_bytes(), pq.read_table(file, partitioning=None)
    for place in range(0, len(whole), 5):
        file.write_bytes(whole)
        flip(file, place)
        if partitions.whole_rows(folder, "s0", wanted) is not None:
            assert pq.read_table(file, partitioning=None) == before


@pytest.mark.slow
def test_predictions_with_a_damaged_manifest_are_nobody_s(predicted: list[str], capsys):
    cut(Path("out/predictions") / partitions.MANIFEST)
    assert probe.main([*predicted, "resume=true"]) == 2
    assert "were made of something else" in capsys.readouterr().err
    assert probe.main(predicted) == 0


@pytest.mark.slow
def test_embeddings_that_change_meanwhile_are_refused(
    artifacts: TABLES, predicted: list[str], monkeypatch: pytest.MonkeyPatch, capsys
):
    scan = stream.scan

    def late(*given, **named):
        artifacts(None, {"embedding": [[9.0, 9.0, 9.0]] * 12})
        return scan(*given, **named)

    monkeypatch.setattr(stream, "scan", late)
    assert probe.main(predicted) == 2
    assert "The embeddings were changed while they were read" in capsys.readouterr().err


# -- what has a name is on the disk ---------------------------------------------------------------


def _folder(place: Path) -> None:
    with atomic.fresh_folder(place / "folder") as fresh:
        (fresh / "inside").mkdir()
        (fresh / "inside" / "file").write_bytes(b"x")


def _cache(_: Path) -> None:
    cache.get_or_build("things", "a" * 64, lambda fresh: (fresh / "file").write_bytes(b"x"))


def _checkpoint(place: Path) -> None:
    blueprint = checkpoint.ModelSpec("linear", 0, "none", 3, ["Fat", "Muscle"], [1.0, 1.0])
    checkpoint.save(place / "c.safetensors", checkpoint.TrainedModel(blueprint.build(), blueprint))


WRITERS: dict[str, Callable[[Path], object]] = {
    "file": lambda place: atomic.write_bytes(place / "file", b"x"),
    "folder": _folder,
    "cache": _cache,
    "checkpoint": _checkpoint,
    "state": lambda place: fit_state.write(place / "s.pt", {"epochs": 1}),
    "slide": lambda place: partitions.put(place / "slide" / "t.parquet", pa.py_buffer(b"x")),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_all_of_it_is_on_the_disk_before_it_has_its_name(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And the folder that holds the name afterwards."""
    fsync, replace, safe, named = os.fsync, Path.replace, set(), []

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        safe.add(os.fstat(descriptor).st_ino)

    def renamed(self: Path, to: Path) -> Path:
        inside = [self, *(self.rglob("*") if self.is_dir() else [])]
        assert {path.stat().st_ino for path in inside} <= safe
        safe.discard(to.parent.stat().st_ino)
        named.append(to)
        return replace(self, to)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("renamed, not published"))
    WRITERS[writer](tmp_path)
    assert named
    assert all(path.parent.stat().st_ino in safe for path in named)


# -- teams ----------------------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[None]:
    """Let a group read and write what this process makes."""
    before = os.umask(0o002)
    yield
    os.umask(before)


@pytest.mark.slow
def test_what_is_written_honours_the_umask(here: Path, umask: None):
    shutil.rmtree(".featurestore")
    materialised()
    for name, writer in WRITERS.items():
        (here / "written" / name).mkdir(parents=True)
        writer(here / "written" / name)
    entries = [*Path(".featurestore").rglob("*"), *Path("written").rglob("*")]
    modes = {entry: oct(entry.stat().st_mode & 0o777) for entry in entries}
    assert modes == {e: oct(0o775 if e.is_dir() else 0o664) for e in entries}


@pytest.fixture
def others_can_import() -> None:
    """Skip where another user could not even import what is tested."""
    for place in (Path(sys.prefix), ROOT):
        if any(folder.stat().st_mode & 0o005 != 0o005 for folder in (place, *place.parents)):
            pytest.skip(f"{place} is for its owner alone")


def _as_reader(folder: Path) -> None:
    """Use all that is there, as somebody who may not write it."""
    os.chdir(folder)
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    with pytest.raises(PermissionError):
        (folder / "any").touch()
    again = materialised()
    assert len(again.fit_set(1).keys) == 12
    (name,) = collection.names()
    assert collection.opened(name).digest == again.digest
    assert len(collection.listing()) == 1
    assert not collection.collect(0)
    with pytest.raises(ArtifactError, match="could not be written"):
        snapshot(NAMED, k=3)


def _as_stranger(folder: Path) -> None:
    """Use what only another may read."""
    os.chdir(folder)
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    with pytest.raises(ArtifactError, match=r"\.seal cannot be read"):
        materialised()


def test_what_another_may_not_read_is_one_error_and_stays(made: Path, others_can_import: None):
    """It may be sound to its owner."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "shared"
        shutil.copytree(made, folder)
        for entry in (Path(base), folder, *folder.rglob("*")):
            entry.chmod(0o777 if entry.is_dir() else 0o666)
        (seal,) = folder.glob(".featurestore/snapshots/*.seal")
        seal.chmod(0o200)
        reader = multiprocessing.get_context("fork").Process(target=_as_stranger, args=(folder,))
        reader.start()
        reader.join()
        assert reader.exitcode == 0
        assert seal.exists()


@pytest.mark.parametrize("locks", [True, False])
def test_a_reader_needs_no_right_to_write(locks: bool, made: Path, others_can_import: None):
    """Another user, in another's folder; or in a copy of it that has no locks."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "shared"
        shutil.copytree(made, folder)
        for lock in () if locks else folder.rglob("*.lock"):
            lock.unlink()
        for entry in (Path(base), folder, *folder.rglob("*")):
            entry.chmod(0o555 if entry.is_dir() else 0o444)
        reader = multiprocessing.get_context("fork").Process(target=_as_reader, args=(folder,))
        reader.start()
        reader.join()
        for entry in (Path(base), folder, *folder.rglob("*")):
            entry.chmod(0o755 if entry.is_dir() else 0o644)
    assert reader.exitcode == 0
