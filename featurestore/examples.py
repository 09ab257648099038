"""Data to start with: scikit-learn's digits as tiles, and synthetic cohorts of any size.

Both write exactly the artifacts of the input contract: ``kfold_tiles.parquet``,
``test_tiles.parquet``, ``slides.parquet`` and a folder ``embeddings``.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.io import cache, mlflow_artifacts
from featurestore.spec.store_spec import StoreSpec
from featurestore.spec.synthetic import SyntheticConfig
from featurestore.views.classes import COVERAGE

DIGITS = "digits"  # what MLflow and the cache call them
WRITER = 130  # consecutive scans of the digits: roughly one writer, our stand-in for a slide
HELD_OUT = 3  # last writers, kept for the test artifacts
TILE = 224  # pixels a side
TISSUES = ("Nerve", "Blood", "Connective-Tissue", "Fat", "Epithelium", "Muscle", "Other")


def digits_spec(log: bool = True) -> StoreSpec:
    """Return the digits under the rules of ``configs/classes/digits.yaml``; see `digits`."""
    artifact = digits(log)
    return StoreSpec(
        tiles=artifact["tiles"],
        test_tiles=artifact["test_tiles"],
        embeddings=artifact["embeddings"],
        slides=artifact["slides"],
        class_indices={str(digit): digit for digit in range(10)},
        thresholds={str(digit): 0.0 for digit in range(10)},
        tissue_prop_min=0.0,
    )


def digits(log: bool = True) -> dict[str, str]:
    """Return the URIs of the digits' artifacts, built on the first use and found again later.

    They are logged to MLflow under a run id and named by ``runs:/`` URIs, or kept in the working
    folder where ``log`` is false.
    """
    if log:
        return uris(mlflow_artifacts.logged(DIGITS, _digits_content(), write_digits))
    return uris(cache.built(DIGITS, _digits_content(), write_digits, on_trial=True))


def are_digits_logged() -> bool:
    """Return whether `digits` would log nothing: MLflow has them."""
    return mlflow_artifacts.find_artifact(DIGITS, _digits_content()) is not None


def _digits_content() -> str:
    return hashlib.sha256(f"digits, {WRITER} a slide, {HELD_OUT} held out".encode()).hexdigest()


def synthetic(cohort: SyntheticConfig) -> dict[str, str]:
    """Return the paths of a synthetic cohort's artifacts, written on the first use.

    They stay in the working folder: MLflow would copy gigabytes to no use.
    """
    content = hashlib.sha256(repr(cohort).encode()).hexdigest()
    return uris(cache.built("synthetic", content, lambda folder: write_synthetic(folder, cohort)))


def uris(root: str | Path) -> dict[str, str]:
    """Return the URI of each artifact below a root, by its key in the configuration."""
    return {
        "tiles": f"{root}/kfold_tiles.parquet",
        "test_tiles": f"{root}/test_tiles.parquet",
        "embeddings": f"{root}/embeddings",
        "slides": f"{root}/slides.parquet",
    }


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 digit scans as tiles of 14 slides.

    A scan is a tile; its label's coverage is the inked share of the scan, its 64 intensities are
    the embedding. Source: E. Alpaydin and C. Kaynak (1998), UCI optical digits, as bundled.
    """
    from sklearn.datasets import load_digits  # late: over a second

    images, digit = load_digits(return_X_y=True)
    row = np.arange(len(digit))
    writer = row // WRITER
    ink = images.mean(axis=1) / 16
    tiles = _tiles(
        [f"writer-{number:02d}" for number in writer],
        row % WRITER % 13 * 8,
        row % WRITER // 13 * 8,
        {str(name): np.where(digit == name, ink, 0.0) for name in range(10)},
    )
    test = writer > writer[-1] - HELD_OUT
    pq.write_table(tiles.filter(~test), folder / "kfold_tiles.parquet")
    pq.write_table(tiles.filter(test), folder / "test_tiles.parquet")
    pq.write_table(
        _slides([f"writer-{n:02d}" for n in np.unique(writer)], 8), folder / "slides.parquet"
    )
    (folder / "embeddings").mkdir()
    keyed = tiles.select(["slide_id", "x", "y"])
    pq.write_table(
        keyed.append_column("embedding", _lists(images)), folder / "embeddings" / "digits.parquet"
    )


def write_synthetic(
    folder: Path, cohort: SyntheticConfig, block: int = 4096, files: int = 8
) -> None:
    """Write a tissue-shaped cohort in a stream: memory is one block, whatever the size.

    Parameters
    ----------
    folder
        Where the artifacts go.
    cohort
        Its shape.
    block
        Rows made and written at a time, also the size of a row group.
    files
        Number of embedding files, so that several readers can share the work.
    """
    world = np.random.default_rng(cohort.seed)
    centres = cohort.signal * _directions(world, len(TISSUES), cohort.dim)
    shifts = cohort.shift * _directions(world, cohort.slides, cohort.dim)
    lean = world.dirichlet(np.full(len(TISSUES), 2.0), cohort.slides)  # class mix of each slide
    people = np.arange(cohort.slides) % cohort.patients
    held_out = people >= round(min(cohort.patients, cohort.slides) * (1 - cohort.held_out))
    names = np.array([f"slide-{n:04d}" for n in range(cohort.slides)])
    across = math.isqrt(-(-cohort.rows // cohort.slides) - 1) + 1  # tiles of a slide, a square
    pq.write_table(_slides(list(names), TILE, across), folder / "slides.parquet")
    (folder / "embeddings").mkdir()
    with (
        _Writer(folder / "kfold_tiles.parquet") as train,
        _Writer(folder / "test_tiles.parquet") as test,
    ):
        for file, start, stop in _pieces(cohort.rows, files):
            with _Writer(folder / "embeddings" / f"part-{file:03d}.parquet") as part:
                for low in range(start, stop, block):
                    rows = np.arange(low, min(low + block, stop))
                    rng = np.random.default_rng([cohort.seed, low])
                    slide = rows * cohort.slides // cohort.rows
                    place = rows + -slide * cohort.rows // cohort.slides  # in its slide, from 0
                    kind, shares = _mix(rng, lean[slide], cohort)
                    tiles = _tiles(
                        names[slide],
                        place % across * TILE,
                        place // across * TILE,
                        shares,
                        patient_id=[f"patient-{n:04d}" for n in people[slide]],
                    )
                    values = rng.standard_normal((len(rows), cohort.dim))
                    values += centres[kind] + shifts[slide]
                    embedded = rng.random(len(rows)) >= cohort.missing
                    train.write(tiles.filter(~held_out[slide]))
                    test.write(tiles.filter(held_out[slide]))
                    keyed = tiles.select(["slide_id", "x", "y"]).filter(embedded)
                    part.write(keyed.append_column("embedding", _lists(values[embedded])))


def _directions(rng: np.random.Generator, count: int, dim: int) -> npt.NDArray[np.float64]:
    """Draw unit vectors."""
    vectors = rng.standard_normal((count, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _mix(
    rng: np.random.Generator, lean: npt.NDArray[np.float64], cohort: SyntheticConfig
) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[np.float64]]]:
    """Draw each tile's class and its coverages."""
    size = len(lean)
    kind = (rng.random((size, 1)) > lean.cumsum(axis=1)[:, :-1]).sum(axis=1)
    share = np.zeros((size, len(TISSUES)))
    rows = np.arange(size)
    share[rows, kind] = rng.uniform(0.1, 1.0, size)
    second = np.flatnonzero(rng.random(size) < cohort.mixed)
    other = (kind[second] + rng.integers(1, len(TISSUES), len(second))) % len(TISSUES)
    share[second, other] = share[second, kind[second]] * rng.uniform(0.1, 0.9, len(second)) / 2
    share[second, kind[second]] /= 2
    share[rng.random(size) < cohort.empty] = 0.0
    return kind, {name: share[:, number] for number, name in enumerate(TISSUES)}


class _Writer:
    """A Parquet file that takes its schema from the first table written to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        if self.writer is None:
            # A dictionary of random doubles only costs; that of the few slide names pays.
            keyed = [name for name in table.schema.names if name.endswith("_id")]
            self.writer = pq.ParquetWriter(self.path, table.schema, use_dictionary=keyed)
        if len(table):
            self.writer.write_table(table)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()


def _pieces(rows: int, files: int) -> Iterator[tuple[int, int, int]]:
    cuts = np.linspace(0, rows, min(files, rows) + 1).astype(int)
    return zip(range(len(cuts) - 1), cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)


def _tiles(
    slide: Sequence[str] | npt.NDArray[np.str_],
    x: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    shares: dict[str, npt.NDArray[np.float64]],
    **more: Sequence[str],
) -> pa.Table:
    coverage = {COVERAGE + name: share for name, share in shares.items()}
    return pa.table({"slide_id": pa.array(slide, pa.string()), "x": x, "y": y, **more, **coverage})


def _lists(values: npt.NDArray[np.float64]) -> pa.ListArray:
    rows, dim = values.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * dim)
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))


def _slides(names: Sequence[str], tile: int, across: int = 256) -> pa.Table:
    size = len(names)
    same = {
        "extent_x": across * tile,
        "extent_y": across * tile,
        "tile_extent_x": tile,
        "tile_extent_y": tile,
        "stride_x": tile,
        "stride_y": tile,
    }
    return pa.table(
        {
            "id": names,
            "path": [f"{name}.tiff" for name in names],
            **{name: pa.array(np.full(size, value)) for name, value in same.items()},
            "mpp_x": np.full(size, 0.5),
            "mpp_y": np.full(size, 0.5),
            "level": pa.array(np.zeros(size, dtype=np.int64)),
        }
    )
