"""Programs that are clients of i-PI's protocol, as a model: ``socket:NAME``.

CP2K, LAMMPS, Quantum ESPRESSO, FHI-aims, xTB and i-PI's own drivers connect to a unix socket and
evaluate what comes; here they do so for a distillation, a check, or a trajectory in this process.
"""

import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.socketio import SocketIOCalculator

from mts_driver.errors import UserError
from mts_driver.potentials.arrays import Arrays
from mts_driver.potentials.ase import AsePotential
from mts_driver.processes import somebody_listens

TIMEOUT_S = 3600.0
"""Longest that a program may take to connect, or to answer."""
PREFIX = "/tmp/ipi_"
_LONGEST_NAME = 80


class SocketPotential(AsePotential):
    """A program behind a unix socket, which knows one set of atoms.

    Parameters
    ----------
    name : str
        The socket is ``/tmp/ipi_NAME``, as for i-PI. Another potential of this process with the
        same name asks the same program.
    numbers : sequence of int, length N
        Atomic numbers, in the order that the program has them in; it is not told.

    Raises
    ------
    UserError
        If the name cannot be a socket's, another program listens there, or the program was
        connected for other atoms.
    """

    def __init__(self, name: str, numbers: Sequence[int]) -> None:
        if not re.fullmatch(r"[\w.+-]+", name) or len(name) > _LONGEST_NAME:
            raise UserError(
                f"potential 'socket:{name}': give a name of letters, digits, '.', '+', '-' and '_' "
                f"of at most {_LONGEST_NAME} characters, of the socket {PREFIX}NAME."
            )
        self._program = _program(name)
        super().__init__(self._program.calculator, numbers, name=f"socket:{name}")
        if self._program.numbers is not None:
            self._program.require(self.numbers)

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate replicas one after the other; waits for the program at first.

        Raises
        ------
        UserError
            If it does not connect or answer in time, ends, or was connected for other atoms.
        """
        if self._program.numbers is None:
            self._program.numbers = self.numbers
            print(
                f"{self.name}: waiting for a program that connects to {PREFIX}"
                f"{self._program.name}, with these {len(self.numbers)} atoms in this order",
                file=sys.stderr,
                flush=True,
            )
        self._program.require(self.numbers)
        return super().evaluate(positions_A, cells_A)


class _Program:
    def __init__(self, name: str) -> None:
        self.name = name
        self.numbers: np.ndarray | None = None
        path = Path(PREFIX + name)
        try:
            if path.is_socket() and not somebody_listens(str(path)):
                path.unlink()  # left by a process that was killed
            self.calculator: Any = SocketIOCalculator(unixsocket=name, timeout=TIMEOUT_S)
        except OSError as error:
            raise UserError(
                f"potential 'socket:{name}': cannot listen at {PREFIX}{name} ({error}): "
                "choose another name, or remove that file if no program uses it."
            ) from error

    def require(self, numbers: np.ndarray) -> None:
        """Refuse other atoms than the program knows, which would be evaluated as those."""
        assert self.numbers is not None
        if not np.array_equal(numbers, self.numbers):
            raise UserError(
                f"potential 'socket:{self.name}' is a program for {len(self.numbers)} atoms, and "
                f"is asked about {len(numbers)} others, or in another order: it knows one system. "
                "Distil one system at a time, without --from-run and fragments."
            )


@cache
def _program(name: str) -> _Program:
    return _Program(name)
