"""The report of a run: one HTML page that needs nothing but itself.

What a page says goes in, HTML comes out. Whatever stands in it is escaped, and its policy
forbids the browser to load anything or to run any script.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from featurestore.io.atomic import write_bytes
from featurestore.redaction import redacted

FILE = "report.html"
SECTIONS = {
    "data": "Data",
    "model": "Model",
    "good": "How good it is",
    "fails": "Where it fails",
    "again": "How to reproduce it",
}
LONG = 60  # rows of a table that are shown; more would be scrolled past


@dataclass(frozen=True)
class Headline:
    """One of the figures at the top of a page.

    Parameters
    ----------
    name, value
        What is read first.
    detail
        Below it, for example an interval.
    doubtful
        Whether a reader should stop at it.
    """

    name: str
    value: str
    detail: str = ""
    doubtful: bool = False


@dataclass(frozen=True)
class Table:
    """A table under its title.

    Parameters
    ----------
    columns
        Values by name.
    note
        A sentence below it.
    strip
        Value, lower and upper end of each row, to be drawn from 0 to 1; empty for none.
    folded
        Whether a reader has to open it.
    """

    title: str
    columns: Mapping[str, list[Any]]
    note: str = ""
    strip: Sequence[tuple[float, float, float]] = ()
    folded: bool = False

    kind = "table"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Its rows, the first `LONG` of them, as they are shown."""
        columns = [cells(column[:LONG]) for column in self.columns.values()]
        return list(zip(*columns, strict=True))

    @property
    def left_out(self) -> int:
        """How many rows are not shown."""
        return max(0, len(next(iter(self.columns.values()), [])) - LONG)

    @cached_property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers alone, where they are shown."""
        return [
            all(type(value) in (int, float) or value is None for value in column[:LONG])
            for column in self.columns.values()
        ]

    def drawn(self, row: int) -> tuple[float, ...] | None:
        """Return value and ends of a row in percent, within 0 .. 100; None if it has none."""
        ends = self.strip[row]
        if not all(map(math.isfinite, ends)):
            return None
        return tuple(round(100 * min(max(value, 0.0), 1.0), 2) for value in ends)


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows."""

    title: str
    png: bytes

    kind = "picture"
    folded = True

    @property
    def uri(self) -> str:
        """The picture itself, as an address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Text:
    """A sentence, or lines that are shown as they are."""

    text: str
    title: str = ""
    code: bool = False
    folded: bool = False
    doubtful: bool = False

    kind = "text"


Block = Table | Picture | Text


@dataclass
class Page:
    """What a page says; the parts of a run add to it as they find out.

    Parameters
    ----------
    title, subtitle
        Of the run.
    headlines
        What is read first.
    sections
        By the keys of `SECTIONS`.
    """

    title: str = ""
    subtitle: str = ""
    headlines: list[Headline] = field(default_factory=list)
    sections: dict[str, list[Block]] = field(default_factory=lambda: {key: [] for key in SECTIONS})

    def add(self, section: str, *blocks: Block) -> None:
        """Add to the end of a section."""
        self.sections[section] += blocks


def html(page: Page) -> str:
    """Return a page as HTML, without the secrets of URIs and commands that it tells."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = (here / "page.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = environment.get_template("page.html")
    return redacted(
        template.render(page=page, names=SECTIONS, style=style, digest=digest, pieces=pieces)
    )


def write_page(path: Path, page: Page) -> None:
    """Write a page by temporary name and rename."""
    write_bytes(path, html(page).encode())


def pieces(blocks: list[Block]) -> list[list[Block]]:
    """Return blocks in their order, neighbouring pictures together."""
    groups: list[list[Block]] = []
    for block in blocks:
        if isinstance(block, Picture) and groups and isinstance(groups[-1][0], Picture):
            groups[-1].append(block)
        else:
            groups.append([block])
    return groups


def cells(column: Sequence[object]) -> list[str]:
    """Return the values of a column as they are shown, numbers with as many digits as needed."""
    numbers = [value for value in column if isinstance(value, float) and math.isfinite(value)]
    short = all(value == float(f"{value:.3g}") for value in numbers)

    def as_text(value: object) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, int):
            return f"{value:,}"
        if not isinstance(value, float):
            return str(value)
        small = 0 < abs(value) < 1e-3
        return f"{value:g}" if short else f"{value:.3g}" if small else f"{value:.4f}"

    return [as_text(value) for value in column]


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn rows into columns."""
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
