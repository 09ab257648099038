"""How a process ends before its work is done: by a signal, or because another process ended.

A signal, or the end of another process, raises `Stopped` in the main thread, which leaves whatever
it does; `Shutdown.begin` turns that into the error that a person sees. A main thread that cannot
leave, since it waits within C code for a process that is gone, is ended by another thread.
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
REPEAT_WINDOW = 2.0  # seconds in which a signal that launchers pass on as well comes twice
PEER_WAIT = 1.0  # seconds that the exit of another process may follow the error that it causes here
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RERUN = "run the same command"


class Stopped(KeyboardInterrupt):
    """The process was told to end; libraries that catch exceptions let this one pass.

    Parameters
    ----------
    number
        Of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def signal_of(error: BaseException) -> int:
    """Return the signal that an error stands for; Python's own KeyboardInterrupt is Ctrl-C."""
    return error.number if isinstance(error, Stopped) else signal.SIGINT


class LostProcessError(FeatureStoreError):
    """Another process of the run is gone."""


@dataclass(frozen=True)
class ProcessExit:
    """How a process ended, in its own words, or what is known of one that could not say.

    Parameters
    ----------
    rank
        Of the process.
    status
        Its exit status; None if its connection ended without a message.
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
        Its number, and how many processes there are.
    local
        Its number on this machine.
    """

    number: int = 0
    world: int = 1
    local: int = 0

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"rank {self.number} (process {os.getpid()} on {socket.gethostname()})"


class Shutdown:
    """The shutdown of this process: whatever comes first decides its outcome.

    Parameters
    ----------
    prints_errors
        Whether this process prints a refusal, on behalf of all.
    """

    def __init__(self, prints_errors: bool) -> None:
        self.prints_errors, self.rank = prints_errors, Rank()
        self.notify_peers: Callable[[ProcessExit], None] = lambda _: None
        """Tells the other processes how this one ended."""
        self.saved_state: Callable[[], Sequence[str]] = list
        """What a resumed run would go on from, in words."""
        self.set_run_status: Callable[[str], None] = lambda _: None
        """Gives the tracked run a status, from any process and thread."""
        self.peer_exit: ProcessExit | None = None
        self.signal: int | None = None
        self.is_begun = self.is_reported = False
        self._signal_time, self._interrupted_by_peer = 0.0, False
        self._peer_exited, self._finished = threading.Event(), threading.Event()

    def on_signal(self, number: int, _: FrameType | None = None) -> None:
        """Handle a signal: the first ends the process in good order, a later one at once."""
        if self._interrupted_by_peer:
            self._interrupted_by_peer = False
            if not self.is_begun:
                raise Stopped(number)
            return
        if self.signal is not None:
            if time.monotonic() - self._signal_time > REPEAT_WINDOW:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        self.signal, self._signal_time = number, time.monotonic()
        self._start_deadline()
        if not self.is_begun:
            raise Stopped(number)

    def on_peer_exit(self, peer_exit: ProcessExit) -> None:
        """Handle the exit of another process, in any thread; the first one counts."""
        if self.peer_exit is None:
            self.peer_exit = peer_exit
            self._peer_exited.set()
            threading.Thread(target=self._interrupt, daemon=True).start()

    def _interrupt(self) -> None:
        if self._finished.wait(PEER_WAIT if self.peer_exit and self.peer_exit.status else 0):
            return  # it has ended likewise, by itself
        self._start_deadline()
        if not self.is_begun and self.signal is None:
            self._interrupted_by_peer = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def begin(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Tell the other processes that this one ends, or raise that they are the cause.

        It is an ``__exit__``.

        Raises
        ------
        FeatureStoreError
            What another process was refused, or that it is gone.
        Stopped
            Another process, or this one, was told to end.
        """
        if self.is_begun:
            return
        self.is_begun = True
        if error is None:
            self.notify_peers(ProcessExit(self.rank.number, 0))
            return
        is_refusal = isinstance(error, FeatureStoreError)
        if self.rank.world > 1 and not is_refusal:  # it may come of the end of another
            self._peer_exited.wait(PEER_WAIT)
        if self.peer_exit and not is_refusal:
            raise self.error_of_peer(self.peer_exit) from None
        self.notify_peers(self.own_exit(error))
        if self.signal is not None and not isinstance(error, Stopped):
            raise Stopped(self.signal) from None  # a library has made something else of it

    def own_exit(self, error: BaseException) -> ProcessExit:
        """Return how this process ends, for the others."""
        number = self.rank.number
        if self.signal is not None or isinstance(error, KeyboardInterrupt):
            return ProcessExit(number, 128 + (self.signal or signal_of(error)))
        if isinstance(error, FeatureStoreError):
            return ProcessExit(number, 2, error.wrong, error.found, error.fix)
        wrong = f"R{self.rank.name[1:]} failed: {type(error).__name__}"
        return ProcessExit(number, 1, wrong, str(error).partition("\n")[0] or "no message")

    def error_of_peer(self, peer_exit: ProcessExit) -> BaseException:
        """Return the error that the exit of another process means for this one."""
        if peer_exit.status == 2:
            return FeatureStoreError(peer_exit.wrong, found=peer_exit.found, fix=peer_exit.fix)
        if peer_exit.status is not None and peer_exit.status > 128:
            return Stopped(peer_exit.status - 128)
        if peer_exit.rank == 0:  # which printed for all
            self.prints_errors = self.rank.local == 0 or self.rank.number == 1
        saved = list(self.saved_state())
        rerun = f"{RERUN} again with resume=true" if saved else f"{RERUN} again"
        return LostProcessError(
            peer_exit.wrong,
            found=f"{peer_exit.found}; kept: {', '.join(saved) or 'nothing, no epoch had ended'}",
            fix=rerun
            if peer_exit.status is None
            else f"mend what its traceback says, then {rerun}",
        )

    def report(self, error: BaseException) -> int:
        """Print why the run ends, once for all processes; return the exit status.

        Raises
        ------
        BaseException
            The error itself, if its traceback is to be seen.
        """
        is_stopped = isinstance(error, KeyboardInterrupt)
        if not is_stopped and not isinstance(error, FeatureStoreError):
            waits = self.rank.number and self._peer_exited.wait(PEER_WAIT)
            if waits and self.peer_exit and not self.peer_exit.rank:
                return 1  # the first process failed as well, and shows its traceback
            raise error
        if self.prints_errors and not self.is_reported:
            self.is_reported = True
            if isinstance(error, FeatureStoreError):
                print_error(error)
            else:
                say(self.stop_message(error), sys.stderr)
            sys.stderr.flush()
        first_is_gone = (
            self.peer_exit and self.peer_exit.status is None and self.peer_exit.rank == 0
        )
        if first_is_gone and self.prints_errors:
            self.set_run_status("FAILED")  # nobody else will
        return 128 + signal_of(error) if is_stopped else 2

    def stop_message(self, error: BaseException) -> str:
        """Return the line that a process prints which was told to end."""
        word = "interrupted" if signal_of(error) == signal.SIGINT else "terminated"
        saved = ", ".join(self.saved_state())
        return word + (f"; kept: {saved}; {RERUN} with resume=true to go on" if saved else "")

    def _start_deadline(self) -> None:
        threading.Thread(target=self._exit_at_deadline, daemon=True).start()

    def _exit_at_deadline(self) -> None:
        # A main thread that has not begun by half of the time waits for a process that is gone.
        half = GRACE / 2
        if self._finished.wait(half) or (self.is_begun and self._finished.wait(half)):
            return
        stopped = Stopped(self.signal or signal.SIGTERM)
        error = self.error_of_peer(self.peer_exit) if self.peer_exit else stopped
        status = self.report(error)
        if self.rank.number == 0:
            self.set_run_status("KILLED" if isinstance(error, Stopped) else "FAILED")
        os._exit(status)

    def finish(self) -> None:
        """Say that the process leaves by itself: no deadline ends it."""
        self._finished.set()


@contextmanager
def handle_signals(prints_errors: bool) -> Iterator[Shutdown]:
    """Yield a shutdown that handles the signals which end a process, until the block ends."""
    shutdown = Shutdown(prints_errors)
    is_main = threading.current_thread() is threading.main_thread()
    # What is ignored stays so: `nohup` wants it.
    handled = [n for n in SIGNALS if is_main and signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, shutdown.on_signal) for number in handled}
    try:
        yield shutdown
    finally:
        shutdown.finish()
        for number, handler in before.items():
            signal.signal(number, handler)
