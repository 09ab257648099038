"""Whether the processes of a run were started alike: the first speaks and decides for all."""

import hashlib
import platform
import socket
from collections.abc import Sequence
from pathlib import Path

import featurestore
from train.config.schema import Config, ConfigError
from train.config.text import flat
from train.engine.lanes import LANES
from train.runtime.processes import Processes
from train.tracking.provenance import redacted
from train.tracking.runs import versions

Facts = dict[str, str]
SHOWN = 8  # differences; more are counted


def facts(config: Config) -> Facts:
    """Return what must be the same in all processes: configuration, code, versions, folder."""
    # Another machine may know a shared folder by another name; with a store, each has its own.
    folder = {f"the working folder on {socket.gethostname()}": str(Path.cwd())}
    return {
        **{".".join(path): repr(value) for path, value in flat(config).items()},
        "the code": code(),
        "python": platform.python_version(),
        **versions(),
        **({} if config.store else folder),
    }


def code() -> str:
    """Return a digest of this project's modules, whatever their commit is."""
    digest = hashlib.sha256()
    for folder in (Path(__file__).parents[1], Path(featurestore.__file__).parent):
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def check(processes: Processes, config: Config) -> None:
    """Refuse processes that cannot work together, in all of them.

    Raises
    ------
    ConfigError
        Something differs, or there are more than there are lanes of tiles.
    """
    if processes.world > LANES:
        raise ConfigError(
            f"The tiles are shared by at most {LANES} processes",
            found=f"{processes.world} processes",
            fix=f"start {LANES} of them or fewer",
        )
    if processes.world > 1:
        compare(processes.all_gather(facts(config)))


def compare(processes: Sequence[Facts]) -> None:
    """Refuse facts that differ between processes; raises as `check`."""
    unlike: dict[str, str] = {}
    for rank, facts_of_rank in enumerate(processes):
        for key in {**processes[0], **facts_of_rank}:
            here = key.startswith("the working folder")  # known to the ranks of a machine alone
            other = next(n for n, each in enumerate(processes) if key in each) if here else 0
            value, first = (each.get(key, "not set") for each in (facts_of_rank, processes[other]))
            if value != first and (key in facts_of_rank or not here):
                unlike.setdefault(key, f"{key} is {first} in rank {other}, {value} in rank {rank}")
    if unlike:
        more = f"; {len(unlike) - SHOWN} more" if len(unlike) > SHOWN else ""
        raise ConfigError(
            "The processes of this run were not started alike",
            found=redacted("; ".join(list(unlike.values())[:SHOWN])) + more,
            fix="give all of them the same arguments, code and working folder",
        )
