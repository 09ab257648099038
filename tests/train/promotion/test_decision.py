"""What a terminal of 80 columns is shown of a decision: every line of the gate, whole."""

from datetime import UTC, datetime

import pytest

from featurestore.console.tables import print_table
from featurestore.printing import Console
from train import promote
from train.promotion import history
from train.promotion.checks import Check
from train.promotion.decision import Decision, show

NAMES = [f"Class-{n:02}-of-an-organ-and-a-long-name".ljust(40, "x") for n in range(12)]
TIME = datetime(2026, 1, 2, tzinfo=UTC)


def test_lines_of_the_gate_and_the_history_stand_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    limit = "recall of at least 0.5, and not 0.05 below that of the champion"
    lines = [Check(f"floor: {name}", False, "recall 0.1234", limit, -0.3766) for name in NAMES]
    decision = Decision(
        outcome="refused", model="tissue-probe", version="7", alias="champion", champion="6",
        author="Ada", command="", commit="", time=TIME, lines=lines,
    )  # fmt: skip
    move = history.AliasMove(TIME, "7", "promoted", "macro F1 0.9000 0.8000 – 1.0000, +0.1000 "
                          "against version 6", "Ada", decision.reason)  # fmt: skip
    show(decision, Console())
    print_table(history.table([move]), Console(), "champion of tissue-probe, the latest last")
    promote.refuse(decision)
    captured = capsys.readouterr()
    for printed, times in ((captured.out, 2), (captured.err, 1)):
        assert max(map(len, printed.splitlines())) <= 80
        for name in NAMES:
            assert printed.count(name) == times
        assert " ".join(printed.split()).count("recall 0.1234") == times * len(NAMES)
        assert "0.3766 short" in " ".join(printed.split())
