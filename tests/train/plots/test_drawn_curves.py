"""Curves of few and of many classes can be read: no text leaves the picture or meets another."""

import itertools
import re

import numpy as np
import pytest
from matplotlib.text import Text

from train.evaluation.curves import Curve
from train.plots.evaluation import curves_figure
from train.plots.palette import FAINT, LINES, line_styles


@pytest.mark.parametrize("classes", [2, 7, 40, 200])
def test_no_text_leaves_the_picture_or_meets_another(classes: int):
    rng = np.random.default_rng(0)
    of_class = rng.random(60) < 0.5
    curves = {
        f"{n}-{'Connective-$Tissue_of_the_Duodenum' * 2}"[:60]: Curve.of(
            of_class, (of_class * n / classes + rng.random(60)).astype(np.float32)
        )
        for n in range(classes)
    }
    figure = curves_figure(curves)
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if is_drawn(text)]
    boxes = [text.get_window_extent() for text in texts]
    frame = figure.bbox
    for text, (x0, y0, x1, y1) in zip(texts, (box.extents for box in boxes), strict=True):
        assert min(x0, y0) >= 0, text
        assert x1 <= frame.x1 and y1 <= frame.y1, text
    for (one, a), (other, b) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        assert not a.overlaps(b), (one, other)
    [legend] = figure.legends
    assert len(legend.get_texts()) == min(classes, LINES) + (classes > LINES)
    lines = [line for line in figure.axes[1].lines if line.get_color() != FAINT]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == min(classes, LINES)


def is_drawn(text: Text) -> bool:
    """Return whether a text is drawn; the label of a tick beyond the axes is not."""
    number = text.get_text().replace("−", "-")
    is_label = not re.fullmatch(r"-?[\d.]+", number) or 0 <= float(number) <= 1
    return text.get_visible() and bool(number) and is_label


def test_lines_differ_and_none_is_yellow():
    styles = line_styles(200)
    assert len(set(styles)) == len(styles) == LINES
    assert "#F0E442" not in {colour for colour, _ in styles}
