"""Tables and paragraphs for the terminal, in which every name and figure stands whole.

What is wider than the terminal is not squeezed: a row becomes a record, its cells behind the names
of their columns, over as many lines as it takes. In a pipe, where nobody says how wide the output
is, tables take 80 columns, as Rich has it, and prose is not broken.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from featurestore.printing import Console, counted, printable

SHOWN = 200  # rows that a table in the terminal shows
WORST = 10  # slides that lack embeddings
BORDER = 3  # characters that a column of a table takes beside its cells; one more takes the table
SHARE = "share"  # a column of fractions of a whole
INDENT = 2  # of what goes on with a record or a paragraph
LABEL, TITLE = "table.header", "table.title"  # styles of Rich's


@dataclass
class Column:
    """A column of texts for the terminal.

    Parameters
    ----------
    name
        Its heading.
    cells
        A text for each row, put on one line: `featurestore.printing.printable`.
    is_number
        Whether the cells are numbers, which stand at its right edge.
    """

    name: str
    cells: Sequence[str]
    is_number: bool = False

    def __post_init__(self) -> None:
        self.name, self.cells = printable(self.name), [*map(printable, self.cells)]

    @property
    def width(self) -> int:
        """How many characters of a terminal the widest cell takes."""
        return max(map(cell_len, self.cells), default=0)

    @property
    def least_width(self) -> int:
        """The same, or that of the longest word of the heading."""
        return max([self.width, *map(cell_len, self.name.split())])

    def padded(self, row: int) -> str:
        """Return a cell with blanks behind it, as wide as the widest."""
        return self.cells[row] + " " * (self.width - cell_len(self.cells[row]))


def print_table(
    answer: pa.Table,
    console: Console,
    title: str | None = None,
    limit: int = SHOWN,
    cell: Callable[[object, str], str] = lambda value, _: text(value),
) -> None:
    """Print an Arrow table, at most ``limit`` rows of it, and say what was left out.

    Parameters
    ----------
    cell
        Spells a value of a column.
    """
    values = answer.slice(0, limit).to_pydict()
    columns = [
        Column(field.name, [cell(value, field.name) for value in values[field.name]],
               pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
        for field in answer.schema
    ]  # fmt: skip
    if columns:
        print_columns(columns, console, title)
    if not len(answer):
        console.print("no rows")
    if len(answer) > limit:
        console.print(f"... and {len(answer) - limit:,} more rows (--format csv prints all)")


def print_columns(columns: Sequence[Column], console: Console, title: str | None = None) -> None:
    """Print columns side by side where the terminal is wide enough, else a record for each row."""
    for line in wrapped(printable(title), console.prose_width) if title else ():
        console.print(line, style=TITLE, highlight=False, soft_wrap=True)
    room = console.width - BORDER * len(columns) - 1
    if sum(column.least_width for column in columns) > room:
        _print_records(columns, console)
        return
    whole = sum(max(column.width, cell_len(column.name)) for column in columns) <= room
    table = Table()
    for column in columns:
        table.add_column(
            column.name,
            justify="right" if column.is_number else "left",
            width=None if whole else column.least_width,
            no_wrap=whole,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    console.print(table)


def _print_records(columns: Sequence[Column], console: Console) -> None:
    """Print each row over several lines, in all of which a column stands at the same place."""
    lines = _packed(columns, console.width)
    for row in range(len(columns[0].cells)):
        for number, line in enumerate(lines):
            indent = INDENT if number else 0
            if len(line) == 1:
                print_field(line[0].name, line[0].cells[row], console, indent)
                continue
            printed = Text(" " * indent)
            for column in line:
                printed.append(f"{column.name}:", LABEL).append(f" {column.padded(row)}  ")
            printed.rstrip()
            console.print(printed, soft_wrap=True)


def _packed(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """Return which columns of a record share a line, as many as there is room for."""
    lines: list[list[Column]] = []
    left = 0
    for column in columns:
        taken = cell_len(column.name) + 2 + column.width
        if not lines or taken > left:
            left = width - (INDENT if lines else 0)
            lines.append([])
        lines[-1].append(column)
        left -= taken + 2
    return lines


def print_field(label: str, content: str, console: Console, indent: int = INDENT) -> None:
    """Print a text behind its label, broken at blanks where it is wider than the terminal.

    Parameters
    ----------
    indent
        How far the label stands from the left edge; further lines of the text stand further.
    """
    first, *rest = wrapped(printable(f"{label}: {content}"), console.prose_width - indent - INDENT)
    printed = Text(" " * indent + first)
    printed.stylize(LABEL, indent, indent + len(printable(label)) + 1)
    console.print(printed, soft_wrap=True)
    for line in rest:
        console.print(Text(" " * (indent + INDENT) + line), soft_wrap=True)


def wrapped(content: str, width: int) -> list[str]:
    """Return a text as lines of a width; a word that is wider stays whole on a line of its own.

    Examples
    --------
    >>> wrapped("a name-that-is-long and more", 10)
    ['a', 'name-that-is-long', 'and more']
    """
    if cell_len(content) <= width:
        return [content]
    lines: list[str] = []
    for word in content.split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def print_tables(tables: Iterable[tuple[str, pa.Table]], console: Console) -> None:
    """Print several tables of figures, each below its title."""
    for title, table in tables:
        print_table(table, console, title, cell=figure)


def print_finding(label: str, wrong: str, found: str, fix: str, console: Console) -> None:
    """Print what is wrong as a paragraph, worded as a refusal: `featurestore.errors`."""
    for name, content, indent in (
        (label, wrong, 0),
        ("found", found, INDENT),
        ("to do", fix, INDENT),
    ):
        print_field(name, content, console, indent)


def print_findings(findings: pa.Table, console: Console) -> None:
    """Print what `featurestore.validation.violations` returns, a paragraph for each."""
    for row in findings.to_pylist():
        rows = "" if row["rows"] is None else f" ({counted(row['rows'], 'row')})"
        wrong = f"{row['artifact']}: {row['wrong']}{rows}"
        print_finding(row["severity"], wrong, row["found"], row["to do"], console)


def print_funnel(rows: list[dict[str, Any]], console: Console, title: str = "tiles") -> None:
    """Print a funnel: reason, number of tiles, share of the input, in step order."""
    total = max(rows[0]["tiles"], 1)
    columns = [
        Column("reason", [row["reason"] for row in rows]),
        Column("tiles", [figure(row["tiles"]) for row in rows], True),
        Column(SHARE, [figure(row["tiles"] / total, SHARE) for row in rows], True),
    ]
    print_columns(columns, console, title)


def print_matches(matches: pa.Table, console: Console, title: str) -> None:
    """Print the slides of which tiles have no embedding, the worst first, if there is any."""
    poor = matches.filter(pc.greater(matches["missing"], 0))
    if len(poor):
        named = poor.slice(0, WORST).rename_columns(["slide_id", "tiles", "without an embedding"])
        print_table(named, console, title)
    if len(poor) > WORST:
        console.print(f"... and {len(poor) - WORST:,} more slides")


def figure(value: object, column: str = "") -> str:
    """Return a value among figures: of a whole number its thousands, of a share its percentage.

    Examples
    --------
    >>> figure(1170), figure(0.0456, "share"), figure(0.0456)
    ('1,170', '4.6%', '0.0456')
    """
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1%}" if column == SHARE and isinstance(value, float) else text(value)


def text(value: object) -> str:
    """Return a value for people: of a fraction four significant digits, whole numbers whole.

    Examples
    --------
    >>> text(0.123456), text(12.34567), text(123456.7), text(1e-9), text(None)
    ('0.1235', '12.35', '123457', '1e-09', '')
    """
    if isinstance(value, float):
        return f"{value:.0f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"
    return "" if value is None else str(value)
