"""Determines which process listens on a port, so that no other program is taken for a backend."""

import errno
import os
import re
import socket
import struct
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, REQUEST = 4, 20, 1
LISTEN = 10
"""TCP_LISTEN in tcp_states.h: the state of a socket that accepts connections."""
ANY_STATE = 0xFFFFFFFF
ANY_COOKIE = (0xFFFFFFFF, 0xFFFFFFFF)
HEADER = struct.Struct("=IHHII")
"""nlmsghdr (netlink(7))."""
QUESTION = struct.Struct("=BBBBI")
"""inet_diag_req_v2 up to the socket's id (sock_diag(7))."""
SOCKET_ID = struct.Struct("!HH16s16s")
"""inet_diag_sockid: ports and addresses; interface and cookie follow, in the machine's byte order."""
SOCKET_ID_REST = struct.Struct("=III")
ANSWER = struct.Struct("=BB50xIIIII")
"""inet_diag_msg: family, state, ..., expires, both queues, user, inode."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that accepts connections.

    Attributes:
        inode: Identifies the socket while it is open.
        uid: The user who opened it.
    """

    inode: int
    uid: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """The sockets that some processes have open.

    Attributes:
        inodes: Of the sockets.
        hidden: Users of those processes whose sockets we may not read.
    """

    inodes: Collection[int] = frozenset()
    hidden: Collection[int] = frozenset()


def belongs(listener: Listener, holdings: Holdings, uid: int) -> bool:
    """Return whether a listener belongs to some processes; one of root's is trusted too.

    Args:
        listener: The listener.
        holdings: The sockets of the processes.
        uid: Our own user.

    >>> backend = Holdings(inodes={17}, hidden={1001})
    >>> belongs(Listener(17, 1000), backend, uid=1000), belongs(Listener(18, 1000), backend, uid=1000)
    (True, False)
    >>> belongs(Listener(18, 1001), backend, uid=1000), belongs(Listener(18, 0), backend, uid=1000)
    (True, True)
    """
    is_roots = listener.uid == 0 and uid != 0
    return listener.inode in holdings.inodes or listener.uid in holdings.hidden or is_roots


def find_holdings(pids: Iterable[int]) -> Holdings:
    """Return the sockets that processes have open."""
    inodes, hidden = set[int](), set[int]()
    for pid in pids:
        try:
            links = list(Path(f"/proc/{pid}/fd").iterdir())
        except PermissionError:
            with suppress(OSError):
                hidden.add(Path(f"/proc/{pid}").stat().st_uid)
            continue
        except OSError:
            continue  # it has ended
        for link in links:
            with suppress(OSError):  # it has been closed
                if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link)):  # noqa: PTH115 - no path
                    inodes.add(int(found[1]))
    return Holdings(inodes, hidden)


class Listeners:
    """Asks the kernel which socket accepts connections on a port of 127.0.0.1.

    One netlink socket serves all queries, opened by the first: opening takes twenty times as long as asking.
    """

    def __init__(self) -> None:
        self._kernel: socket.socket | None = None
        self._tells: bool | None = None

    def __repr__(self) -> str:
        return f"<Listeners [{'open' if self._kernel is not None else 'not open'}]>"

    @property
    def kernel_tells(self) -> bool:
        """Whether this kernel answers; only Linux does, if it was built with INET_DIAG."""
        if self._tells is None:
            try:
                with socket.create_server((LOOPBACK, 0)) as known:
                    self._tells = self.find(known.getsockname()[1]) is not None
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    return True  # too many open files say nothing about the kernel
                self._tells = False
        return self._tells

    def find(self, port: int) -> Listener | None:
        """Return the socket that a connection to a port would reach; None when it would be refused.

        It takes microseconds: the kernel looks up one socket.

        Raises:
            OSError: The kernel does not answer.
        """
        if sys.platform != "linux":
            return None
        if self._kernel is None:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._kernel = socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG)
        here = SOCKET_ID.pack(port, 0, socket.inet_aton(LOOPBACK), b"")
        question = QUESTION.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, ANY_STATE)
        body = question + here + SOCKET_ID_REST.pack(0, *ANY_COOKIE)
        self._kernel.send(HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, REQUEST, 0, 0) + body)
        answer = self._kernel.recv(4096)
        if HEADER.unpack_from(answer)[1] != SOCK_DIAG_BY_FAMILY:
            return None  # an error: there is no such socket
        _, state, _, _, _, uid, inode = ANSWER.unpack_from(answer, HEADER.size)
        return Listener(inode, uid) if state == LISTEN else None

    def close(self) -> None:
        """Close the socket."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
