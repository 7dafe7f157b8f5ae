"""A ``<pes>custom</pes>`` of i-PI's ``<ffdirect>`` that asks a driver over ZeroMQ.

The integrator of :mod:`integrators.ipi_plugin` sees that it can propagate, and hands the inner loop
over to it: one message an outer step.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ipi.pes.dummy import Dummy_driver
from ipi.utils.softexit import softexit

from mts_driver.drivers.client import is_another
from mts_driver.drivers.messages import Message
from mts_driver.drivers.zmq_client import Client
from mts_driver.errors import UserError

__DRIVER_NAME__ = "mts_zmq"
__DRIVER_CLASS__ = "ZmqPES"


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
        self._known: tuple[np.ndarray, np.ndarray, tuple[float, np.ndarray, np.ndarray]] | None
        self._known = None

    def compute_structure(
        self, cell: np.ndarray, pos: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, str]:
        """Energy, forces (N, 3), virial (3, 3), extras; free where a propagation has ended."""
        known = self._known
        if known is None or not (np.array_equal(known[0], pos) and np.array_equal(known[1], cell)):
            answer = self._ask(Message("evaluate", {}, {"q": pos, "cell": cell.T}))
            known = self._remember(pos, cell, answer)
        return *known[2], ""

    def propagate(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """Take the inner steps of an outer one; see `Propagator.propagate`."""
        answer = self._ask(Message("propagate", values, arrays))
        self._remember(answer.arrays["q"], arrays["cell"].T, answer)
        return dict(answer.arrays)

    def _remember(self, pos: np.ndarray, cell: np.ndarray, answer: Message) -> Any:
        a = answer.arrays
        found = float(a["energy"]), np.array(a["forces"]), np.array(a["virial"])
        self._known = np.array(pos), np.array(cell), found
        return self._known

    def _ask(self, message: Message) -> Message:
        if not self._greeted:
            served = self._client.ask(Message("hello")).values["model"]
            if is_another(served, self._model):
                raise UserError(
                    f"the driver at {self._client.address} serves {served!r}, but the <ffdirect> "
                    f"asks for {self._model!r}: correct the address or <parameters>."
                )
            self._greeted = True
        return self._client.ask(message)
