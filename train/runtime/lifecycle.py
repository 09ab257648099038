"""The life of a run: from what is refused before anything is written to its last word."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, Self, TypeVar

import pyarrow as pa
from accelerate.utils import set_seed

from featurestore.io.names import resolved_once
from featurestore.io.objects import shared
from featurestore.printing import Console
from featurestore.undo import undone_if_refused
from train.config.encoders import encoders, named
from train.config.ranks import prints_errors
from train.config.schema import Config
from train.runtime import fit_state
from train.runtime.inputs import Inputs
from train.runtime.process_group import start_processes
from train.runtime.run import Run
from train.runtime.shutdown import Shutdown, handle_signals
from train.tracking import provenance
from train.tracking.tracker import NullTracker, Tracker


class AnyJob(Protocol):
    """What all processes of a run work on."""

    @property
    def config(self) -> Config:
        """The configuration, resolved."""

    @property
    def states(self) -> Path:
        """Where the state of the run is kept."""

    @property
    def slides(self) -> pa.Table:
        """``slide_id, tiles, labelled`` of the slides that predictions are recorded of first."""

    def without_tiles(self) -> Self:
        """Return what the other processes are given: no table that grows with the tiles."""


J = TypeVar("J", bound=AnyJob)
Prepare = Callable[[Config, Console, int], tuple[Inputs, J]]
"""Opens what a run needs, given the number of processes; refuses what can be refused."""
Check = Callable[[Config, pa.Table], None]
"""Refuses what cannot be done with some slides."""


def exit_status(work: Callable[[Shutdown, str], None], argv: Sequence[str]) -> int:
    """Do the work of a script; return 0, 2 after a refusal, or 128 and the signal that ended it.

    Parameters
    ----------
    work
        Takes the shutdown of this process and the command that does the work again.
    argv
        Arguments of the script.
    """
    provenance.follow_launcher(os.environ)
    with handle_signals(prints_errors(os.environ)) as shutdown, resolved_once():
        try:
            work(shutdown, provenance.command(argv, os.environ, sys.argv[0]))
        except BaseException as error:
            return shutdown.report(error)
    return 0


@contextmanager
def start_run(
    config: Config, prepare: Prepare[J], check: Check, shutdown: Shutdown, command: str
) -> Iterator[tuple[Run, J, Inputs | None]]:
    """Yield a run, what all processes work on, and what the main one alone has opened.

    Parameters
    ----------
    prepare, check
        Called on the main process alone, before anything is written.
    shutdown
        How a killed process, or a lost one, ends.
    command
        What started the run, as a shell takes it.
    """
    shared.use(config.store)
    with start_processes(config, shutdown) as (processes, console), ExitStack() as stack:
        opened: list[tuple[Inputs, J]] = []  # what the main process keeps to itself

        def open_all() -> J:
            with undone_if_refused("digits"):
                inputs, job = prepare(config, console, processes.world)
            stack.callback(inputs.locks.close)
            check(config, job.slides)
            opened.append((inputs, job))
            return job.without_tiles()

        job, inputs = processes.on_main(open_all), None
        if opened:
            [(inputs, job)] = opened
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        tracker = stack.enter_context(inputs.tracker if inputs else NullTracker())
        output = Path(job.config.output or folder)
        run = Run(job.config, processes, console, tracker, output, job.states, command)
        stack.push(shutdown.begin)  # other processes hear of an error before the tracker does
        keeps_state = run.config.mode in ("fit", "predict")
        if keeps_state:
            shutdown.saved_state = partial(fit_state.saved_epochs, run)
            shutdown.set_run_status = partial(fit_state.abandon, run)
        if inputs and keeps_state:
            replaced = fit_state.start_state(run.states, run.config.resume, tracker.run)
            if replaced and run.config.mode == "predict":
                line = f"{run.states}: the predictions of {replaced} are replaced"
                run.console.print(line, soft_wrap=True)
        yield run, job, inputs
        tracker.finish()
        fits = run.config.mode == "fit"
        fit_state.end_if_lost(run, trained=has_checkpoint(run.config))
        # What is left to resume goes; of a prediction with an output, the state is the output.
        if run.is_main and (fits or run.config.output is None):
            fit_state.remove_state(run.states)
        run.answers.print(tracker.where(), soft_wrap=True)


def has_checkpoint(config: Config) -> bool:
    """Return whether a run leaves a checkpoint: of several encoders each run below it does."""
    return config.mode == "fit" and config.probe != "knn" and not encoders(config)


@contextmanager
def start_child(run: Run, job: AnyJob, tracker: Tracker | None) -> Iterator[Run]:
    """Yield the run of one encoder below that of several, as it would be alone.

    Its state stays until all of them have ended: what is resumed goes through those that have.

    Parameters
    ----------
    job
        That of the encoder.
    tracker
        On the main process: of the run below.

    Raises
    ------
    FeatureStoreError
        Whatever is refused of it, with the encoder's name.
    """
    config, stack = job.config, ExitStack()
    assert config.data.encoder
    run.console.print(f"encoder: {config.data.encoder}")
    set_seed(config.seed)
    with named(config.data.encoder):
        tracker = stack.enter_context(tracker or NullTracker())
        folder = run.folder / config.data.encoder
        child = replace(run, config=config, tracker=tracker, folder=folder, states=job.states,
                        is_child=True)  # fmt: skip
        if run.is_main:
            fit_state.start_state(child.states, config.resume, tracker.run)
        yield child
        tracker.finish()
        fit_state.end_if_lost(child, trained=has_checkpoint(config))
    stack.close()  # of one that fails, the run above ends it, once other processes have heard
