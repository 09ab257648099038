"""The processes of a run meet, and are connected until it ends."""

import contextlib
import os
import secrets
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, set_seed
from torch.distributed import distributed_c10d

from featurestore.console.cli import shown_warnings
from featurestore.errors import FeatureStoreError, FeatureStoreWarning
from featurestore.printing import Console, is_quiet
from train.config.schema import Config
from train.runtime import agreement
from train.runtime.ending import Ending, Rank
from train.runtime.lifeline import Lifeline, Peer, accept, joined, listener
from train.runtime.processes import Processes

START, WORK, BLIND = timedelta(minutes=5), timedelta(days=1), timedelta(minutes=30)
"""How long processes wait for each other: to meet; while the first one prepares data or records
what came out, since their connections tell who is gone; and without such connections."""
SET_TIMEOUT = getattr(distributed_c10d, "_set_pg_timeout", None)
"""Changes how long processes that have met wait for each other: torch's own and private, since it
has no public way. Without it they wait for the longest from the start on, and who does not come is
missed late; a shorter wait would end runs whose first process works for long."""


def create_accelerator(ending: Ending) -> Accelerator:
    """Return the processes of a run, once all have met.

    Raises
    ------
    FeatureStoreError
        Some did not come.
    """
    try:
        timeout = START if SET_TIMEOUT else WORK
        return Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)])
    except torch.distributed.DistError as error:
        ending.speaks = os.environ.get("LOCAL_RANK", "0") == "0"  # of its machine
        raise FeatureStoreError(
            "The processes of this run have not met",
            found=str(error).partition("\n")[0],
            fix="look at what the others say, then run the same command again",
        ) from error


@contextlib.contextmanager
def start_processes(config: Config, ending: Ending) -> Iterator[tuple[Processes, Console]]:
    """Yield the processes of a run, which have met, are connected and were started alike.

    With them comes the console, where the main one prints; the others' are quiet.

    Raises
    ------
    FeatureStoreError
        Some did not come.
    ConfigError
        They were not started alike.
    """
    with contextlib.ExitStack() as stack:
        accelerator = create_accelerator(ending)
        processes = Processes(accelerator)
        console = Console(quiet=is_quiet() or not processes.is_main)
        set_seed(config.seed)
        stack.enter_context(shown_warnings(console))
        stack.callback(accelerator.end_training)
        stack.enter_context(connected(processes, ending))
        agreement.check(processes, config)
        yield processes, console


@contextlib.contextmanager
def connected(processes: Processes, ending: Ending) -> Iterator[None]:
    """Connect the processes until the block ends, and end all of them where one ends."""
    number, world = processes.rank, processes.world
    rank = ending.rank = Rank(number, world, processes.local_rank)
    ending.speaks = processes.is_main
    with contextlib.ExitStack() as stack:
        if world > 1:
            peers = _met(processes, rank)
            if SET_TIMEOUT:
                SET_TIMEOUT(WORK if peers else BLIND)
            lifeline = Lifeline(number, peers, ending.hear)
            stack.callback(lifeline.close)
            ending.say = lifeline.say
        stack.push(ending.begin)
        yield


def _met(processes: Processes, rank: Rank) -> list[Peer]:
    """Return the peers of a process; none, with a warning, if some cannot reach the first."""
    host, trouble = os.environ.get("MASTER_ADDR", "127.0.0.1"), ""
    peers: list[Peer] = []
    with contextlib.ExitStack() as stack:
        if rank.number == 0:
            door = stack.enter_context(listener(host))
            offer: list[Any] = [door.getsockname()[1], secrets.token_hex(), rank.name]
        else:
            offer = [None] * 3
        broadcast_object_list(offer)
        port, token, name = offer
        try:
            if rank.number == 0:
                accept(door, token, rank.world - 1, peers)
            else:
                peers = [Peer(0, name, joined(host, port, token, rank))]
        except OSError as error:
            trouble = f"{rank.name}: {error.strerror or error}"
        troubles = [each for each in processes.all_gather(trouble) if each]
    if not troubles:
        return peers
    for peer in peers:
        peer.link.close()
    if rank.number == 0:
        warnings.warn(
            f"nobody hears of it when a process is gone: no connection to the first at {host}, "
            f"{troubles[0]}",
            FeatureStoreWarning,
            stacklevel=2,
        )
    return []
