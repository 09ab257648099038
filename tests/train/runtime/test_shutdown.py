"""How a process ends: by signals, by the end of another, or because nobody answers any more."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from queue import Queue

import pytest
from conftest import ROOT

from featurestore.errors import ArtifactError, FeatureStoreError
from train.runtime.peers import KEEPALIVE, Peer, PeerConnections, accept_peers, connect, listen
from train.runtime.shutdown import LostProcessError, ProcessExit, Rank, Shutdown, Stopped

KEPT = "5 epochs of the fit in head.pt"


def started(code: str, *argv: str, folder: Path = ROOT) -> subprocess.Popen[str]:
    """Run some code in a process, and wait until it says that it is ready."""
    process = subprocess.Popen(
        [*argv, sys.executable, "-c", textwrap.dedent(code)], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
    return process


WORKER = """
import signal, sys, time
from train.runtime import shutdown
shutdown.REPEAT_WINDOW = 0.5
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
with shutdown.handle_signals(True) as end:
    end.saved_state = lambda: ["5 epochs of the fit in head.pt"]
    try:
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            time.sleep({leaving})  # closes what is open
            print("left", flush=True)
    except BaseException as error:
        sys.exit(end.report(error))
"""


@pytest.mark.slow
def test_a_signal_lets_a_process_leave_in_good_order():
    """A launcher passes on a signal that the group has had: the echo does not cut it short."""
    process = started(WORKER.format(leaving=0.3))
    process.send_signal(signal.SIGHUP)  # which nohup has it ignore
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("left\n", 128 + signal.SIGTERM)
    assert err == f"terminated; kept: {KEPT}; run the same command with resume=true to go on\n"


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once():
    process = started(WORKER.format(leaving=60))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.8)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("", -signal.SIGTERM)


@pytest.mark.slow
def test_who_waits_for_a_rank_that_is_gone_is_ended():
    """Its main thread sits in C code and takes no signal; the run's status is set all the same."""
    process = started("""
        import signal, time
        from train.runtime import shutdown
        shutdown.GRACE = 0.4
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        with shutdown.handle_signals(True) as end:
            end.saved_state = lambda: ["5 epochs of the fit in head.pt"]
            end.set_run_status = lambda status: print(status, flush=True)
            print("ready", flush=True)
            end.on_peer_exit(shutdown.ProcessExit(1, None, "Rank 1 is gone", "no word"))
            time.sleep(60)
    """)
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("FAILED\n", 2)
    assert err == (
        f"error: Rank 1 is gone\n  found: no word; kept: {KEPT}\n"
        "  to do: run the same command again with resume=true\n"
    )


@pytest.mark.slow
def test_a_process_ends_with_its_launcher(tmp_path: Path):
    """`accelerate launch` dies of a signal and passes none on."""
    (tmp_path / "probe.py").write_text(
        "import os, time\nfrom train.tracking.provenance import follow_launcher\n"
        "follow_launcher(os.environ)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    (tmp_path / "launcher.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, *sys.argv[1:]])\n"
    )
    process = subprocess.Popen(
        [sys.executable, tmp_path / "launcher.py", tmp_path / "probe.py", "fold=4"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "ACCELERATE_MIXED_PRECISION": "no"},
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.communicate(timeout=30)[0] == ""  # once the script has closed it as well


GONE = ProcessExit(1, None, "Rank 1 (process 7 on node) is gone", "no word")
FAILED = ProcessExit(1, 1, "Rank 1 (process 7 on node) failed: ValueError", "boom")
REFUSED = ProcessExit(1, 2, "No tile is left", "0 tiles", "loosen the thresholds")


@pytest.mark.parametrize(
    ("peer_exit", "kind", "words"),
    [
        (GONE, LostProcessError, "run the same command again with resume=true"),
        (FAILED, LostProcessError, "found: boom; kept: 5 epochs of the fit in head.pt"),
        (FAILED, LostProcessError, "mend what its traceback says, then run the same command again"),
        (REFUSED, FeatureStoreError, "to do: loosen the thresholds"),
        (ProcessExit(1, 143), Stopped, "15"),
    ],
)
def test_what_comes_of_another_end_is_told_as_that(peer_exit: ProcessExit, kind: type, words: str):
    """Torch says that a connection is closed; the cause is what a person wants to know."""
    shutdown = Shutdown(prints_errors=True)
    shutdown.rank, shutdown.saved_state = Rank(0, 2, 0), lambda: [KEPT]
    shutdown._finished.set()  # nobody is to be interrupted here
    shutdown.on_peer_exit(peer_exit)
    error = RuntimeError("Connection closed by peer")
    with pytest.raises(kind) as raised:
        shutdown.begin(RuntimeError, error, None)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (ArtifactError("a", found="b", fix="c"), ProcessExit(3, 2, "a", "b", "c")),
        (KeyboardInterrupt(), ProcessExit(3, 130)),
        (Stopped(signal.SIGTERM), ProcessExit(3, 143)),
        (None, ProcessExit(3, 0)),
    ],
)
def test_last_words(error: BaseException | None, last: ProcessExit):
    shutdown, messages = Shutdown(prints_errors=False), []
    shutdown.rank, shutdown.notify_peers = Rank(3, 1, 0), messages.append
    shutdown.begin(type(error) if error else None, error, None)
    shutdown.begin(None, None, None)  # there is one shutdown
    assert messages == [last]


def test_an_exception_of_any_kind_is_told_and_shown_where_it_was(
    capsys: pytest.CaptureFixture[str],
):
    shutdown, messages = Shutdown(prints_errors=True), []
    shutdown.rank, shutdown.notify_peers = Rank(0, 1, 0), messages.append
    error = MemoryError("no room\nat all")
    shutdown.begin(MemoryError, error, None)
    [last] = messages
    assert (last.status, last.found) == (1, "no room")
    assert last.wrong.startswith("Rank 0 (process ")
    assert last.wrong.endswith("failed: MemoryError")
    with pytest.raises(MemoryError):
        shutdown.report(error)
    assert capsys.readouterr().err == ""


# -- the connections -----------------------------------------------------------------------------


def star(number: int) -> tuple[list[PeerConnections], list[Queue[ProcessExit]]]:
    """Return connected processes and what each is told; one without the token comes first."""
    with listen("localhost") as server:
        port = server.getsockname()[1]
        stranger = socket.create_connection(("127.0.0.1", port))
        stranger.sendall(b'{"token": "guessed", "rank": 1, "name": "rank 1"}\n')
        peers: list = []
        arguments = (server, "token", number - 1, peers)
        accepting = threading.Thread(target=accept_peers, args=arguments)
        accepting.start()
        links = [connect("127.0.0.1", port, "token", Rank(n, number)) for n in range(1, number)]
        accepting.join(30)
        stranger.close()
    heard: list[Queue[ProcessExit]] = [Queue() for _ in range(number)]
    first = PeerConnections(0, peers, heard[0].put)
    others = [
        PeerConnections(n, [Peer(0, "rank 0 (process 1 on node)", link)], heard[n].put)
        for n, link in enumerate(links, 1)
    ]
    return [first, *others], heard


@pytest.mark.parametrize("dying", [0, 2])
def test_all_hear_of_a_process_that_is_gone(dying: int):
    lines, heard = star(3)
    lines[dying].close()  # without a word, as the system does for who is killed
    for rank in {0, 1, 2} - {dying}:
        peer_exit = heard[rank].get(timeout=10)
        assert (peer_exit.rank, peer_exit.status) == (dying, None)
        assert peer_exit.wrong.startswith(f"Rank {dying} (process ")
    for line in lines:
        line.close()


def test_last_words_reach_all_and_who_has_done_is_not_missed():
    lines, heard = star(3)
    lines[1].send(ProcessExit(1, 0))
    lines[1].close()
    last = replace(FAILED, rank=2)
    lines[2].send(last)
    assert heard[0].get(timeout=10) == last
    assert all(queue.empty() for queue in heard)
    for line in lines:
        line.close()


@pytest.mark.slow
def test_a_cut_network_is_noticed():
    """In a network of its own, whose loopback goes down; with seconds for half minutes."""
    try:
        subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a network namespace")
    code = """
        import subprocess, threading, queue
        from train.runtime import peers as connections
        from train.runtime.shutdown import Rank
        connections.KEEPALIVE = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 1,
                            "TCP_USER_TIMEOUT": 2000}
        loopback = ["ip", "link", "set", "lo"]
        subprocess.run([*loopback, "up"], check=True)
        peers, heard = [], queue.Queue()
        with connections.listen("localhost") as server:
            port = server.getsockname()[1]
            arguments = (server, "token", 1, peers)
            accepting = threading.Thread(target=connections.accept_peers, args=arguments)
            accepting.start()
            link = connections.connect("127.0.0.1", port, "token", Rank(1, 2))
            accepting.join()
        connections.PeerConnections(0, peers, heard.put)
        subprocess.run([*loopback, "down"], check=True)
        print("ready", flush=True)
        print(heard.get(timeout=20).found, flush=True)
    """
    out, err = started(code, "unshare", "-rn").communicate(timeout=30)
    assert out == "its connection is cut: Connection timed out\n", err


@pytest.mark.slow
def test_silence_of_half_a_minute_is_the_most():
    asked = KEEPALIVE["TCP_KEEPIDLE"] + KEEPALIVE["TCP_KEEPINTVL"] * KEEPALIVE["TCP_KEEPCNT"]
    assert asked == KEEPALIVE["TCP_USER_TIMEOUT"] / 1000 == 30
