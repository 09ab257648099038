"""Which files a tool's output is, and which slide each is of."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from featurestore.errors import ArtifactError, ConfigError
from featurestore.importing.slide import Request


def source_files(
    request: Request, suffixes: Sequence[str], folders: Iterable[str] = ()
) -> list[Path]:
    """Return the files of a source, in order, however deep they lie; hidden ones are left out.

    Parameters
    ----------
    suffixes
        What their names end in.
    folders
        Folders of the source that have them, if any of these is there.

    Raises
    ------
    ArtifactError
        There is none, or the source is not there.
    """
    source = request.source
    if source.is_file():
        return [source]
    root = next((source / name for name in folders if (source / name).is_dir()), source)
    files = [
        file
        for suffix in suffixes
        for file in sorted(root.rglob(f"*{suffix}"))
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(root).parts)
    ]
    if not files:
        raise ArtifactError(
            f"There is no {' or '.join(suffixes)} of {request.format} at {source}",
            found=_neighbours(source),
            fix="name the file or the folder that the tool wrote",
        )
    return files


def _neighbours(source: Path) -> str:
    if not source.is_dir():
        return f"no file or folder {source}"
    names = sorted(entry.name for entry in source.iterdir())
    return f"in {source}: {', '.join(names[:8]) or 'nothing'}"


def slide_name(request: Request, file: Path, suffix: str = "") -> str:
    """Return the name of the slide that a file is of: the file's, or what the pattern finds.

    Parameters
    ----------
    suffix
        What tools add to the name, before the file's own suffix.

    Raises
    ------
    ConfigError
        The pattern is none, or finds nothing.
    """
    if request.slide_id is None:
        return file.stem.removesuffix(suffix)
    root = request.source if request.source.is_dir() else request.source.parent
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    try:
        match = re.search(request.slide_id, name)
    except re.error as error:
        raise ConfigError(
            "--slide-id is no regular expression",
            found=f"{request.slide_id!r}: {error}",
            fix=r"write for example '([^/]+)\.h5$'",
        ) from error
    if match is None:
        raise ConfigError(
            f"--slide-id finds no slide in the name of {file}",
            found=f"{request.slide_id!r} in {name!r}",
            fix="write a regular expression whose first group is the slide's name, for example "
            r"'([^/]+)\.h5$'",
        )
    return match[1] if match.groups() else match[0]
