"""Programs of this environment, run as a user would, without importing their libraries each time.

torch, MLflow, Ibis, DuckDB and scikit-learn take several seconds of processor time to import. A
process that has imported them, the fork server of `multiprocessing`, is copied for each program.
"""

import atexit
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from subprocess import run as run_process

TESTS = Path(__file__).resolve().parent
LIBRARIES = [
    "torch", "mlflow", "mlflow.pyfunc", "ibis", "duckdb", "sklearn.metrics", "scipy.stats",
    "pandas", "matplotlib.figure", "accelerate", "torchmetrics", "omegaconf",
]  # fmt: skip
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(LIBRARIES)
PLAIN = re.compile(r"[^|&;<>$`*?~#\n]+")
"""A line of which the shell makes words, and no more."""


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
    with tempfile.TemporaryDirectory() as scratch:
        printed = [Path(scratch, "stdout"), Path(scratch, "stderr")]
        process = SERVER.Process(target=_become, args=(argv, folder, dict(environment), printed))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutExpired(command, timeout)
        return CompletedProcess(command, process.exitcode, *(path.read_text() for path in printed))


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
    argv: list[str], folder: Path, environment: dict[str, str], printed: list[Path]
) -> None:
    """Be the process of a script."""
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
