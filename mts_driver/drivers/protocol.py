"""The client's side of the i-PI protocol: bytes to arrays and back, in atomic units.

There is no socket here. Functions that read take ``read(n)``, which returns exactly ``n`` bytes;
functions that write return the bytes to send. The layout is that of i-PI 3.3, whose batched form
(``batch_size`` structures a message, announced in INIT) extends the protocol of older servers.

=========  =============================================================================
message    what follows the 12 characters of the header
=========  =============================================================================
STATUS     nothing; the answer is NEEDINIT, READY or HAVEDATA
INIT       replica (int32), length (int32), parameters (text ``key : value , ...``)
POSDATA    one: cell, inverse cell (9 float64 each), N (int32), positions (3N float64)
           batch: N (int32), then all cells with their inverses, then all positions
           shm: N (int32) and, the first time, six segment names (int32 length, text)
GETFORCE   nothing; the answer is FORCEREADY, energies, N, forces, virials, extras
EXIT       nothing
=========  =============================================================================
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Read = Callable[[int], bytes | memoryview]

HEADER_SIZE = 12
SEGMENTS = ("pos", "h", "ih", "pot", "force", "vir")
"""Shared memory segments, in the order in which i-PI names them."""


def header(name: str) -> bytes:
    """Pad a message name to the 12 bytes that travel on the wire."""
    return name.ljust(HEADER_SIZE).encode("ascii")


@dataclass(frozen=True)
class Init:
    """What i-PI tells a driver once, before the first structure.

    Attributes
    ----------
    replica : int
        Index of the replica that the first request is for.
    parameters : dict
        The ``<parameters>`` of the ``<ffsocket>``, as text.
    batch_size : int
        Structures in every POSDATA and results in every answer.
    """

    replica: int
    parameters: dict[str, str]
    batch_size: int


def read_int(read: Read) -> int:
    """Read one int32."""
    return int(struct.unpack("=i", read(4))[0])


def _read_text(read: Read) -> str:
    length = read_int(read)
    return bytes(read(length)).decode("utf-8", errors="replace") if length > 0 else ""


def _read_floats(read: Read, *shape: int) -> np.ndarray:
    count = int(np.prod(shape))
    # a copy, so that the arrays outlive the receive buffer
    return np.frombuffer(read(8 * count), np.float64, count).reshape(shape).copy()


def read_init(read: Read) -> Init:
    """Read what follows the INIT header.

    Servers that have no parameters send one blank or one null character.
    """
    replica = read_int(read)
    parameters = {}
    for item in _read_text(read).replace("\0", "").split(","):
        key, colon, value = item.partition(":")
        if colon:
            parameters[key.strip()] = value.strip()
    batch = parameters.pop("batch_size", "1")
    return Init(replica, parameters, int(batch) if batch.isdigit() and int(batch) > 0 else 1)


def read_positions(read: Read, *, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Read what follows the POSDATA header of a stream socket.

    Returns
    -------
    positions : ndarray, shape (batch_size, N, 3)
        Bohr.
    cells : ndarray, shape (batch_size, 3, 3)
        Rows are lattice vectors (i-PI sends them as columns), Bohr.
    """
    if batch_size == 1:
        cells = _read_floats(read, 1, 2, 3, 3)
        natoms = read_int(read)
    else:
        natoms = read_int(read)
        cells = _read_floats(read, batch_size, 2, 3, 3)
    return _read_floats(read, batch_size, natoms, 3), np.swapaxes(cells[:, 0], 1, 2).copy()


def read_segment_names(read: Read) -> dict[str, str]:
    """Read the names of the shared memory segments that follow N in the first POSDATA."""
    return {kind: _read_text(read) for kind in SEGMENTS}


def segment_shapes(natoms: int, batch_size: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the float64 arrays in the shared memory segments."""
    matrix = (batch_size, 3, 3)
    vectors = (batch_size, natoms, 3)
    return {
        "pos": vectors,
        "h": matrix,
        "ih": matrix,
        "pot": (batch_size,),
        "force": vectors,
        "vir": matrix,
    }


def forces_message(
    energies: np.ndarray, forces: np.ndarray, virials: np.ndarray, extras: list[str]
) -> bytes:
    """Answer GETFORCE on a stream socket.

    Parameters
    ----------
    energies : ndarray, shape (B,)
        Hartree.
    forces : ndarray, shape (B, N, 3)
        Hartree/Bohr.
    virials : ndarray, shape (B, 3, 3)
        Minus the derivative of the energy with respect to strain, Hartree. It is symmetric for
        any potential that rotations leave alone, so row and column order are the same.
    extras : list of str, length B
        Text (JSON or empty) that i-PI attaches to the results.
    """
    return b"".join(
        [
            header("FORCEREADY"),
            np.ascontiguousarray(energies, np.float64).tobytes(),
            struct.pack("=i", forces.shape[1]),
            np.ascontiguousarray(forces, np.float64).tobytes(),
            np.ascontiguousarray(virials, np.float64).tobytes(),
            extras_message(extras),
        ]
    )


def extras_message(extras: list[str]) -> bytes:
    """Length and text of every structure's extra string."""
    texts = [text.encode("utf-8") for text in extras]
    return b"".join(struct.pack("=i", len(text)) + text for text in texts)
