"""What is taken out of texts: users, passwords, tokens, signatures and keys, and nothing else."""

import logging
import pickle
from datetime import UTC, datetime

import mlflow
import pytest

from featurestore.errors import FeatureStoreError, FeatureStoreWarning
from featurestore.io.mlflow_artifacts import use_tracking
from featurestore.redaction import redacted
from train.promotion.decision import Decision, page
from train.reports.html import Page, Text, html

SIGNED = "https://b.s3.amazonaws.com/k?X-Amz-Credential=AKIA1%2F2&X-Amz-Date=1&X-Amz-Signature=f00"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tracking.uri=https://me:secret@host/x data.tiles=s3://bucket/a@b",
         "tracking.uri=https://host/x data.tiles=s3://bucket/a@b"),
        ("postgresql+psycopg://me:p@ss:w@host:5432/db", "postgresql+psycopg://host:5432/db"),
        ("'https://me:secret@host'", "'https://host'"),
        ("abfss://cohort@lab.dfs.core.windows.net/a", "abfss://cohort@lab.dfs.core.windows.net/a"),
        ("abfs://me:secret@lab.dfs.core.windows.net/a", "abfs://lab.dfs.core.windows.net/a"),
        ("http://h/x?user=me&password=secret&page=2", "http://h/x?user=me&password=***&page=2"),
        ("http://h/x?token=t#part", "http://h/x?token=***#part"),
        ("http://h/x?sv=1&sig=ab%2Bc", "http://h/x?sv=1&sig=***"),
        (SIGNED, "https://b.s3.amazonaws.com/k?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***"),
        ("<a>http://h/?a=1&amp;api_key=k&amp;b=2</a>", "<a>http://h/?a=1&amp;api_key=***&amp;b=2</a>"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dy", "mssql+pyodbc:///?odbc_connect=***"),
        ("AWS_SECRET_ACCESS_KEY=abc/def python train/probe.py",
         "AWS_SECRET_ACCESS_KEY=*** python train/probe.py"),
        ("Authorization: Basic bWU6c2VjcmV0", "Authorization: Basic ***"),
        ("the key AKIAABCDEFGHIJKLMNOP is not known", "the key *** is not known"),
        ("models:/tissue-probe@champion", "models:/tissue-probe@champion"),
        ("slide a@b, Basic tissue, token=x", "slide a@b, Basic tissue, token=x"),
    ],
)  # fmt: skip
def test_secrets_go_and_all_else_stays(text: str, told: str):
    assert redacted(text) == told
    assert redacted(told) == told


def test_a_secret_of_the_environment_is_found_wherever_it_is_quoted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "open sesame")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "tile")  # as short as a word of any text
    assert redacted("FATAL: 'open sesame' of a tile") == "FATAL: '***' of a tile"


def told_by_error() -> str:
    return str(
        FeatureStoreError("at http://u:secret@h", found="p?token=secret", fix="ftp://u:secret@h")
    )


def told_by_a_pickled_error() -> str:
    error = FeatureStoreError("at http://u:secret@h", found="", fix="")
    return str(pickle.loads(pickle.dumps(error))) + repr(error)


def told_by_warning() -> str:
    return str(FeatureStoreWarning("http://u:secret@h"))


def told_by_page() -> str:
    shown = Page("http://u:secret@h", "")
    shown.add("again", Text("python train/probe.py tracking.uri='http://u:secret@h'", code=True))
    return html(shown)


def told_by_verdict() -> str:
    command = "python train/promote.py tracking.uri=http://u:secret@h/?api_key=secret"
    decided = Decision(
        "refused", "m", "1", "champion", "none", "me", command, "c", datetime.now(UTC)
    )
    return page(decided)


@pytest.mark.parametrize(
    "tell",
    [told_by_error, told_by_a_pickled_error, told_by_warning, told_by_page, told_by_verdict],
    ids=lambda tell: tell.__name__,
)
def test_nothing_that_speaks_tells_a_secret(tell):
    told = tell()
    assert "secret" not in told
    assert "h" in told


def test_mlflows_own_lines_tell_none_either(capfd: pytest.CaptureFixture[str]):
    use_tracking()
    logging.getLogger("mlflow.store").warning("no answer from %s", "mysql://u:secret@h/db")
    said = capfd.readouterr().err
    assert "no answer from mysql://h/db" in said
    assert mlflow.get_tracking_uri() == "sqlite:///mlflow.db"
