"""Writing in a thread, in order, while the caller reads on."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

AHEAD = 2  # calls that may be pending, each with a block of embeddings


class WriteBehind:
    """An executor of one thread: calls run in their order, while the caller goes on reading.

    Once a call has failed no other runs, and a later `submit` raises its error, at the latest the
    end of the ``with`` block. Calls that are pending when the caller fails still run.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()
        self._failed = False

    def submit(self, call: Callable[..., object], *arguments: object) -> None:
        """Run a call after all that are pending; wait where `AHEAD` of them are."""
        while len(self._pending) >= AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._run, call, *arguments))

    def _run(self, call: Callable[..., object], *arguments: object) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
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
