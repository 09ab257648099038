"""The artifacts of a store: their files, read once, and whether they are still the same ones."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from featurestore.errors import ArtifactError, SchemaError, about
from featurestore.io import digests, parquet
from featurestore.io.parquet import Dataset
from featurestore.spec.encoders import kind_of
from featurestore.spec.store_spec import StoreSpec, not_configured
from featurestore.spec.typed import nearest


def united(
    uris: str | Sequence[str], columns: Mapping[str, str] | None = None, outlined: bool = False
) -> Dataset:
    """Return the artifact behind a URI, or behind several: all their files, in order.

    Of several, a file's name begins with the number of its URI, from 1: the same content in
    another order is another artifact.

    Parameters
    ----------
    columns, outlined
        As of `featurestore.io.parquet.dataset`, whose errors are these.
    """
    if isinstance(uris, str):
        return parquet.dataset(uris, columns, outlined)
    parts = [parquet.dataset(uri, columns, outlined) for uri in uris]
    if len(parts) == 1:
        return parts[0]
    fragments = [
        replace(fragment, name=f"{number}/{name}", place=number)
        for number, part in enumerate(parts, 1)
        for name, fragment in zip(_names(part), part.fragments, strict=True)
    ]
    left_out = [f"{n}/{name}" for n, part in enumerate(parts, 1) for name in part.left_out]
    return Dataset(tuple(fragments), ", ".join(part.uri for part in parts), tuple(left_out))


def _names(dataset: Dataset) -> list[str]:
    """Return the names of files; those of a table say its version, of which a union has none."""
    if dataset.version is not None:
        return list(dataset.named)
    return [fragment.name for fragment in dataset.fragments]


class Sources:
    """The files behind the artifacts of a spec, each looked up when it is first asked for.

    Parameters
    ----------
    spec
        Where the artifacts are, and under which names their columns stand.
    outlined
        Whether the lists of embeddings may stay in an object store until they are asked for.
    """

    def __init__(self, spec: StoreSpec, outlined: bool = True) -> None:
        self.spec, self.outlined = spec, outlined
        self._datasets: dict[str, Dataset] = {}

    def dataset(self, name: str) -> Dataset:
        """Return an artifact, by the name of its key in the spec: its files, not yet checked."""
        if name not in self._datasets:
            if kind_of(name) == "test_embeddings" and self.spec.test_embeddings is None:
                return self.dataset(name.removeprefix("test_"))
            uri = self.spec.uri(name)
            if uri is None and getattr(self.spec, name, None):
                raise ArtifactError(
                    "This needs the embeddings of one encoder, and none is picked",
                    found=f"data.{name}: {', '.join(getattr(self.spec, name))}",
                    fix="set data.encoder to one of them",
                )
            if uri is None:
                raise not_configured(name)
            outlined = self.outlined and kind_of(name).endswith("embeddings")
            with about(name), self._named(name):
                dataset = united(uri, self._columns(name), outlined)
                column = "id" if name == "slides" else "slide_id"
                dataset = dataset.stripped(column, self.spec.slide_id_strip or "")
            with about(name):
                self._check_embedding(name, dataset)
            self._datasets[name] = dataset
        return self._datasets[name]

    @contextmanager
    def _named(self, artifact: str) -> Iterator[None]:
        """Name the key in what is refused of the files behind it."""
        try:
            yield
        except ArtifactError as error:
            uri, key = self.spec.uri(artifact), self.spec.key(artifact)
            given = f"{key}={uri}" if isinstance(uri, str) else key
            raise ArtifactError(
                error.wrong, found=f"{error.found} ({given})", fix=error.fix
            ) from error

    def _columns(self, artifact: str) -> dict[str, str]:
        """Return names in the files of an artifact by those under which they are read."""
        given = {name: written for name, written in self.spec.columns.items() if written}
        if artifact == "slides":
            return {}
        if not kind_of(artifact).endswith("embeddings"):
            given.pop("embedding", None)
        return given

    def _check_embedding(self, artifact: str, dataset: Dataset) -> None:
        """Refuse embeddings without the column that is named: another one would be taken for it."""
        written = self._columns(artifact).get("embedding", "embedding")
        for fragment in dataset.filled:
            if written != "embedding" and fragment.column("embedding") != written:
                names = fragment.schema.names
                raise SchemaError(
                    f"The {self.spec.title(artifact)} have no column {written!r}, which "
                    "data.columns.embedding names",
                    found=f"{fragment.name}: columns {', '.join(names)}{nearest(written, names)}",
                    fix="correct data.columns.embedding",
                )

    @property
    def embeddings(self) -> list[str]:
        """The names of the artifacts of embeddings that were used."""
        return [name for name in self._datasets if kind_of(name).endswith("embeddings")]

    def files(self) -> list[Path]:
        """Return the files of every artifact that was used."""
        return [file for dataset in self._datasets.values() for file in dataset.files]

    def confirm(self) -> None:
        """Refuse artifacts that are not what they were when they were first read.

        Views, folds and what was checked are kept: they would be taken for those of other tiles.

        Raises
        ------
        ArtifactError
            A file was changed, replaced or removed.
        """
        for name, dataset in self._datasets.items():
            for file in digests.changed(dataset.identities):
                raise ArtifactError(
                    f"The {self.spec.title(name)} were changed since this store first read them",
                    found=f"{file} has another size, time or file than then",
                    fix="open the store again, or run again, once nobody writes there",
                )

    def digests(self, unread: Collection[str] = ()) -> dict[str, tuple[str, str]]:
        """Return URI and SHA-256 of each artifact that was used; a stamp of those not to read.

        The URI of a table says which version was read. Raises as `confirm`: what was used has no
        digest any more.
        """
        self.confirm()  # or what is read would be remembered, and then refused
        by_name = {
            name: (
                dataset.uri,
                digests.stamp(dataset.named) if name in unread else dataset.digest(),
            )
            for name, dataset in self._datasets.items()
        }
        self.confirm()
        return by_name

    def earlier_digests(self, names: Iterable[str], divided: bool = True) -> dict[str, str]:
        """Return the digest of some artifacts by the rule of runs that were recorded earlier.

        Parameters
        ----------
        divided
            Whether to return those whose folders give values as well, which that rule left out.
        """
        by_name = {}
        for name in names:
            dataset = self.dataset(name)
            if divided or not any(fragment.partition for fragment in dataset.fragments):
                by_name[name] = digests.earlier(dataset.fetch(unread=True).named)
        return by_name
