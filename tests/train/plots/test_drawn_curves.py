"""Curves of many classes: a colour and a name for those that people look for, grey for others."""

import numpy as np
import pytest

from featurestore.drawing import FAINT, LINES, line_styles
from train.evaluation.curves import Curve
from train.plots.evaluation import curves_figure


@pytest.mark.parametrize("classes", [2, LINES, LINES + 1, 200])
def test_of_many_classes_those_with_the_least_area_have_a_colour_and_a_name(classes: int):
    of_class = np.arange(60) % 2 == 0
    rng = np.random.default_rng(0)
    curves = {
        str(n): Curve.of(of_class, (of_class * n / 9 + rng.random(60)).astype(np.float32))
        for n in range(classes)
    }
    figure = curves_figure(curves)
    [legend] = figure.legends
    assert len(legend.get_texts()) == min(classes, LINES) + (classes > LINES)
    lines = [line for line in figure.axes[1].lines if line.get_color() != FAINT]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == min(classes, LINES)


def test_lines_differ_and_none_is_yellow():
    styles = line_styles(200)
    assert len(set(styles)) == len(styles) == LINES
    assert "#F0E442" not in {colour for colour, _ in styles}
