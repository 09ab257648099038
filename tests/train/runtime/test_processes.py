"""Several ranks begin alike and end together: real processes, with and without their launcher."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import programs
import pytest
from conftest import ROOT, TABLES, free_port, states
from programs import Program

from train.config.schema import Config, ConfigError
from train.engine.lanes import LANES
from train.runtime.agreement import check, compare
from train.runtime.processes import Processes

PROBE = str(ROOT / "train" / "probe.py")
ALIKE = {"fold": "4", "torch": "2.13", "the working folder on a": "/home"}


@pytest.fixture
def argv(artifacts: TABLES, tmp_path: Path) -> list[str]:
    """Return the arguments of a fit on twelve tiles that does not end by itself."""
    (tmp_path / "own.yaml").write_text(
        "data: {name: own}\nmax_epochs: 100000\npatience: 100000\nmin_delta: 0\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    (tmp_path / "none.yaml").write_text("{}")
    named = [f"{key}={value}" for key, value in artifacts().items()]
    return ["data=own.yaml", "classes=none.yaml", "fold=1", "output=out", *named]


def environment(**more: str) -> dict[str, str]:
    """Return that of a process on the CPU, with a tracking database in its folder."""
    inherited = {key: value for key, value in os.environ.items() if "MLFLOW" not in key}
    return {**inherited, "ACCELERATE_USE_CPU": "1", **more}


def ranks(commands: list[list[str]], home: Path) -> list[Program]:
    """Start ranks as on machines of their own: no launcher ends them."""
    together = {"WORLD_SIZE": str(len(commands)), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(free_port())}  # fmt: skip
    return [
        Program(command, home, environment(RANK=str(number), LOCAL_RANK="0", **together))
        for number, command in enumerate(commands)
    ]


def ends(processes: Sequence[Program | subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Return exit statuses and errors."""
    errors = [process.communicate(timeout=120)[1] for process in processes]
    return [(each.returncode, err) for each, err in zip(processes, errors, strict=True)]


def trains(process: Program | subprocess.Popen[str], home: Path) -> None:
    """Wait until a fit has kept an epoch."""
    while not list(home.glob(".featurestore/fits/*/head.pt")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"fold": "3"}, "fold is 4 in rank 0, 3 in rank 1"),
        ({"seed": "1"}, "seed is not set in rank 0, 1 in rank 1"),
        ({"torch": "2.12"}, "torch is 2.13 in rank 0, 2.12 in rank 1"),
        ({"the working folder on a": "/tmp"}, "is /home in rank 0, /tmp in rank 1"),
    ],
)
def test_what_differs_between_ranks_is_named(other: dict[str, str], words: str):
    with pytest.raises(ConfigError, match=words):
        compare([ALIKE, ALIKE | other])


def test_another_machine_may_know_the_working_folder_by_another_name():
    elsewhere = {"fold": "4", "torch": "2.13", "the working folder on b": "/mnt/home"}
    compare([ALIKE, elsewhere, elsewhere])
    with pytest.raises(ConfigError, match="on b is /mnt/home in rank 1, /tmp in rank 2"):
        compare([ALIKE, elsewhere, elsewhere | {"the working folder on b": "/tmp"}])


def test_more_processes_than_lanes_are_refused():
    """In words, and before they have told each other anything."""
    many = SimpleNamespace(world=LANES + 1)
    with pytest.raises(ConfigError, match=r"at most 64 processes\n  found: 65 processes\n"):
        check(cast(Processes, many), Config())


@pytest.mark.slow
def test_ranks_with_other_arguments_are_refused_together(argv: list[str], tmp_path: Path):
    command = [PROBE, *argv]
    (status, error), other = ends(ranks([command, [*command, "learning_rate=0.5"]], tmp_path))
    assert (status, *other) == (2, 2, "")
    assert error.splitlines() == [
        "error: The processes of this run were not started alike",
        "  found: learning_rate is 0.0001 in rank 0, 0.5 in rank 1",
        "  to do: give all of them the same arguments, code and working folder",
    ]
    assert not list(tmp_path.glob("out*"))
    assert not (tmp_path / ".featurestore").exists()


@pytest.mark.slow
def test_an_exception_on_one_rank_ends_all(argv: list[str], tmp_path: Path):
    """Its traceback is shown there; the first rank, which speaks for all, names the cause."""
    (tmp_path / "full.py").write_text(
        "import os, sys\nfrom train import probe\n"
        "def read(*_): raise MemoryError('no room')\n"
        "if os.environ['RANK'] == '1': probe.load_shards = read\n"
        "sys.exit(probe.main(sys.argv[1:]))\n"
    )
    command = [str(tmp_path / "full.py"), *argv, "tracking.enabled=false"]
    first, other = ends(ranks([command, command], tmp_path))
    assert first[0] == 2
    assert "failed: MemoryError\n  found: no room; kept: nothing, no epoch had ended" in first[1]
    assert "Traceback" not in first[1]
    assert other[0] == 1
    assert other[1].count("Traceback (most recent call last)") == 1
    assert other[1].endswith("MemoryError: no room\n")
    assert "error:" not in other[1]


@pytest.mark.slow
def test_an_exception_of_the_first_rank_ends_those_that_wait_for_it(
    argv: list[str], tmp_path: Path
):
    """It shows its traceback; another rank speaks for the rest."""
    (tmp_path / "torn.py").write_text(
        "import sys\nfrom train import probe\n"
        "def refuse(*_): raise ValueError('torn')\n"
        "probe.MODES['fit'] = (refuse, probe.fit)\n"
        "sys.exit(probe.main(sys.argv[1:]))\n"
    )
    began = time.monotonic()
    first, other = ends(ranks([[str(tmp_path / "torn.py"), *argv]] * 2, tmp_path))
    assert time.monotonic() - began < 60
    assert first[0] == 1
    assert first[1].count("Traceback (most recent call last)") == 1
    assert first[1].endswith("ValueError: torn\n")
    assert other[0] == 2
    assert other[1].count("error:") == 1
    assert "failed: ValueError\n  found: torn; kept: nothing, no epoch had ended\n" in other[1]
    assert "Traceback" not in other[1]


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_others(argv: list[str], tmp_path: Path):
    """It was the first, which alone talks to MLflow: another gives the run its status."""
    first, _ = processes = ranks([[PROBE, *argv]] * 2, tmp_path)
    trains(first, tmp_path)
    first.kill()
    began = time.monotonic()
    [_, (status, error)] = ends(processes)
    assert time.monotonic() - began < 60
    assert status == 2
    assert error.count("error:") == 1
    assert f"Rank 0 (process {first.pid} on " in error
    assert "epochs of the fit in .featurestore/fits/" in error
    assert error.endswith("to do: run the same command again with resume=true\n")
    assert states(tmp_path) == ["FAILED"]


@pytest.mark.slow
def test_a_launcher_that_is_terminated_ends_its_ranks(argv: list[str], tmp_path: Path):
    launcher = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", PROBE, *argv],
        cwd=tmp_path, env=environment(), text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    trains(launcher, tmp_path)
    launcher.send_signal(signal.SIGTERM)
    [(_, error)] = ends([launcher])
    [line] = [line for line in error.splitlines() if line.startswith("terminated")]
    assert "epochs of the fit in .featurestore/fits/" in line
    assert line.endswith("run the same command with resume=true to go on")
    assert "error:" not in error
    assert states(tmp_path) == ["KILLED"]
    assert not list(tmp_path.glob("out/.running"))


@pytest.mark.slow
def test_two_processes_make_mlflows_tables_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first runs of two people in one folder: one makes them, the other waits."""
    monkeypatch.setattr(programs, "TABLES", None)  # by MLflow's own migrations
    script = tmp_path / "prepare.py"
    script.write_text(
        "from featurestore.io import mlflow_artifacts as m; m.use_tracking(); m.make_tables()"
    )
    both = [Program([script], tmp_path, environment()) for _ in range(2)]
    assert [status for status, _ in ends(both)] == [0, 0]
    assert not list(tmp_path.glob("*.lock"))
