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

from mts_driver.errors import UserError

Read = Callable[[int], bytes | memoryview]

HEADER_SIZE = 12
SEGMENTS = ("pos", "h", "ih", "pot", "force", "vir")
"""Shared memory segments, in the order in which i-PI names them."""
LONGEST_TEXT = 1 << 20
"""Bytes of parameters or of a name; more is a mistake, and nothing is reserved for it."""
LARGEST_BATCH = 4096
"""Structures of a batch; the same."""
_CHECK = "check that --address and --mode belong to the <ffsocket> of an i-PI server"


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


def check_natoms(sent: int, natoms: int) -> None:
    """Refuse structures of another number of atoms, before anything of that size is read.

    Raises
    ------
    UserError
        If a server sent ``sent`` atoms to a driver of ``natoms``.
    """
    if sent != natoms:
        raise UserError(
            f"the server sent {sent} atoms, but --structure has {natoms}: give the structure that "
            "the server runs, with the same order of atoms, and the --mode of its <ffsocket>."
        )


def _read_text(read: Read) -> str:
    length = read_int(read)
    if not 0 <= length <= LONGEST_TEXT:
        raise UserError(
            f"the server announced a text of {length} bytes, where 0 to {LONGEST_TEXT} are "
            f"possible: {_CHECK}."
        )
    return bytes(read(length)).decode("utf-8", errors="replace") if length else ""


def _read_floats(read: Read, *shape: int) -> np.ndarray:
    count = int(np.prod(shape))
    # a copy, so that the arrays outlive the receive buffer
    return np.frombuffer(read(8 * count), np.float64, count).reshape(shape).copy()


def read_init(read: Read) -> Init:
    """Read what follows the INIT header.

    Servers that have no parameters send one blank or one null character.

    Raises
    ------
    UserError
        If the text has no length that is possible, or ``batch_size`` is no number of structures.
    """
    replica = read_int(read)
    parameters = {}
    for item in _read_text(read).replace("\0", "").split(","):
        key, colon, value = item.partition(":")
        if colon:
            parameters[key.strip()] = value.strip()
    batch = parameters.pop("batch_size", "1")
    size = int(batch) if batch.isascii() and batch.isdigit() and len(batch) < 10 else 0
    if not 0 < size <= LARGEST_BATCH:
        raise UserError(
            f"the server announced a batch_size of {batch[:40]!r}: give the <ffsocket> a "
            f"<batch_size> from 1 to {LARGEST_BATCH}, and none in its <parameters>."
        )
    return Init(replica, parameters, size)


def read_positions(read: Read, *, batch_size: int, natoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Read what follows the POSDATA header of a stream socket.

    Returns
    -------
    positions : ndarray, shape (batch_size, N, 3)
        Bohr.
    cells : ndarray, shape (batch_size, 3, 3)
        Rows are lattice vectors (i-PI sends them as columns), Bohr.

    Raises
    ------
    UserError
        If the server sends another number of atoms than ``natoms``.
    """
    if batch_size == 1:
        cells = _read_floats(read, 1, 2, 3, 3)
        check_natoms(read_int(read), natoms)
    else:
        check_natoms(read_int(read), natoms)
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
