"""The overview of many slides."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from train.plots.palette import ANSWERS
from train.plots.style import FLAT, new_figure, save


@dataclass(frozen=True, eq=False)
class SlideImages:
    """What there is to draw of a slide.

    Parameters
    ----------
    label, truth
        Class indices as an image, below zero where there is none; without labels no ``truth``.
    confidence
        Probability of ``label``, not a number where there is no tile.
    answer
        Index of `train.plots.palette.ANSWERS`.
    extent
        Left, right, lower and upper edge of the images, in millimetres.
    """

    label: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    truth: npt.NDArray[np.int64] | None
    answer: npt.NDArray[np.int64]
    extent: tuple[float, float, float, float]


def overview_png(path: Path, title: str, colour_of: Mapping[str, str], slide: SlideImages) -> Path:
    """Draw a slide: what is true, what is predicted, where it errs, how sure it is.

    Parameters
    ----------
    colour_of
        By class, in the order of their indices.
    """
    extent, colours, classes = slide.extent, list(colour_of.values()), list(colour_of)
    marks = {"prediction": (slide.label, colours)}
    if slide.truth is not None:
        errors = (slide.answer, list(ANSWERS.values()))
        marks = {"truth": (slide.truth, colours), **marks, "errors": errors}
    tall = abs((extent[2] - extent[3]) / (extent[1] - extent[0]))
    number = len(marks) + 1
    shape = (number, 1) if tall < FLAT else (1, number)
    width = 9.5 if tall < FLAT else 3.3
    height = float(np.clip(width * tall, 0.6, 7)) + 0.4
    figure = new_figure(width * shape[1] + 0.6, height * shape[0] + 1.3)
    panels = figure.subplots(*shape, sharex=True, sharey=True)
    for axes, (name, (image, tones)) in zip(panels, marks.items(), strict=False):
        axes.imshow(
            np.ma.masked_less(image, 0), ListedColormap(tones), vmin=-0.5, vmax=len(tones) - 0.5,
            extent=extent, interpolation="nearest",
        )  # fmt: skip
        axes.set_title(name, fontsize=9, loc="left")
    drawn = panels[-1].imshow(
        slide.confidence, "viridis", vmin=0, vmax=1, extent=extent, interpolation="nearest"
    )
    panels[-1].set_title("probability of the prediction", fontsize=9, loc="left")
    figure.colorbar(drawn, ax=panels[-1], shrink=0.8)
    for axes in panels:
        axes.tick_params(labelsize=7)
    panels[-1 if tall < FLAT else 0].set_xlabel("mm", fontsize=7)
    seen = np.unique(np.concatenate([values.ravel() for values, _ in list(marks.values())[:2]]))
    named = {classes[index]: colours[index] for index in seen if index >= 0}
    entries = {**named, **(ANSWERS if slide.truth is not None else {})}
    legend = figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in entries.items()],
        loc="outside lower left", ncols=min(10, len(entries)), fontsize=8, frameon=False,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, parse_math=False)
    return save(figure, path)
