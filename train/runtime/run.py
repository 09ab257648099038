"""One run of a script: what its parts share."""

from dataclasses import dataclass
from pathlib import Path

from featurestore.printing import Console, is_quiet
from train.config.schema import Config
from train.runtime.processes import Processes
from train.tracking.tracker import Tracker


@dataclass(frozen=True)
class Run:
    """One run of a script, on one process.

    Parameters
    ----------
    config
        The configuration, resolved.
    processes
        Who shares the work.
    console
        Where the main process prints; the others' are quiet.
    tracker
        MLflow on the main process, a null tracker on the others.
    folder
        Where files are written before they are logged.
    states
        Where the state of a fit is kept, see `train.runtime.fit_state`.
    command
        What started it, as a shell takes it.
    is_child
        Whether it is one of several below another one, on the same tiles.
    """

    config: Config
    processes: Processes
    console: Console
    tracker: Tracker
    folder: Path
    states: Path
    command: str = ""
    is_child: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.processes.is_main

    @property
    def answers(self) -> Console:
        """Where the main process prints what came of the run, be it quiet or not."""
        return Console() if is_quiet() and self.is_main else self.console

    @property
    def visible(self) -> bool:
        """Whether anybody can see a picture."""
        return self.tracker.records or self.config.output is not None
