"""What the commands leave behind, held to a recording: a change of structure changes none of it.

Numbers agree within 1e-5 anywhere, and bit for bit (digests of metrics, tensors, tables, texts and
of what pictures show) on a machine like the recorded one, see `golden.fingerprint`. A change of
results that is meant is recorded anew: ``python tests/golden.py tests/fixtures/golden.json``.
"""

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import golden
import pytest
from conftest import ROOT, launch
from golden import NUMBER

FIXTURE = ROOT / "tests" / "fixtures" / "golden.json"
TOLERANCE = 1e-5


def differences(before: Any, now: Any, exact: bool, where: str = "") -> list[str]:
    """Return where two recordings differ, a line for each place."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = [f"{where}/{key}: gone" for key in before if key not in now]
        found += [f"{where}/{key}: new" for key in now if key not in before]
        for key in before:
            if key in now and (exact or key != "bits"):
                found += differences(before[key], now[key], exact, f"{where}/{key}")
        return found
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [
            line for place, pair in pairs
            for line in differences(*pair, exact, f"{where}/{place}")
        ]  # fmt: skip
    return [] if same(before, now, exact) else [f"{where}: {before!r} -> {now!r}"]


def same(before: Any, now: Any, exact: bool) -> bool:
    """Tell whether two values agree; in texts, decimals may differ in the last digit shown."""
    if exact or not isinstance(before, str | float) or type(before) is not type(now):
        return repr(before) == repr(now)
    if isinstance(before, float):
        return repr(before) == repr(now) or abs(before - now) <= TOLERANCE * max(1, abs(before))
    if re.split(NUMBER, before) != re.split(NUMBER, now):
        return False
    pairs = zip(re.findall(NUMBER, before), re.findall(NUMBER, now), strict=True)
    return all(abs(float(a) - float(b)) <= 1.01 * last_digit(a) for a, b in pairs)


def last_digit(number: str) -> float:
    """Return the worth of the last digit of a decimal."""
    mantissa, _, power = number.partition("e")
    return float(f"1e{int(power or 0) - len(mantissa.partition('.')[2])}")


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(FIXTURE.read_text())


@pytest.mark.slow
def test_commands_leave_what_they_left(recorded: dict[str, Any], tmp_path: Path):
    done = launch([sys.executable, golden.__file__, "now.json"], tmp_path, **golden.ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    now = json.loads((tmp_path / "now.json").read_text())
    exact = now["fingerprint"] == recorded["fingerprint"]
    found = differences(recorded["commands"], now["commands"], exact)
    assert not found, "\n".join([f"{len(found)} differences", *found[:60]])


def test_a_lost_key_and_a_changed_number_are_noticed_on_any_machine(recorded: dict[str, Any]):
    now = copy.deepcopy(recorded["commands"])
    runs = now["adamw"]["runs"]
    [run] = [runs[name] for name in runs if name.startswith("tissue-probe/")]
    best, params = run["metrics"]["best/validation"], run["params"]
    best["f1_macro"] += 1e-6
    assert not differences(recorded["commands"], now, exact=False)
    assert len(differences(recorded["commands"], now, exact=True)) == 1
    best["kappa"] += 1e-4
    del best["brier"], params["seed"]
    params["k"] = "6"
    run["artifacts"]["more.json"] = {}
    assert len(differences(recorded["commands"], now, exact=False)) == 5


def test_a_text_has_the_same_words_whichever_digits_its_decimals_have():
    texts = ["0.1234567890123456", "0.12345678901234567", "-1.2e-17", "0.123456789012345e-05"]
    assert len({golden.text(each, in_full=False)["words"] for each in texts}) == 1
    assert golden.text("of snapshot 1234567890abcdef", in_full=True) == ["of snapshot SNAPSHOT"]


@pytest.mark.parametrize(
    ("before", "now", "agree"),
    [("f1 0.951", "f1 0.952", True), ("f1 0.951", "f1 0.953", False), ("3 of 4", "3 of 5", False),
     ("1.2e-05", "1.3e-05", True), ("accuracy 0.5", "kappa 0.5", False)],
)  # fmt: skip
def test_texts_agree_up_to_the_last_digit_of_decimals(before: str, now: str, agree: bool):
    assert same(before, now, exact=False) is agree
