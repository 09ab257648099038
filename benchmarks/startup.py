"""CPU seconds of help, of questions and of the main command, against another checkout in turns.

    python -m benchmarks.startup --other /path/to/checkout --repeats 3

Each command is a process of its own; counted are the seconds of all cores of it and its children,
the system's share counted in. The first run of the main command makes everything in an empty
folder; the later ones find an unchanged snapshot there. `--epochs 500 --classes 200` measures
instead what a fit records of that many epochs and classes, confusion matrices drawn.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parents[1]
QUICK = (
    ("train/probe.py", "--help"),
    ("train/probe.py", "flod=4"),
    ("train/compare.py", "--help"),
    ("train/promote.py", "--help"),
    ("train/export.py", "--help"),
    ("featurestore", "--help"),
    ("featurestore", "funnel", "--help"),
)
KNOWN = (
    ("featurestore", "funnel"),
    ("featurestore", "describe"),
    ("featurestore", "sql", "select count(*) from fates"),
)
MAIN = ("train/probe.py", "fold=4")
CONSOLE = "import sys; from featurestore.console.cli import main; sys.exit(main(sys.argv[1:]))"


def seconds(checkout: Path, folder: Path, command: tuple[str, ...]) -> float:
    """Run a command of a checkout in a folder; return its CPU seconds."""
    name, *arguments = command
    program = ["-c", CONSOLE] if name == "featurestore" else [str(checkout / name)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *program, *arguments], cwd=folder, check=False,
        env={**os.environ, "PYTHONPATH": str(checkout)}, capture_output=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(checkouts: list[Path], repeats: int) -> None:
    """Print the median of each command, the other checkout's first."""
    times: dict[str, list[list[float]]] = {}

    def note(label: str, number: int, took: float) -> None:
        times.setdefault(label, [[] for _ in checkouts])[number].append(took)

    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as scratch:
            folders = [Path(scratch) / str(number) for number in range(len(checkouts))]
            for number, (checkout, folder) in enumerate(zip(checkouts, folders, strict=True)):
                folder.mkdir()
                note(f"{' '.join(MAIN)}, first", number, seconds(checkout, folder, MAIN))
            others = [(" ".join(one), one) for one in (*KNOWN, *QUICK)]
            for label, command in [(f"{' '.join(MAIN)}, again", MAIN), *others]:
                for number, (checkout, folder) in enumerate(zip(checkouts, folders, strict=True)):
                    if command in KNOWN:  # a second time
                        seconds(checkout, folder, command)
                    note(label, number, seconds(checkout, folder, command))
    for label, by_checkout in times.items():
        medians = [statistics.median(took) for took in by_checkout]
        ratio = f"  {medians[-1] / medians[0]:.2f}" if len(medians) > 1 else ""
        print(f"{label:<44}" + "".join(f"{median:8.2f}" for median in medians) + ratio)


def record(epochs: int, classes: int, tiles: int = 20_000) -> None:
    """Print what it costs to record many epochs of many classes, in CPU seconds."""
    import numpy as np
    import torch

    from train.config.load import load
    from train.config.schema import Config
    from train.engine.trainer import Epoch
    from train.reports.history import HeadHistory
    from train.runtime import fit_state
    from train.tracking.mlflow_tracker import MlflowTracker

    rng, names = np.random.default_rng(0), {f"class {n}": n for n in range(classes)}
    config: Config = load(["fold=0"])
    config.class_indices = names
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        with MlflowTracker("sqlite:///mlflow.db", "epochs", None) as tracker:
            run: Any = SimpleNamespace(
                config=config,
                tracker=tracker,
                is_main=True,
                folder=Path(scratch),
                states=Path(scratch),
            )
            history, loss = HeadHistory(run), torch.tensor([0.5])
            target = rng.integers(0, classes, tiles)
            start, saving = time.process_time(), 0.0
            for number in range(epochs):
                wrong = rng.random(tiles) < 0.3
                predicted = np.where(wrong, rng.integers(0, classes, tiles), target)
                counts = np.bincount(target * classes + predicted, minlength=classes**2)
                confusion = torch.from_numpy(counts.reshape(1, classes, classes))
                history.epoch(Epoch(number, torch.tensor([0]), loss, loss, confusion))
                before = time.process_time()
                fit_state.write(Path(scratch) / "head.pt", {"log": history.state_dict()})
                saving += time.process_time() - before
            trained = time.process_time()
            history.close(SimpleNamespace(best_epoch=torch.tensor([3])))  # type: ignore[arg-type]
            end = time.process_time()
    print(f"{epochs} epochs of {classes} classes: recorded {trained - start - saving:.1f}, "
          f"saved {saving:.1f}, table and pictures {end - trained:.1f} CPU s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--other", type=Path, help="a checkout to compare with")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--classes", type=int, default=200)
    options = parser.parse_args()
    if options.epochs:
        record(options.epochs, options.classes)
    else:
        compare([*([options.other.resolve()] if options.other else []), HERE], options.repeats)


if __name__ == "__main__":
    main()
