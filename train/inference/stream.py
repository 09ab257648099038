"""A network applied to a whole cohort: its embeddings are read once, and never all in memory.

Processes own neighbouring row groups, and a thread of a process takes one row group at a time, so
each is decoded once. What is kept of a tile is its probabilities, until its slide is whole.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from featurestore.contract.violation import raise_first
from featurestore.embeddings.batches import RowGroup, embedding_batches, most_rows
from featurestore.embeddings.invalid import Faults, InvalidEmbeddings
from featurestore.errors import ArtifactError
from featurestore.io import cache
from featurestore.io.locks import FileLock
from featurestore.io.progress import Rows
from train.config.schema import Config
from train.inference import writer
from train.inference.cohort import PredictionSet, check_sources
from train.inference.work import TILES, Work, divided, read_tiles
from train.inference.writer import PredictionWriter
from train.models.checkpoint import TrainedModel
from train.models.inference import logits_of
from train.predictions import partitions
from train.runtime import fit_state, run_locks
from train.runtime.run import Run
from train.tracking.tracker import Tracker

Advance = Callable[[int], None]
AHEAD = 2  # row groups a thread that are waited for
BATCH_BYTES = 4 * 2**20  # fewer would cost more in calls than they save in cache


def lock_folder(
    config: Config, cohort: PredictionSet, tracker: Tracker
) -> tuple[Path, FileLock | None]:
    """Return the folder of the predictions: where the user wants them, else beside fits' states.

    A resumed prediction goes on in its own run. In an output the lock of the output is enough: None
    is returned for one of its own.

    Raises
    ------
    ArtifactError
        There is nothing to resume, or something else; or what lies there are no predictions.
    """
    lock = None
    if config.output:
        folder = Path(config.output) / partitions.FOLDER
        config.resume = config.resume is True or (
            config.resume == "auto" and partitions.recorded(folder) is not None
        )
    else:
        state = cache.place(fit_state.KIND, partitions.digest(cohort.manifest))
        folder, lock, is_resumed = run_locks.lock_state(
            state, config.resume, lambda folder: partitions.recorded(folder) is not None
        )
        config.resume = is_resumed or config.resume is True
    if config.resume:
        partitions.check_same(folder, cohort.manifest)
        tracker.run = fit_state.run_of(folder)
    else:
        partitions.check_replaceable(folder)
    return folder, lock


def predict_cohort(run: Run, cohort: PredictionSet, model: TrainedModel) -> None:
    """Write the predictions of every slide that is not whole yet, a file a slide.

    Parameters
    ----------
    cohort
        With its tiles on the main process alone.

    Raises
    ------
    EmbeddingError
        Some embeddings are faulty: the slides without such are written.
    """
    processes, folder = run.processes, run.states
    start = time.perf_counter()
    complete = processes.on_main(lambda: writer.begin(folder, cohort))
    try:
        work = processes.scatter(lambda: divided(cohort, folder, complete, processes.world))
        faults = predict_tiles(run, cohort, model, work)
        raise_first(faults.violations(cohort.dim, "float32", len(cohort)))
        processes.on_main(lambda: check_whole(folder, cohort))
        processes.on_main(lambda: check_sources(cohort))
    finally:
        if processes.is_main:
            writer.tidy(folder)
    new, seconds = len(cohort) - cohort.counts[complete].sum(), time.perf_counter() - start
    run.console.print(
        f"predicted: {new:,} tiles of {len(cohort.names) - len(complete):,} slides in "
        f"{seconds:.1f} s" + (f"; {len(complete):,} slides were there" if complete else "")
    )


def predict_tiles(run: Run, cohort: PredictionSet, model: TrainedModel, work: Work) -> Faults:
    """Predict the tiles of this process's row groups; return what is wrong with those of all.

    What the processes have of each other's slides they exchange on the disk.
    """
    processes, folder = run.processes, run.states
    out = PredictionWriter(folder, cohort, model.spec.classes, processes.rank)
    network = model.network.to(processes.device)
    with closing(out), Rows(run.console).counting("predicted", work.rows) as advance:
        faults = processes.together(
            lambda: scan(run.config, network, read_tiles(folder / TILES, work), out, advance)
        )
        files = processes.all_gather(processes.together(out.leave))
        on_disk = processes.all_reduce(torch.from_numpy(out.on_disk).to(processes.device))
        names = [name for of_process in files for name in of_process]
        processes.together(lambda: out.join(names, on_disk.cpu().numpy(), processes.world))
    return sum(processes.all_gather(faults), Faults())


def scan(
    config: Config,
    network: nn.Module,
    work: Iterable[tuple[RowGroup, pa.Table]],
    out: PredictionWriter,
    advance: Advance,
) -> Faults:
    """Apply a network to some row groups, on every core; return what was wrong with them.

    Parameters
    ----------
    work
        Each row group with the tiles that are asked for in it.
    """
    on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = config.threads or max(1, (os.cpu_count() or 1) // on_machine)
    dim, local, before = out.cohort.dim, threading.local(), torch.get_num_threads()

    def alone() -> None:
        """Make a thread use one core, and give it memory to read into, again and again."""
        torch.set_num_threads(1)
        local.buffer = np.empty((most_rows(dim, BATCH_BYTES), dim), dtype=np.float32)

    def one(row_group: RowGroup, tiles: pa.Table) -> Faults:
        probabilities, invalid = apply(network, row_group, local.buffer, advance)
        row = tiles["row"].to_numpy()
        good = ~np.isin(row, invalid.rows)
        out.add(tiles.filter(pa.array(good)), probabilities[row[good] - row_group.start])
        asked = np.isin(invalid.rows, row)
        keys = tiles.take(pa.array(np.searchsorted(row, invalid.rows[asked])))
        return Faults.of(out.cohort.named(keys), invalid.lengths[asked], dim)

    faults, running = Faults(), deque[Future[Faults]]()
    with ThreadPoolExecutor(threads, initializer=alone) as pool:
        try:
            for row_group, tiles in work:
                if len(running) == AHEAD * threads:  # tiles wait in the file, not in memory
                    faults += running.popleft().result()
                running.append(pool.submit(one, row_group, tiles))
            return sum((future.result() for future in running), faults)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(before)


@torch.inference_mode()
def apply(
    network: nn.Module, row_group: RowGroup, buffer: npt.NDArray[np.float32], advance: Advance
) -> tuple[npt.NDArray[np.float32], InvalidEmbeddings]:
    """Return the probabilities of a row group, shape (rows, K), and what is wrong with it.

    Parameters
    ----------
    buffer
        Memory to read into, of as many rows as a batch has at most.
    """
    device, logits = next(network.parameters()).device, logits_of(network)
    dim, at, scores = buffer.shape[1], row_group.start, []
    invalid = InvalidEmbeddings(dim, "float32")
    for column in embedding_batches(row_group, dim, BATCH_BYTES):
        block = invalid.block(column, at, buffer)
        scores.append(logits(as_tensor(block).to(device)).cpu())
        score = scores[-1].numpy()
        # What is not finite in a row is not finite in its logits: only such rows are looked at.
        if not np.isfinite(score.sum()):
            invalid.look(block, np.flatnonzero(~np.isfinite(score).all(axis=1)), at)
        at += len(block)
        advance(len(block))
    return torch.cat(scores).softmax(dim=1).numpy(), invalid


def as_tensor(block: npt.NDArray[np.float32]) -> Tensor:
    """Return a matrix as a tensor without a copy, be it one that must not be written to.

    torch warns of such memory of NumPy's, and not of Arrow's.
    """
    if block.flags.writeable:
        return torch.from_numpy(block)
    flat: Tensor = torch.from_dlpack(pa.array(block.reshape(-1)))
    return flat.view(block.shape)


def check_whole(folder: Path, cohort: PredictionSet) -> None:
    """Refuse to call a cohort predicted of which this machine sees a part.

    Raises
    ------
    ArtifactError
        Slides are missing.
    """
    lacking = [name for name in cohort.names if partitions.rows(folder, name) is None]
    if lacking:
        raise ArtifactError(
            f"{len(lacking):,} of {len(cohort.names):,} slides are not in {folder}",
            found=f"the first is {lacking[0]}",
            fix="name an output that all machines share",
        )
