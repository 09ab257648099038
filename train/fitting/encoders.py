"""Several encoders on the same tiles: all is opened, and may be refused, before one is trained."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from featurestore.errors import ArtifactError
from featurestore.printing import Console
from featurestore.undo import undone_if_refused
from train.config.encoders import encoders, named, of_encoder
from train.config.schema import Config
from train.config.store import open_store
from train.fitting.prepare import Job, find_state, open_tiles
from train.models import onnx_graph
from train.runtime import fit_state
from train.runtime.inputs import Inputs, new_tracker, open_tracker


def prepare_encoders(config: Config, console: Console, processes: int) -> tuple[Inputs, Job]:
    """Open all that the fits of several encoders need.

    Their embeddings are on disk, each converted as that of an encoder alone, and none is in memory.

    Parameters
    ----------
    processes
        How many share the work: a state is theirs.
    """
    if config.tracking.onnx:
        onnx_graph.check_installed()
    with ExitStack() as locks:
        tracker = open_tracker(config, locks)
        jobs = []
        with undone_if_refused(), each_warning_once():
            for name in encoders(config):
                with named(name):
                    jobs.append(open_encoder(of_encoder(config, name), console))
            check_alike(jobs)
        opened = [job.inputs for job in jobs if job.inputs]
        digests = [
            f"{job.config.data.encoder} {snapshot.digest}"
            for job, inputs in zip(jobs, opened, strict=True)
            for snapshot in inputs.snapshots
        ]
        states = find_state(config, tracker, digests, processes, locks)
        for job, inputs in zip(jobs, opened, strict=True):
            # Of what is resumed, an encoder whose fit has not begun is trained from its beginning.
            place = states / str(job.config.data.encoder)
            job.config.resume = bool(config.resume) and fit_state.has_state(place)
            if job.config.resume and (run := fit_state.run_of(place)):
                inputs.tracker.run = run
                tracker.resumed_children |= {run}
        jobs = [replace(job, states=states / str(job.config.data.encoder)) for job in jobs]
        inputs = replace(opened[0], tracker=tracker, locks=locks.pop_all())
    return inputs, Job(config, states, encoders=tuple(jobs))


def open_encoder(config: Config, console: Console) -> Job:
    """Return the job of one of several encoders, its state yet to be found."""
    tracker = new_tracker(config, nested=True)
    return open_tiles(config, tracker, open_store(config), None, console)


def check_alike(jobs: list[Job]) -> None:
    """Refuse encoders that are not compared on the same tiles, labels and folds.

    Raises
    ------
    ArtifactError
        An artifact was changed between them.
    """
    contents = {
        str(job.config.data.encoder): [snapshot.content for snapshot in job.inputs.snapshots]
        for job in jobs
        if job.inputs
    }
    first, *others = contents
    for other in others:
        if contents[other] != contents[first]:
            raise ArtifactError(
                f"{first} and {other} do not have the same tiles, labels and folds",
                found="artifacts or folds that were changed while the run was prepared",
                fix="run the same command again, once nobody writes there",
            )


@contextmanager
def each_warning_once() -> Iterator[None]:
    """Give each warning once: what is wrong with tiles is wrong for all encoders."""
    with warnings.catch_warnings():
        show, given = warnings.showwarning, set[str]()

        def show_once(message: Warning | str, *where: Any, **named: Any) -> None:
            if str(message) not in given:
                given.add(str(message))
                show(message, *where, **named)

        warnings.showwarning = show_once
        yield
