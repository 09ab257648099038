"""How long processes wait for each other."""

import inspect
from datetime import timedelta
from typing import Any

import pytest
from torch.distributed import distributed_c10d

from train.runtime import process_group
from train.runtime.shutdown import Shutdown


def timeout_at_the_start(monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """Return how long Accelerate is told to wait for processes."""
    monkeypatch.setattr(process_group, "Accelerator", lambda kwargs_handlers: kwargs_handlers)
    handlers: Any = process_group.create_accelerator(Shutdown(prints_errors=True))
    return handlers[0].timeout


def test_torch_changes_the_timeout_of_processes_that_have_met():
    """`connected` of train/runtime/process_group.py relies on it, or falls back."""
    where = f"{process_group.__name__} relies on {distributed_c10d.__name__}._set_pg_timeout"
    set_timeout = process_group.SET_TIMEOUT
    assert set_timeout is distributed_c10d._set_pg_timeout, where
    assert list(inspect.signature(set_timeout).parameters) == ["timeout", "group"], where


def test_who_does_not_come_is_missed_soon(monkeypatch: pytest.MonkeyPatch):
    assert timeout_at_the_start(monkeypatch) == process_group.START_TIMEOUT


def test_where_no_timeout_can_be_changed_nobody_is_hurried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process_group, "SET_TIMEOUT", None)
    assert timeout_at_the_start(monkeypatch) == process_group.WORK_TIMEOUT
