"""i-PI's protocol over MPI, of its ``<ffmpi>``: i-PI and its drivers are one job of mpiexec.

=======  ==========  ===========================================================================
tag      to          message, atomic units
=======  ==========  ===========================================================================
HELLO    i-PI        int32 rank of the driver's first process, their number, their ranks; name
INIT     the driver  int32 replica, length; parameters (text ``key : value , ...``)
WORK     the driver  int32 N, B; of each structure cell, inverse cell (9 each) and positions (3N)
RESULT   i-PI        of each energy, forces (3N) and virial (9)
EXTRA    i-PI        of each length (int32) and text
EXIT     the driver  int32
=======  ==========  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from mts_driver.drivers.ipi_socket import protocol
from mts_driver.drivers.ipi_socket.client import Evaluate, check_model

Tag = IntEnum("Tag", "HELLO INIT WORK RESULT EXTRA EXIT")


class Job(Protocol):
    """The job of mpiexec whose first rank is i-PI; see `mts_driver.drivers.mpi.MpiRanks`."""

    name: str
    members: list[int]

    def post(self, tag: int, array: np.ndarray) -> None:
        """Send an array to i-PI."""

    def next_tag(self) -> int:
        """Wait, at rest, for a message of i-PI."""

    def take(self, tag: int, dtype: Any) -> np.ndarray:
        """Receive a message of this tag."""


def greet(job: Job) -> None:
    """Tell i-PI who is there; it spins on a core until all drivers have."""
    job.post(Tag.HELLO, np.array([job.members[0], len(job.members), *job.members], np.int32))
    job.post(Tag.HELLO, _bytes(job.name.encode()))


def serve(
    evaluate: Evaluate,
    job: Job,
    *,
    model: str = "",
    after_call: Callable[[], None] = lambda: None,
) -> str:
    """Evaluate structures for i-PI, which has been greeted, until it ends; by the first process.

    Parameters
    ----------
    evaluate : Evaluate
        Evaluates structures of the number of atoms that it knows.
    job : Job
        With i-PI.
    model : str
        Specification of what is served, compared with the ``model`` that i-PI asks for.
    after_call : callable
        Called after every answer.

    Raises
    ------
    UserError
        If i-PI asks for another model or number of atoms, or if ``evaluate`` does.
    """
    while True:
        match job.next_tag():
            case Tag.INIT:
                check_model(model, _init(job).parameters.get("model", ""))
            case Tag.WORK:
                natoms, batch = (int(n) for n in job.take(Tag.WORK, np.int32))
                protocol.check_natoms(natoms, evaluate.natoms)
                sent = job.take(Tag.WORK, np.float64).reshape(batch, 18 + 3 * natoms)
                cells = np.swapaxes(sent[:, :9].reshape(batch, 3, 3), 1, 2).copy()
                positions = sent[:, 18:].reshape(batch, natoms, 3)
                energies, forces, virials = evaluate(positions, cells)
                rows = (energies, forces, virials)
                results = np.concatenate([a.reshape(batch, -1) for a in rows], axis=1)
                job.post(Tag.RESULT, results.ravel())
                job.post(Tag.EXTRA, _bytes(protocol.extras_message([""] * batch)))
                after_call()
            case _:
                job.take(Tag.EXIT, np.int32)
                return "exit"


def _init(job: Job) -> protocol.Init:
    header, text = job.take(Tag.INIT, np.int32), job.take(Tag.INIT, np.uint8)
    parts = iter((header[:1].tobytes(), header[1:].tobytes(), text.tobytes()))
    return protocol.read_init(lambda _: next(parts))


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
