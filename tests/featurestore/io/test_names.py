"""Names that move: aliases, paths logged again, models made anew; and downloads that go."""

import multiprocessing
import shutil
import time
from pathlib import Path

import mlflow
import pytest
from conftest import Server

from featurestore.console import cli
from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io import cache, downloads, mlflow_artifacts, names, proxied, uris

FORK = multiprocessing.get_context("fork")
DOWNLOADS = Path(".featurestore/downloads")


@pytest.fixture(params=["sqlite", "server"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> mlflow.MlflowClient:
    """Return a client of a store in a file, and of a server that sends artifacts itself."""
    if request.param == "sqlite":
        mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    else:
        mlflow_artifacts.use_tracking(request.getfixturevalue("server").uri)
    return mlflow.MlflowClient()


@pytest.fixture
def served(server: Server) -> mlflow.MlflowClient:
    mlflow_artifacts.use_tracking(server.uri)
    return mlflow.MlflowClient()


def logged(client: mlflow.MlflowClient, content: str, run: str | None = None) -> str:
    """Log a file in a folder to a run; return the run's id."""
    run = run or client.create_run("0").info.run_id
    client.log_text(run, content, "deep/er/weights.txt")
    return run


def version(client: mlflow.MlflowClient, model: str, run: str) -> str:
    """Register the folder of a run as a version of a model; return its number."""
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model)
    source = f"{client.get_run(run).info.artifact_uri}/deep"
    return str(client.create_model_version(model, source, run).version)


def content(uri: str) -> str:
    path = Path(uris.local_path(uri))
    return (path if path.is_file() else path / "er" / "weights.txt").read_text()


@pytest.mark.slow
def test_an_alias_that_moves_names_another_model(
    client: mlflow.MlflowClient, request: pytest.FixtureRequest
):
    """Forth and back again; a number, latest and a path inside name what they say."""
    model = f"m{request.node.name}".replace("[", "-").rstrip("]")
    for word in ("one", "two"):
        version(client, model, logged(client, word))
    assert names.resolved(f"models:/{model}/latest") == f"models:/{model}/2"
    for number, word in (("1", "one"), ("2", "two"), ("1", "one")):
        client.set_registered_model_alias(model, "champion", number)
        assert names.resolved(f"models:/{model}@champion") == f"models:/{model}/{number}"
        assert content(f"models:/{model}@champion") == word
        assert content(f"models:/{model}@champion/er/weights.txt") == word
        assert content(f"models:/{model}/{number}") == word
        run = client.get_model_version(model, number).run_id
        assert names.run_of(f"models:/{model}@champion") == run


@pytest.mark.slow
def test_a_model_deleted_and_made_anew_is_another(
    client: mlflow.MlflowClient, request: pytest.FixtureRequest
):
    model = f"m{request.node.name}".replace("[", "-").rstrip("]")
    version(client, model, logged(client, "one"))
    assert content(f"models:/{model}/1") == "one"
    client.delete_registered_model(model)
    assert version(client, model, logged(client, "two")) == "1"
    assert content(f"models:/{model}/1") == "two"


def test_a_path_logged_again_is_read_again(client: mlflow.MlflowClient):
    """At the same size, as a file and as a folder."""
    run = logged(client, "one")
    for word in ("one", "two"):
        logged(client, word, run)
        assert content(f"runs:/{run}/deep/er/weights.txt") == word
        assert content(f"runs:/{run}/deep") == word


def test_in_a_command_a_name_means_the_same_to_its_end(client: mlflow.MlflowClient):
    """Even if it moves meanwhile; commands after it see the move."""
    run = logged(client, "one")
    uri = f"runs:/{run}/deep"
    with names.resolved_once():
        where = uris.local_path(uri)
        logged(client, "two", run)
        with names.resolved_once():  # a part of it
            assert uris.local_path(uri) == where
    assert content(uri) == "two"


def test_the_same_run_id_on_another_server_is_another_run(
    served: mlflow.MlflowClient, tmp_path: Path
):
    run = logged(served, "one")
    with names.resolved_once():
        assert content(f"runs:/{run}/deep") == "one"
        mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
        with pytest.raises(ArtifactError, match="MLflow has no artifact"):
            uris.local_path(f"runs:/{run}/deep")


@pytest.mark.parametrize("uri", ["runs:/{run}/nothing.txt", "models:/none@champion",
                                 "mlflow-artifacts:/0/{run}/artifacts/nothing"])  # fmt: skip
def test_what_a_server_does_not_have_is_refused(served: mlflow.MlflowClient, uri: str):
    run = logged(served, "one")
    with pytest.raises(ArtifactError, match="has no"):
        uris.local_path(uri.format(run=run))
    assert not DOWNLOADS.exists()


# -- what is downloaded, and when -----------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the files that servers send from now on."""
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    files, real = [], HttpArtifactRepository._download_file

    def counted(self: HttpArtifactRepository, path: str, local: str) -> None:
        files.append(path)
        real(self, path, local)

    monkeypatch.setattr(HttpArtifactRepository, "_download_file", counted)
    return files


def test_what_has_not_changed_is_not_downloaded_again(served: mlflow.MlflowClient, sent: list[str]):
    run = logged(served, "one")
    uri = f"mlflow-artifacts:/0/{run}/artifacts/deep"
    assert [content(uri) for _ in range(2)] == ["one", "one"]
    assert sent == ["deep/er/weights.txt"]
    assert uris.local_path(uri) == uris.local_path(f"runs:/{run}/deep")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("now", "lacking"), [("one", ["zzz.txt"]), ("two", ["weights.txt", "zzz.txt"])]
)
def test_a_cut_download_goes_on_with_the_files_that_it_lacks(
    served: mlflow.MlflowClient,
    sent: list[str],
    monkeypatch: pytest.MonkeyPatch,
    now: str,
    lacking: list[str],
):
    """And takes no file of another version."""
    run, whole = logged(served, "one"), proxied._download
    served.log_text(run, "more", "deep/er/zzz.txt")

    def cut(repository: object, files: list, folder: Path) -> None:
        whole(repository, files[:1], folder)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(proxied, "_download", cut)
        with pytest.raises(ArtifactError, match="Input/output error"):
            content(f"runs:/{run}/deep")
    if now != "one":
        logged(served, now, run)
    sent.clear()
    assert content(f"runs:/{run}/deep") == now
    assert [Path(file).name for file in sent] == lacking


def test_what_is_replaced_during_the_download_is_refused(
    served: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    run, whole = logged(served, "one"), proxied._download

    def meanwhile(*given: object) -> None:
        whole(*given)
        logged(served, "two", run)

    monkeypatch.setattr(proxied, "_download", meanwhile)
    with pytest.raises(ArtifactError, match="was replaced while it was downloaded"):
        uris.local_path(f"runs:/{run}/deep")
    monkeypatch.setattr(proxied, "_download", whole)
    assert content(f"runs:/{run}/deep") == "two"


def test_a_storage_that_does_not_tell_contents_apart_is_asked_each_time(
    served: mlflow.MlflowClient, sent: list[str], monkeypatch: pytest.MonkeyPatch
):
    """What comes is compared with what is here, which is kept once."""
    monkeypatch.setattr(proxied, "_tag", lambda *_: None)
    run = logged(served, "one")
    with pytest.warns(FeatureStoreWarning, match="does not say whether it has changed"):
        first = uris.local_path(f"runs:/{run}/deep")
        assert uris.local_path(f"runs:/{run}/deep") == first
        assert (len(sent), len(cache.names(downloads.KIND))) == (2, 1)
        logged(served, "two", run)
        assert content(f"runs:/{run}/deep") == "two"


# -- gc -------------------------------------------------------------------------------------------


def write(text: str) -> Path:
    return downloads.get_or_download(text, lambda folder: (folder / "file").write_text(text))


def in_another_process(work: object) -> None:
    worker = FORK.Process(target=work)
    worker.start()
    worker.join()


def test_gc_removes_all_but_the_last_used_downloads(capsys: pytest.CaptureFixture[str]):
    """Cut ones and states of killed fits as well, but none that a process uses."""

    def earlier() -> None:
        for number in range(4):
            write(f"spare {number}")
            time.sleep(0.02)
        with pytest.raises(OSError, match="cut"):
            downloads.get_or_download("cut", lambda _: (_ for _ in ()).throw(OSError("cut")))

    in_another_process(earlier)
    mine = write("in use")
    time.sleep(0.02)
    in_another_process(lambda: write("spare 3"))
    for name in ("killed", "older"):
        (Path(".featurestore/fits") / name).mkdir(parents=True)
    (DOWNLOADS / ".building-0123456789abcdef-x").mkdir()  # by a killed process
    assert cli.main(["gc", "--keep", "1"]) == 0
    left = {(folder / "file").read_text() for folder in DOWNLOADS.glob("[!.]*/")}
    assert left == {"in use", "spare 3"}
    assert not list(DOWNLOADS.glob(".building-*"))
    assert len(list(Path(".featurestore/fits").glob("*/"))) == 1
    assert capsys.readouterr().out.count("removed .featurestore/downloads/") >= 3
    assert cli.main(["gc", "--keep", "0"]) == 0
    assert [path.name for path in DOWNLOADS.glob("*/")] == [mine.name]
    assert not Path(".featurestore/fits").exists()


def test_a_download_removed_by_hand_is_made_again():
    folder = write("text")
    shutil.rmtree(folder)
    assert (write("text") / "file").read_text() == "text"
