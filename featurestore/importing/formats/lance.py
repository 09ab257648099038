"""Lance: a folder that its library reads. The one file that names ``lance``, as pylance is called.

Read through pylance 14.0.2, ``lance.dataset`` and ``LanceDataset.to_batches``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from featurestore.errors import library_needed
from featurestore.importing import tables
from featurestore.importing.slide import Request, Slide, file_error
from featurestore.importing.tables import Source

BUFFER = 2**28  # bytes that it may read ahead; 2 GB unless it is told


def slides(request: Request) -> list[Slide]:
    """Return the slides of the newest version of a table."""
    dataset = _opened(request)

    def batches(names: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        columns = list(names)
        for batch in dataset.to_batches(
            columns=columns, batch_size=max_rows, batch_readahead=2, io_buffer_size=BUFFER
        ):
            yield batch.select(columns)

    folder = request.source
    files = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
    return tables.slides(request, Source(files or (folder,), dataset.schema, batches))


def _opened(request: Request) -> Any:
    with library_needed(f"{request.source} cannot be read without pylance", "lance"):
        import lance
    try:
        return lance.dataset(str(request.source))
    except (ValueError, OSError, RuntimeError) as error:
        raise file_error(
            request.source, "is no table of Lance", str(error).splitlines()[0][:200],
            "name the folder NAME.lance",
        ) from error  # fmt: skip
