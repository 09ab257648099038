"""Several encoders: embeddings of the same tiles, each artifact under the name of its encoder."""

import re
from collections.abc import Mapping

from featurestore.errors import ConfigError
from featurestore.spec.typed import nearest

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""Names become folders, metrics and models; with a dot in front, a folder is hidden."""
URIs = str | list[str] | Mapping[str, str] | None
"""The URI of one artifact, or several; or URIs by encoder."""


def check_encoders(embeddings: URIs, test_embeddings: URIs, encoder: str | None) -> None:
    """Refuse encoders that are not told apart, and one that is named but not there.

    Parameters
    ----------
    embeddings, test_embeddings
        As in the section ``data`` of a configuration.
    encoder
        The one that is picked.

    Raises
    ------
    ConfigError
        With the key.
    """
    for key, uris in (("embeddings", embeddings), ("test_embeddings", test_embeddings)):
        if isinstance(uris, Mapping):
            _check_names(f"data.{key}", uris)
    names = tuple(embeddings) if isinstance(embeddings, Mapping) else ()
    if test_embeddings and not _alike(names, test_embeddings):
        raise ConfigError(
            "data.embeddings and data.test_embeddings are not of the same encoders",
            found=f"data.embeddings: {_words(embeddings)}; "
            f"data.test_embeddings: {_words(test_embeddings)}",
            fix="give both under the same names, or leave data.test_embeddings out where the held-"
            "out tiles are among data.embeddings",
        )
    if encoder is not None and encoder not in names:
        raise ConfigError(
            f"There is no encoder {encoder!r}",
            found=f"data.embeddings: {_words(embeddings)}{nearest(encoder, names)}",
            fix="name one of them, or leave data.encoder out",
        )


def _check_names(key: str, uris: Mapping[str, str]) -> None:
    if not uris:
        raise ConfigError(
            f"{key} names no encoder",
            found=f"{key}={{}}",
            fix=f"write for example {key}={{virchow2: a/*.parquet, gigapath: b/*.parquet}}",
        )
    for name, uri in uris.items():
        if not re.fullmatch(NAME, name):
            raise ConfigError(
                f"{name!r} cannot be the name of an encoder",
                found=f"{key}: {', '.join(uris)}",
                fix="write it with a-z, A-Z, 0-9, - _ and . alone, a letter or digit first",
            )
        if not uri:
            raise ConfigError(
                f"{key}.{name} has no value", found=f"{key}.{name}: ''", fix="name a URI"
            )
    for name, uri in uris.items():
        others = [other for other in uris if other != name and uris[other] == uri]
        if others:
            raise ConfigError(
                f"{name} and {others[0]} are the same embeddings",
                found=f"{key}.{name} and {key}.{others[0]}: {uri}",
                fix="leave one of them out, or correct its URI",
            )


def _alike(names: tuple[str, ...], other: URIs) -> bool:
    return set(names) == (set(other) if isinstance(other, Mapping) else set())


def _words(uris: URIs) -> str:
    return uris or "not set" if isinstance(uris, str | None) else ", ".join(uris)


def encoder_of(artifact: str) -> str:
    """Return the encoder that an artifact's name names: ``embeddings/gigapath``; or nothing."""
    return artifact.partition("/")[2]


def kind_of(artifact: str) -> str:
    """Return the key of an artifact: ``embeddings`` of ``embeddings/gigapath``."""
    return artifact.partition("/")[0]
