"""Peers in memory, whose bytes end; a potential, and what it should say, by hand."""

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import torch

from integrators.state import Evaluation
from mts_driver.drivers.counters import Stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.ipi_socket.protocol import LARGEST_BATCH, LONGEST_TEXT
from mts_driver.units import BOHR_A, HARTREE_EV

ATOMS = 3
W = np.arange(9.0).reshape(3, 3) / 7
LONGEST_READ = LONGEST_TEXT
"""Bytes; what a driver of few atoms may reserve, whatever a server announces."""
LOST = {"timed out": errno.ETIMEDOUT, "no route": errno.EHOSTUNREACH}


def direct(q: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies, forces and virials of a quartic well that also knows its cell, Hartree and Bohr.

    Energy and virial take rows and columns of the cell, lattice vectors in rows, differently.
    """
    x, h = q * BOHR_A, cell * BOHR_A
    with np.errstate(all="ignore"):
        energy = (0.7 * x**2 + 0.1 * x**4).sum((-2, -1)) + (W * h).sum((-2, -1))
        forces = -(1.4 * x + 0.4 * x**3)
        virial = np.einsum("...na,...nb->...ab", x, forces) + h
    return energy / HARTREE_EV, forces * BOHR_A / HARTREE_EV, virial / HARTREE_EV


class Well:
    """The same as a potential."""

    def __call__(self, positions: torch.Tensor, cell: torch.Tensor) -> Evaluation:
        x, h = positions.numpy() / BOHR_A, cell.numpy() / BOHR_A
        energy, forces, virial = (np.asarray(a) for a in direct(x, h))
        scaled = (energy * HARTREE_EV, forces * HARTREE_EV / BOHR_A, virial * HARTREE_EV)
        return Evaluation(*(torch.from_numpy(np.asarray(a)) for a in scaled))


def evaluator(*, periodic: bool | None = None) -> Evaluator:
    return Evaluator(Well(), ATOMS, stats=Stats("well"), periodic=periodic)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the units' last digits."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@dataclass
class MemoryLink:
    """A connected socket whose peer has said all that it will say, and then ends it.

    Attributes
    ----------
    data : bytes
        What the peer says.
    parts : sequence of int
        Sizes in which it arrives.
    ending : str
        ``closed``, ``reset``, or one of `LOST`.
    takes : int
        Bytes that the peer takes before it is gone.
    """

    data: bytes
    parts: Sequence[int] = (1 << 20,)
    ending: str = "closed"
    takes: int = 1 << 30
    sent: bytes = b""
    closed: bool = False
    ends: int = 0
    _at: int = 0
    _sizes: "cycle[int]" = field(init=False)

    def __post_init__(self) -> None:
        self._sizes = cycle(self.parts)

    def recv_into(self, view: memoryview) -> int:
        assert 0 < len(view) <= LONGEST_READ, f"asked for {len(view)} bytes"
        assert not self.closed
        return self._take(len(view), view)

    def recv(self, count: int) -> bytes:
        found = bytearray(count)
        return bytes(found[: self._take(count, memoryview(found))])

    def _take(self, count: int, view: memoryview) -> int:
        part = self.data[self._at : self._at + min(count, next(self._sizes))]
        if not part:
            self.ends += 1
            assert self.ends < 3, "it goes on after the end"
            if self.ending == "reset":
                raise ConnectionResetError(errno.ECONNRESET, "reset")
            if self.ending in LOST:
                raise OSError(LOST[self.ending], self.ending)
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def sendall(self, data: bytes) -> None:
        if len(self.sent) + len(data) > self.takes:
            raise BrokenPipeError(errno.EPIPE, "gone")
        self.sent += data

    def setblocking(self, flag: bool) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class _Over(Exception):
    """How a talk ends."""


class Reference:
    """What a driver should say, and how it should end, written down as simply as can be.

    Parameters
    ----------
    data : bytes
        All that the server says, and then it closes.
    ending : str
        As `MemoryLink`'s.
    takes : int
        The same.
    periodic : bool, optional
        Whether the driver's own structure is.
    """

    def __init__(
        self,
        data: bytes,
        *,
        ending: str = "closed",
        takes: int = 1 << 30,
        periodic: bool | None = None,
    ) -> None:
        self.left, self.ending, self.takes, self.periodic = data, ending, takes, periodic
        self.answers: list[bytes | tuple[np.ndarray, ...]] = []
        self.length, self.batch, self.found = 0, 0, None
        try:
            while True:
                self._message()
        except _Over as over:
            self.how = str(over)

    def _read(self, count: int) -> bytes:
        if count > len(self.left):
            raise _Over("error" if self.ending in LOST else "closed")
        found, self.left = self.left[:count], self.left[count:]
        return found

    def _int(self) -> int:
        return struct.unpack("=i", self._read(4))[0]

    def _require(self, fine: object) -> None:
        if not fine:
            raise _Over("error")

    def _say(self, what: bytes | tuple[np.ndarray, ...], length: int) -> None:
        if self.length + length > self.takes:
            raise _Over("closed")
        self.length += length
        self.answers.append(what)

    def _message(self) -> None:
        name = self._read(12).decode("ascii", "replace").strip()
        if name == "EXIT":
            raise _Over("exit")
        if name == "STATUS":
            state = "HAVEDATA" if self.found else "READY" if self.batch else "NEEDINIT"
            self._say(state.encode().ljust(12), 12)
        elif name == "INIT":
            self._int()
            length = self._int()
            self._require(0 <= length <= LONGEST_TEXT)
            self._init(self._read(length).decode("utf-8", "replace"))
        elif name == "POSDATA":
            self._posdata(self.batch or 1)
        elif name == "GETFORCE" and self.found:
            batch = len(self.found[0])
            self._say(self.found, 16 + batch * (8 + 24 * ATOMS + 72 + 4))
            self.found = None
        else:
            raise _Over("error")

    def _init(self, text: str) -> None:
        pairs = [item.split(":", 1) for item in text.replace("\0", "").split(",") if ":" in item]
        said = {key.strip(): value.strip() for key, value in pairs}
        batch = said.get("batch_size", "1")
        digits = set(batch) <= set("0123456789") and 0 < len(batch) < 10
        self._require(digits and 1 <= int(batch) <= LARGEST_BATCH)
        self._require(said.get("model", "").split(":")[0] in ("", "ase"))
        self.batch = int(batch)

    def _posdata(self, batch: int) -> None:
        h = self._read(144) if batch == 1 else b""
        self._require(self._int() == ATOMS)
        h = h or self._read(144 * batch)
        q = np.frombuffer(self._read(24 * batch * ATOMS)).reshape(batch, ATOMS, 3)
        cell = np.frombuffer(h).reshape(batch, 2, 3, 3)[:, 0].swapaxes(1, 2)
        self.found = self._evaluated(q, cell)

    def _evaluated(self, q: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, ...]:
        self._require((np.abs(q) < 1e9).all())
        if self.periodic is False:  # its cell is of no interest
            energies, forces, virials = direct(q, np.zeros_like(cell))
            return energies, forces, np.zeros_like(virials)
        self._require(all(one.any() or not self.periodic for one in cell))
        self._require(all(map(usable, cell)))
        return direct(q, cell)


def usable(cell: np.ndarray) -> bool:
    """Tell boxes that a system may have, and none at all, from others; Bohr."""
    if not cell.any():
        return True
    if not (np.abs(cell) < 1e9).all():
        return False
    a, b, c = cell * BOHR_A
    volume = abs(a @ np.cross(b, c))
    faces = [np.linalg.norm(np.cross(*two)) for two in ((a, b), (b, c), (c, a))]
    return volume >= 0.5 * ATOMS and all(volume >= 1.5 * face for face in faces)


def check_answers(sent: bytes, expected: Sequence[bytes | tuple[np.ndarray, ...]]) -> None:
    """Compare what a driver has sent, byte by byte, with what it should have."""
    for one in expected:
        if isinstance(one, bytes):
            assert sent[: len(one)] == one
            sent = sent[len(one) :]
            continue
        batch = len(one[0])
        assert sent[:12] == b"FORCEREADY  "
        sizes = (8 * batch, 4, 24 * batch * ATOMS, 72 * batch, 4 * batch)
        ends = 12 + np.cumsum(sizes)
        energy, number, forces, virial, extras = (
            sent[end - size : end] for end, size in zip(ends, sizes, strict=True)
        )
        assert struct.unpack("=i", number) == (ATOMS,)
        assert extras == bytes(4 * batch)
        same(np.frombuffer(energy), one[0])
        same(np.frombuffer(forces).reshape(batch, ATOMS, 3), one[1])
        same(np.frombuffer(virial).reshape(batch, 3, 3), one[2])
        sent = sent[ends[-1] :]
    assert sent == b""
