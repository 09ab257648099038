"""One training fold as a float32 matrix: this store against reading and joining in Arrow.

    python -m benchmarks.materialise --rows 100000 --dim 2560

Each way runs in a process of its own, in turns; the table shows medians. `join` are the seconds
from the chosen keys to the matrix; `views` those before, which choose them (the rival is given its
keys): every check of the contract, labels, thresholds, folds, leaks. Gigabytes are the peak of the
whole process. A synthetic cohort is written to --folder once (2 GB at these sizes).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

FOLD = 0
Timed = tuple[float, float, np.ndarray]  # seconds of views, seconds of the join, the matrix


def ours(root: Path) -> Timed:
    """Views and keys, then one stream per core into the matrix."""
    import sklearn.model_selection  # noqa: F401 - an import, and imports are not timed

    from featurestore import FeatureStore, StoreSpec
    from featurestore.batches import embedding_matrix

    spec = StoreSpec(**arguments(root))
    start = time.perf_counter()
    tiles = FeatureStore(spec).fit_set(FOLD)
    train = tiles.keys.filter(np.asarray(tiles.keys["split"]) == "train")
    chosen = time.perf_counter()
    matrix = embedding_matrix(train, tiles.files, tiles.dim)
    return chosen - start, time.perf_counter() - chosen, matrix


def arrow(root: Path) -> Timed:
    """Read everything, `Table.join` the keys, gather the rows, convert."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    keys = ["slide_id", "x", "y"]
    train = pq.read_table(root / "train.parquet")  # the keys of the same fold, given for free
    start = time.perf_counter()
    embeddings = ds.dataset(root / "embeddings").to_table()
    numbered = embeddings.select(keys).append_column("row", pa.array(np.arange(len(embeddings))))
    rows = train.join(numbered, keys, join_type="inner").sort_by([(k, "ascending") for k in keys])
    gathered = embeddings["embedding"].take(rows["row"])
    blocks = [chunk.flatten().to_numpy().astype(np.float32) for chunk in gathered.chunks]
    matrix = np.concatenate(blocks).reshape(len(rows), -1)
    return 0.0, time.perf_counter() - start, matrix


WAYS: dict[str, Callable[[Path], Timed]] = {"ours": ours, "arrow": arrow}


def arguments(root: Path) -> dict[str, object]:
    """Return the spec of the cohort, under thresholds that keep all tiles with an embedding."""
    from featurestore.examples import TISSUES, uris

    return {
        **uris(root),
        "class_indices": {name: index for index, name in enumerate(TISSUES)},
        "thresholds": dict.fromkeys(TISSUES, 0.0),
        "tissue_prop_min": 0.0,
    }


def prepare(root: Path, rows: int, dim: int) -> None:
    """Write the cohort, and the keys of the fold for the rival."""
    import pyarrow.parquet as pq

    from featurestore import FeatureStore, StoreSpec
    from featurestore.artifacts import fresh_folder
    from featurestore.examples import Cohort, write_synthetic

    if not root.exists():
        with fresh_folder(root) as folder:
            cohort = Cohort(rows=rows, dim=dim, slides=200, mixed=0, empty=0, held_out=0)
            write_synthetic(folder, cohort)
    keys = FeatureStore(StoreSpec(**arguments(root))).fit_set(FOLD).keys
    train = keys.filter(np.asarray(keys["split"]) == "train").select(["slide_id", "x", "y"])
    pq.write_table(train, root / "train.parquet")


def measure(way: str, root: Path) -> None:
    """Run one way in this process and print what it took."""
    views, join, matrix = WAYS[way](root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    check = float(matrix[:: max(1, len(matrix) // 997)].sum(dtype=np.float64))
    took = {"views": views, "join": join, "peak": peak, "rows": len(matrix), "check": check}
    print(json.dumps(took))


def main() -> None:
    """Take turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.folder / f"cohort-{options.rows}x{options.dim}"
    if options.way:
        return measure(options.way, root)
    prepare(root, options.rows, options.dim)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--way", way],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            runs[way].append(json.loads(done.stdout))
    report(runs)
    return None


def report(runs: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians."""
    from rich.console import Console
    from rich.table import Table

    middle = {
        way: {key: statistics.median(run[key] for run in done) for key in done[0]}
        for way, done in runs.items()
    }
    assert abs(middle["ours"]["check"] - middle["arrow"]["check"]) < 1, "not the same rows"
    table = Table("", "views s", "join s", "peak GB", "rows", title="one training fold, float32")
    for way, value in middle.items():
        cells = [f"{value[key]:.2f}" for key in ("views", "join", "peak")]
        table.add_row(way, *cells, f"{value['rows']:,.0f}")
    Console().print(table)
    mine, theirs = middle["ours"], middle["arrow"]["join"]
    print(f"join and materialise: {theirs / mine['join']:.1f} times as fast (target: 3)")
    print(f"with contract and views: {theirs / (mine['views'] + mine['join']):.1f} times as fast")
    print(f"ours peaks at {mine['peak']:.2f} GB (target: below 2.5)")


if __name__ == "__main__":
    main()
