"""Ways of doing one thing, each in a process of its own, in turns: medians of what they report."""

import json
import resource
import statistics
import subprocess
import sys

Figures = dict[str, float]


def take_turns(
    module: str, ways: list[str], arguments: list[str], repeats: int
) -> dict[str, Figures]:
    """Run ``python -m module arguments --way WAY`` for each way in turns; return medians."""
    runs: dict[str, list[Figures]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            runs[way].append(run(module, [*arguments, "--way", way]))
    return {
        way: {key: statistics.median(figures[key] for figures in done) for key in done[0]}
        for way, done in runs.items()
    }


def run(module: str, arguments: list[str]) -> Figures:
    """Run a module once; return the figures that it prints last."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak() -> float:
    """Return the most memory that this process had, in gigabytes, mapped files counted in."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
