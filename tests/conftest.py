"""Shared by all tests: a working folder of their own, the embedded digits, and small artifacts."""

import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

# Before torch is imported. Tests run side by side, and so small a product gains nothing from more
# threads: they would wait for each other's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import programs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from mlflow_tables import copying
from programs import end_ranks, run_line, run_program, start_ranks

from featurestore.interpreter import SELDOM

pytest_plugins = [
    "engine_problems",  # the fixtures that tests of the engine share
    "machines",
    "object_stores",
    "sklearn_shards",
]
ROOT = Path(__file__).resolve().parent.parent
TABLES = Callable[..., dict[str, str]]

CLASSES = {
    "class_indices": {"Fat": 0, "Muscle": 1},
    "thresholds": {"Fat": 0.5, "Muscle": 0.5},
}


gc.set_threshold(*SELDOM)  # to look through all that was imported is an eighth of the time
# Garbage of this process may wait for a thread of its own when it is taken away, and a copy of the
# process has no other thread: a reader of `test_seals` once waited for ever. It looks for none.
os.register_at_fork(after_in_child=gc.freeze)


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis generate a tenth where the slow tests are left out: see `examples`."""
    if config.option.markexpr == "not slow":
        settings.register_profile("quick", max_examples=10, deadline=None)
        settings.load_profile("quick")


def examples(number: int) -> int:
    """Return how many examples a test generates, for its `settings`; a tenth without slow tests."""
    return max(1, number * settings.default.max_examples // 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: one that begins last would keep the other worker waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def _tables_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let MLflow make the tables of one sqlite database, and copy them into the other tests' own.

    The programs that tests start take them as well.
    """
    from mlflow.store.db import utils

    kept = tmp_path_factory.mktemp("tables") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "TABLES", kept)
        patch.setattr(utils, "_initialize_tables", copying(utils._initialize_tables, kept))
        yield


@pytest.fixture(autouse=True)
def _own_folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Run every test in an empty folder, with no tracking URI inherited, and as in a pipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)  # which readline sets where it is imported
    before = tracking_uri()
    yield
    forget_relative_stores()
    if tracking_uri() != before:
        sys.modules["mlflow"].set_tracking_uri(before)


@pytest.fixture(autouse=True, scope="module")
def _own_tracking() -> Iterator[None]:
    """Forget which store the fixtures of a module have pointed MLflow at."""
    yield
    if tracking_uri() is not None:
        sys.modules["mlflow"].set_tracking_uri(None)


def tracking_uri() -> str | None:
    """Return the store that MLflow was pointed at; None for its default, and if not imported."""
    utils = sys.modules.get("mlflow.tracking._tracking_service.utils")
    return None if utils is None else utils._tracking_uri


def forget_relative_stores() -> None:
    """Let MLflow open ``sqlite:///mlflow.db`` anew: it keeps stores by URI, whatever the folder."""
    for kind, registry in (
        ("tracking", "_tracking_service.registry.TrackingStoreRegistry"),
        ("model_registry", "_model_registry.registry.ModelRegistryStoreRegistry"),
    ):
        if f"mlflow.store.{kind}.sqlalchemy_store" not in sys.modules:
            continue
        engines = resolve_name(f"mlflow.store.{kind}.sqlalchemy_store.SqlAlchemyStore")._engine_map
        relative = [uri for uri in engines if re.match(r"sqlite:///[^/]", uri)]
        for uri in relative:
            engines.pop(uri).dispose()
        if relative:
            resolve_name(f"mlflow.tracking.{registry}")._get_store_with_resolved_uri.cache_clear()


@pytest.fixture
def artifacts(tmp_path: Path) -> TABLES:
    """Return a function that writes tiny tiles and embeddings and names them as arguments.

    Twelve tiles of four slides, two classes, folds 0 and 1; columns can be replaced, or dropped
    with None.
    """

    def write(tiles: dict | None = None, embeddings: dict | None = None) -> dict[str, str]:
        numbers = list(range(12))
        columns = {
            "slide_id": [f"s{n // 3}" for n in numbers],
            "x": numbers,
            "y": [0] * 12,
            "roi_coverage_Fat": [0.9 if n % 2 else 0.0 for n in numbers],
            "roi_coverage_Muscle": [0.0 if n % 2 else 0.8 for n in numbers],
            "fold": [n // 6 for n in numbers],
        } | (tiles or {})
        vectors = {
            "slide_id": columns["slide_id"],
            "x": numbers,
            "y": [0] * 12,
            "embedding": [[float(n % 2), 1.0, float(n)] for n in numbers],
        } | (embeddings or {})
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for name, table in (("tiles", columns), ("embeddings", vectors)):
            kept = {key: value for key, value in table.items() if value is not None}
            pq.write_table(pa.table(kept), folder / f"{name}.parquet")
        return {
            "data.tiles": str(folder / "tiles.parquet"),
            "data.embeddings": str(folder / "embeddings.parquet"),
        }

    return write


@pytest.fixture(scope="session")
def digits_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a working folder in which the main command has run once, under its launcher."""
    home = tmp_path_factory.mktemp("digits")
    done = launch(["accelerate", "launch", str(ROOT / "train" / "probe.py"), "fold=4"], home)
    assert done.returncode == 0, done.stderr
    (home / "stdout.txt").write_text(done.stdout)
    yield home


@pytest.fixture(scope="session")
def digits_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache of a fit of the digits: artifacts, folds, snapshot and pictures."""
    from train import probe

    home = tmp_path_factory.mktemp("digits-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        argv = ["fold=4", "max_epochs=1", "tracking.enabled=false", "output=out"]
        assert probe.main(argv) == 0
    return home / ".featurestore"


@pytest.fixture
def digits_made(digits_cache: Path, tmp_path: Path) -> None:
    """Let the digits lie in the test's folder, where no test of its file is about making them."""
    shutil.copytree(digits_cache, tmp_path / ".featurestore")


def launch(
    command: list[str], folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment in a folder, as a user would."""
    return run_program(command, folder, environment_with(environment))


def launch_line(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell in a folder."""
    return run_line(line, folder, environment_with(environment))


def launch_ranks(number: int, argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as several processes on the CPU, as torchrun does."""
    environment = environment_with({"ACCELERATE_USE_CPU": "1"})
    return end_ranks(start_ranks(number, argv, folder, environment, free_port()))


def environment_with(changes: dict[str, str]) -> dict[str, str]:
    """Return the variables of a user who has this environment and no tracking server."""
    programs = Path(sys.executable).parent
    inherited = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return {**inherited, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **changes}


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A tracking server on loopback, its database and artifacts in a folder.

    It can be killed without warning, and started again where it was.
    """

    def __init__(self, home: Path, *options: str) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.home, self.options = home, options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """What starts it, in its folder."""
        return ["mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
                "--workers", "1", "--backend-store-uri", "sqlite:///server.db",
                *self.options]  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.home / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command], cwd=self.home, stdout=log, stderr=log,
                start_new_session=True,
                # Seven more processes, each of which imports MLflow, for jobs that nobody submits.
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        answers(self.process, self.uri + "/health", self.home / "log.txt")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it and its workers."""
        if self.process:
            os.killpg(self.process.pid, how)
            self.process.wait(30)
            self.process = None


def answers(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Wait until a server answers at an address."""
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def runs(home: Path) -> list[Any]:
    """Return the fits that MLflow knows."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    fits = client.search_runs([client.get_experiment_by_name("tissue-probe").experiment_id])
    return [run for run in fits if "mlflow.parentRunId" not in run.data.tags]


def states(home: Path) -> list[str]:
    """Return what MLflow says of the fits."""
    return [run.info.status for run in runs(home)]


@contextmanager
def mlflow_server(home: Path, *options: str) -> Iterator[Server]:
    """Run a tracking server until the block ends."""
    server = Server(home, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill(signal.SIGTERM)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server with an artifact proxy, started as docs/server.md does."""
    home = tmp_path_factory.mktemp("server")
    with mlflow_server(home, "--artifacts-destination", "./artifacts") as server:
        yield server
