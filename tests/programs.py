"""Programs of this environment, run as a user would, without importing their libraries each time.

torch, MLflow, Ibis, DuckDB and scikit-learn take several seconds of processor time to import. A
process that has imported them and this project, the fork server of `multiprocessing`, is copied for
each program.
"""

import atexit
import io
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from subprocess import run as run_process
from typing import cast
from unittest.mock import patch

from mlflow_tables import copying

TESTS = Path(__file__).resolve().parent
LIBRARIES = [
    "torch", "mlflow", "mlflow.pyfunc", "ibis", "duckdb", "sklearn.metrics", "scipy.stats",
    "pandas", "matplotlib.backends.backend_agg", "accelerate", "torchmetrics", "omegaconf",
    "mlflow.pytorch", "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store", "ibis.backends.duckdb",
    "pyarrow.dataset", "pyarrow.parquet", "jinja2", "ml_dtypes", "git", "torch.export._trace",
    "sklearn.datasets", "sklearn.model_selection", "IPython", "pytest", "hypothesis",
]  # fmt: skip
PROJECT = ["featurestore.console.cli", "featurestore.snapshots.build", "train.probe"]
TABLES: Path | None = None
"""Where MLflow's tables are copied from, see `mlflow_tables`; None to make them anew."""

# Of what a short program of Spark does, little runs often enough to be worth optimising.
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
for started in ("SPARK_SUBMIT_OPTS", "SPARK_LAUNCHER_OPTS", "SPARK_DAEMON_JAVA_OPTS"):
    os.environ.setdefault(started, JAVA)

PLAIN = re.compile(r"[^|&;<>$`*?~#\n]+")
"""A line of which the shell makes words, and no more."""


@cache
def fork_server() -> ForkServerContext:
    """Return the prepared process, which is started at the first call; it has opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*LIBRARIES, *PROJECT, "frozen"])
    places = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, places))):
        ensure_running()  # it takes this checkout's modules, wherever it is installed from
    return context


class Program:
    """A script in Python that runs as a copy of the prepared process; used as `Popen` is."""

    def __init__(
        self, argv: Sequence[str | Path], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self._printed = [Path(self._scratch.name, name) for name in ("stdout", "stderr")]
        words = [str(word) for word in argv]
        self._process = fork_server().Process(
            target=_become, args=(words, folder, dict(environment), self._printed, TABLES)
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status, if it has ended."""
        return self.returncode

    def kill(self) -> None:
        """End it without warning."""
        self._process.kill()

    @property
    def stderr(self) -> io.TextIOBase:
        """What it has written to its standard error so far."""
        return io.StringIO(self._printed[1].read_text())

    def communicate(self, timeout: float = 300) -> list[str]:
        """Wait until it ends; return what it wrote to its standard output and error.

        Raises
        ------
        subprocess.TimeoutExpired
            It did not end: it is killed.
        """
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            self._process.join()
            raise TimeoutExpired(str(self._process), timeout)
        return [path.read_text() for path in self._printed]


def run_program(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float = 300
) -> CompletedProcess[str]:
    """Run a command in a folder; a script in Python as a copy of the prepared process.

    Raises
    ------
    subprocess.TimeoutExpired
        It did not end.
    """
    argv = _script(command, environment)
    if argv is None:
        return run_process(
            command, cwd=folder, env=environment, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
    program = Program(argv, folder, environment)
    printed = program.communicate(timeout)
    return CompletedProcess(command, cast(int, program.returncode), *printed)


def start_ranks(
    number: int, argv: Sequence[str], folder: Path, environment: Mapping[str, str], port: int
) -> list[Program]:
    """Start a script as the processes that torchrun starts, without the launcher itself."""
    together = {
        "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none",
    }  # fmt: skip
    return [
        Program(argv, folder, {**environment, **together, "RANK": str(n), "LOCAL_RANK": str(n)})
        for n in range(number)
    ]


def end_ranks(programs: Sequence[Program]) -> CompletedProcess[str]:
    """Wait until all of several ranks have ended."""
    printed = [program.communicate() for program in programs]
    status = next((program.returncode for program in programs if program.returncode), 0)
    return CompletedProcess([], status, *map("".join, zip(*printed, strict=True)))


def run_line(
    line: str, folder: Path, environment: Mapping[str, str], timeout: float = 300
) -> CompletedProcess[str]:
    """Run a line of a shell.

    ``accelerate launch`` of one process starts the script and no more, after importing torch; the
    README's first command is run under the real one, see `conftest.digits_home`.
    """
    words = shlex.split(line) if PLAIN.fullmatch(line) else []
    if words[:2] == ["accelerate", "launch"] and words[2].endswith(".py"):
        words[:2] = ["python"]
    command = words if words and "=" not in words[0] else ["bash", "-ec", line]
    return run_program(command, folder, environment, timeout)


def _script(command: Sequence[str], environment: Mapping[str, str]) -> list[str] | None:
    """Return the script that a command runs with its arguments; None if it is something else."""
    if environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
        return None
    words = [command[0] if command[0] != sys.executable else "python", *command[1:]]
    if words[0] == "python" and words[1].endswith(".py"):
        return words[1:]
    program = shutil.which("featurestore", path=environment["PATH"])
    return [program, *words[1:]] if program and words[0] == "featurestore" else None


def _become(
    argv: list[str],
    folder: Path,
    environment: dict[str, str],
    printed: list[Path],
    tables: Path | None,
) -> None:
    """Be the process of a script."""
    if tables:
        from mlflow.store.db import utils

        utils._initialize_tables = copying(utils._initialize_tables, tables)
    for descriptor, path in enumerate(printed, start=1):
        with path.open("w") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    tests = str(TESTS)
    sys.path[:] = [str(Path(argv[0]).resolve().parent), *(p for p in sys.path if p != tests)]
    try:
        runpy.run_path(argv[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which a process of multiprocessing leaves out
