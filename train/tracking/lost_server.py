"""A tracking server that is lost in the midst of a run: nobody is called any more."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from featurestore.errors import FeatureStoreError, TrackingError
from featurestore.io import tracking_server


class Recorder(Protocol):
    """What records a run on a server."""

    uri: str
    failure: TrackingError | None

    def end_open_runs(self, status: str) -> None:
        """End the runs that are open."""


R = TypeVar("R", bound=Recorder)
T = TypeVar("T")
P = ParamSpec("P")


def survives_lost_server(
    call: Callable[Concatenate[R, P], T],
) -> Callable[Concatenate[R, P], T | None]:
    """Let a tracker call nobody once MLflow is lost or refuses; the call that meets it notes why.

    It does not raise: other processes wait for this one in the midst of their work, and all end
    together where they next meet.
    """

    @wraps(call)
    def wrapped(self: R, *given: P.args, **named: P.kwargs) -> T | None:
        if self.failure:
            return None
        try:
            with tracking_server.translated(
                self.uri, f"MLflow at {self.uri} refuses to record the run"
            ):
                return call(self, *given, **named)
        except FeatureStoreError as error:
            self.failure = as_failure(error)
            self.end_open_runs("FAILED")
            return None

    return wrapped


def as_failure(error: FeatureStoreError) -> TrackingError:
    """Return a refusal as what ends a run."""
    if isinstance(error, TrackingError):
        return error
    failure = TrackingError(error.wrong, found=error.found, fix=error.fix)
    failure.__cause__ = error
    return failure
