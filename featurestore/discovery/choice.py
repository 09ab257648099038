"""Which of what lies there can be which artifact, and what to do where nothing can."""

from collections.abc import Mapping
from shlex import quote

from featurestore.discovery.folders import Candidate, Contents
from featurestore.discovery.kinds import EMBEDDINGS, SLIDES, TILES
from featurestore.errors import ArtifactError
from featurestore.io import foreign

ARTIFACTS = ("tiles", "test_tiles", "embeddings", "test_embeddings", "slides")
"""What is looked for, in the order in which it is chosen."""


def options(
    artifact: str, contents: Contents, chosen: Mapping[str, Candidate | None]
) -> list[Candidate]:
    """Return what can be an artifact, beside what is chosen already.

    Held-out tiles and embeddings are those whose names say so. Embeddings that are tiles as well
    are taken only where there are no others.
    """
    if artifact == "slides":
        return contents.of_kind(SLIDES)
    pool = contents.of_kind(TILES if artifact.endswith("tiles") else EMBEDDINGS)
    if artifact.endswith("embeddings"):
        pool = [one for one in pool if TILES not in one.kinds] or pool
    train = [one for one in pool if not one.held_out]
    if not artifact.startswith("test_"):
        return train or pool
    if artifact == "test_embeddings" and chosen.get("test_tiles") is None:
        return []
    return [one for one in pool if one.held_out and train]


def check(contents: Contents, chosen: Mapping[str, Candidate | None], places: str) -> None:
    """Refuse to go on without tiles or embeddings, with what makes them of what lies there.

    Parameters
    ----------
    places
        Where was looked, for the error.

    Raises
    ------
    ArtifactError
        Tiles or embeddings are missing.
    """
    advice = {"tiles": _tiles_advice(contents), "embeddings": _embeddings_advice(contents)}
    missing = [name for name in advice if chosen.get(name) is None]
    if missing:
        seen = [f"{one.uri}: {', '.join(sorted(one.kinds))}" for one in contents.candidates]
        seen += [f"{folder}: {suffix}" for folder, suffix in contents.annotations.items()]
        seen += [f"{folder}: of another tool" for folder in contents.foreign]
        seen += [f"{table}: a table of text (CSV)" for table in contents.tables]
        raise ArtifactError(
            f"There are no {' and no '.join(missing)} in {places}",
            found="; ".join(seen[:8]) or "no Parquet file",
            fix="; ".join(dict.fromkeys(advice[name] for name in missing)),
        )


def _tiles_advice(contents: Contents) -> str:
    for folder, suffix in contents.annotations.items():
        files = quote(f"{folder}/*{suffix}")
        return (
            f"make tiles of the annotations: `featurestore cover --annotations {files} "
            "--classes classes.yaml --to tiles.parquet`"
        )
    if contents.tables:
        return _recipe(contents, "tile")
    return "write tiles with a column roi_coverage_<Class> for each class, or name them: --tiles"


def _embeddings_advice(contents: Contents) -> str:
    for folder in contents.foreign:
        if advice := foreign.advice(folder):
            return advice
    if contents.tables:
        return _recipe(contents, "emb")
    return "write embeddings as Parquet with a column embedding, or name them: --embeddings"


def _recipe(contents: Contents, word: str) -> str:
    """Return how a table of text becomes Parquet: the first that has a word in its name, if any."""
    named = sorted(contents.tables, key=lambda table: word not in table.name.casefold())
    return foreign.recipe(named[0])
