"""Answers in the format that was asked for: whole and right, or refused."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from featurestore.console.tables import print_table
from featurestore.errors import QueryError
from featurestore.io import atomic
from featurestore.io.refusals import reason
from featurestore.printing import Console, say

EXPLAINED = ["explain_key", "explain_value"]  # the columns of what EXPLAIN answers
SUMMARIES = ("avg", "std", "q25", "q50", "q75")  # of what SUMMARIZE does


@contextmanager
def presentable(form: str) -> Iterator[None]:
    """Refuse values that Arrow, Python or a format has no place for.

    Raises
    ------
    QueryError
        There is one.
    """
    try:
        yield
    except (pa.ArrowException, OverflowError) as error:
        raise QueryError(
            f"The answer holds what cannot be given as {form}",
            found=reason(error),
            fix="let the query write it as text: column::text",
        ) from error


def write(answers: Sequence[pa.Table], form: str, output: Path | None) -> None:
    """Print the answers to some statements, or write one to a file.

    Parameters
    ----------
    form
        ``table``, ``csv``, ``json`` or ``parquet``.

    Raises
    ------
    QueryError
        A value has no place in the format, or several answers have none.
    ArtifactError
        The file cannot be written.
    """
    if form == "table" and output is None:
        for answer in answers:
            with presentable(form):
                _print(answer)
        return
    if len(answers) > 1:
        raise QueryError(
            "Several answers are printed as tables, and nothing else",
            found=f"{len(answers)} statements",
            fix="ask one at a time, or leave --format and --output out",
        )
    content = _encoded(answers[0], form)
    if output is None and sys.stdout.isatty():
        for line in content.decode().splitlines():
            say(line)
    elif output is None:
        sys.stdout.buffer.write(content)
    else:
        atomic.write_bytes(output, content)


def _print(answer: pa.Table) -> None:
    """Print an answer; that of EXPLAIN is a drawing, and stays as it was drawn."""
    if answer.column_names != EXPLAINED:
        print_table(_shortened(answer), Console())
        return
    for text in answer["explain_value"].to_pylist():
        for line in text.splitlines():
            say(line)


def _shortened(answer: pa.Table) -> pa.Table:
    """Return what SUMMARIZE answers, which writes numbers out as text, with numbers."""
    if not set(SUMMARIES) < set(answer.column_names):
        return answer
    for name in SUMMARIES:
        texts = answer[name]
        with suppress(pa.ArrowInvalid):
            place = answer.column_names.index(name)
            answer = answer.set_column(place, name, texts.cast(pa.float64()))
    return answer


def _encoded(answer: pa.Table, form: str) -> bytes:
    with presentable("csv" if form == "table" else form):
        if form == "json":
            return (_json(answer.to_pylist()) + "\n").encode()
        sink = pa.BufferOutputStream()
        if form == "parquet":
            pq.write_table(answer, sink)
        else:
            pyarrow.csv.write_csv(answer, sink)
        content: bytes = sink.getvalue().to_pybytes()
        return content


def _json(rows: object) -> str:
    try:
        return json.dumps(rows, default=_plain, indent=1, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(rows), default=_plain, indent=1, allow_nan=False)


def _finite(value: object) -> object:
    """Return a value with null for what is no number in JSON, as browsers and pandas write it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def _plain(value: object) -> object:
    """Return what JSON has no word for.

    Decimals are numbers where those of JSON's readers hold them, else text with every digit; bytes
    are hexadecimal digits, dates and times are text.
    """
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    return value.hex() if isinstance(value, bytes) else str(value)
