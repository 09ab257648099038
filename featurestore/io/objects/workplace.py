"""Where tasks on other machines work, and how what they make comes to who asked for it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import ArtifactError
from featurestore.io import atomic
from featurestore.io.objects import shared
from featurestore.io.objects.store import translated


@dataclass(frozen=True)
class Workplace:
    """The working folder of whoever asks for a task, and the store that both share.

    Parameters
    ----------
    home
        The folder. Without a store, the tasks work in it as well: all machines must have it.
    store
        URI of the store. Then tasks work in folders of their own, that go when they end.
    """

    home: Path
    store: str | None

    @classmethod
    def here(cls) -> "Workplace":
        """Return the workplace of this process."""
        store = shared.current()
        if store is None:
            return cls(Path.cwd(), None)
        is_path = "://" not in store.uri
        return cls(Path.cwd(), str(Path(store.uri).absolute()) if is_path else store.uri)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Work there for a block.

        Raises
        ------
        ArtifactError
            This machine does not have it.
        """
        shared.use(self.store, list_all=False)
        if self.store is None:
            if not self.home.is_dir():
                raise ArtifactError(
                    "An executor does not have the driver's working folder",
                    found=f"no folder {self.home} on {os.uname().nodename}",
                    fix="set store to a bucket, or to a folder that all machines mount",
                )
            with chdir(self.home):
                yield
            return
        disks = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")
        with tempfile.TemporaryDirectory(dir=disks[0] or None) as folder, chdir(folder):
            yield

    def send(self, file: Path, to: Path) -> None:
        """Give a file to who asked, for a folder of theirs, see `fetch`.

        Parameters
        ----------
        to
            Where it belongs, from the working folder.
        """
        store = shared.current()
        if store is None:
            atomic.publish(file, to)
            return
        with translated(store.uri, store.store.refusal):
            store.store.write(_key(store, to.parent) + to.name, file, once=False)

    def fetch(self, folder: Path) -> None:
        """Bring what tasks have sent into a folder of this process."""
        store = shared.current()
        if store is None:
            return
        with translated(store.uri, store.store.refusal):
            for stored in list(store.store.list_prefix(_key(store, folder))):
                store.fetch(stored, folder / stored.key.rpartition("/")[2])
                store.store.remove(stored)


def _key(store: shared.SharedStore, folder: Path) -> str:
    return f"{store.prefix}{shared.SENT}/{folder.name.lstrip('.')}/"
