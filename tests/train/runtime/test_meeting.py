"""How long processes wait for each other."""

import inspect
from datetime import timedelta
from typing import Any

import pytest
from torch.distributed import distributed_c10d

from train.runtime import meeting
from train.runtime.ending import Ending


def timeout_at_the_start(monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """Return how long Accelerate is told to wait for processes."""
    monkeypatch.setattr(meeting, "Accelerator", lambda kwargs_handlers: kwargs_handlers)
    handlers: Any = meeting.create_accelerator(Ending(speaks=True))
    return handlers[0].timeout


def test_torch_changes_the_timeout_of_processes_that_have_met():
    """`connected` of train/runtime/meeting.py relies on it; without it there is a fallback."""
    where = "train/runtime/meeting.py relies on torch.distributed.distributed_c10d._set_pg_timeout"
    assert meeting.SET_TIMEOUT is distributed_c10d._set_pg_timeout, where
    assert list(inspect.signature(meeting.SET_TIMEOUT).parameters) == ["timeout", "group"], where


def test_who_does_not_come_is_missed_soon(monkeypatch: pytest.MonkeyPatch):
    assert timeout_at_the_start(monkeypatch) == meeting.START


def test_where_no_timeout_can_be_changed_nobody_is_hurried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(meeting, "SET_TIMEOUT", None)
    assert timeout_at_the_start(monkeypatch) == meeting.WORK
