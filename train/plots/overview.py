"""The overview of many slides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from featurestore.drawing import LONGEST, ROWS, shortened
from train.plots.palette import ANSWERS
from train.plots.style import FLAT, new_figure, save


@dataclass(frozen=True)
class OverviewImage:
    """The tiles of a slide as images.

    Parameters
    ----------
    title
        Above them.
    label, truth
        Class indices as an image, below zero where there is none; without labels no ``truth``.
    confidence
        Probability of ``label``, not a number where there is no tile.
    answer
        Index of `train.plots.palette.ANSWERS`.
    extent
        Left, right, lower and upper edge of the images, in millimetres.
    """

    title: str
    label: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    truth: npt.NDArray[np.int64] | None
    answer: npt.NDArray[np.int64]
    extent: tuple[float, float, float, float]


def overview_png(path: Path, overview: OverviewImage, legend: Mapping[str, str]) -> Path:
    """Draw a slide: what is true, what is predicted, where it errs, how sure it is.

    Parameters
    ----------
    legend
        Each class and its colour, by index.
    """
    colours = list(legend.values())
    truth, extent = overview.truth, overview.extent
    marks = {"prediction": (overview.label, colours)}
    if truth is not None:
        errors = (overview.answer, list(ANSWERS.values()))
        marks = {"truth": (truth, colours), **marks, "errors": errors}
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
        overview.confidence, "viridis", vmin=0, vmax=1, extent=extent, interpolation="nearest"
    )
    panels[-1].set_title("probability of the prediction", fontsize=9, loc="left")
    figure.colorbar(drawn, ax=panels[-1], shrink=0.8)
    for axes in panels:
        axes.tick_params(labelsize=7)
    panels[-1 if tall < FLAT else 0].set_xlabel("mm", fontsize=7)
    handles = legend_entries([image for image, _ in list(marks.values())[:2]], legend)
    handles |= ANSWERS if truth is not None else {}
    longest = max(map(len, handles))
    columns = max(1, int((figure.get_figwidth() - 0.4) / (0.085 * longest + 0.7)))
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + 0.18 * (rows - 1))
    key = figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in handles.items()],
        loc="outside lower left", ncols=min(columns, len(handles)), fontsize=8, frameon=False,
    )  # fmt: skip
    for text in key.get_texts():
        text.set_parse_math(False)
    title = "\n".join(shortened(line, 3 * LONGEST) for line in overview.title.split("\n"))
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, parse_math=False)
    return save(figure, path)


def legend_entries(
    images: Sequence[npt.NDArray[np.int64]], legend: Mapping[str, str]
) -> dict[str, str]:
    """Return name and colour of the classes that are in images; of many those with most pixels."""
    classes, colours = list(legend), list(legend.values())
    pixels = np.concatenate([image.ravel() for image in images])
    count = np.bincount(pixels[pixels >= 0], minlength=len(classes))
    seen = np.flatnonzero(count)
    largest = np.sort(seen[np.argsort(-count[seen], kind="stable")[:ROWS]])
    entries = {shortened(classes[index]): colours[index] for index in largest}
    if others := len(seen) - len(largest):
        entries[f"{others} others"] = "none"
    return entries
