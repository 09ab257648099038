"""One colour for each class, the same in every map: told apart by whoever is colour-blind too."""

import colorsys

from featurestore.drawing import FIRST

RGB = tuple[int, int, int]
GOLDEN = 0.618034  # of the circle of hues: no two steps come close for long

NOWHERE = "#FFFFFF"
"""No tile."""
ANSWERS = {"right": "#BFD8E6", "wrong": "#A50026", "no label": "#A0A0A0"}
"""Of an error map: no colour of a class, and light against dark."""


def colours(count: int) -> list[str]:
    """Return the colours of classes 0 .. count - 1, as ``#RRGGBB``."""
    palette = list(FIRST[:count])
    step = 0
    while len(palette) < count:
        light, full = (0.38, 0.75) if step % 2 else (0.66, 0.6)
        parts = colorsys.hls_to_rgb(step * GOLDEN % 1, light, full)
        colour = "#" + "".join(f"{round(255 * part):02X}" for part in parts)
        if colour not in palette:
            palette.append(colour)
        step += 1
    return palette


def rgb(colour: str) -> RGB:
    """Return red, green and blue of ``#RRGGBB``, 0 to 255."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue
