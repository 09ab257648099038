"""Folders as people lay them out: which files are one artifact."""

from pathlib import Path

import cohorts
import pandas as pd
import pytest

from featurestore.discovery import choice, folders
from featurestore.discovery.folders import is_held_out, look
from featurestore.errors import ArtifactError, ConfigError

TILE = {"slide_id": ["a"], "x": [0], "y": [0]}
KINDS = {
    "tiles": TILE | {"roi_coverage_Fat": [0.5]},
    "vectors": TILE | {"embedding": [[0.5]]},
    "slides": {"id": ["a"], "level": [0]},
    "other": {"a": [1]},
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, kind in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(KINDS[kind]).to_parquet(root / name)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"t.parquet": "tiles", "e/1.parquet": "vectors", "e/2.parquet": "vectors"},
         {"t.parquet": "tiles", "e": "embeddings"}),
        ({"t/a.parquet": "tiles", "t/b.parquet": "tiles"}, {"t": "tiles"}),
        ({"t/train.parquet": "tiles", "t/test.parquet": "tiles"},
         {"t/train.parquet": "tiles", "t/test.parquet": "tiles"}),
        ({"e/slide_id=1/p.parquet": "vectors", "e/slide_id=2/p.parquet": "vectors"},
         {"e": "embeddings"}),
        ({"a.pq": "tiles", "b.pq": "tiles", "e/1.parquet": "vectors"},
         {"*.pq": "tiles", "e/1.parquet": "embeddings"}),
        ({"x/slides.parquet": "slides", "x/t.parquet": "tiles", "x/o.parquet": "other"},
         {"x/slides.parquet": "slides", "x/t.parquet": "tiles", "x/o.parquet": "other"}),
        ({".hidden/t.parquet": "tiles", "mlruns/0/t.parquet": "tiles", "_x.parquet": "tiles"}, {}),
    ],
)  # fmt: skip
def test_files_of_one_kind_in_a_folder_are_one_artifact(
    files: dict[str, str], expected: dict[str, str], tmp_path: Path
):
    write(tmp_path / "c [1]", files)
    seen = look([str(tmp_path / "c [1]")]).candidates
    by_uri = {Path(one.uri).relative_to(tmp_path / "c [1]").as_posix(): one for one in seen}
    assert {name: set(one.kinds) for name, one in by_uri.items()} == {
        name: {kind} for name, kind in expected.items()
    }
    assert sum(one.rows for one in seen) == sum(
        not name.startswith((".", "_", "mlruns")) for name in files
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("held-out/kfold_tiles.parquet", False), ("held-out/test_tiles.parquet", True),
     ("test/tiles", True), ("test_tiles.parquet", True), ("held-out.parquet", True), ("Test", True),
     ("latest.parquet", False), ("contest_tiles.parquet", False), ("tiles.parquet", False)],
)  # fmt: skip
def test_a_word_of_the_name_says_that_tiles_are_held_out(name: str, expected: bool):
    assert is_held_out(name) == expected


def test_held_out_tiles_and_embeddings_go_together(tmp_path: Path):
    names = ["tiles.parquet", "test_tiles.parquet", "emb/1.parquet", "emb_test/1.parquet"]
    write(tmp_path, dict(zip(names, ["tiles", "tiles", "vectors", "vectors"], strict=True)))
    contents, chosen = look([str(tmp_path)]), {}
    for artifact in choice.ARTIFACTS:
        candidates = choice.options(artifact, contents, chosen)
        assert len(candidates) == (artifact != "slides")
        chosen[artifact] = candidates[0] if candidates else None
    uris = [Path(one.uri).relative_to(tmp_path).as_posix() for one in chosen.values() if one]
    assert uris == names


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("features/a.h5", ["no tiles and no embeddings", "featurestore import"]),
        ("features/a.pt", ["featurestore import clam"]),
        ("cohort.lance/data.bin", ["featurestore import lance"]),
        ("drawn/a.geojson", ["featurestore cover --annotations", "/drawn/*.geojson"]),
        ("drawn/a.b.xml.gz", ["featurestore cover --annotations", "/drawn/*.xml.gz"]),
        (
            "a/my tiles.csv",
            [
                "a/my tiles.csv: a table of text (CSV)",
                "write tables of text as Parquet: ",
                'read_csv("',
                '/my tiles.csv", dtype={"slide_id": str})',
            ],
        ),
        ("readme.txt", ["no Parquet file", "roi_coverage_<Class>", "--embeddings"]),
    ],
)
def test_what_is_no_artifact_yet_is_answered_by_the_command(
    file: str, words: list[str], tmp_path: Path
):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")
    with pytest.raises(ArtifactError) as refusal:
        choice.check(look([str(tmp_path)]), {}, str(tmp_path))
    for word in words:
        assert word in str(refusal.value)


def test_a_folder_that_is_too_large_is_not_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cohorts.write(tmp_path)
    monkeypatch.setattr(folders, "ENTRIES", 5)
    with pytest.raises(ConfigError, match="more than can be looked at"):
        look([str(tmp_path)])


def test_a_file_that_is_not_whole_is_refused_by_name(tmp_path: Path):
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"cut\.parquet is not a whole Parquet file"):
        look([str(tmp_path)])
