"""CPU seconds of help, of questions and of the main command, against another checkout in turns.

    python -m benchmarks.startup --other /path/to/checkout --repeats 3

Each command is a process of its own; counted are the seconds of all cores of it and its children,
the system's share counted in; Python's bytecode is there, as it is from a second command on. The
first run of the main command makes everything in an empty folder; the later ones find an unchanged
snapshot there; the last of them goes through `accelerate launch`, which imports torch as well. Fits
of many classes: `benchmarks/classes.py`.
"""

import argparse
import compileall
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

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
LAUNCHED = ("launch", "fold=4")
CONSOLE = "import sys; from featurestore.console.cli import main; sys.exit(main(sys.argv[1:]))"


def seconds(checkout: Path, folder: Path, command: tuple[str, ...]) -> float:
    """Run a command of a checkout in a folder; return its CPU seconds."""
    name, *arguments = command
    program = ["-c", CONSOLE] if name == "featurestore" else [str(checkout / name)]
    if name == "launch":
        program = ["-m", "accelerate.commands.accelerate_cli", "launch", str(checkout / MAIN[0])]
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *program, *arguments], cwd=folder, check=False,
        env={**inherited, "PYTHONPATH": str(checkout)}, capture_output=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(checkouts: list[Path], repeats: int) -> None:
    """Print the median of each command, the other checkout's first."""
    times: dict[str, list[list[float]]] = {}

    def note(label: str, number: int, took: float) -> None:
        times.setdefault(label, [[] for _ in checkouts])[number].append(took)

    for checkout in checkouts:
        for package in ("featurestore", "train"):
            compileall.compile_dir(checkout / package, quiet=1)
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as scratch:
            folders = [Path(scratch) / str(number) for number in range(len(checkouts))]
            for number, (checkout, folder) in enumerate(zip(checkouts, folders, strict=True)):
                folder.mkdir()
                note(f"{' '.join(MAIN)}, first", number, seconds(checkout, folder, MAIN))
            others = [(" ".join(one), one) for one in (*KNOWN, *QUICK)]
            again = [
                (f"{' '.join(MAIN)}, again", MAIN),
                ("the same by accelerate launch", LAUNCHED),
            ]
            for label, command in [*again, *others]:
                for number, (checkout, folder) in enumerate(zip(checkouts, folders, strict=True)):
                    if command in KNOWN:  # a second time
                        seconds(checkout, folder, command)
                    note(label, number, seconds(checkout, folder, command))
    for label, by_checkout in times.items():
        medians = [statistics.median(took) for took in by_checkout]
        ratio = f"  {medians[-1] / medians[0]:.2f}" if len(medians) > 1 else ""
        print(f"{label:<44}" + "".join(f"{median:8.2f}" for median in medians) + ratio)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--other", type=Path, help="a checkout to compare with")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    compare([*([options.other.resolve()] if options.other else []), HERE], options.repeats)


if __name__ == "__main__":
    main()
