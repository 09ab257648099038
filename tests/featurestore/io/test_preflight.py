"""What MLflow would refuse is refused before any work, whatever stands at the tracking URI."""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT, TABLES, Server, free_port, launch
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import _parse_model_uri
from mlflow.utils.validation import (
    _validate_experiment_name,
    _validate_metric_name,
    _validate_model_name,
)

from featurestore.errors import ArtifactError, FeatureStoreError, TrackingError
from featurestore.io import cache, mlflow_artifacts, preflight, tracking_server
from train import probe
from train.config.rules import EXPERIMENT_LENGTH, check_model_name
from train.config.schema import ConfigError
from train.tracking.mlflow_tracker import MlflowTracker
from train.tracking.names import check_spelled, encode_name
from train.tracking.registry import RegistryError, version
from train.tracking.runs import get_run

PAGE = "<html>\n<body>Please log in</body></html>"
USER = "Basic bWU6cEBzc3dvcmQ="  # me:p@ssword


class Door(BaseHTTPRequestHandler):
    """Answers as its server is told to: a status for all, or MLflow's answer to one user."""

    def do_GET(self) -> None:
        status = self.server.status
        if status == 200 and self.headers["Authorization"] != USER:
            status = 401
        if self.path == "/health":
            status = 200  # as a proxy that lets everybody ask for it
        body = json.dumps({"experiments": []}) if status == 200 else PAGE
        if self.path == "/login":
            status, body = 200, PAGE
        if self.server.status == 204:  # a page, whatever is asked
            status, body = 200, PAGE
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/login")
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def door() -> Iterator[ThreadingHTTPServer]:
    """Return a server that is not MLflow, on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening
        listening.shutdown()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no credentials, and lose those that a test gives."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return the URI of a database of this test: MLflow keeps a relative one open, where it was."""
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small file system; skip where the test may not."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False)
    if done.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def read_only(folder: Path) -> None:
    """Make a mounted file system read-only, for root too."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


def arguments(artifacts: TABLES, *more: str) -> list[str]:
    """Return the arguments of a fit on twelve tiles."""
    Path("two.yaml").write_text(
        "data: {name: own}\nmax_epochs: 2\nnormalize: none\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    Path("none.yaml").write_text("{}")
    named = [f"{key}={Path(value).absolute()}" for key, value in artifacts().items()]
    own = [f"data={Path('two.yaml').absolute()}", f"classes={Path('none.yaml').absolute()}"]
    return [*own, "fold=1", *named, *more]


# -- servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ["wants to know who asks", "401", "MLFLOW_TRACKING_USERNAME"]),
        (403, ["does not let this user", "403", "ask for the permission"]),
        (404, ["is not MLflow", "404", "correct the tracking URI"]),
        (302, ["is not MLflow", "a page to log in"]),
        (204, ["is not MLflow", "not in a valid JSON format"]),
    ],
)
def test_what_is_not_mlflow_or_bars_us_is_told_at_the_door(
    door: ThreadingHTTPServer, nobody: None, status: int, words: list[str]
):
    """Not as an artifact that is missing, and without the page that came instead."""
    door.status = status
    with pytest.raises(TrackingError) as refusal:
        mlflow_artifacts.use_tracking(f"http://127.0.0.1:{door.server_port}")
    said = str(refusal.value)
    assert f"http://127.0.0.1:{door.server_port}" in said
    assert "Please log in" not in said
    for word in words:
        assert word in said


def test_a_fit_is_refused_at_the_door_before_it_reads_anything(
    door: ThreadingHTTPServer, nobody: None, artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    door.status = 401
    argv = arguments(artifacts, f"tracking.uri=http://me:p%40ss@127.0.0.1:{door.server_port}")
    before = sorted(Path().rglob("*"))
    argv = [a for a in argv if not a.startswith("data.tiles=")]
    assert probe.main([*argv, "data.tiles=missing.parquet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: MLflow at http://127.0.0.1:")
    assert "p%40ss" not in said
    assert sorted(Path().rglob("*")) == before


def test_user_and_password_of_a_uri_reach_the_server_and_nothing_else(
    door: ThreadingHTTPServer, nobody: None
):
    door.status = 200
    bare = f"http://127.0.0.1:{door.server_port}"
    given = bare.replace("//", "//me:p%40ssword@")
    assert mlflow_artifacts.use_tracking(given) == mlflow.get_tracking_uri() == bare
    assert mlflow_artifacts.use_tracking() == bare  # as other parts of the run ask
    with pytest.raises(TrackingError, match="wants to know who asks"):
        mlflow_artifacts.use_tracking(given.replace("ssword", "nother"))
    assert tracking_server.signed_in("postgresql://me:secret@h/db") == "postgresql://me:secret@h/db"


@pytest.mark.slow
def test_a_fit_with_a_password_in_its_uri_writes_it_nowhere(
    server: Server, nobody: None, artifacts: TABLES, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    """Not on the terminal, in MLflow's database and artifacts, on the page or in the output."""
    uri = server.uri.replace("//", "//me:open-sesame@")
    argv = arguments(artifacts, f"tracking.uri={uri}", "tracking.experiment=door", "output=out",
                     "tracking.model=door")  # fmt: skip
    done = launch(["python", str(ROOT / "train" / "probe.py"), *argv], tmp_path)
    assert done.returncode == 0, done.stderr
    assert server.uri in done.stdout
    assert "open-sesame" not in done.stdout + done.stderr
    client = mlflow.MlflowClient(server.uri)
    [run] = client.search_runs([client.get_experiment_by_name("door").experiment_id])
    assert run.data.params["tracking.uri"] == server.uri
    assert f"tracking.uri={server.uri}" in run.data.params["command"]
    for folder in (server.home, tmp_path):
        for file in folder.rglob("*"):
            assert file.is_dir() or b"open-sesame" not in file.read_bytes(), file


def test_a_database_that_nobody_serves_is_asked_once():
    port = free_port()
    with pytest.raises(TrackingError, match="does not answer") as refusal:
        preflight.check_reachable("postgresql://me:secret@127.0.0.1/db", "127.0.0.1", port)
    assert f"127.0.0.1:{port}" in refusal.value.found
    assert "secret" not in str(refusal.value)


# -- experiments, names, files --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tissue-probe", mlflow_artifacts.EXPERIMENT])
def test_a_deleted_experiment_is_refused_with_how_to_restore_it(
    name: str, database: str, artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    """The run's own; and that of folds, where they are to be assigned."""
    mlflow.set_tracking_uri(database)
    mlflow.delete_experiment(mlflow.create_experiment(name))
    argv = arguments(artifacts, f"tracking.uri={database}")
    if name == mlflow_artifacts.EXPERIMENT:
        artifacts({"fold": None})
        argv.append("k=2")
    before = sorted(Path().rglob("*"))
    assert probe.main(argv) == 2
    said = capsys.readouterr().err
    assert f"The MLflow experiment {name!r} is deleted" in said
    assert "mlflow experiments restore --experiment-id 1" in said
    assert sorted(Path().rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["tissue-probe", "a b", " a", "ü", "a#b", "a%20b", "a'b", 'a"b', "a.b", "a&b=c", "latest",
     "...a", "", " ", "a/b", "a:b", "/", "..", ".", "a?b", "a\nb", "a\tb", "x" * 300],
)  # fmt: skip
def test_names_of_models_are_those_that_mlflow_takes_and_its_uris_carry(name: str, database: str):
    """What is accepted is registered and found again; what MLflow refuses is refused."""
    try:
        _validate_model_name(name)
        taken = True
    except MlflowException:
        taken = False
    try:
        check_model_name(name, "tracking.model")
    except ConfigError:
        assert not taken or set(name) & set("?\n\t") or len(name) > 246
        return
    assert taken
    client = mlflow.MlflowClient(database)
    client.create_registered_model(name)
    made = client.create_model_version(name, "somewhere")
    mlflow_artifacts.use_tracking(database)
    assert version(name, int(made.version)).model == name
    assert _parse_model_uri(f"models:/{name}/1")[1:3] == (name, "1")


def test_the_longest_name_of_a_class_fits_the_longest_metric():
    """Before a fit, whose figures by class are recorded at its end."""
    name = "ä" * 33 + "ab"
    check_spelled([name])
    _validate_metric_name(f"best/validation/average_precision_high/{encode_name(name)}")
    with pytest.raises(ConfigError, match="so long a class name"):
        check_spelled(["Fat", name + "c"])


def test_the_longest_name_of_an_experiment_is_mlflows():
    _validate_experiment_name("x" * EXPERIMENT_LENGTH)
    with pytest.raises(MlflowException):
        _validate_experiment_name("x" * (EXPERIMENT_LENGTH + 1))


def test_a_store_that_is_not_there_yet_is_not_made_by_asking(tmp_path: Path):
    for uri in ("sqlite:///new.db", f"sqlite:///{tmp_path}/deep/new.db", "sqlite://"):
        mlflow_artifacts.use_tracking(uri)
        preflight.check(uri, "any", "any")
    with closing(sqlite3.connect("empty.db")) as other:
        other.execute("create table mine (x)")
    mlflow_artifacts.use_tracking("sqlite:///empty.db")
    preflight.check("sqlite:///empty.db", "any", "any")
    with closing(sqlite3.connect("empty.db")) as other:
        assert other.execute("select name from sqlite_master").fetchall() == [("mine",)]
    assert [path.name for path in tmp_path.rglob("*")] == ["empty.db"]


def test_a_database_or_its_artifacts_that_cannot_be_written(database: str, tmp_path: Path):
    """For root too: a file system that is read-only."""
    with mounted(tmp_path / "disk", "rw") as disk:
        mlflow.MlflowClient(database).create_experiment("far", str(disk / "far"))
        preflight.check(mlflow_artifacts.use_tracking(database), "far", None)
        shutil.copy(tmp_path / "mlflow.db", disk / "m.db")
        read_only(disk)
        for place, error, words in (
            (f"sqlite:///{disk}/m.db", TrackingError, "cannot be written"),
            (f"sqlite:///{disk}/new/other.db", ArtifactError, "is read-only"),
            (database, ArtifactError, "is read-only"),
        ):
            with pytest.raises(error, match=words):
                preflight.check(mlflow_artifacts.use_tracking(place), "far", None)


def test_a_folder_whose_name_mlflow_would_decode(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Artifacts would lie in another one, where nothing that this project reads looks for them."""
    mlflow.MlflowClient(database).create_experiment("far", str(tmp_path / "a%20b"))
    with pytest.raises(ArtifactError, match=r"it decodes: .*/a b"):
        preflight.check(mlflow_artifacts.use_tracking(database), "far", None)
    for name in ("50%", "what? #1", "ä=[b]"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        preflight.check(mlflow_artifacts.use_tracking("sqlite:///m.db"), "any", None)
    (tmp_path / "c%41").mkdir()
    monkeypatch.chdir(tmp_path / "c%41")
    with pytest.raises(ArtifactError, match="would not write artifacts"):
        preflight.check(mlflow_artifacts.use_tracking("sqlite:///m.db"), "any", None)
    assert not list(Path().iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [["tracking.enabled=false"], ["tracking.enabled=false", "mode=test"]]
)
def test_a_working_folder_that_is_read_only(
    more: list[str], artifacts: TABLES, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    """A fit is refused first of all; another mode where it would write."""
    argv = arguments(artifacts, *more, f"output={tmp_path / 'out'}")
    if "mode=test" in more:
        assert probe.main([*argv[:-2], f"output={tmp_path}"]) == 0
        argv = [
            *(a for a in argv if a != "fold=1"),
            f"checkpoint={tmp_path}/checkpoint.safetensors",
            *(a.replace("data.tiles", "data.test_tiles") for a in argv if "data.tiles" in a),
        ]
    with mounted(tmp_path / "disk", "ro") as disk:
        monkeypatch.chdir(disk)
        assert probe.main(argv) == 2
        monkeypatch.chdir(tmp_path)
    said = capsys.readouterr().err
    assert said.startswith("error: .featurestore")
    assert "work in a" in said  # another folder


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".featurestore").write_text("a file")
    with pytest.raises(ArtifactError, match="could not be written"):
        cache.get_or_build("snapshots", "0" * 64, lambda _: None)


@pytest.mark.slow
def test_a_disk_that_is_full_ends_a_fit_with_one_error(artifacts: TABLES, tmp_path: Path):
    argv = arguments(artifacts, "tracking.register=false")
    with mounted(tmp_path / "disk", "rw,size=100k") as disk:
        done = launch(["python", str(ROOT / "train" / "probe.py"), *argv,
                       f"tracking.uri=sqlite:///{disk}/m.db"], tmp_path)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: MLflow's database at sqlite:")
    assert "full" in done.stderr
    assert "its disk has room" in done.stderr
    assert "Traceback" not in done.stderr


# -- a run of its own -----------------------------------------------------------------------------


def finished(database: str) -> mlflow.entities.Run:
    """Return a finished run of another day."""
    mlflow.set_tracking_uri(database)
    mlflow.set_experiment("before")
    with mlflow.start_run() as run:
        mlflow.log_params({"seed": 0})
    return mlflow.get_run(run.info.run_id)


def test_a_run_id_left_over_is_ignored_with_a_warning(
    database: str, monkeypatch: pytest.MonkeyPatch
):
    earlier = finished(database)
    monkeypatch.setenv("MLFLOW_RUN_ID", earlier.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", earlier.info.experiment_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "before")
    monkeypatch.setenv("MLFLOW_ACTIVE_MODEL_ID", "m-0123")
    with pytest.warns(match="is ignored: this is a run of its own") as warned:
        tracker = MlflowTracker(database, "own", "mine")
    assert [str(one.message).split(" ")[0] for one in warned] == [
        "MLFLOW_RUN_ID", "MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_EXPERIMENT_NAME"
    ]  # fmt: skip
    with tracker:
        tracker.params({"seed": 7})
        tracker.metrics({"loss": 0.5})
        with tracker.child("part"):
            tracker.metrics({"loss": 0.25})
        tracker.finish()
    after = mlflow.get_run(earlier.info.run_id)
    assert after.to_dictionary() == earlier.to_dictionary()
    own = get_run(tracker.run)
    assert (own.info.status, own.data.params, own.data.metrics) == (
        "FINISHED", {"seed": "7"}, {"loss": 0.5}
    )  # fmt: skip
    [first] = mlflow.MlflowClient().search_experiments(filter_string="name = 'own'")
    assert own.info.experiment_id == first.experiment_id
    assert "MLFLOW_RUN_ID" not in os.environ


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_left_active_in_the_process_stays_as_it_is(fails: bool, database: str):
    """The fit is no child of it, writes nothing into it and does not end it."""
    mlflow.set_tracking_uri(database)
    mlflow.set_experiment("before")
    with mlflow.start_run() as mine:
        with pytest.warns(match="the active run"):
            tracker = MlflowTracker(database, "own", "mine")
        try:
            with tracker:
                tracker.metrics({"loss": 0.5})
                if fails:
                    raise ValueError
                tracker.finish()
        except ValueError:
            assert fails
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == mine.info.run_id
        assert mlflow.get_run(mine.info.run_id).info.status == "RUNNING"
    own = get_run(tracker.run)
    assert own.info.status == ("FAILED" if fails else "FINISHED")
    assert own.data.metrics == {"loss": 0.5}
    assert "mlflow.parentRunId" not in own.data.tags
    assert mlflow.get_run(mine.info.run_id).data.metrics == {}


# -- later ----------------------------------------------------------------------------------------


def test_what_mlflow_refuses_in_the_midst_ends_the_run_with_one_error(database: str):
    tracker = MlflowTracker(database, "own", None)
    with pytest.raises(TrackingError, match="refuses to record") as refusal, tracker:
        tracker.params({"seed": 0})
        tracker.params({"seed": 1})
        tracker.metrics({"loss": 1.0})  # nobody is asked any more
        tracker.finish()
    assert "Changing param values is not allowed" in refusal.value.found
    assert get_run(tracker.run).info.status == "FAILED"


def test_every_question_without_a_driver_is_one_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@127.0.0.1/db")
    mlflow_artifacts.use_tracking()
    for ask in (
        lambda: get_run("0"),
        lambda: version("m", 1),
        lambda: mlflow_artifacts.find_artifact("folds", "0"),
        lambda: mlflow_artifacts.logged("folds", "0", lambda _: None),
    ):
        with pytest.raises(FeatureStoreError, match="is not installed") as refusal:
            ask()
        assert not isinstance(refusal.value, RegistryError)
        assert "secret" not in str(refusal.value)
