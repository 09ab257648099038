"""A network applied to a whole cohort: its embeddings are read once, and never all in memory.

Processes own neighbouring row groups, and a thread of a process takes one row group at a time, so
each is decoded once. What is kept of a tile is its probabilities, see `train.inference.cohort`.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from featurestore.embeddings.batches import RowGroup, embedding_batches, most_rows
from featurestore.embeddings.invalid import InvalidEmbeddings
from featurestore.errors import ArtifactError
from featurestore.io import cache
from featurestore.io.locks import FileLock
from featurestore.io.progress import Rows
from train.config.schema import Config
from train.inference import writer
from train.inference.cohort import Places, PredictionSet, check_sources
from train.inference.writer import PredictionWriter
from train.models.checkpoint import TrainedModel
from train.models.inference import logits_of
from train.predictions import partitions
from train.runtime import fit_state, places
from train.runtime.run import Run
from train.tracking.tracker import Tracker

Advance = Callable[[int], None]
BATCH_BYTES = 4 * 2**20  # fewer would cost more in calls than they save in cache


def place(config: Config, cohort: PredictionSet, tracker: Tracker) -> tuple[Path, FileLock | None]:
    """Return the folder of the predictions: where the user wants them, else beside fits' states.

    What is resumed goes on in its own run. Who holds the output needs no lock of its own.

    Raises
    ------
    ArtifactError
        There is nothing to resume, or something else; or what lies there are no predictions.
    """
    taken = None
    if config.output:
        folder = Path(config.output) / partitions.FOLDER
        config.resume = config.resume is True or (
            config.resume == "auto" and partitions.recorded(folder) is not None
        )
    else:
        state = cache.place(fit_state.KIND, partitions.digest(cohort.manifest))
        folder, taken, goes_on = places.find(
            state, config.resume, lambda folder: partitions.recorded(folder) is not None
        )
        config.resume = goes_on or config.resume is True
    if config.resume:
        partitions.check_same(folder, cohort.manifest)
        tracker.run = fit_state.run_of(folder)
    else:
        partitions.check_replaceable(folder)
    return folder, taken


def predict_cohort(run: Run, cohort: PredictionSet, model: TrainedModel) -> None:
    """Write the predictions of every slide that is not whole yet, a file a slide.

    Raises
    ------
    EmbeddingError
        Some embeddings are faulty: the slides without such are written.
    """
    processes, folder = run.processes, run.states
    rank, world = processes.rank, processes.world
    start = time.perf_counter()
    complete = processes.on_main(lambda: writer.begin(folder, cohort))
    places = cohort.places(complete)
    work = cohort.share(places, rank, world)
    out = PredictionWriter(folder, cohort, model.spec.classes)
    network = model.network.to(processes.device)
    with (
        closing(out),
        Rows(run.console).counting("predicted", sum(p.rows for p in work)) as advance,
    ):
        invalid = processes.together(
            lambda: scan(run.config, network, work, places, out=out, advance=advance)
        )
        out.join(processes.all_gather(out.begun()), rank, world)
        processes.together(out.finish)
    by_rank = processes.all_gather(invalid)
    writer.raise_invalid(cohort, places, [each for several in by_rank for each in several])
    processes.on_main(lambda: check_whole(folder, cohort))
    processes.on_main(lambda: check_sources(cohort))
    new, seconds = int((places >= 0).sum()), time.perf_counter() - start
    run.console.print(
        f"predicted: {new:,} tiles of {len(cohort.slides) - len(complete):,} slides in "
        f"{seconds:.1f} s" + (f"; {len(complete):,} slides were there" if complete else "")
    )


def scan(
    config: Config,
    network: nn.Module,
    work: list[RowGroup],
    places: Places,
    *,
    out: PredictionWriter,
    advance: Advance,
) -> list[InvalidEmbeddings]:
    """Apply a network to some row groups, on every core; return what was wrong with them."""
    on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = config.threads or max(1, (os.cpu_count() or 1) // on_machine)
    dim, local, before = out.cohort.dim, threading.local(), torch.get_num_threads()

    def alone() -> None:
        """Make a thread use one core, and give it memory to read into, again and again."""
        torch.set_num_threads(1)
        local.buffer = np.empty((most_rows(dim, BATCH_BYTES), dim), dtype=np.float32)

    def one(piece: RowGroup) -> InvalidEmbeddings:
        return apply(network, piece, places, local.buffer, out=out, advance=advance)

    with ThreadPoolExecutor(threads, initializer=alone) as pool:
        futures = [pool.submit(one, piece) for piece in work]
        try:
            results = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(before)
    return [faults for faults in results if faults.rows]


@torch.inference_mode()
def apply(
    network: nn.Module,
    piece: RowGroup,
    places: Places,
    buffer: npt.NDArray[np.float32],
    *,
    out: PredictionWriter,
    advance: Advance,
) -> InvalidEmbeddings:
    """Predict the tiles of a row group that are asked for."""
    device, logits = next(network.parameters()).device, logits_of(network)
    faults, scores, at = InvalidEmbeddings(out.cohort.dim, "float32"), [], piece.start
    for column in embedding_batches(piece, out.cohort.dim, BATCH_BYTES):
        block = faults.block(column, at, buffer)
        scores.append(logits(as_tensor(block).to(device)).cpu())
        score = scores[-1].numpy()
        # What is not finite in a row is not finite in its logits: only such rows are looked at.
        if not np.isfinite(score.sum()):
            faults.look(block, np.flatnonzero(~np.isfinite(score).all(axis=1)), at)
        at += len(block)
        advance(len(block))
    wanted = places[piece.start : at]
    good = (wanted >= 0) & ~np.isin(np.arange(piece.start, at), faults.rows)
    out.add(wanted[good], torch.cat(scores).softmax(dim=1).numpy()[good])
    return faults


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
    lacking = [name for name in cohort.slides if partitions.rows(folder, name) is None]
    if lacking:
        raise ArtifactError(
            f"{len(lacking):,} of {len(cohort.slides):,} slides are not in {folder}",
            found=f"the first is {lacking[0]}",
            fix="name an output that all machines share",
        )
