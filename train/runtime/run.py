"""What the parts of a run share, and how its processes act as one."""

from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from featurestore.printing import Console
from train.config.schema import Config
from train.tracking.tracker import Tracker


@dataclass(frozen=True)
class Run:
    """One run of a script, on one process.

    Parameters
    ----------
    config
        The configuration, resolved.
    accelerator
        The processes and their devices.
    console
        Where the first process prints; the others' are quiet.
    tracker
        MLflow on the first process, a null tracker on the others.
    folder
        Where files are written before they are logged.
    states
        Where the state of a fit is kept, see `train.runtime.fit_state`.
    command
        What started it, as a shell takes it.
    """

    config: Config
    accelerator: Accelerator
    console: Console
    tracker: Tracker
    folder: Path
    states: Path
    command: str = ""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return bool(self.accelerator.is_main_process)
