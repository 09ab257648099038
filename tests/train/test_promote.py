"""Versions promoted, refused and rolled back, in a real registry on sqlite."""

import hashlib
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, launch
from programs import fork_server
from versions import BETTER, GOOD, MODEL, NAMES, WORSE, register, stored, write_data

from featurestore.io import digests, mlflow_artifacts
from train import promote
from train.models import checkpoint
from train.promotion import alias as promotion_alias
from train.promotion import history, lock
from train.tracking import registry


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Return a registry without a model; data lie in the working folder."""
    write_data()
    return mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")


def aliases() -> dict[str, str]:
    registered = mlflow.MlflowClient().get_registered_model(MODEL).aliases
    return {alias: str(number) for alias, number in registered.items()}


def tags(number: str) -> dict[str, str]:
    version = mlflow.MlflowClient().get_model_version(MODEL, number).tags
    return {k.removeprefix("promotion."): v for k, v in version.items() if "promotion." in k}


def pages(number: str) -> list[str]:
    client = mlflow.MlflowClient()
    run = client.get_model_version(MODEL, number).run_id
    names = [entry.path for entry in client.list_artifacts(run, "promotion")]
    return [mlflow.artifacts.load_text(f"runs:/{run}/{name}") for name in sorted(names)]


def asked(number: str, *more: str) -> int:
    return promote.main([f"model={MODEL}", f"version={number}", "author=Ada", *more])


@pytest.mark.slow
def test_the_first_version_that_passes_becomes_champion(
    uri: str, capsys: pytest.CaptureFixture[str]
):
    number = register(GOOD)
    assert asked(number, "output=out") == 0
    assert aliases() == {"champion": number}
    recorded = tags(number)
    assert (recorded["decision"], recorded["author"], recorded["champion"]) == (
        "promoted",
        "Ada",
        "none",
    )
    assert (recorded["gate.floor"], recorded["gate.worse"]) == ("passed", "passed")
    assert len(recorded["gate_sha256"]) == 64
    [page] = pages(number)
    assert recorded["report"].endswith("-champion.md")
    assert [file.read_text() for file in Path("out").iterdir()] == [page]
    digest = digests.digest({"test_tiles.parquet": Path("test_tiles.parquet")})
    for words in ("author: Ada", "| difference | holds | no champion yet |", "sha256", digest,
                  "version=1"):  # fmt: skip
        assert words in page
    assert page.startswith("# Promoted: tissue-probe version 1 is champion\n")
    assert "in place of no version" in capsys.readouterr().out
    assert asked(number) == 0
    assert "is champion of tissue-probe already" in capsys.readouterr().out
    assert len(pages(number)) == 1


@pytest.mark.slow
def test_better_is_promoted_worse_refused_and_rollback_undoes_itself(
    uri: str, capsys: pytest.CaptureFixture[str]
):
    good, better, worse = register(GOOD), register(BETTER), register(WORSE)
    assert (asked(good), asked(better)) == (0, 0)
    assert aliases() == {"champion": better, "previous_champion": good}
    capsys.readouterr()

    assert asked(worse) == 3
    error = capsys.readouterr().err
    assert f"version {worse} does not become champion" in error
    assert "worse: Connective-Tissue: -0." in error
    assert "difference: -0." in error
    assert "shared slides" not in error
    assert aliases() == {"champion": better, "previous_champion": good}
    assert tags(worse)["decision"] == "refused"
    assert tags(worse)["gate.difference"].startswith("failed: difference -0.")
    page = pages(worse)[0]
    assert page.startswith("# Refused: tissue-probe version 3 does not become champion\n")
    assert "| difference | DOES NOT HOLD |" in page
    assert "\n- difference does not hold: -0." in page
    assert " short\n" in page
    assert "| test set | holds | decision 3 by these tiles |" in page
    Path("gate.yaml").write_text("test_set_decisions: 3\n")
    assert asked(worse, "gate=gate.yaml") == 3
    assert "test set: decision 4 by these tiles" in capsys.readouterr().err

    for champion, other in ((good, better), (better, good)):
        assert promote.main(["rollback", f"model={MODEL}", "author=Bo"]) == 0
        assert aliases() == {"champion": champion, "previous_champion": other}
        assert (tags(champion)["decision"], tags(other)["decision"]) == ("restored", "rolled back")
        assert tags(champion)["author"] == "Bo"
    assert len(pages(good)) == 3
    assert "version 2 -> version 1" in capsys.readouterr().out
    assert pages(good)[-1].startswith("# Rolled back: tissue-probe version 1 is champion no more")

    assert promote.main(["history", f"model={MODEL}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    moved = [line.split("version: ")[1][0] for line in lines if line.startswith("since (UTC): 20")]
    assert moved == [good, better, good, better]
    alias_moves = history.alias_moves(MODEL, "champion")
    assert [(one.author, one.outcome) for one in alias_moves] == [
        ("Ada", "promoted"), ("Ada", "promoted"), ("Bo", "restored"), ("Bo", "restored"),
    ]  # fmt: skip
    assert alias_moves[0].why == "all 10 lines of the gate hold"
    assert alias_moves[1].figures.startswith("macro F1 1.0000 ")
    assert alias_moves[1].figures.endswith(" against version 1")


@pytest.mark.slow
def test_an_equal_version_is_promoted_by_the_name_of_the_latest(
    uri: str, capsys: pytest.CaptureFixture[str]
):
    """Surely not worse; the reason that its author gives stands on the page and in the history."""
    mlflow.MlflowClient().search_experiments()  # a store of no model
    assert promote.main(["history", f"model={MODEL}"]) == 2
    assert "found: no registered model" in capsys.readouterr().err
    good, equal = register(GOOD), register(GOOD)
    assert promote.main(["history", f"model={MODEL}"]) == 0
    assert "no version of tissue-probe has been champion" in capsys.readouterr().out
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "champion", good)  # by other means
    assert asked("latest", "why=the same, of a run that is kept") == 0
    assert aliases() == {"champion": equal, "previous_champion": good}
    page = pages(equal)[0]
    assert "- why: the same, of a run that is kept" in page
    assert "| difference | holds | +0.0000" in page
    [move] = history.alias_moves(MODEL, "champion")
    assert (move.version, move.why) == (equal, "the same, of a run that is kept")
    assert "+0.0000 against version 1" in move.figures
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "champion", good)
    assert [one.why for one in history.alias_moves(MODEL, "champion")][1:] == ["not written down"]


@pytest.mark.slow
def test_a_champion_that_vanished_is_no_rival(uri: str, capsys: pytest.CaptureFixture[str]):
    """Its files are gone: nothing is decided, and it says how to go on; a deleted one is none."""
    good, better = register(GOOD), register(BETTER)
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(MODEL, "champion", good)
    shutil.rmtree(stored(good))
    assert asked(better) == 2
    error = capsys.readouterr().err
    assert "The champion, version 1, cannot be compared with" in error
    assert "rollback" in error
    assert aliases() == {"champion": good}
    assert not pages(better)
    client.delete_model_version(MODEL, good)
    assert asked(better) == 0
    assert aliases() == {"champion": better}


@pytest.mark.slow
def test_patients_that_nobody_knows_are_refused_unless_the_gate_allows_them(
    uri: str, capsys: pytest.CaptureFixture[str]
):
    write_data(patient=None)
    number = register(GOOD)
    assert asked(number) == 3
    assert "shared patients: not known" in capsys.readouterr().err
    Path("gate.yaml").write_text("unknown_patients: allow\n")
    assert asked(number, "gate=gate.yaml") == 0
    assert "allowed by unknown_patients of the gate" in pages(number)[-1].replace("\\", "")


@pytest.mark.slow
def test_figures_of_both_are_those_of_the_same_tiles(uri: str):
    """Recall by hand: how often the sign of signal plus noise is right."""
    good, better = register(GOOD), register(BETTER)
    assert (asked(good), asked(better)) == (0, 0)
    table = pq.read_table("embeddings.parquet").slice(60)
    vectors = np.array(table["embedding"].to_pylist())
    first = np.arange(120) % 2 == 0
    recall = np.mean((vectors[:, 0] + GOOD * vectors[:, 1] > 0)[first])
    [row] = [
        line for line in pages(better)[0].splitlines() if "| recall/Connective-Tissue |" in line
    ]
    assert row.split(" | ")[1].startswith("1.0000")
    assert row.split(" | ")[2].startswith(f"{recall:.4f}")
    assert row.split(" | ")[3].startswith(f"{1 - recall:+.4f}")


@pytest.mark.slow
def test_hostile_class_names_stay_in_their_cells(uri: str):
    number = register(GOOD)
    assert asked(number) == 0
    rows = [line for line in pages(number)[0].splitlines() if line.startswith("| floor: a")]
    assert rows == [
        r'| floor: a\|b "\`\<x\>\`\*; ü | holds | ' + rows[0].split("| holds | ")[1]
    ]  # fmt: skip


@pytest.mark.slow
def test_an_alias_of_ones_own(uri: str):
    number = register(GOOD)
    assert asked(number, "alias=shadow-1") == 0
    assert aliases() == {"shadow-1": number}


LEAKS = {
    "a slide": ({"first": 5}, "shared slides: 1"),
    "a patient": ({"patient": "q"}, "shared patients: 3"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAKS)
def test_training_data_in_the_test_view_are_refused(
    uri: str, name: str, capsys: pytest.CaptureFixture[str]
):
    changes, words = LEAKS[name]
    write_data(**changes)
    if "first" in changes:  # slide s5 in both: embeddings are of one key
        table = pq.read_table("test_tiles.parquet")
        moved = pa.array(np.asarray(table["x"]) + 1000)
        pq.write_table(table.set_column(1, "x", moved), "test_tiles.parquet")
        table = pq.read_table("embeddings.parquet")
        moved = pa.array(np.asarray(table["x"]) + 1000 * (np.arange(len(table)) >= 60))
        pq.write_table(table.set_column(1, "x", moved), "embeddings.parquet")
    number = register(GOOD)
    assert asked(number) == 3
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 2
    assert aliases() == {}


@pytest.mark.slow
def test_data_that_are_not_those_of_the_run_are_refused(
    uri: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """Unless the gate lists them: a test set newer than the run."""
    number = register(GOOD)
    table = pq.read_table("test_tiles.parquet")
    pq.write_table(table.slice(0, 80), "newer.parquet")
    assert asked(number, "data.test_tiles=newer.parquet") == 3
    error = capsys.readouterr().err
    newer = digests.digest({"newer.parquet": Path("newer.parquet")})
    assert f"digests of the data: test_tiles is {newer[:12]}" in error
    (tmp_path / "gate.yaml").write_text(f"known: {{test_tiles: {newer}}}\n")
    assert asked(number, "data.test_tiles=newer.parquet", "gate=gate.yaml") == 0
    assert "newer.parquet" in pages(number)[-1]
    assert "80 tiles of 8 slides" in pages(number)[-1]


@pytest.mark.slow
def test_digests_that_nobody_recorded_are_refused(uri: str, capsys: pytest.CaptureFixture[str]):
    number = register(GOOD, recorded=("tiles", "test_tiles"))
    assert asked(number) == 3
    assert "digests of the data: embeddings is not recorded" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["changed", "gone", "new", "new: remove it"])
def test_files_that_are_not_as_registered_are_refused(
    uri: str, harm: str, capsys: pytest.CaptureFixture[str]
):
    """Before anything is evaluated."""
    number = register(GOOD)
    file = stored(number) / "extra_files" / checkpoint.FILE
    if harm == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    elif harm == "gone":
        (file.parent / "other").write_text("")
        file.unlink()
    elif harm == "new":
        (stored(number) / "code.py").write_text("")
    else:  # bytecode, which Python would run in place of the code beside it
        (stored(number) / "__pycache__").unlink(missing_ok=True)
        (stored(number) / "__pycache__").mkdir()
        (stored(number) / "__pycache__" / "served_model.cpython-311.pyc").write_bytes(b"")
    assert asked(number) == 3
    error = capsys.readouterr().err
    assert error.splitlines()[1].startswith("  files of the model: version 1: ")
    assert harm in error
    assert len(error.splitlines()) == 2
    assert tags(number)["gate.files_of_the_model"].startswith("failed: ")


@pytest.mark.slow
def test_a_champion_of_other_classes_is_no_rival(uri: str, capsys: pytest.CaptureFixture[str]):
    number, other = register(GOOD), register(GOOD, names=[*NAMES, "Fat"])
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "champion", other)
    assert asked(number) == 2
    assert "know different classes" in capsys.readouterr().err
    assert aliases() == {"champion": other}


@pytest.mark.slow
def test_a_champion_on_embeddings_of_another_length(uri: str, capsys: pytest.CaptureFixture[str]):
    number, other = register(GOOD), register(GOOD, dim=5)
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "champion", other)
    assert asked(number) == 2
    assert "different lengths" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["version=9"], ["no version 9 of tissue-probe", "versions 1"]),
        (
            ["model=tisue-probe", "version=1"],
            ["no version 1 of tisue-probe", "did you mean 'tissue-probe'"],
        ),
        (["history", "model=tisue-probe"], ["did you mean 'tissue-probe'"]),
        (["history", "version=1"], ["history takes neither"]),
        ([], ["version is not set", "model=tissue-probe version=7"]),
        (["version=1", "uri=sqlite:///mlflow.db"], ["'uri'", "did you mean 'tracking.uri'"]),
        (["verison=1"], ["'verison'", "did you mean 'version'"]),
        (["version=one"], ["version is not a whole number", "version=one"]),
        (["version=1", "alias=v1"], ["'v1' cannot be an alias"]),
        (["version=1", "alias=a/b"], ["'a/b' cannot be an alias"]),
        (
            ["version=1", "gate=nowhere.yaml"],
            ["no gate 'nowhere.yaml'", "gate, gate-without-patients"],
        ),
        (["version=1", "data.test_tile=x"], ["'data.test_tile'", "'data.test_tiles'"]),
        (["version=1", "data.test_tiles=null"], ["no test view"]),
        (["version=1", "learning_rate=1"], ["'learning_rate'"]),
        (["rollback"], ["nothing to roll champion", "previous_champion: none"]),
        (["rollback", "version=1"], ["rollback takes neither"]),
        (["promote", "version=1"], ["'promote'", "key=value"]),
    ],
)
def test_refusals(uri: str, argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]):
    number = register(GOOD)
    assert promote.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    for word in words:
        assert word in error
    assert (aliases(), tags(number), pages(number)) == ({}, {}, [])


# -- two at once ----------------------------------------------------------------------------------


def contend(arguments: tuple[str, str, str]) -> tuple[int, str]:
    """Promote in a process of its own once the other is ready; return the status."""
    uri, number, folder = arguments
    import contextlib
    import io
    import os

    os.chdir(folder)
    mlflow_artifacts.use_tracking(uri)
    move, output = promotion_alias.move, io.StringIO()

    def meet(*given) -> None:  # both have compared with the champion
        Path(f"ready-{number}").touch()
        while len(list(Path().glob("ready-*"))) < 2:
            threading.Event().wait(0.01)
        move(*given)

    promotion_alias.move = meet
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
        status = promote.main([f"version={number}", f"author=of-{number}", f"tracking.uri={uri}"])
    return status, output.getvalue()


@pytest.mark.slow
def test_of_two_processes_one_wins_and_the_other_says_so(uri: str, tmp_path: Path):
    old, one, two = register(GOOD), register(BETTER), register(BETTER)
    assert asked(old) == 0
    jobs = [(uri, number, str(tmp_path)) for number in (one, two)]
    with fork_server().Pool(2) as pool:
        outcomes = dict(zip((one, two), pool.map(contend, jobs, 1), strict=True))
    winner = aliases()["champion"]
    loser = two if winner == one else one
    assert outcomes[winner] == (0, "")
    status, error = outcomes[loser]
    assert status == 3
    assert f"overtaken: version {winner} (by of-{winner}, " in error
    assert f"instead of version {old} " in " ".join(error.split())
    assert aliases() == {"champion": winner, "previous_champion": old}
    assert (tags(winner)["decision"], tags(loser)["decision"]) == ("promoted", "refused")
    assert "overtaken" in pages(loser)[0]
    assert not mlflow.MlflowClient().search_registered_models("name LIKE '%.promotion'")


@pytest.mark.slow
def test_of_many_threads_one_moves_the_alias(uri: str):
    numbers = [register(GOOD)]
    client = mlflow.MlflowClient()
    version = client.get_model_version(MODEL, numbers[0])
    numbers += [
        str(client.create_model_version(MODEL, version.source, version.run_id).version)
        for _ in range(5)
    ]
    barrier, moved, late = threading.Barrier(6), [], []

    def move(number: str) -> None:
        candidate = registry.version(MODEL, int(number))
        barrier.wait()
        try:
            promotion_alias.move(candidate, "champion", None)
            moved.append(number)
        except promotion_alias.OvertakenError:
            late.append(number)

    threads = [threading.Thread(target=move, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(moved), len(late)) == (1, 5)
    assert aliases() == {"champion": moved[0]}


@pytest.mark.slow
def test_a_lock_that_a_killed_process_left_is_told_of(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    number = register(GOOD)
    mlflow.MlflowClient().create_registered_model(
        f"{MODEL}.promotion", description="champion: 3 -> 7, by Cy on far, process 1"
    )
    monkeypatch.setattr(
        lock, "acquire", lambda *given, acquire=lock.acquire: acquire(*given[:2], 0)
    )
    assert asked(number) == 2
    error = capsys.readouterr().err
    assert "by Cy on far, process 1" in error
    assert "python train/promote.py unlock model=tissue-probe" in error
    assert aliases() == {}
    assert promote.main(["unlock", f"model={MODEL}"]) == 0
    assert "removed: champion: 3 -> 7, by Cy" in capsys.readouterr().out
    assert asked(number) == 0
    assert promote.main(["unlock", f"model={MODEL}"]) == 0
    assert "no promotion of tissue-probe is under way" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("step", range(3))
def test_no_failure_loses_the_champion(
    uri: str, step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The store fails at the evidence, at the first alias or at the second: promote again."""
    old, new = register(GOOD), register(BETTER)
    assert asked(old) == 0
    done, client = [], mlflow.MlflowClient

    def failing(version):
        def call(*given, **named):
            if len(done) == step:
                done.append("failed")
                raise mlflow.exceptions.MlflowException("the disk is full")
            done.append(version.__name__)
            return version(*given, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("log_text", "set_registered_model_alias"):
            patch.setattr(client, name, failing(getattr(client, name)))
        assert asked(new) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert aliases()["champion"] == old
    assert tags(new).get("decision") in (None, "passed")
    assert asked(new) == 0
    assert aliases() == {"champion": new, "previous_champion": old}


# -- a registered model of a real fit -------------------------------------------------------------


@pytest.fixture(scope="module")
def copied(digits_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a copy of the registry of the main command; artifacts stay where they are."""
    home = tmp_path_factory.mktemp("copied")
    shutil.copy(digits_home / "mlflow.db", home / "mlflow.db")
    yield home


@pytest.mark.slow
def test_the_main_commands_model_is_promoted_as_documented(copied: Path):
    """Its files have digests, and nobody's slides are in its test view."""
    command = [sys.executable, str(ROOT / "train" / "promote.py")]
    done = launch(
        [*command, "model=tissue-probe", "version=1", "alias=judged", "gate=gate-without-patients"],
        copied,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    client = mlflow.MlflowClient(f"sqlite:///{copied / 'mlflow.db'}")
    version = client.get_model_version("tissue-probe", "1")
    assert version.aliases == ["judged"] or "judged" in version.aliases
    mlflow.set_tracking_uri(f"sqlite:///{copied / 'mlflow.db'}")
    sums = mlflow.artifacts.load_text(f"runs:/{version.run_id}/sha256sums/tissue-probe-1.txt")
    assert version.tags["sha256sums"] == hashlib.sha256(sums.encode()).hexdigest()
    listed = {line[66:] for line in sums.splitlines()}
    assert {"MLmodel", "data/model.pt2", "extra_files/checkpoint.safetensors"} <= listed
