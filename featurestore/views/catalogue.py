"""What each view and column is, and a view as a notebook shows it."""

import html
from collections.abc import Iterable
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from featurestore.backend import errors
from featurestore.views.classes import COVERAGE
from featurestore.views.predictions import PROBABILITY

SHOWN = 10  # rows in a notebook

VIEWS = {
    "tiles": ("the tiles artifact as it is", "tile"),
    "embeddings": (
        "the embeddings; of several encoders the keys that all have",
        "tile with an embedding",
    ),
    "slides": ("the slides artifact", "slide"),
    "classes": ("the classes with their rules", "class"),
    "coverages": ("the coverages in long form", "tile and class"),
    "labels": ("tiles with their label", "tile"),
    "thresholds": ("labels with the first reason to drop the tile by threshold", "tile"),
    "folds": ("thresholds with the fold of each surviving tile", "tile"),
    "assigned_folds": ("the assignment of folds", "slide and its group; tile, under stratified"),
    "fates": ("folds with the one fate of each tile, the join with embeddings counted in", "tile"),
    "funnel": ("how many tiles each reason drops, from input to kept", "reason"),
    "slide_classes": (
        "how much of each slide each class is: kept tiles by their label, tiles of runs by what "
        "they predict",
        "source, slide and class",
    ),
    "predictions": ("what runs predict, beside the label where there is one", "run and tile"),
    "errors": ("predictions of tiles that have another label", "run and tile"),
}
"""Name -> what it is, and what one row of it is; those of held-out tiles bear a prefix."""

COLUMNS = {
    "slide_id": "slide, first part of the key",
    "x": "left edge of the tile, second part of the key",
    "y": "upper edge of the tile, third part of the key",
    "patient_id": "patient that the slide is of",
    "embedding": "the foundation model's vector",
    "tissue_prop": "sum of the coverages",
    "dominant": "class of the largest coverage, the first in column order on a tie; null: none",
    "label": "the class that the label rule gives; background without any coverage",
    "target": "index of the label, null for background and for a class that is dropped",
    "dropped_by": "first reason for which the tile is not trained on; null: kept",
    "fold": "fold of the cross-validation; null for a dropped tile where folds are assigned",
    "class": "name of the class",
    "coverage": "covered share of the tile, in [0, 1]",
    "precision": "float32 or float64: what a threshold is cast to before it is compared",
    "step": "order of the reasons",
    "reason": "input, a reason to drop a tile, or kept",
    "tiles": "number of tiles",
    "name": "name of the class",
    "index": "target of the class, 0 .. K-1; null for one that is dropped",
    "threshold": "least coverage of a tile of this class, at the precision of its column",
    "id": "name of the slide",
    "path": "file of the slide",
    "mpp_x": "micrometres a pixel, across",
    "mpp_y": "micrometres a pixel, down",
    "level": "pyramid level of the tiles",
    "extent_x": "width of the slide",
    "extent_y": "height of the slide",
    "tile_extent_x": "width of a tile",
    "tile_extent_y": "height of a tile",
    "stride_x": "distance from tile to tile, across",
    "stride_y": "distance from tile to tile, down",
    "source": "who says the class: fates, test_fates, or a run",
    "share": "share of the tiles of the slide, in [0, 1]",
    "mm2": "area in square millimetres; null where the size of tiles or pixels is not known",
    "run": "the run that predicts, as it was named",
    "part": "held_out: validation, test or predicted tiles; out_of_fold: by heads that had not "
    "seen them",
    "predicted": "the most probable class",
    "probability": "its probability",
    "label_probability": "probability of the label; null without one",
}
PASSED = "a column of the artifact, passed through"


def describe_view(view: str) -> str:
    """Return what a view is, and its grain."""
    text, grain = VIEWS[view.removeprefix("test_")]
    held_out = "Of the held-out tiles: " if view.startswith("test_") else ""
    return f"{held_out}{text}. Grain: one row per {grain}."


def column_notes(columns: Iterable[str]) -> dict[str, str]:
    """Return what each of some columns is."""
    return {
        name: f"share of the tile that {name.removeprefix(COVERAGE)} covers, in [0, 1]"
        if name.startswith(COVERAGE)
        else f"probability of {name.removeprefix(PROBABILITY)}"
        if name.startswith(PROBABILITY)
        else COLUMNS.get(name, PASSED)
        for name in columns
    }


class NamedView(ir.Table):
    """A view as an Ibis table; a notebook shows what it is, its grain, first rows and SQL.

    What is made of it (``filter``, ``join``, ``to_pandas``) is Ibis' own.

    Parameters
    ----------
    view_name
        Its name in SQL.
    table
        The lazy table.
    definition
        The expression that it names.
    """

    __slots__ = ("definition", "view_name")

    def __init__(self, view_name: str, table: ir.Table, definition: ir.Table) -> None:
        super().__init__(table.op())
        object.__setattr__(self, "view_name", view_name)
        object.__setattr__(self, "definition", definition)

    def __reduce__(self) -> tuple[Any, ...]:
        return NamedView, (self.view_name, self.op().to_expr(), self.definition)

    def first(self, rows: int = SHOWN) -> pa.Table:
        """Return the first rows; of an embedding nothing but its place is read."""
        table = self.op().to_expr()
        table = table.drop("embedding") if "embedding" in table.columns else table
        with errors.translated():
            return table.limit(rows).to_pyarrow()

    def __repr__(self) -> str:
        return f"{self.view_name}: {describe_view(self.view_name)}\n{self.schema()}"

    def _repr_mimebundle_(self, *_: object, **__: object) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        rows, sql = self.first(), str(ibis.to_sql(self.definition))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in rows.column_names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(v))}</td>" for v in row.values()) + "</tr>"
            for row in rows.to_pylist()
        )
        return (
            f"<p><b>{html.escape(self.view_name)}</b>: "
            f"{html.escape(describe_view(self.view_name))}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<details><summary>SQL</summary><pre>{html.escape(sql)}</pre></details>"
        )


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
