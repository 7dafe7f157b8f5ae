"""Connections to an i-PI server: unix, inet and shared memory."""

import contextlib
import errno
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from multiprocessing import resource_tracker, shared_memory

import numpy as np

from mts_driver.drivers.ipi_socket import protocol
from mts_driver.errors import UserError

UNIX_PREFIX = "/tmp/ipi_"
MODES = ("unix", "inet", "shm")
LEFT_OVER = 1 << 10
"""Reads of what a server has sent and nobody has read, before a connection is closed."""
SILENT_S = 90
"""A machine that has not confirmed a packet for so long is gone; the kernel asks it when idle."""
_PROBES = 6
_ATTEMPT_S = 5.0


class Disconnected(Exception):
    """The server closed the connection, which is how some servers say goodbye."""


class ConnectionLost(UserError):
    """The server's machine, or the network to it, has gone without a word."""


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes
    ----------
    mode : str
        ``unix``, ``inet`` or ``shm`` (a unix socket whose arrays travel in shared memory); ``zmq``
        where the driver listens, over ZeroMQ.
    path : str
        File of the socket, for all but ``inet``.
    host : str
        Name of the machine, for ``inet``.
    port : int
        For ``inet``.
    """

    mode: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.mode == "inet" else self.path

    @classmethod
    def parse(
        cls, text: str, mode: str, *, prefix: str = UNIX_PREFIX, option: str = "--address"
    ) -> "Address":
        """Read ``NAME`` or ``/a/path`` (unix, shm) or ``HOST:PORT`` or ``PORT`` (inet).

        Raises
        ------
        UserError
            If the mode is not known or the port is not a number from 1 to 65535.
        """
        if mode not in MODES:
            raise UserError(f"--mode {mode!r} is not known: use one of {', '.join(MODES)}.")
        if not text:
            raise UserError(f"{option} is empty: give the <address> of the <ffsocket>.")
        if mode != "inet":
            return cls(mode, path=text if text.startswith("/") else prefix + text)
        host, _, port = text.rpartition(":")
        if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise UserError(
                f"{option} {text!r} has no port: with --mode inet write HOST:PORT, such as "
                "localhost:31415."
            )
        return cls(mode, host=host or "localhost", port=int(port))


def connect(
    address: Address,
    *,
    timeout: float,
    tell: Callable[[str], None] = lambda _: None,
) -> socket.socket:
    """Connect to a server that may not be there yet.

    Parameters
    ----------
    timeout : float
        Seconds to keep trying; 0 tries for ever.
    tell : callable
        Called once with a line for the user when there is something to wait for.

    Raises
    ------
    UserError
        If nobody answers in time, or the host does not exist.
    """
    start = time.monotonic()
    told = False
    while True:
        family = socket.AF_INET if address.mode == "inet" else socket.AF_UNIX
        link = socket.socket(family, socket.SOCK_STREAM)
        try:
            if address.mode == "inet":
                _prepare(link)
                # a machine that does not answer at all would hold this for minutes
                link.settimeout(_ATTEMPT_S)
                link.connect((address.host, address.port))
                link.settimeout(None)
            else:
                link.connect(address.path)
            return link
        except (OSError, ValueError) as error:  # ValueError: a name that can be no host's
            link.close()
            if not _may_come(error):
                raise UserError(
                    f"cannot connect to {address} ({error}): check --address and --mode against "
                    "the <ffsocket> of the i-PI input."
                ) from error
            reason = getattr(error, "strerror", None) or str(error)
        waited = time.monotonic() - start
        if timeout and waited > timeout:
            raise UserError(
                f"no i-PI server at {address} after {waited:.0f} s ({reason}): start it with "
                "`i-pi input.xml` or `mts run input.xml`, or give a longer --timeout."
            )
        if not told:
            tell(f"waiting for the server at {address} ...")
            told = True
        time.sleep(0.05 if waited < 10 else 0.5)


def _may_come(error: Exception) -> bool:
    """Whether the server may be there later: i-PI starts after its drivers, a node boots."""
    late = (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, TimeoutError)
    return isinstance(error, late) or (
        isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
    )


def _prepare(link: socket.socket) -> None:
    """Send small messages at once, and notice a machine that is gone while waiting for it."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    interval = max(1, SILENT_S // (_PROBES + 1))
    for name, value in (
        ("TCP_KEEPIDLE", interval),
        ("TCP_KEEPINTVL", interval),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", 1000 * SILENT_S),  # of what was sent and is not confirmed
    ):
        if hasattr(socket, name):  # Linux has all of them
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Stream:
    """Exact reads and full writes on a connected socket; one reused buffer."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._buffer = memoryview(bytearray(1 << 16))

    def read(self, count: int) -> memoryview:
        """Return the next ``count`` bytes, valid until the next call.

        Raises
        ------
        Disconnected
            If the server has gone.
        UserError
            If the connection fails for another reason.
        """
        if count > len(self._buffer):
            # memory is taken as bytes arrive, not for what a server only announces
            self._buffer = np.empty(count, np.uint8).data
        view = self._buffer[:count]
        done = 0
        while done < count:
            try:
                part = self.link.recv_into(view[done:])
            except OSError as error:
                raise _failure(error) from error
            if part == 0:
                raise Disconnected
            done += part
        return view

    def write(self, data: bytes) -> None:
        """Send everything."""
        try:
            self.link.sendall(data)
        except OSError as error:
            raise _failure(error) from error

    def read_positions(self, batch_size: int, natoms: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions (B, N, 3) and cells (B, 3, 3), atomic units."""
        return protocol.read_positions(self.read, batch_size=batch_size, natoms=natoms)

    def write_forces(
        self, energies: np.ndarray, forces: np.ndarray, virials: np.ndarray, extras: list[str]
    ) -> None:
        """Answer GETFORCE; shapes as in `protocol.forces_message`."""
        self.write(protocol.forces_message(energies, forces, virials, extras))

    def close(self) -> None:
        """Close the socket."""
        # bytes that nobody has read would turn our end into a reset, and i-PI's polling thread
        # survives an end, but not a reset
        with contextlib.suppress(OSError):
            self.link.setblocking(False)
            for _ in range(LEFT_OVER):  # not for ever, of a server that never stops
                if not self.link.recv(1 << 16):
                    break
        self.link.close()


def _failure(error: OSError) -> Exception:
    """Tell a server that has gone from a connection that does not work."""
    if isinstance(error, ConnectionError):
        return Disconnected()
    return ConnectionLost(
        f"the connection to the server failed ({error}): see whether its machine can still be "
        "reached, and start the driver again, with --reconnect if it should do so by itself."
    )


class SharedMemoryStream(Stream):
    """A unix socket for the messages; the arrays lie in memory that i-PI owns."""

    def __init__(self, link: socket.socket) -> None:
        super().__init__(link)
        self._segments: list[shared_memory.SharedMemory] = []
        self._arrays: dict[str, np.ndarray] = {}

    def _attach(self, natoms: int, batch_size: int) -> None:
        names = protocol.read_segment_names(self.read)
        if len(set(names.values())) < len(names):
            raise UserError(
                f"the server gave its shared memory segments the names {list(names.values())}, "
                "where each needs its own: start server and driver again."
            )
        for kind, shape in protocol.segment_shapes(natoms, batch_size).items():
            segment = _segment(names[kind])
            self._segments.append(segment)
            if segment.size < 8 * prod(shape):
                raise UserError(
                    f"the server's shared memory segment {names[kind]!r} has {segment.size} bytes "
                    f"where {8 * prod(shape)} are needed for {batch_size} structures of {natoms} "
                    "atoms: start server and driver again."
                )
            self._arrays[kind] = np.ndarray(shape, np.float64, buffer=segment.buf)

    def read_positions(self, batch_size: int, natoms: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions (B, N, 3) and cells (B, 3, 3), atomic units."""
        protocol.check_natoms(protocol.read_int(self.read), natoms)
        if not self._arrays:
            self._attach(natoms, batch_size)
        if len(self._arrays["pos"]) != batch_size:
            raise UserError(
                f"the server has announced batches of {batch_size} structures, and its shared "
                f"memory holds {len(self._arrays['pos'])}: start server and driver again."
            )
        cells = np.swapaxes(self._arrays["h"], 1, 2).copy()
        return self._arrays["pos"].copy(), cells

    def write_forces(
        self, energies: np.ndarray, forces: np.ndarray, virials: np.ndarray, extras: list[str]
    ) -> None:
        """Answer GETFORCE; the arrays are in place before the message goes out."""
        self._arrays["pot"][:] = energies
        self._arrays["force"][:] = forces
        self._arrays["vir"][:] = virials
        self.write(protocol.header("FORCEREADY") + protocol.extras_message(extras))

    def close(self) -> None:
        """Detach from the segments, which stay i-PI's, and close the socket."""
        self._arrays.clear()
        for segment in self._segments:
            segment.close()
        super().close()


def _segment(name: str) -> shared_memory.SharedMemory:
    """Attach to a segment of the server."""
    try:
        segment = shared_memory.SharedMemory(name=name)
    except (OSError, ValueError) as error:  # ValueError: no name of a file, or no bytes
        raise UserError(
            f"the server's shared memory segment {name[:80]!r} cannot be used ({error}): server "
            "and driver must run on the same machine, and in the same container; otherwise write "
            "mode='unix' or 'inet' in the <ffsocket> and its --mode."
        ) from error
    # i-PI owns the segments: without this, Python would unlink them when we exit
    resource_tracker.unregister(segment._name, "shared_memory")  # type: ignore[attr-defined]
    return segment
