"""Tensors saved by torch. The one file that names ``torch``, and only when it is called.

A pickle can run whatever it likes: files are opened with ``weights_only=True`` alone, which takes
tensors and plain containers and refuses the rest.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from featurestore.errors import library_needed
from featurestore.importing.slide import Array, Blocks, file_error, size_of


def load(file: Path) -> Any:
    """Return what torch saved: a tensor of shape (tiles, dim), or a list of one a tile.

    They stay in the file until they are used.

    Raises
    ------
    ArtifactError
        It is not whole, or holds something else.
    """
    saved = _loaded(file)
    if isinstance(saved, list) and saved and all(hasattr(tensor, "shape") for tensor in saved):
        return saved
    if not hasattr(saved, "shape"):
        raise file_error(
            file, "does not hold a tensor", type(saved).__name__,
            "name the folder of the embeddings, and the tool that wrote it",
        )  # fmt: skip
    return saved[0] if len(saved.shape) == 3 and saved.shape[0] == 1 else saved


def _loaded(file: Path) -> Any:
    with library_needed(f"{file} cannot be read without torch", "pt"):
        import torch
    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # before torch 1.6 files were no zip, and cannot be mapped
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise file_error(
            file, "is no file of tensors alone, and opening it could run code",
            str(error).splitlines()[0][:200], "save the tensor alone: torch.save(features, FILE)",
        ) from error  # fmt: skip
    except Exception as error:  # of a damaged pickle: of any kind
        raise file_error(
            file, "is not a whole file of torch", f"{size_of(file)}; {str(error).splitlines()[:1]}",
            "copy it again, or write it again with the tool that made it",
        ) from error  # fmt: skip


def shape(file: Path, saved: Any) -> tuple[int, ...]:
    """Return the shape of the embeddings that `load` returned.

    Raises
    ------
    ArtifactError
        Those of a list are of unequal length.
    """
    if not isinstance(saved, list):
        return tuple(saved.shape)
    shapes = {tuple(size for size in tensor.shape if size != 1) for tensor in saved}
    if len(shapes) > 1:
        raise file_error(
            file, "holds embeddings of unequal length", f"shapes {sorted(shapes)[:3]}",
            "compute them again with one model",
        )  # fmt: skip
    return (len(saved), *shapes.pop())


def blocks(file: Path, coordinates: Array, max_rows: int) -> Blocks:
    """Read the tiles of a file that torch saved, at most so many at a time.

    Parameters
    ----------
    coordinates
        Of the tiles in the file, shape (rows, 2).
    """
    saved = load(file)
    for start in range(0, len(saved), max_rows):
        block = matrix(saved[start : start + max_rows])
        yield coordinates[start : start + len(block)], block


def matrix(saved: Any) -> Array:
    """Return rows of what `load` returned as an array, without a copy where NumPy has their type.

    bfloat16, which it has not, becomes float32.
    """
    if isinstance(saved, list):
        import torch

        saved = torch.stack(saved).flatten(1)
    values = saved.float() if str(saved.dtype) == "torch.bfloat16" else saved
    return values.detach().numpy()
