"""The life of a run: from what is refused before anything is written to its last word."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from featurestore.printing import Console
from train.config.schema import Config
from train.runtime import fit_state
from train.runtime.ending import Ending
from train.runtime.inputs import Inputs
from train.runtime.processes import Processes
from train.runtime.run import Run
from train.tracking.tracker import NullTracker


class AnyJob(Protocol):
    """What all processes of a run work on."""

    @property
    def config(self) -> Config:
        """The configuration, resolved."""

    @property
    def states(self) -> Path:
        """Where the state of the run is kept."""


J = TypeVar("J", bound=AnyJob)


@contextmanager
def start_run(
    prepare: Callable[[], tuple[Inputs, J]],
    processes: Processes,
    console: Console,
    ending: Ending,
    command: str,
) -> Iterator[tuple[Run, J, Inputs | None]]:
    """Yield a run, what all processes work on, and what the main one alone has opened.

    Parameters
    ----------
    prepare
        Opens it, on the main process; refuses whatever can be refused before anything is written.
    ending
        How a killed process, or a lost one, ends.
    command
        What started the run, as a shell takes it.
    """
    with ExitStack() as stack:
        opened: list[Inputs] = []  # on the main process alone

        def open_all() -> J:
            inputs, job = prepare()
            stack.callback(inputs.locks.close)
            opened.append(inputs)
            return job

        job = processes.on_main(open_all)
        inputs = opened[0] if opened else None
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        tracker = stack.enter_context(inputs.tracker if inputs else NullTracker())
        output = Path(job.config.output or folder)
        run = Run(job.config, processes, console, tracker, output, job.states, command)
        stack.push(ending.begin)  # before the tracker hears of it
        keeps_state = run.config.mode in ("fit", "predict")
        if keeps_state:
            ending.left = partial(fit_state.saved_epochs, run)
            ending.mark = partial(fit_state.abandon, run)
        if inputs and keeps_state:
            fit_state.start_state(run.states, run.config.resume, tracker.run)
        yield run, job, inputs
        tracker.finish()
        fits = run.config.mode == "fit"
        fit_state.settle(run, trained=fits and run.config.probe != "knn")
        if run.is_main and (fits or run.config.output is None):
            fit_state.remove_state(run.states)
        console.print(tracker.where(), soft_wrap=True)
