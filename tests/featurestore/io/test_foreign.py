"""What other tools wrote, given as an artifact, is answered by the command that reads it."""

import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurestore.errors import ArtifactError
from featurestore.io import parquet

TOLD = {
    "A.h5": "import trident {path} --to artifacts/` (or clam or stamp in place of trident)",
    "A.hdf5": "import trident {path}",
    "A.pt": "import clam {path} --to artifacts/` (or slide2vec or eva in place of clam)",
    "A.npz": "import slide2vec {path}",
    "A.feather": "import arrow {path}",
    "A.zarr": "write its arrays as Parquet or Arrow",
}


@pytest.mark.parametrize("name", TOLD)
def test_a_file_is_answered_by_the_import_to_run(name: str, tmp_path: Path):
    file = tmp_path / name
    file.write_bytes(b"\x89HDF, or a zip")
    with pytest.raises(ArtifactError) as refused:
        parquet.dataset(str(file))
    assert TOLD[name].format(path=file) in refused.value.fix


@pytest.mark.parametrize(
    ("files", "tool"),
    [
        (["A.h5"], "trident"),
        (["h5_files/A.h5", "pt_files/A.pt"], "trident"),
        (["pt_files/A.pt"], "clam"),
        (["manifest.csv", "A.pt"], "eva"),
        (["tile_embeddings/A.pt"], "slide2vec"),
        (["own.lance/data/x"], "lance"),
        (["own.zarr/0"], "arrow"),
    ],
)
def test_a_folder_is_answered_by_the_import_to_run(files: list[str], tool: str, tmp_path: Path):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ArtifactError) as refused:
        parquet.dataset(str(tmp_path))
    assert f"featurestore import {tool} {tmp_path} --to artifacts/" in refused.value.fix


def test_a_table_of_text_is_answered_by_what_writes_it_as_parquet(tmp_path: Path):
    """The command that is named does so, whatever signs the name has; slide 007 stays one."""
    file = tmp_path / 'it\'s "$1".tsv'
    file.write_text("slide_id\tx\n007\t1\n")
    for place in (file, tmp_path):
        with pytest.raises(ArtifactError) as refused:
            parquet.dataset(str(place))
        code = shlex.split(refused.value.fix.split("`")[1])[2]
    assert "table of text (CSV)" in str(refused.value) or "There is no" in refused.value.wrong
    exec(code)
    written = pq.read_table(file.with_suffix(".parquet")).to_pylist()
    assert written == [{"slide_id": "007", "x": 1}]


def test_other_folders_are_told_what_they_were(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ArtifactError, match="There is no Parquet file") as refused:
        parquet.dataset(str(tmp_path))
    assert "correct the URI" in refused.value.fix
