"""What is printed where there is no terminal, no colour, or nobody who wants to read it."""

import argparse
import io
import signal
import subprocess
import sys
import warnings

import pytest
import torch
from conftest import ROOT, launch

from featurestore.console import cli
from featurestore.errors import FeatureStoreWarning
from featurestore.io import progress
from featurestore.io.progress import Pace, Rows
from featurestore.printing import Console, quietly
from train.engine.trainer import Epoch
from train.runtime.progress import EpochBar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock: its last entry is the time in seconds."""
    times = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[-1])
    return times


def epoch(number: int) -> Epoch:
    return Epoch(number, torch.tensor([0]), torch.tensor([0.5]), torch.tensor([0.25]))


def test_a_pace_is_told_every_ten_seconds(clock: list[float]):
    pace = Pace(100)
    clock.append(9.0)
    assert pace.advance(10) is None
    clock.append(20.0)
    assert pace.advance(10) == 1.0
    assert pace.left == "0:01:20"
    clock.append(30.0)
    assert pace.advance(60) == 6.0
    assert pace.left == "0:00:08"


def test_rows_are_lines_in_a_pipe_and_nothing_if_quiet(clock: list[float]):
    line = "predicted: 300 of 900 rows, 15 rows/s, 0:00:40 left"
    for quiet, lines in ((False, [line]), (True, [])):
        console = Console(file=io.StringIO())
        with quietly(quiet), Rows(console).counting("predicted", 900) as advance:
            advance(200)
            clock.append(clock[-1] + 20)
            advance(100)
        assert console.file.getvalue().splitlines() == lines


def test_epochs_are_lines_in_a_pipe(clock: list[float]):
    console = Console(file=io.StringIO())
    with EpochBar(console, 50, rows=1000) as bar:
        for number in range(10):
            clock.append(4.0 * (number + 1))
            bar.update(epoch(number))
    assert console.file.getvalue().splitlines() == [
        "epoch 3/50, loss 0.5000, validation 0.2500, 250 rows/s, at most 0:03:08 left",
        "epoch 6/50, loss 0.5000, validation 0.2500, 250 rows/s, at most 0:02:56 left",
        "epoch 9/50, loss 0.5000, validation 0.2500, 250 rows/s, at most 0:02:44 left",
    ]


def test_no_color_leaves_no_escape_sequence_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
):
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setenv("TERM", "xterm-256color")
        console = Console(file=io.StringIO(), force_terminal=True)
        with Rows(console).counting("converted", 10) as advance:
            clock.append(clock[-1] + 20)
            advance(5)
        console.print("bold", style="bold red")
        assert ("\x1b" in console.file.getvalue()) is not bool(no_color)


def test_quiet_silences_warnings_and_no_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def warn(_: argparse.Namespace) -> None:
        warnings.warn("a slide is odd", FeatureStoreWarning, stacklevel=1)

    monkeypatch.setattr(cli, "load_command", lambda _: warn)
    for argv, text in ((["views"], "warning: a slide is odd\n"), (["views", "--quiet"], "")):
        assert cli.main(argv) == 0
        assert capsys.readouterr().err == text
    monkeypatch.undo()
    assert cli.main(["funnel", "--quiet", "tresholds.Fat=1"]) == 2
    assert "error: " in capsys.readouterr().err


def test_an_interrupted_command_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def interrupted(_: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_command", lambda _: interrupted)
    assert cli.main(["views"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.slow
def test_an_interrupted_script_ends_in_one_line(tmp_path):
    """It is ended by the signal, which a shell shows as 130."""
    code = "from train.config import installed; installed.check_or_exit(); raise KeyboardInterrupt"
    done: subprocess.CompletedProcess[str] = launch(
        [sys.executable, "-c", code], tmp_path, PYTHONPATH=str(ROOT)
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "interrupted\n")
