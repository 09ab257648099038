"""Connections between the first process and each other one: all notice when one of them is gone.

The system closes the connections of a process that dies, at once; of a machine that is gone or cut
off it gives up after half a minute without an answer. A process that works for long is not taken
for dead: the system answers for it. Over the same connections a process tells the others how it
ends.
"""

import contextlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from ipaddress import ip_address

from train.runtime.shutdown import ProcessExit, Rank

CONNECT_TIMEOUT = 30.0  # seconds in which all must have connected to the first process
KEEPALIVE = {
    "TCP_KEEPIDLE": 10,  # seconds of silence before the other system is asked
    "TCP_KEEPALIVE": 10,  # its name on macOS
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 30_000,  # milliseconds until what was sent must be acknowledged
}
"""Options of TCP: a machine that does not answer for thirty seconds is gone."""


@dataclass(frozen=True)
class Peer:
    """Another process, and the connection to it.

    Parameters
    ----------
    rank
        Its number.
    name
        See `train.runtime.shutdown.Rank`.
    connection
        To the process.
    """

    rank: int
    name: str
    connection: socket.socket


class PeerConnections:
    """The connections of one process: of the first to all others, of another to the first.

    Parameters
    ----------
    rank
        Of this process.
    peers
        The others.
    on_exit
        Called with the exit of one of them, in a thread of its own.
    """

    def __init__(
        self, rank: int, peers: list[Peer], on_exit: Callable[[ProcessExit], None]
    ) -> None:
        self.rank, self.peers, self.on_exit = rank, peers, on_exit
        self.closed = False
        for peer in peers:
            threading.Thread(target=self._wait_for_exit, args=(peer,), daemon=True).start()

    def _wait_for_exit(self, peer: Peer) -> None:
        why = "its connection ended without a word: was it killed, for want of memory perhaps?"
        try:
            line = peer.connection.makefile().readline()
        except OSError as error:
            line, why = "", f"its connection is cut: {error.strerror or error}"
        if line.endswith("\n"):
            peer_exit = ProcessExit(**json.loads(line))
        else:
            peer_exit = ProcessExit(peer.rank, None, f"R{peer.name[1:]} is gone", why)
        if self.closed or peer_exit.status == 0:
            return
        self.on_exit(peer_exit)
        if self.rank == 0:
            self.send(peer_exit)

    def send(self, process_exit: ProcessExit) -> None:
        """Send the exit of a process to all peers but itself."""
        line = json.dumps(asdict(process_exit)).encode() + b"\n"
        for peer in self.peers:
            if peer.rank != process_exit.rank:
                with contextlib.suppress(OSError):  # it has ended as well
                    peer.connection.sendall(line)

    def close(self) -> None:
        """End the connections."""
        self.closed = True
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.connection.shutdown(socket.SHUT_RDWR)
            peer.connection.close()


def listen(host: str) -> socket.socket:
    """Return a socket that listens at any port, to this machine alone where all are on it."""
    with contextlib.suppress(ValueError):
        if host == "localhost" or ip_address(host).is_loopback:
            host = "127.0.0.1" if host == "localhost" else host
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, 0), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def accept_peers(server: socket.socket, token: str, number: int, peers: list[Peer]) -> None:
    """Add a number of processes that come with the token to the peers; others are turned away.

    Raises
    ------
    TimeoutError
        They have not all come in `CONNECT_TIMEOUT`.
    """
    until = time.monotonic() + CONNECT_TIMEOUT
    while len(peers) < number:
        server.settimeout(max(0.1, until - time.monotonic()))
        connection, _ = server.accept()
        connection.settimeout(5)
        with contextlib.suppress(OSError, ValueError, KeyError):
            hello = json.loads(_read_line(connection))
            if hmac.compare_digest(hello["token"].encode(), token.encode()):
                _keep_alive(connection)
                peers.append(Peer(hello["rank"], hello["name"], connection))
                continue
        connection.close()


def _read_line(connection: socket.socket) -> bytes:
    """Return the first line that is sent, and read nothing beyond it."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 1000:
        line += connection.recv(1) or b"\n"
    return line


def connect(host: str, port: int, token: str, rank: Rank) -> socket.socket:
    """Return a connection to the first process."""
    connection = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT)
    hello = {"token": token, "rank": rank.number, "name": rank.name}
    connection.sendall(json.dumps(hello).encode() + b"\n")
    _keep_alive(connection)
    return connection


def _keep_alive(connection: socket.socket) -> None:
    """Let the system notice that the other side is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
