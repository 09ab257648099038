"""What MLflow, its database drivers and its transports raise, told in this project's words."""

from collections.abc import Iterator

from featurestore.errors import TrackingError

RAISING = (
    "azure",
    "botocore",
    "databricks",
    "google",
    "mlflow",
    "requests",
    "sqlalchemy",
    "urllib3",
)
"""Packages whose exceptions are refusals; any other one is a mistake of ours and stays as it is."""
PACKAGES = {"MySQLdb": "mysqlclient", "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
"""By the module that is missing: what to install, where that is not its name."""
BROKEN = ("DatabaseError", "InterfaceError", "OperationalError")
"""SQLAlchemy's names for a database that is not there, broken or full."""
LONGEST = 400  # characters of a message: a page of HTML may be one line
AGAIN = ", then run the same command"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from, the last first."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def package(error: BaseException) -> str:
    """Return the package that an exception's class is from."""
    return type(error).__module__.partition(".")[0]


def refusal(error: BaseException) -> bool:
    """Return whether an exception tells what MLflow, a library below it or the system refuses."""
    return isinstance(error, OSError | ImportError) or package(error) in RAISING


def reason(error: object) -> str:
    """Return what an exception says, without pages and statements that it quotes."""
    lines = str(error).partition(". Response body:")[0].strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def barred(error: BaseException, uri: str) -> TrackingError | None:
    """Return why nothing at all can be asked at a tracking URI, or None if something else is wrong.

    Parameters
    ----------
    error
        What was raised: a user or a driver may be missing, the database may refuse, or what
        answers may not be MLflow.
    uri
        Where was asked.
    """
    for one in causes(error):
        code = getattr(one, "error_code", None)
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status == 401 or code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
            return TrackingError(
                f"MLflow at {uri} wants to know who asks",
                found=reason(one),
                fix="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                f"MLFLOW_TRACKING_TOKEN{AGAIN}",
            )
        if status == 403 or code == "PERMISSION_DENIED":
            return TrackingError(
                f"MLflow at {uri} does not let this user do that",
                found=reason(one),
                fix=f"ask for the permission, or name another user{AGAIN}",
            )
        if code == "ENDPOINT_NOT_FOUND" or "not in a valid JSON format" in str(one):
            return TrackingError(
                f"What answers at {uri} is not MLflow",
                found=reason(one),
                fix="correct the tracking URI: a prefix may be missing, or a page to log in stands "
                f"before the server{AGAIN}",
            )
        if isinstance(one, ImportError):
            name = one.name or str(one)
            return TrackingError(
                f"A package that MLflow needs for {uri} is not installed",
                found=reason(one),
                fix=f"pip install '{PACKAGES.get(name, name)}'{AGAIN}",
            )
        if package(one) == "sqlalchemy" and type(one).__name__ in BROKEN:
            return TrackingError(
                f"MLflow's database at {uri} refuses",
                found=reason(one),
                fix=f"see that it is there, can be written, and that its disk has room{AGAIN}",
            )
    return None
