"""Jobs for clusters: a Slurm played by scripts that run what they get, a Kubernetes by HTTP."""

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import kubernetes
import mlflow
import pytest
import yaml
from conftest import ROOT, launch

from train import submit
from train.config import text
from train.config.load import load
from train.runtime.cluster_job import ClusterJob
from train.runtime.manifests import fill, label, manifests

SUBMIT = str(ROOT / "train" / "submit.py")
SBATCH = """#!/bin/bash
cp "$1" sbatch.sh
echo "Submitted batch job 77"
"""
SRUN = """#!/bin/bash
shift; while [[ $1 == --* ]]; do shift 2; done
exec "$@"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the commands of Slurm, first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    return folder


def arguments(argv: list[str]) -> tuple[ClusterJob, object]:
    options = submit.parser().parse_args(argv)
    return submit.planned(options), options


@pytest.mark.slow
def test_slurm_runs_the_same_command(slurm: Path, tmp_path: Path):
    """What sbatch was given is run as a node would, and leaves the run that was named."""
    done = launch([sys.executable, SUBMIT, "slurm", "--name", "mine", "--hours", "2", "fold=4",
                   "max_epochs=2", "tracking.register=false"], tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "job 77, run mine" in done.stdout
    script = (tmp_path / "sbatch.sh").read_text()
    for words in ("--time=120", "--job-name=mine", "--comment='commit "):
        assert words in script
    kept = tmp_path / ".featurestore" / "jobs" / "mine"
    assert yaml.safe_load((kept / "config.yaml").read_text())["max_epochs"] == 2
    assert len(yaml.safe_load((kept / "job.yaml").read_text())["commit"]) >= 40
    node = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
            "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": "here"}  # fmt: skip
    ran = launch(["bash", "sbatch.sh"], tmp_path, **node)
    logs = "".join(file.read_text() for file in kept.glob("*log*"))
    assert ran.returncode == 0, ran.stderr + logs
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tissue-probe").experiment_id])
    assert [run.info.run_name for run in runs] == ["mine"]
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_a_job_that_slurm_takes_back_is_submitted_again():
    job, _ = arguments(["slurm", "fold=4", "resume=true"])
    again = job.checkpoint()
    assert again.function is job
    assert job.command("probe.py")[-3:] == [
        "fold=4", f"tracking.run_name={job.name}", "resume=auto"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        ([], ["--num_machines 1 --num_processes 1", "--cpu"]),
        (["--gpus", "1"], ["--num_processes 1"]),
        (["--gpus", "4"], ["--num_processes 4", "--multi_gpu"]),
        (["--gpus", "4", "--nodes", "2"],
         ["--num_machines 2 --num_processes 8", "--machine_rank 1 --main_process_ip a"]),
    ],
)  # fmt: skip
def test_nodes_and_gpus(argv: list[str], flags: list[str]):
    job, _ = arguments(["slurm", *argv, "fold=4"])
    command = " ".join(job.command("probe.py", "1", "a"))
    for flag in flags:
        assert flag in command
    assert ("--cpu" in command) == (not argv)


def test_a_dry_run_prints_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Where there is no Slurm, too."""
    assert submit.main(["slurm", "--gpus", "2", "--dry-run", "fold=all"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash")
    for words in ("--gpus-per-node=2", "--multi_gpu", "fold=all", "resume=auto"):
        assert words in script
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert not list(tmp_path.iterdir())


def test_submitit_shows_its_script():
    """`sbatch_script` of train/submit.py relies on a private function of submitit for --dry-run."""
    from submitit.slurm.slurm import _make_sbatch_string

    script = _make_sbatch_string(command="true", folder=Path("jobs"), job_name="mine", time=3)
    assert script.startswith("#!/bin/bash") and "#SBATCH --time=3" in script


def test_a_dry_run_without_that_function_shows_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delattr("submitit.slurm.slurm._make_sbatch_string")
    assert submit.main(["slurm", "--gpus", "2", "--dry-run", "fold=all"]) == 0
    script = capsys.readouterr().out
    for words in ("#!/bin/bash", "gpus_per_node: 2", "submitit.core._submit", "--multi_gpu"):
        assert words in script
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("library", "argv"),
    [("submitit", ["slurm", "--dry-run"]), ("kubernetes", ["kubernetes", "--image", "probe:1"])],
)
def test_without_the_extra_it_is_named(
    library: str,
    argv: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(sys.modules, library, None)
    assert submit.main([*argv, "fold=4"]) == 2
    assert "tissue-probe[cluster]" in capsys.readouterr().err


def test_values_of_a_template_stay_values():
    """A value is put in its place after parsing: no text becomes structure, no number a text."""
    template = yaml.safe_load("{a: '${text}', b: [{c: '${count}', d: '${nothing}'}], e: $x}")
    values = {"text": "x: 1\n- ${count}", "count": 3, "nothing": None}
    assert fill(template, values) == {"a": values["text"], "b": [{"c": 3}], "e": "$x"}


class Server(BaseHTTPRequestHandler):
    """Takes objects as the Kubernetes API does; refuses those called so."""

    taken: list[tuple[str, dict]] = []  # noqa: RUF012 - read by the tests

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        bad = "refused" in body["metadata"]["name"]
        self.taken.append((self.path, body))
        answer = {"message": "quota is used up"} if bad else body
        self.send_response(403 if bad else 201)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict]]]:
    """Run a server that the client of Kubernetes is configured for; yield what it has taken."""
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    named = {"name": "here"}
    access = {
        "current-context": "here",
        "contexts": [{**named, "context": {"cluster": "here", "user": "here"}}],
        "clusters": [{**named, "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{**named, "user": {}}],
    }
    (tmp_path / "access.yaml").write_text(yaml.safe_dump(access))
    for module in (kubernetes.config, kubernetes.config.kube_config):  # they read it but once
        monkeypatch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "access.yaml"))
    monkeypatch.setattr(Server, "taken", [])
    yield Server.taken
    server.shutdown()
    server.server_close()


def test_kubernetes_gets_a_job_with_its_configuration(
    cluster: list[tuple[str, dict]], capsys: pytest.CaptureFixture[str]
):
    argv = ["kubernetes", "--image", "own/probe:1", "--claim", "Tiles:/data", "--gpus", "1",
            "--hours", "1", "fold=all", "sweep.learning_rate=[0.1,0.2]"]  # fmt: skip
    assert submit.main(argv) == 0
    [(path, body)] = cluster
    assert path == "/apis/batch/v1/namespaces/default/jobs"
    container = body["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "own/probe:1"
    assert container["workingDir"] == "/data"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "sweep.learning_rate=[0.1,0.2]" in container["command"]
    assert "/app/train/probe.py" in container["command"]
    assert body["spec"]["activeDeadlineSeconds"] == 3600
    recorded = yaml.safe_load(body["metadata"]["annotations"]["tissue-probe/config"])
    assert recorded["sweep"]["learning_rate"] == [0.1, 0.2]
    assert recorded == yaml.safe_load(text.text(load(argv[-2:])))
    assert len(body["metadata"]["labels"]["commit"]) >= 40
    assert body["metadata"]["name"] in capsys.readouterr().out


def test_kubernetes_puts_nothing_in_place_of_an_argument():
    """`$(NAME)` in a path is no variable of the container; the number of the node is one."""
    argv = ["kubernetes", "--image", "i", "--nodes", "2", "--gpus", "1", "--name", "a$(B)",
            "fold=4", "output=/data/$(HOSTNAME)"]  # fmt: skip
    [*_, body] = manifests(*arguments(argv))
    command = body["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "output=/data/$$(HOSTNAME)" in command
    assert "tracking.run_name=a$$(B)" in command
    assert "$(JOB_COMPLETION_INDEX)" in command


def test_several_nodes_meet_by_a_service(cluster: list[tuple[str, dict]]):
    argv = ["kubernetes", "--image", "i", "--nodes", "2", "--gpus", "8", "fold=4"]
    assert submit.main(argv) == 0
    (path, service), (_, body) = cluster
    assert path == "/api/v1/namespaces/default/services"
    name, pod = service["metadata"]["name"], body["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["subdomain"] == name
    assert f"{name}-0.{name}" in pod["spec"]["containers"][0]["command"]
    assert body["spec"]["completionMode"] == "Indexed"
    assert body["spec"]["parallelism"] == 2


def test_names_of_objects_are_names_to_kubernetes():
    job, options = arguments(["kubernetes", "--image", "i", "--name", "Größe (4)" * 20, "fold=4"])
    [body] = manifests(job, options)
    name = body["metadata"]["name"]
    assert len(name) <= 57  # hostnames append the index
    assert name == label(name)
    assert all(len(value) <= 63 for value in body["metadata"]["labels"].values())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["slurm", "fold=4", "learning_rte=1"], ["learning_rte", "did you mean"]),
        (["slurm", "--nodes", "2", "fold=4"], ["--nodes 2 --gpus 0", "several nodes with GPUs"]),
        (["slurm", "fold=4"], ["Slurm did not take the job", "srun", "--dry-run"]),
        (["kubernetes", "--image", "i", "--claim", "x", "fold=4"], ["absolute path"]),
        (["kubernetes", "--image", "i", "--name", "refused", "fold=4"],
         ["did not take the job", "quota is used up"]),
    ],
)  # fmt: skip
def test_refusals(
    argv: list[str], words: list[str], cluster: list[tuple[str, dict]],
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
):  # fmt: skip
    assert submit.main(argv) == 2, shlex.join(argv)
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    for word in words:
        assert word in message
    assert not (tmp_path / ".featurestore").exists()
