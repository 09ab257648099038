"""A training set as portable Parquet: what other programs read, and this store as well."""

import json
from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.backend import engine, errors
from featurestore.embeddings.batches import as_vectors
from featurestore.io import atomic, mlflow_artifacts
from featurestore.io.progress import Rows
from featurestore.snapshots.snapshot import Snapshot
from featurestore.store import FeatureStore
from featurestore.views import leakage
from featurestore.views.classes import COVERAGE
from featurestore.views.fates import distribution_view
from featurestore.views.folds import KEY

NAME = "training-set"
SIDES = {"": "train", "test_": "test"}
GROUP_BYTES = 64 * 2**20  # of embeddings in a row group: many readers' unit of work
OWN = ("tissue_prop", "dominant", "target", "dropped_by", "row")


def export(store: FeatureStore, snapshot: Snapshot, to: str, rows: Rows | None = None) -> str:
    """Write the kept tiles of a snapshot, sorted by key; return where they are.

    ``train/`` and ``test/`` each hold ``tiles.parquet`` (the tiles' own columns, ``label``,
    ``fold`` and ``embedding`` as ``fixed_size_list<float>``), ``slides.parquet``, ``funnel.json``
    and ``labels.json``. Each ``tiles.parquet`` is a tiles and an embeddings artifact in one.

    Parameters
    ----------
    to
        ``mlflow``, for an artifact with a run of its own (found again by its digest), or a folder
        that is not there yet.

    Raises
    ------
    ArtifactError
        The folder is there, the disk is full, or the artifacts were changed meanwhile.
    """

    def build(folder: Path) -> None:
        for prefix in snapshot.matrices:
            _write_side(store, snapshot, prefix, folder / SIDES[prefix], rows or Rows(None))
        (folder / "manifest.json").write_text(json.dumps(snapshot.manifest, indent=1))
        store.sources.confirm()  # the slides are read from the artifact

    if to == "mlflow":
        place = mlflow_artifacts.logged(
            NAME, snapshot.digest, lambda folder: build(_made(folder / NAME))
        )
        return f"{place}/{NAME}"
    return str(atomic.new_folder(Path(to), build))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _write_side(
    store: FeatureStore, snapshot: Snapshot, prefix: str, folder: Path, rows: Rows
) -> None:
    _made(folder)
    kept = leakage.kept_tiles(snapshot.fates(prefix)).order_by(list(KEY))
    with errors.translated():
        tiles = kept.to_pyarrow()
    matrix, derived = snapshot.matrices[prefix], [n for n in OWN if n in tiles.column_names]
    keyed = tiles.drop_columns(derived)
    vectors = pa.field("embedding", pa.list_(pa.float32(), matrix.dim))
    size = max(1024, GROUP_BYTES // (4 * matrix.dim))
    with (
        pq.ParquetWriter(
            folder / "tiles.parquet",
            keyed.schema.append(vectors),
            compression=dict.fromkeys(keyed.column_names, "zstd")
            | {"embedding.list.element": "none"},
            use_dictionary=[n for n in keyed.column_names if not n.startswith(COVERAGE)],
        ) as writer,
        rows.counting(f"{SIDES[prefix]} tiles", len(tiles)) as advance,
    ):  # fmt: skip
        for start in range(0, len(tiles), size):
            block = keyed.slice(start, size)
            block_vectors = matrix.read_rows(tiles["row"].slice(start, size).to_numpy())
            writer.write_table(block.append_column(vectors, as_vectors(block_vectors)))
            advance(len(block))
    with errors.translated():
        pq.write_table(_slides(store, tiles), folder / "slides.parquet")
        counted = distribution_view(kept).to_pyarrow().to_pylist()
    (folder / "labels.json").write_text(json.dumps(counted, indent=1))
    funnel = snapshot.manifest["cohorts"][prefix + "tiles"]["funnel"]
    (folder / "funnel.json").write_text(json.dumps(funnel, indent=1))


def _slides(store: FeatureStore, tiles: pa.Table) -> pa.Table:
    """Return the rows of the slides artifact for some tiles; their names alone without one."""
    slide_ids = tiles.select(["slide_id"]).group_by("slide_id").aggregate([])
    named: ir.Table = engine.register(store.connection, "exported_slides", slide_ids)
    if not store.spec.slides:
        return named.select(id="slide_id").order_by("id").to_pyarrow()
    slides = store.view("slides")
    return slides.semi_join(named, slides.id == named.slide_id).order_by("id").to_pyarrow()
