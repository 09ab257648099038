"""Cohorts as others write them: by pandas, with the names, types and folders that they like."""

from pathlib import Path

import numpy as np
import pandas as pd

SLIDES = 6
CLASSES = ("Fett-Gewebe", "Müs'kel")


def write(folder: Path, names: tuple[str, ...] = ("slide_id", "x", "y", "embedding")) -> Path:
    """Write tiles of five slides, held-out tiles of another, embeddings a file a slide, slides.

    Ten tiles a slide, each of one class; the first slide has no embedding, and ``s99`` no tile.

    Parameters
    ----------
    names
        Of the columns of the embeddings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = np.arange(10 * SLIDES)
    slide = np.char.add("s", (number // 10).astype(str))
    keys = {"slide_id": slide, "x": number % 10 * 224, "y": 0 * number}
    fat = 0.9 * (number % 2)
    shares = {f"roi_coverage_{CLASSES[0]}": fat, f"roi_coverage_{CLASSES[1]}": 0.8 - fat * 8 / 9}
    tiles = pd.DataFrame(keys | {"patient_id": np.char.replace(slide, "s", "p")} | shares)
    tiles[tiles.slide_id != "s5"].to_parquet(folder / "kfold_tiles.parquet")
    tiles[tiles.slide_id == "s5"].to_parquet(folder / "test_tiles.parquet")
    vectors = list(np.stack([number % 2, number], axis=1).astype("float32"))
    embeddings = pd.DataFrame(keys | {"embedding": vectors})
    embeddings.slide_id = embeddings.slide_id.replace({"s0": "s99"})
    (folder / "embeddings").mkdir(exist_ok=True)
    for name, rows in embeddings.groupby("slide_id"):
        rows.set_axis(list(names), axis=1).to_parquet(folder / "embeddings" / f"{name}.parquet")
    slides = {"id": sorted(set(slide)), "path": "a.svs", "mpp_x": 0.5, "level": 0,
              "tile_extent_x": 224, "tile_extent_y": 224}  # fmt: skip
    pd.DataFrame(slides).to_parquet(folder / "slides.parquet")
    return folder
