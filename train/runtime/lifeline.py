"""A connection between the first process and each other one, by which all know that all live.

The system closes the connections of a process that dies, at once; of a machine that is gone or cut
off it gives up after half a minute without an answer. A process that works for long is not taken
for dead: the system answers for it. By the same way a process tells the others why it ends.
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

from train.runtime.ending import Ended, Rank

MEETING = 30.0  # seconds in which all must have found the first process
OPTIONS = {
    "TCP_KEEPIDLE": 10,  # seconds of silence before the other system is asked
    "TCP_KEEPALIVE": 10,  # its name on macOS
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 30_000,  # milliseconds until what was sent must be acknowledged
}
"""Of TCP: who does not answer for thirty seconds is gone."""


@dataclass(frozen=True)
class Peer:
    """Another process, and the connection to it.

    Parameters
    ----------
    rank
        Its number.
    name
        See `train.runtime.ending.Rank`.
    link
        The connection.
    """

    rank: int
    name: str
    link: socket.socket


class Lifeline:
    """The connections of one process: of the first to all others, of another to the first.

    Parameters
    ----------
    rank
        Of this process.
    peers
        The others.
    tell
        Takes the end of one of them, in a thread of its own.
    """

    def __init__(self, rank: int, peers: list[Peer], tell: Callable[[Ended], None]) -> None:
        self.rank, self.peers, self.tell = rank, peers, tell
        self.closed = False
        for peer in peers:
            threading.Thread(target=self._listen, args=(peer,), daemon=True).start()

    def _listen(self, peer: Peer) -> None:
        why = "its connection ended without a word: was it killed, for want of memory perhaps?"
        try:
            line = peer.link.makefile().readline()
        except OSError as error:
            line, why = "", f"its connection is cut: {error.strerror or error}"
        if line.endswith("\n"):
            news = Ended(**json.loads(line))
        else:
            news = Ended(peer.rank, None, f"R{peer.name[1:]} is gone", why)
        if self.closed or news.status == 0:
            return
        self.tell(news)
        if self.rank == 0:
            self.say(news)

    def say(self, news: Ended) -> None:
        """Tell the peers of an end."""
        line = json.dumps(asdict(news)).encode() + b"\n"
        for peer in self.peers:
            if peer.rank != news.rank:
                with contextlib.suppress(OSError):  # it has ended as well
                    peer.link.sendall(line)

    def close(self) -> None:
        """End the connections."""
        self.closed = True
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.link.shutdown(socket.SHUT_RDWR)
            peer.link.close()


def listener(host: str) -> socket.socket:
    """Return a socket that listens at any port, to this machine alone where all are on it."""
    with contextlib.suppress(ValueError):
        if host == "localhost" or ip_address(host).is_loopback:
            host = "127.0.0.1" if host == "localhost" else host
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, 0), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def accept(listener: socket.socket, token: str, number: int, peers: list[Peer]) -> None:
    """Add the processes that come with the token; others are turned away."""
    until = time.monotonic() + MEETING
    while len(peers) < number:
        listener.settimeout(max(0.1, until - time.monotonic()))
        link, _ = listener.accept()
        link.settimeout(5)
        with contextlib.suppress(OSError, ValueError, KeyError):
            hello = json.loads(_line(link))
            if hmac.compare_digest(hello["token"].encode(), token.encode()):
                _watch(link)
                peers.append(Peer(hello["rank"], hello["name"], link))
                continue
        link.close()


def _line(link: socket.socket) -> bytes:
    """Return the first line that is sent, and read nothing beyond it."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 1000:
        line += link.recv(1) or b"\n"
    return line


def joined(host: str, port: int, token: str, rank: Rank) -> socket.socket:
    """Return a connection to the first process."""
    link = socket.create_connection((host, port), timeout=MEETING)
    hello = {"token": token, "rank": rank.number, "name": rank.name}
    link.sendall(json.dumps(hello).encode() + b"\n")
    _watch(link)
    return link


def _watch(link: socket.socket) -> None:
    """Let the system notice that the other one is gone."""
    link.settimeout(None)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in OPTIONS.items():
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
