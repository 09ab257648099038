"""A GPU's tests, the engine's rates on it beside another checkout, and what a step spends, at once.

    python -m benchmarks.gpu --other /path/to/checkout
    python -m benchmarks.gpu --device cpu --rows 20000 --profiled 20000    # to rehearse it

Made for a card that is at hand for minutes. In this order, since the time may run out: the tests
that want a GPU (13, of which those of the script want MLflow); `benchmarks.engine` of both
checkouts in turns on the one card, with what each head's step takes and which share of the memory's
rate that is; the kernels that an epoch of one head and of forty spends its time in. What no time is
left for is named at the end.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.engine import BATCH, epoch, make_heads, random_shard

HERE = Path(__file__).resolve().parents[1]
TESTS = "tests/train/engine/test_cuda_graph.py"
ROW = re.compile(r"│ *([^│]+?) *│ *([\d.]+) *│ *([\d,]+) *│")
READING = "reading the matrix once"
KERNELS = 10  # of most time

Rates = dict[str, float]
"""Rows a second by the name of a row of the benchmark's table."""


class Budget:
    """What is left of some minutes, and what was left out for want of it."""

    def __init__(self, minutes: float) -> None:
        self.end, self.left_out = time.monotonic() + 60 * minutes, list[str]()

    def run(self, name: str, checkout: Path, command: Sequence[str]) -> str:
        """Run Python in a checkout, and print what it prints; return it, nothing if it ran out."""
        print(f"\n== {name}", flush=True)
        environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "120"}
        try:
            done = subprocess.run(
                [sys.executable, *command], cwd=checkout, env=environment, check=False, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=max(1.0, self.end - time.monotonic()),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self.left_out.append(name)
            return ""
        print(done.stdout, flush=True)
        if done.returncode:
            self.left_out.append(f"{name} (exit status {done.returncode})")
        return done.stdout


def rates_of(printed: str) -> list[Rates]:
    """Return the rows a second that `benchmarks.engine` has printed, a table a precision."""
    tables = [part for part in printed.split("┏")[1:] if ROW.search(part)]
    return [{name: float(rate.replace(",", "")) for name, _, rate in ROW.findall(part)}
            for part in tables]  # fmt: skip


def compare(rates: dict[str, list[Rates]]) -> None:
    """Print what a step takes, by precision and checkout, and how checkouts differ."""
    for kind, *tables in zip(("float32", "bfloat16"), *rates.values(), strict=False):
        for name in tables[-1]:
            each = [table[name] for table in tables if name in table]
            steps = ", ".join(f"{BATCH / rate * 1e6:,.1f} us" for rate in each)
            shares = ", ".join(
                f"{rate / table[READING]:.1%}" for rate, table in zip(each, tables, strict=False)
            )
            print(f"{kind}, {name}: a step of {BATCH} takes {steps}; of the rate of {READING} "
                  f"{shares}; {each[-1] / each[0]:.2f} times")  # fmt: skip


def spend(device: torch.device, rows: int, dim: int) -> None:
    """Print the kernels that an epoch of one head, and of forty, spends most time in."""
    shard = random_shard(rows, dim, device, torch.float32)
    on_card = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU
    for name, size in {"one head": (1, 1), "5 folds x 8": (5, 8)}.items():
        train, _ = epoch(shard, make_heads(*size, device))
        train()  # a graph is captured
        with profile(activities=[activity]) as profiled:
            train()
        order = "self_device_time_total" if on_card else "self_cpu_time_total"
        print(f"\n== {name}, where the time of {-(-rows // BATCH)} steps goes")
        print(profiled.key_averages().table(sort_by=order, row_limit=KERNELS))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--other", type=Path, help="a checkout to compare with")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=2560)
    parser.add_argument("--profiled", type=int, default=200_000, help="rows of a profiled epoch")
    parser.add_argument("--minutes", type=float, default=8, help="after which nothing begins")
    options = parser.parse_args()
    device, budget = torch.device(options.device), Budget(options.minutes)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    print(f"{name}, torch {torch.__version__}")
    budget.run("tests", HERE, ["-m", "pytest", "-n", "0", "-p", "no:cacheprovider", TESTS])
    checkouts = {"before": options.other.resolve()} if options.other else {}
    checkouts["now"] = HERE
    engine = ["-m", "benchmarks.engine", "--no-rival", "--device", options.device,
              "--rows", str(options.rows), "--dim", str(options.dim)]  # fmt: skip
    rates = {when: rates_of(budget.run(when, path, engine)) for when, path in checkouts.items()}
    compare(rates)
    if time.monotonic() < budget.end:
        spend(device, options.profiled, options.dim)
    else:
        budget.left_out.append("where the time goes")
    print(f"\nleft out: {', '.join(budget.left_out) or 'nothing'}")


if __name__ == "__main__":
    main()
