"""Work that is done behind the one who asks for it, in order."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

AHEAD = 2  # pieces of work that wait, each with a block of embeddings


class WriteBehind:
    """Does things in their order, one after another, while the caller goes on reading.

    Once one of them has failed none is done any more, and a later call raises its error, at the
    latest the end of the block. What is pending when the caller fails is done.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()
        self._failed = False

    def do(self, work: Callable[..., object], *arguments: object) -> None:
        """Do something after all that is pending, of which only so much may wait."""
        while len(self._pending) >= AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._run, work, *arguments))

    def _run(self, work: Callable[..., object], *arguments: object) -> None:
        if self._failed:
            return
        try:
            work(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if error is None:
            for pending in self._pending:
                pending.result()
