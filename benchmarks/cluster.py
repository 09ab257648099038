"""A snapshot made by a standalone cluster of Spark whose driver has less memory than the keys take.

    python -m benchmarks.cluster                      # 4,000,000 tiles whose slides bear long names
    python -m benchmarks.cluster --tiles 400000

A master and two workers on loopback, one core each; a file a slide; parts and fates go through a
store that is a folder. DuckDB makes the same snapshot afterwards, for its name and the time.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.turns import peak
from featurestore import FeatureStore, StoreSpec
from featurestore.backend.spark import CLUSTER
from featurestore.io.objects import shared
from featurestore.snapshots.build import materialise

WORKER = "worker.Worker"
WAIT = 120  # seconds for a process of Spark to say that it runs


@contextmanager
def standalone(folder: Path, apart: Path | None = None) -> Iterator[str]:
    """Start a master and two workers of one core each; yield the master's address.

    Parameters
    ----------
    apart
        A folder of this machine that the workers do not have, as on others; it takes root.
    """
    import pyspark

    program = str(Path(pyspark.__path__[0]) / "bin" / "spark-class")
    environment = without_spark() | {
        "SPARK_NO_DAEMONIZE": "1", "SPARK_DAEMON_MEMORY": "256m", "PYSPARK_PYTHON": sys.executable,
    }  # fmt: skip
    started = []
    without = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs none "$0" && exec "$@"',
        str(apart),
    ]

    def start(name: str, role: str, says: str, *arguments: str) -> str:
        home, log = folder / name, folder / f"{name}.log"
        home.mkdir()
        command = [program, f"org.apache.spark.deploy.{role}", "--host", "127.0.0.1",
                   "--webui-port", "0", *arguments]  # fmt: skip
        command = without * (apart is not None and role == WORKER) + command
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=home, env=environment, stdout=file, stderr=file)
        started.append(process)
        end = time.monotonic() + WAIT
        while not (match := re.search(says, log.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Spark does not start: {log.read_text()}")
            time.sleep(0.1)
        return match[match.lastindex or 0]

    try:
        master = start("master", "master.Master", r"Starting Spark master at (\S+)", "--port", "0")
        for name in ("one", "two"):
            start(
                name, WORKER, "Successfully registered",
                "--cores", "1", "--memory", "2g", "--work-dir", str(folder / name), master,
            )  # fmt: skip
        yield master
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(WAIT)


def without_spark() -> dict[str, str]:
    """Return this process's environment without what tells Spark what to be."""
    named = {name: value for name, value in os.environ.items() if name not in CLUSTER}
    return named | {"SPARK_LOCAL_IP": "127.0.0.1"}


def driver_environment(master: str, settings: Mapping[str, object]) -> dict[str, str]:
    """Return the environment of a driver with half a gigabyte."""
    options = " ".join(f"--conf {name}={value}" for name, value in settings.items())
    submit = f"--master {master} --driver-memory 512m {options} pyspark-shell"
    return without_spark() | {"PYSPARK_SUBMIT_ARGS": submit}


def write(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Write a cohort; return the spec of its store."""
    (folder / "tiles").mkdir()
    (folder / "embeddings").mkdir()
    each, rng = options.tiles // options.slides, np.random.default_rng(0)
    for number in range(options.slides):
        slide = pa.repeat(f"{number:05}-".ljust(options.letters, "n"), each)
        keys = {"slide_id": slide, "x": np.arange(each), "y": np.zeros(each, dtype=np.int64)}
        values = pa.array(rng.standard_normal(each * options.dim, dtype=np.float32))
        vectors = pa.FixedSizeListArray.from_arrays(values, options.dim)
        pq.write_table(pa.table({**keys, "embedding": vectors}),
                       folder / "embeddings" / f"{number:05}.parquet")  # fmt: skip
        share = rng.random(each)
        covers = {"roi_coverage_Fat": share, "roi_coverage_Nerve": 1 - share}
        pq.write_table(pa.table({**keys, **covers}), folder / "tiles" / f"{number:05}.parquet")
    return {
        "tiles": str(folder / "tiles"), "embeddings": str(folder / "embeddings"),
        "class_indices": {"Fat": 0, "Nerve": 1}, "thresholds": {"Fat": 0.2, "Nerve": 0.2},
        "single_class": False, "k": 5, "kfold_strategy": "stratified_group",
    }  # fmt: skip


def make(spec: str, store: str | None) -> None:
    """Make a snapshot in the working folder, and print what came of it."""
    if store:
        shared.use(store)
    start = time.monotonic()
    snapshot = materialise(FeatureStore(StoreSpec(**json.loads(spec))))
    seconds = time.monotonic() - start
    print(json.dumps({"digest": snapshot.digest, "seconds": seconds, "gigabytes": peak()}))


def main() -> None:
    """Make it on both engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=4_000_000)
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--letters", type=int, default=120, help="of a slide's name")
    parser.add_argument("--dim", type=int, default=4)
    parser.add_argument("--make", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(*(options.make if len(options.make) > 1 else [*options.make, None]))
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        spec = write(folder, options)
        print(f"keys: {options.tiles * (options.letters + 16) / 1e6:,.0f} MB")
        program = [sys.executable, "-m", "benchmarks.cluster", "--make"]
        module = {"PYTHONPATH": str(Path(__file__).parents[1])}
        for engine in ("pyspark", "duckdb"):
            (folder / engine).mkdir()
            asked = [*program, json.dumps(spec | {"backend": engine})]
            if engine == "duckdb":
                subprocess.run(asked, cwd=folder / engine, env=os.environ | module, check=True)
                continue
            (folder / "cluster").mkdir()
            with standalone(folder / "cluster") as master:
                settings = {"spark.executor.memory": "1g", "spark.driver.maxResultSize": "64m",
                            "spark.ui.showConsoleProgress": "false"}  # fmt: skip
                environment = driver_environment(master, settings) | module
                asked.append(str(folder / "store"))
                subprocess.run(asked, cwd=folder / engine, env=environment, check=True)


if __name__ == "__main__":
    main()
