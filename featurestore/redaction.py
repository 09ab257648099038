"""Secrets taken out of what is printed, raised, recorded or written."""

import os
import re

HIDDEN = "***"

USER = re.compile(r"(\b(?!(?:abfs|wasb)s?://[\w$-]+@)[\w+.-]+://)[^/\s'\"]*@")
"""User and password of a URI, up to the last ``@`` before its path; not a container of Azure's."""

SECRET = (
    r"[\w.-]*(?:password|passwd|pwd|secret|token|signature|credential|api[-_]?key|access[-_]?key)"
    r"[\w.-]*"
)
QUERY = re.compile(rf"([?&;](?:{SECRET}|sig|pass|odbc_connect)=)[^&\s'\"#]+", re.IGNORECASE)
"""A secret in the query of a URI, as of one that was signed for a while."""

ASSIGNED = re.compile(
    rf"(\b(?:MLFLOW|AWS|AZURE|DATABRICKS|GOOGLE)_{SECRET}['\"]?\s?[=:]\s?['\"]?)[^\s'\"]+",
    re.IGNORECASE,
)
"""A secret variable of the environment with its value."""

HEADER = re.compile(r"(\b(?:Basic|Bearer) )[\w.~+/=-]{8,}")
ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")  # of AWS

VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN", "AZURE_CLIENT_SECRET", "GOOGLE_SERVICE_ACCOUNT_KEY",
    "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_SECRET",
)  # fmt: skip
"""What libraries below this one read their credentials from, and may quote in a message."""
SHORTEST = 8  # characters of a value that is looked for: shorter ones are words of any text


def redacted(text: str) -> str:
    """Return a text without the passwords, tokens, keys and signatures in it.

    Users go with their passwords; secrets of a URI's query, of the environment and of request
    headers become ``***``.
    """
    for name in VARIABLES:
        if len(value := os.environ.get(name, "")) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    text = USER.sub(r"\1", text)
    for pattern in (QUERY, ASSIGNED, HEADER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return ACCESS_KEY.sub(HIDDEN, text)
