"""How a process ends before its work is done: by a signal, or because another process ended.

A signal, or news of another process, raises `Stopped` in the main thread, which leaves whatever it
does; `Ending.begin` turns that into what a person is told. Who cannot leave, since it waits within
C code for a process that is gone, is ended by a thread.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType

from featurestore.errors import FeatureStoreError
from featurestore.printing import print_error, say

GRACE = 20.0  # seconds to leave in; clusters kill after thirty
ECHO = 2.0  # seconds in which a signal that launchers pass on as well comes twice
PATIENCE = 1.0  # seconds in which news of a process that is gone follow what it causes here
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
AGAIN = "run the same command"


class Stopped(KeyboardInterrupt):
    """The process was told to end; what libraries catch, they let this pass.

    Parameters
    ----------
    number
        Of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def number_of(error: BaseException) -> int:
    """Return which signal an error stands for; Python's own is that of Ctrl-C."""
    return error.number if isinstance(error, Stopped) else signal.SIGINT


class LostError(FeatureStoreError):
    """Another process of the run is gone."""


@dataclass(frozen=True)
class Ended:
    """The last words of a process, or what is known of one that had none.

    Parameters
    ----------
    rank
        Of the process.
    status
        Its exit status; None if it is gone without a word.
    wrong, found, fix
        As in a `FeatureStoreError`.
    """

    rank: int
    status: int | None
    wrong: str = ""
    found: str = ""
    fix: str = ""


@dataclass
class Rank:
    """Which of the processes of a run this is.

    Parameters
    ----------
    number, world
        Its number, and how many there are.
    local
        Its number on this machine.
    """

    number: int = 0
    world: int = 1
    local: int = 0

    @property
    def name(self) -> str:
        """How others call it."""
        return f"rank {self.number} (process {os.getpid()} on {socket.gethostname()})"


class Ending:
    """The one ending of this process: whatever comes first decides it.

    Parameters
    ----------
    speaks
        Whether this process tells of a refusal, for all.
    """

    def __init__(self, speaks: bool) -> None:
        self.speaks, self.rank = speaks, Rank()
        self.say: Callable[[Ended], None] = lambda _: None
        """Tells the other processes."""
        self.left: Callable[[], Sequence[str]] = list
        """What a resume would go on from."""
        self.mark: Callable[[str], None] = lambda _: None
        """Gives the tracked run a status, from any process and thread."""
        self.news: Ended | None = None
        self.signal: int | None = None
        self.begun = self.printed = False
        self._first, self._nudged = 0.0, False
        self._heard, self._done = threading.Event(), threading.Event()

    def stop(self, number: int, _: FrameType | None = None) -> None:
        """Take a signal: the first ends the process in good order, a later one at once."""
        if self._nudged:
            self._nudged = False
            if not self.begun:
                raise Stopped(number)
            return
        if self.signal is not None:
            if time.monotonic() - self._first > ECHO:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        self.signal, self._first = number, time.monotonic()
        self._hurry()
        if not self.begun:
            raise Stopped(number)

    def hear(self, news: Ended) -> None:
        """Take the end of another process, in any thread."""
        if self.news is None:
            self.news = news
            self._heard.set()
            threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        if self._done.wait(PATIENCE if self.news and self.news.status else 0):
            return  # it has ended likewise, by itself
        self._hurry()
        if not self.begun and self.signal is None:
            self._nudged = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def begin(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Begin to end: tell the others, or say that they are the cause; as an ``__exit__``.

        Raises
        ------
        FeatureStoreError
            What another process was refused, or that it is gone.
        Stopped
            It, or this one, was told to end.
        """
        if self.begun:
            return
        self.begun = True
        if error is None:
            self.say(Ended(self.rank.number, 0))
            return
        refused = isinstance(error, FeatureStoreError)
        if self.rank.world > 1 and not refused:  # it may come of the end of another
            self._heard.wait(PATIENCE)
        if self.news and not refused:
            raise self.cause(self.news) from None
        self.say(self.words(error))
        if self.signal is not None and not isinstance(error, Stopped):
            raise Stopped(self.signal) from None  # a library has made something else of it

    def words(self, error: BaseException) -> Ended:
        """Return the last words of this process."""
        number = self.rank.number
        if self.signal is not None or isinstance(error, KeyboardInterrupt):
            return Ended(number, 128 + (self.signal or number_of(error)))
        if isinstance(error, FeatureStoreError):
            return Ended(number, 2, error.wrong, error.found, error.fix)
        wrong = f"R{self.rank.name[1:]} failed: {type(error).__name__}"
        return Ended(number, 1, wrong, str(error).partition("\n")[0] or "no message")

    def cause(self, news: Ended) -> BaseException:
        """Return what the end of another process means for this one."""
        if news.status == 2:
            return FeatureStoreError(news.wrong, found=news.found, fix=news.fix)
        if news.status is not None and news.status > 128:
            return Stopped(news.status - 128)
        if news.rank == 0:  # that spoke for all
            self.speaks = self.rank.local == 0 or self.rank.number == 1
        left = list(self.left())
        again = f"{AGAIN} again with resume=true" if left else f"{AGAIN} again"
        return LostError(
            news.wrong,
            found=f"{news.found}; kept: {', '.join(left) or 'nothing, no epoch had ended'}",
            fix=again if news.status is None else f"mend what its traceback says, then {again}",
        )

    def close(self, error: BaseException) -> int:
        """Tell a person of the ending, once and for all processes; return the exit status.

        Raises
        ------
        BaseException
            What it was given, if its traceback is to be seen.
        """
        stopped = isinstance(error, KeyboardInterrupt)
        if not stopped and not isinstance(error, FeatureStoreError):
            if self.rank.number and self._heard.wait(PATIENCE) and self.news and not self.news.rank:
                return 1  # the first process failed as well, and shows how
            raise error
        if self.speaks and not self.printed:
            self.printed = True
            if isinstance(error, FeatureStoreError):
                print_error(error)
            else:
                say(self.farewell(error), sys.stderr)
            sys.stderr.flush()
        if self.news and self.news.status is None and self.news.rank == 0 and self.speaks:
            self.mark("FAILED")  # nobody else will
        return 128 + number_of(error) if stopped else 2

    def farewell(self, error: BaseException) -> str:
        """Return the line that a stopped process ends with."""
        number = number_of(error)
        word = "interrupted" if number == signal.SIGINT else "terminated"
        left = ", ".join(self.left())
        return word + (f"; kept: {left}; {AGAIN} with resume=true to go on" if left else "")

    def _hurry(self) -> None:
        threading.Thread(target=self._leave, daemon=True).start()

    def _leave(self) -> None:
        # Who has not even begun by half of it waits for who is gone.
        if self._done.wait(GRACE / 2) or (self.begun and self._done.wait(GRACE / 2)):
            return
        stopped = Stopped(self.signal or signal.SIGTERM)
        error = self.cause(self.news) if self.news else stopped
        status = self.close(error)
        if self.rank.number == 0:
            self.mark("KILLED" if isinstance(error, Stopped) else "FAILED")
        os._exit(status)

    def end(self) -> None:
        """Say that the process leaves by itself."""
        self._done.set()


@contextmanager
def watched(speaks: bool) -> Iterator[Ending]:
    """Take the signals that end a process until the block ends."""
    ending = Ending(speaks)
    main = threading.current_thread() is threading.main_thread()
    # What is ignored stays so: `nohup` wants it.
    taken = [n for n in SIGNALS if main and signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, ending.stop) for number in taken}
    try:
        yield ending
    finally:
        ending.end()
        for number, handler in before.items():
            signal.signal(number, handler)
