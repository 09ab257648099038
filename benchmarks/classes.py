"""CPU seconds of whole fits of many classes and epochs, against another checkout in turns.

    python -m benchmarks.classes --classes 50 200 --epochs 100 500
    python -m benchmarks.classes --classes 50 --epochs 50 --other /path/to/checkout

Each fit is the main command on a synthetic cohort of its own (`--tiles` x `--dim`, 40 slides), in
an empty folder: from artifacts to a registered model, all that is recorded and drawn counted in.
Early stopping is off. Counted are the seconds of all cores, the system's share counted in.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.startup import HERE, seconds

SLIDES = 40


def write_cohort(folder: Path, classes: int, tiles: int, dim: int) -> None:
    """Write tiles of one class each, embeddings that half tell them apart, and ``data.yaml``."""
    rng, names = np.random.default_rng(0), [f"class {number}" for number in range(classes)]
    kind, row = rng.integers(0, classes, tiles), np.arange(tiles)
    keys = {"slide_id": [f"slide-{n:02d}" for n in row % SLIDES], "x": row // SLIDES * 256,
            "y": row * 0}  # fmt: skip
    shares = {f"roi_coverage_{name}": 1.0 * (kind == number) for number, name in enumerate(names)}
    values = rng.standard_normal((classes, dim))[kind] + 2.5 * rng.standard_normal((tiles, dim))
    flat = pa.array(values.astype(np.float32).reshape(-1))
    (folder / "embeddings").mkdir(parents=True)
    pq.write_table(pa.table({**keys, **shares}), folder / "tiles.parquet")
    embeddings = pa.table({**keys, "embedding": pa.FixedSizeListArray.from_arrays(flat, dim)})
    pq.write_table(embeddings, folder / "embeddings" / "all.parquet")
    content = {
        "data": {
            "name": "many",
            "tiles": str(folder / "tiles.parquet"),
            "embeddings": str(folder / "embeddings"),
        },
        "class_indices": {name: number for number, name in enumerate(names)},
        "thresholds": dict.fromkeys(names, 0.0),
        "tissue_prop_min": 0.0,
        "batch_size": 1024,
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--other", type=Path, help="a checkout to compare with")
    parser.add_argument("--classes", type=int, nargs="+", default=[200])
    parser.add_argument("--epochs", type=int, nargs="+", default=[500])
    parser.add_argument("--tiles", type=int, nargs="+", default=[20_000])
    parser.add_argument("--dim", type=int, default=64)
    options = parser.parse_args()
    checkouts = [*([options.other.resolve()] if options.other else []), HERE]
    shapes = itertools.product(options.tiles, options.classes, options.epochs)
    for tiles, classes, epochs in shapes:
        with tempfile.TemporaryDirectory() as scratch:
            write_cohort(Path(scratch) / "cohort", classes, tiles, options.dim)
            command = (
                "train/probe.py", f"data={scratch}/cohort/data.yaml", "fold=0",
                f"max_epochs={epochs}", f"patience={epochs}",
            )  # fmt: skip
            took = []
            for number, checkout in enumerate(checkouts):
                folder = Path(scratch) / str(number)
                folder.mkdir()
                took.append(seconds(checkout, folder, command))
                assert (folder / "mlflow.db").exists(), "the command was refused"
        print(f"{tiles:,} tiles, {classes} classes, {epochs} epochs:"
              + "".join(f"{each:8.1f}" for each in took), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
