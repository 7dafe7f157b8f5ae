"""A ``<pes>custom</pes>`` of i-PI's ``<ffdirect>`` that asks a driver over ZeroMQ.

The integrator of :mod:`integrators.ipi.plugin` sees that it can propagate, and hands the inner loop
over to it, one message an outer step, or whole outer steps if both models are there.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ipi.pes.dummy import Dummy_driver
from ipi.utils.softexit import softexit

from mts_driver.drivers.ipi_socket.client import is_another
from mts_driver.drivers.zmq.client import Client, Question
from mts_driver.drivers.zmq.messages import Message
from mts_driver.errors import UserError

__DRIVER_NAME__ = "mts_zmq"
__DRIVER_CLASS__ = "ZmqPES"

Found = tuple[float, np.ndarray, np.ndarray]
"""Energy, forces (N, 3) and virial (3, 3) of a structure."""
Shapes = dict[str, tuple[int | None, ...]]
Running = tuple[Question, Shapes, int]
"""What was asked for, the shapes of one step, and the most steps that there can be."""


class ZmqPES(Dummy_driver):
    """Evaluates and propagates with ``mts serve MODEL --zmq ADDRESS``.

    Parameters
    ----------
    address : str
        Of the server.
    model : str
        What the server must serve, such as ``student:water``; empty for any.
    timeout : float
        Seconds to wait for an answer.
    keys : str
        Of a server on another machine: a folder, or a client's secret key, from ``mts keys``.

    Other entries of ``<parameters>`` are for ``mts run``, which starts the server with them.
    """

    def __init__(
        self,
        address: str = "",
        model: str = "",
        timeout: float = 600.0,
        keys: str = "",
        **others: Any,
    ) -> None:
        super().__init__(**{k: v for k, v in others.items() if k == "verbose"})
        self._client = Client(
            str(address),
            keys=Path(keys) if keys else None,
            timeout_s=float(timeout),
            interrupted=lambda: bool(softexit.triggered),
        )
        self._model, self._greeted = str(model), False
        self._known: list[tuple[np.ndarray, np.ndarray, Found]] = []

    @property
    def address(self) -> str:
        """Of the server."""
        return self._client.address

    def compute(self, cell: Any, pos: Any) -> Any:
        """Energy, forces, virial, extras of a structure, or a list of them for a list."""
        several = isinstance(pos, list)
        cells, structures = (cell, pos) if several else ([cell], [pos])
        found = [self._recall(*one) for one in zip(structures, cells, strict=True)]
        if any(one is None for one in found):
            arrays = {"q": np.array(structures), "cell": np.swapaxes(cells, 1, 2)}
            asked = self._ask("evaluate", {"model": self._model}, arrays)
            a = asked.require(_results(*arrays["q"].shape[:2]))
            found = self.remember(arrays["q"], cells, a["energy"], a["forces"], a["virial"])
        answers = [(*one, "") for one in found if one is not None]
        return answers if several else answers[0]

    def compute_structure(
        self, cell: np.ndarray, pos: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, str]:
        """Energy, forces (N, 3), virial (3, 3), extras; free where steps have ended."""
        return self.compute(cell, pos)

    def propagate(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """Take the inner steps of an outer one; see `Propagator.propagate`."""
        a = self._ask("propagate", values, arrays).require(_steps(arrays))
        self.remember(a["q"], arrays["cell"].T, a["energy"], a["forces"], a["virial"])
        return a

    def begin_run(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Running":
        """Have whole outer steps taken; see `Propagator.run`, whose results `finish_run` has."""
        self._greet()
        question = self._client.begin(Message("run", values, arrays))
        return question, _steps(arrays), len(values["seeds"])

    def finish_run(self, running: "Running") -> dict[str, Any]:
        """Wait for the steps."""
        question, one, most = running
        teacher = {f"teacher_{name}": one[name] for name in ("energy", "forces", "virial")}
        many = {name: (None, *shape) for name, shape in {**one, **teacher}.items()}
        found = self._client.finish(question).require(many)
        taken = {len(array) for array in found.values()}
        if len(taken) != 1 or not 1 <= taken.pop() <= most:
            raise UserError(
                f"the driver at {self._client.address} has taken other numbers of steps than the "
                f"{most} asked for: install the same mts-driver on both sides."
            )
        return found

    def join(self, other: "ZmqPES") -> None:
        """Ask through the connection of another, so that the server takes both for one client."""
        self._client = other._client

    def remember(self, pos: np.ndarray, cells: Any, *results: np.ndarray) -> "list[Found | None]":
        """Keep and return results of structures (B, N, 3), in one cell (3, 3) of i-PI or many."""
        cells = np.broadcast_to(cells, (len(pos), 3, 3))
        known = [
            (q, cell, (float(energy), np.array(forces), np.array(virial)))
            for q, cell, energy, forces, virial in zip(pos, cells, *results, strict=True)
        ]
        self._known = known  # in one go: i-PI may run several systems in threads
        return [one[2] for one in known]

    def _recall(self, pos: np.ndarray, cell: np.ndarray) -> "Found | None":
        for q, at, found in self._known:
            if np.array_equal(q, pos) and np.array_equal(at, cell):
                return found
        return None

    def _ask(self, kind: str, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Message:
        self._greet()
        return self._client.ask(Message(kind, values, arrays))

    def _greet(self) -> None:
        """See that the server has the model, before the first question."""
        if self._greeted:
            return
        welcome = self._client.ask(Message("hello", {"model": self._model}))
        served = welcome.values.get("model")
        if not isinstance(served, str) or is_another(served, self._model):
            raise UserError(
                f"the driver at {self._client.address} serves {served!r}, but the <ffdirect> "
                f"asks for {self._model!r}: correct the address or <parameters>."
            )
        self._greeted = True


def _results(structures: int, natoms: int) -> Shapes:
    return {
        "energy": (structures,),
        "forces": (structures, natoms, 3),
        "virial": (structures, 3, 3),
    }


def _steps(arrays: dict[str, np.ndarray]) -> Shapes:
    """Shapes of the answer to a request to take steps."""
    moved = arrays["q"].shape
    beside: Shapes = {"heat": (), "twice_kinetic": (None, len(arrays["groups"]))}
    # a driver of an older version would leave out what it does not know
    if "drift" in arrays and arrays["drift"].size:
        beside["extra"] = arrays["extra"].shape
    if "held" in arrays and arrays["held"].size:
        beside["held"] = ()
    return {"q": moved, "p": moved, **_results(*moved[:2]), **beside}
