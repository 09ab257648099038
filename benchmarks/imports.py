"""Time of ``featurestore import`` against merely reading the same files with h5py.

    python -m benchmarks.imports --slides 100 --rows 10000 --dim 1536

Files as TRIDENT writes them: a chunk a tile, or as CLAM does (--chunk 32). They are written to
--folder once; each way runs in a process of its own, in turns. `cpu` are the seconds of all cores,
the system's share counted in.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.turns import peak, take_turns


def written(options: argparse.Namespace) -> Path:
    """Write the slides if they are not there; return their folder."""
    import h5py

    shape = f"{options.slides}x{options.rows}x{options.dim}-{options.chunk}"
    folder = options.folder.resolve() / f"h5-{shape}"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((options.rows, options.dim), dtype=np.float32)
    number = np.arange(options.rows)
    coordinates = 512 * np.stack([number % 100, number // 100], axis=1)
    for slide in range(options.slides):
        file = folder / f"slide-{slide:04d}.h5"
        if file.exists():
            continue
        features[:, 0] = slide
        with h5py.File(file.with_suffix(".part"), "w") as content:
            for name, values in (("features", features), ("coords", coordinates)):
                content.create_dataset(
                    name,
                    data=values,
                    chunks=(options.chunk, values.shape[1]),
                    maxshape=(None, values.shape[1]),
                )
            content["coords"].attrs["patch_size_level0"] = 512
        file.with_suffix(".part").rename(file)
    return folder


def read(options: argparse.Namespace) -> None:
    """Read every slide into memory, keep nothing."""
    import h5py

    for file in sorted(written(options).glob("*.h5")):
        with h5py.File(file) as content:
            for name in ("features", "coords"):
                content[name][:]


def imported(options: argparse.Namespace) -> None:
    """Import every slide."""
    from featurestore.importing.cohort import import_slides
    from featurestore.importing.slide import Request

    with tempfile.TemporaryDirectory(dir=options.folder) as to:
        import_slides(Request("trident", written(options)), Path(to) / "artifacts")


WAYS = {"read": read, "import": imported}


def timed(options: argparse.Namespace) -> dict[str, float]:
    """Return seconds of the clock and of the cores, and the most memory of anonymous pages."""
    start, cores = time.perf_counter(), time.process_time()
    WAYS[options.way](options)
    return {
        "wall": time.perf_counter() - start,
        "cpu": time.process_time() - cores,
        "peak": peak(),
    }


def main() -> None:
    """Measure both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--chunk", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(timed(options)))
        return
    folder = written(options)
    names = ("slides", "rows", "dim", "chunk", "folder")
    arguments = [f"--{name}={getattr(options, name)}" for name in names]
    figures = take_turns("benchmarks.imports", list(WAYS), arguments, options.repeats)
    for way, measured in figures.items():
        print(way, ", ".join(f"{name} {value:.2f}" for name, value in measured.items()))
    for name in ("wall", "cpu"):
        print(f"{name}: {figures['import'][name] / figures['read'][name]:.2f} times")
    print(f"the files stay in {folder}")


if __name__ == "__main__":
    main()
