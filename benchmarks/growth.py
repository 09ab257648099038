"""What a cohort that grows costs: bytes read and written, seconds, and slides whose fold changes.

    python -m benchmarks.growth                              # 100 slides of 500 tiles x 512, and 10
    python -m benchmarks.growth --slides 5000 --tiles 200 --dim 16 --more 1

A file a slide. Each way runs in a process of its own: from scratch; with more slides; after one
file was renamed, taken away, corrected; and opening a snapshot by its name. Bytes are those that
the process has asked the system for (``rchar``, ``wchar`` of /proc/self/io), above what it asks for
when nothing has changed. Medians of --repeats.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.turns import Figures, run, take_turns
from featurestore import FeatureStore, StoreSpec
from featurestore.snapshots import collection
from featurestore.snapshots.build import materialise

CLASSES = ("Fat", "Nerve", "Blood")
WAYS = ["scratch", "more", "unchanged", "renamed", "removed", "corrected", "open"]


def write_slide(folder: Path, number: int, options: argparse.Namespace, seed: int = 0) -> None:
    """Write the embeddings of a slide."""
    rng = np.random.default_rng([number, seed])
    values = rng.random(options.tiles * options.dim, dtype=np.float32)
    keys = slide_keys(number, options.tiles)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), options.dim)
    table = pa.table({**keys, "embedding": vectors})
    pq.write_table(table, folder / "embeddings" / f"{number:05}.parquet", use_dictionary=False)


def slide_keys(number: int, tiles: int) -> dict[str, np.ndarray]:
    """Return the keys of a slide's tiles."""
    side = int(np.ceil(np.sqrt(tiles)))
    place = np.arange(tiles)
    slide = np.full(tiles, f"slide-{number:05}")
    return {"slide_id": slide, "x": place % side * 224, "y": place // side * 224}


def write_tiles(folder: Path, slides: int, tiles: int) -> None:
    """Write the tiles of some slides: each has one class for the most part."""
    tables = []
    for number in range(slides):
        rng = np.random.default_rng(number)
        label = np.where(rng.random(tiles) < 0.7, number % 3, rng.integers(3, size=tiles))
        coverages = {
            f"roi_coverage_{n}": np.where(label == c, 0.9, 0) for c, n in enumerate(CLASSES)
        }
        tables.append(pa.table(slide_keys(number, tiles) | coverages))
    pq.write_table(pa.concat_tables(tables), folder / "tiles.parquet")


def write(options: argparse.Namespace) -> None:
    """Write the cohort, and a folder in which its snapshot is."""
    folder = options.folder
    (folder / "embeddings").mkdir(parents=True)
    for number in range(options.slides):
        write_slide(folder, number, options)
    write_tiles(folder, options.slides, options.tiles)
    os.chdir(folder)
    make()
    time.sleep(3)  # a file that has just been written is not remembered
    make()


def make() -> str:
    """Make or open the snapshot of the working folder's cohort; return its name."""
    spec = StoreSpec(
        tiles="tiles.parquet",
        embeddings="embeddings",
        class_indices={name: index for index, name in enumerate(CLASSES)},
        thresholds=dict.fromkeys(CLASSES, 0.5),
        kfold_strategy="stratified_group",
        allow_missing=1.0,  # one slide is taken away
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return materialise(FeatureStore(spec)).folder.name


def change(way: str, options: argparse.Namespace) -> None:
    """Do to the cohort of the working folder what the way is called by."""
    first = Path("embeddings/00000.parquet")
    match way:
        case "scratch":
            shutil.rmtree(".featurestore")
        case "more":
            for number in range(options.slides, options.slides + options.more):
                write_slide(Path(), number, options)
            write_tiles(Path(), options.slides + options.more, options.tiles)
        case "renamed":
            first.rename(first.with_name("renamed.parquet"))
        case "removed":
            first.unlink()
        case "corrected":
            write_slide(Path(), 0, options, seed=1)


def asked() -> dict[str, int]:
    """Return the bytes that this process has asked the system to read and to write."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def folds(name: str) -> dict[str, int]:
    """Return the fold of each slide of a snapshot."""
    table = pq.read_table(Path(".featurestore/snapshots") / name / "fates.parquet")
    kept = table.filter(pa.compute.is_valid(table["fold"]))
    return dict(zip(kept["slide_id"].to_pylist(), kept["fold"].to_pylist(), strict=True))


def measured(options: argparse.Namespace) -> Figures:
    """Take one way, on a copy of the cohort whose files keep their times."""
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as copied:
        shutil.copytree(options.folder, copied, dirs_exist_ok=True)
        os.chdir(copied)
        time.sleep(3)  # only a file that lies still is remembered
        before = make()  # what was copied is looked at once
        (name,) = collection.names()
        change(options.way, options)
        time.sleep(3)
        start, io = time.perf_counter(), asked()
        after = name
        if options.way == "open":
            collection.opened(name)
        else:
            after = make()
        seconds, now = time.perf_counter() - start, asked()
        moved = 0
        if options.way == "more":
            earlier, later = folds(before), folds(after)
            moved = sum(later.get(slide) != fold for slide, fold in earlier.items())
        return {"seconds": seconds, "read": now["rchar"] - io["rchar"],
                "written": now["wchar"] - io["wchar"], "moved": moved}  # fmt: skip


def main() -> None:
    """Take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--more", type=int, default=10)
    parser.add_argument("--tiles", type=int, default=500)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--way", choices=["write", *WAYS])
    options = parser.parse_args()
    if options.way == "write":
        write(options)
        print("{}")
        return
    if options.way:
        print(json.dumps(measured(options)))
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        shape = [f"--{key}={getattr(options, key)}" for key in ("slides", "more", "tiles", "dim")]
        arguments = [*shape, f"--folder={name}/cohort"]
        run("benchmarks.growth", [*arguments, "--way", "write"])
        figures = take_turns("benchmarks.growth", WAYS, arguments, options.repeats)
    scratch, still = figures["scratch"], figures["unchanged"]
    table = Table("way", "seconds", "read", "written", "of scratch", "slides moved")
    for way, one in figures.items():
        bytes_of = one["read"] + one["written"] - still["read"] - still["written"]
        share = bytes_of / (scratch["read"] + scratch["written"])
        read, written = (f"{one[name] / 1e6:.1f} MB" for name in ("read", "written"))
        seconds, moved = f"{one['seconds']:.2f}", f"{one['moved']:.0f}"
        table.add_row(way, seconds, read, written, f"{share:.1%}", moved)
    Console().print(table)


if __name__ == "__main__":
    main()
