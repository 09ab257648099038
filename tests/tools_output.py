"""Files as other tools write them, by h5py, torch, NumPy and pylance: none of this project's code.

Where each structure was read is in docs/formats.md.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tiles = dict[str, tuple[Array, Array]]
"""By slide: coordinates, shape (tiles, 2), and embeddings, shape (tiles, dim)."""

DIM = 4


def tiles(slides: Sequence[str] = ("A", "B"), rows: int = 5, step: int = 512) -> Tiles:
    """Return tiles on a grid three wide, with embeddings that differ everywhere."""
    made = {}
    for number, slide in enumerate(slides):
        count = rows + number
        places = step * np.array([divmod(tile, 3)[::-1] for tile in range(count)], np.int64)
        rng = np.random.default_rng(number)
        made[slide] = places, rng.standard_normal((count, DIM)).astype(np.float32)
    return made


def h5(file: Path, datasets: dict[str, Array], chunk: int, **attributes: dict[str, Any]) -> Path:
    """Write datasets that can grow, in chunks of so many rows, with attributes of theirs."""
    import h5py

    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        for name, values in datasets.items():
            content.create_dataset(
                name,
                data=values,
                chunks=(min(chunk, max(len(values), 1)), *values.shape[1:]),
                maxshape=(None, *values.shape[1:]),
            )
            content[name].attrs.update(attributes.get(name, {}))
        content.attrs.update(attributes.get("root", {}))
    return file


def trident(folder: Path, cohort: Tiles, dtype: str = "float32", encoder: str = "uni_v1") -> Path:
    """Write ``features_ENCODER`` as TRIDENT does: a chunk a tile, tiles of 256 at 20 x."""
    for slide, (places, features) in cohort.items():
        own = {"name": slide, "savetodir": "out"}
        attributes = {
            "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
            "target_magnification": 20, "overlap": 32, **own,
            "level0_width": 100_000, "level0_height": 80_000,
        }  # fmt: skip
        h5(folder / f"{slide}.h5", {"features": features.astype(dtype), "coords": places}, 1,
           features=own | {"encoder": encoder}, coords=attributes)  # fmt: skip
    return folder


def clam(folder: Path, cohort: Tiles, features: str = "h5") -> Path:
    """Write CLAM's features, and ``patches`` beside them: tiles of 256 at a level of half width."""
    import torch

    for slide, (places, embeddings) in cohort.items():
        attributes = {
            "patch_size": 256, "patch_level": 1, "downsample": (2.0, 2.0),
            "downsampled_level_dim": (5000, 4000), "level_dim": (5000, 4000), "name": slide,
            "save_path": "patches",
        }  # fmt: skip
        h5(folder / "patches" / f"{slide}.h5", {"coords": places}, 32, coords=attributes)
        if features == "h5":
            datasets = {"features": embeddings, "coords": places.astype(np.int32)}
            h5(folder / "h5_files" / f"{slide}.h5", datasets, 32)
        (folder / "pt_files").mkdir(exist_ok=True)
        torch.save(torch.from_numpy(embeddings), folder / "pt_files" / f"{slide}.pt")
    return folder


def stamp(folder: Path, cohort: Tiles, **attributes: Any) -> Path:
    """Write STAMP's features: half floats, and coordinates that are micrometres."""
    root = {"stamp_version": "2.5.0", "extractor": "uni", "unit": "um", "tile_size_um": 256.0,
            "tile_size_px": 224, "code_hash": "0", "feat_type": "tile"} | attributes  # fmt: skip
    for slide, (places, features) in cohort.items():
        datasets = {"coords": places.astype(np.float32), "feats": features.astype(np.float16)}
        h5(folder / f"{slide}.h5", datasets, 1024, root=root)
    return folder


def slide2vec(folder: Path, cohort: Tiles, suffix: str = "pt") -> Path:
    """Write ``tile_embeddings`` and ``tiles`` as slide2vec does."""
    import torch

    embeddings, grids = folder / "tile_embeddings", folder / "tiles"
    embeddings.mkdir(parents=True)
    grids.mkdir()
    for slide, (places, features) in cohort.items():
        index = np.arange(len(places))
        if suffix == "pt":
            torch.save(torch.from_numpy(features), embeddings / f"{slide}.pt")
        else:
            np.savez_compressed(embeddings / f"{slide}.npz", features=features, tile_index=index)
        meta = {"sample_id": slide, "artifact_type": "tile_embeddings", "encoder_name": "uni",
                "image_path": f"/data/{slide}.svs", "tile_size_lv0": 448}  # fmt: skip
        (embeddings / f"{slide}.meta.json").write_text(json.dumps(meta))
        np.savez_compressed(
            grids / f"{slide}.coordinates.npz", tile_index=index.astype(np.int32),
            x=places[:, 0], y=places[:, 1], tissue_fractions=np.ones(len(places), np.float32),
        )  # fmt: skip
        said = {
            "slide": {"dimensions": [50000, 40000], "base_spacing_um": 0.25,
                      "level_downsamples": [1.0, 4.0]},
            "tiling": {"tile_size_lv0": 448, "step_px_lv0": 448, "n_tiles": len(places)},
            "artifact": {"coordinate_space": "level_0", "tile_order": "row_major"},
        }  # fmt: skip
        (grids / f"{slide}.coordinates.meta.json").write_text(json.dumps(said))
    return folder


def eva(folder: Path, cohort: Tiles, every: int = 100) -> Path:
    """Write what eva's writer of whole slides does, tile by tile: later writes come first."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    queue = [
        (slide, torch.from_numpy(row.copy())) for slide, (_, rows) in cohort.items() for row in rows
    ]
    waiting: dict[str, list[Any]] = {}
    manifest = [["origin", "embeddings", "target", "split", "wsi_id"]]

    def save() -> None:
        for slide, some in waiting.items():
            file = folder / f"{slide}.pt"
            if some and not file.exists():
                manifest.append([f"{slide}.tif", file.name, "0", "train", slide])
            if some:
                torch.save(some + (torch.load(file) if file.exists() else []), file)
            waiting[slide] = []

    for number, (slide, row) in enumerate(queue):
        waiting.setdefault(slide, []).append(row)
        if number > 0 and number % every == 0:
            save()
    save()
    _csv(folder / "manifest.csv", manifest)
    grids = [["file", "x_y", "width", "height", "level_idx"]]
    for slide, (places, _) in cohort.items():
        grids.append(
            [f"training/{slide}.tif", str([tuple(p) for p in places.tolist()]), 224, 224, 0]
        )
    _csv(folder / "coords_train.csv", grids)
    return folder


def eva_tiles(folder: Path, cohort: Tiles) -> Path:
    """Write what eva's writer does of cut tiles: a file and a row of the manifest each."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    manifest = [["origin", "embeddings", "target", "split", "wsi_id", "x", "y"]]
    for slide, (places, features) in cohort.items():
        for number, ((x, y), row) in enumerate(zip(places.tolist(), features, strict=True)):
            torch.save([torch.from_numpy(row.copy())], folder / f"{slide}_{number}.pt")
            manifest.append(
                [f"{slide}_{number}.png", f"{slide}_{number}.pt", "0", "train", slide, x, y]
            )
    _csv(folder / "manifest.csv", manifest)
    return folder


def _csv(file: Path, rows: list[list[Any]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
