"""The process group of a run: its processes meet, and stay connected until the run ends."""

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

from featurestore.errors import FeatureStoreError, FeatureStoreWarning, shown_warnings
from featurestore.printing import Console, is_quiet
from train.config.schema import Config
from train.runtime import agreement
from train.runtime.peers import Peer, PeerConnections, accept_peers, connect, listen
from train.runtime.processes import Processes
from train.runtime.shutdown import Rank, Shutdown

START_TIMEOUT = timedelta(minutes=5)
"""How long processes wait for each other to start."""
WORK_TIMEOUT = timedelta(days=1)
"""How long they wait in a collective operation: the first one may prepare data or record results
for long, and the connections tell whether it is gone."""
UNCONNECTED_TIMEOUT = timedelta(minutes=30)
"""The same where there are no such connections."""
SET_TIMEOUT = getattr(distributed_c10d, "_set_pg_timeout", None)
"""Changes the timeout of a process group that has started: torch's own and private, since it has no
public way. Without it `WORK_TIMEOUT` holds from the start on, and a process that does not come is
missed late; a shorter one would end runs whose first process works for long."""


def create_accelerator(shutdown: Shutdown) -> Accelerator:
    """Return the processes of a run, once all have met.

    Raises
    ------
    FeatureStoreError
        Some did not come.
    """
    try:
        timeout = START_TIMEOUT if SET_TIMEOUT else WORK_TIMEOUT
        return Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)])
    except torch.distributed.DistError as error:
        shutdown.prints_errors = os.environ.get("LOCAL_RANK", "0") == "0"  # of its machine
        raise FeatureStoreError(
            "The processes of this run have not met",
            found=str(error).partition("\n")[0],
            fix="look at what the others say, then run the same command again",
        ) from error


@contextlib.contextmanager
def start_processes(config: Config, shutdown: Shutdown) -> Iterator[tuple[Processes, Console]]:
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
        accelerator = create_accelerator(shutdown)
        processes = Processes(accelerator)
        console = Console(quiet=is_quiet() or not processes.is_main)
        set_seed(config.seed)
        stack.enter_context(shown_warnings(console))
        stack.callback(accelerator.end_training)
        stack.enter_context(connected(processes, shutdown))
        agreement.check(processes, config)
        yield processes, console


@contextlib.contextmanager
def connected(processes: Processes, shutdown: Shutdown) -> Iterator[None]:
    """Connect the processes until the block ends, and end all of them where one ends."""
    rank = shutdown.rank = Rank(processes.rank, processes.world, processes.local_rank)
    shutdown.prints_errors = processes.is_main
    with contextlib.ExitStack() as stack:
        if processes.world > 1:
            peers = _connect_peers(processes, rank)
            if SET_TIMEOUT:
                SET_TIMEOUT(WORK_TIMEOUT if peers else UNCONNECTED_TIMEOUT)
            connections = PeerConnections(rank.number, peers, shutdown.on_peer_exit)
            stack.callback(connections.close)
            shutdown.notify_peers = connections.send
        stack.push(shutdown.begin)
        yield


def _connect_peers(processes: Processes, rank: Rank) -> list[Peer]:
    """Return the peers of a process; none, with a warning, if some cannot reach the first."""
    host, failure = os.environ.get("MASTER_ADDR", "127.0.0.1"), ""
    peers: list[Peer] = []
    with contextlib.ExitStack() as stack:
        address: list[Any] = [None] * 3  # port, token and name of the first process
        if rank.number == 0:
            server = stack.enter_context(listen(host))
            address = [server.getsockname()[1], secrets.token_hex(), rank.name]
        broadcast_object_list(address)
        port, token, name = address
        try:
            if rank.number == 0:
                accept_peers(server, token, rank.world - 1, peers)
            else:
                peers = [Peer(0, name, connect(host, port, token, rank))]
        except OSError as error:
            failure = f"{rank.name}: {error.strerror or error}"
        failures = [each for each in processes.all_gather(failure) if each]
    if not failures:
        return peers
    for peer in peers:
        peer.connection.close()
    if rank.number == 0:
        warnings.warn(
            f"nobody hears of it when a process is gone: no connection to the first at {host}, "
            f"{failures[0]}",
            FeatureStoreWarning,
            stacklevel=2,
        )
    return []
