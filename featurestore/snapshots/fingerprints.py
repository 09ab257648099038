"""Digests of code, whatever its comments, and of rows, whatever files they lie in."""

import ast
import functools
import hashlib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FATE = {
    "slide_id": pa.string(),
    "x": pa.int64(),
    "y": pa.int64(),
    "label": pa.string(),
    "target": pa.int64(),
    "fold": pa.int64(),
    "dropped_by": pa.string(),
}
"""What decides which tiles are trained on, on which side, as what."""


@functools.cache
def of_code(*modules: str) -> str:
    """Return the SHA-256 of some modules of this package, see `of_source`."""
    files = (importlib.resources.files("featurestore") / f"{name}.py" for name in modules)
    return of_source(*(file.read_bytes() for file in files))


def of_source(*texts: bytes) -> str:
    """Return the SHA-256 of the definitions in some source texts.

    Comments, docstrings and imports are left out, and so is which text a definition is in: none of
    them changes what is computed.
    """
    definitions = []
    for text in texts:
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [line for line in node.body if not _is_import_or_docstring(line)]
        definitions += [ast.dump(line) for line in tree.body]
    return hashlib.sha256("\n".join(sorted(definitions)).encode()).hexdigest()


def _is_import_or_docstring(line: ast.stmt) -> bool:
    """Return whether a statement is an import or a bare string."""
    if isinstance(line, ast.Import | ast.ImportFrom):
        return True
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def of_rows(fates: Sequence[Path]) -> str:
    """Return the SHA-256 of fates, whatever other columns they have.

    Parameters
    ----------
    fates
        Parquet files, sorted by key one after the other.
    """
    schema = pq.read_schema(fates[0])
    hashes = {name: (hashlib.sha256(), hashlib.sha256()) for name in FATE if name in schema.names}
    for path in fates:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(hashes)):
                for name, both in hashes.items():
                    for sha256, content in zip(both, _bytes(batch[name], name), strict=True):
                        sha256.update(content)
    lines = (f"{name}:{a.hexdigest()}:{b.hexdigest()}\n" for name, (a, b) in hashes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _bytes(column: pa.Array, name: str) -> tuple[bytes | memoryview, bytes | memoryview]:
    """Return the bytes of a column's values, and those of its nulls and lengths of texts."""
    column = column.cast(FATE[name])
    if pa.types.is_integer(column.type):
        valid = np.asarray(column.is_valid())
        return pc.fill_null(column, 0).to_numpy().tobytes(), valid.tobytes()
    sizes = pc.fill_null(pc.binary_length(column), -1).to_numpy()
    texts = pc.fill_null(column, "")
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    content = memoryview(data)[ends[0] : ends[-1]] if data else b""
    return content, sizes.tobytes()
