"""The i-PI client: answer a server's requests until it says goodbye."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from mts_driver.drivers.ipi_socket import protocol
from mts_driver.drivers.ipi_socket.transport import (
    Address,
    ConnectionLost,
    Disconnected,
    SharedMemoryStream,
    Stream,
    connect,
)
from mts_driver.errors import UserError


class Evaluate(Protocol):
    """What a server is answered with; see `mts_driver.drivers.evaluator.Evaluator`."""

    natoms: int

    def __call__(
        self, positions: np.ndarray, cells: np.ndarray, /
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Energies (B,), forces (B, N, 3) and virials (B, 3, 3) of structures, atomic units."""
        ...


def serve(
    evaluate: Evaluate,
    address: Address,
    *,
    model: str = "",
    timeout: float = 600.0,
    reconnect: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    after_call: Callable[[], None] = lambda: None,
) -> str:
    """Connect to a server and evaluate structures for it.

    Parameters
    ----------
    evaluate : Evaluate
        Evaluates structures of the number of atoms that it knows.
    address : Address
        Where the server is, or will be.
    model : str
        Specification of what is served, compared with the ``model`` that the server asks for.
    timeout : float
        Seconds to wait for the server; 0 waits for ever.
    reconnect : bool
        Whether to wait for it again, for ``timeout`` each time, when it has gone.
    tell : callable
        Called with lines for the user.
    after_call : callable
        Called after every answer.

    Returns
    -------
    str
        Why the loop ended: ``exit`` (the server sent EXIT) or ``closed`` (it closed the
        connection, which is as good: ASE's server never sends EXIT).

    Raises
    ------
    UserError
        If no server answers, if it asks for another model, if its machine cannot be reached any
        more, or if ``evaluate`` does.
    """
    while True:
        link = connect(address, timeout=timeout, tell=tell)
        stream = SharedMemoryStream(link) if address.mode == "shm" else Stream(link)
        tell(f"connected to {address}")
        try:
            reason = answer(evaluate, stream, model=model, after_call=after_call)
        except ConnectionLost as lost:
            if not reconnect:
                raise
            tell(str(lost).partition(":")[0])
            continue
        if not reconnect:
            return reason
        tell("the server said exit" if reason == "exit" else "the server closed the connection")


def answer(
    evaluate: Evaluate,
    stream: Stream,
    *,
    model: str = "",
    after_call: Callable[[], None] = lambda: None,
) -> str:
    """Answer a server that has been connected to, and close the connection; see `serve`."""
    try:
        return _answer(evaluate, stream, model, after_call)
    except Disconnected:
        return "closed"
    finally:
        stream.close()


def _answer(evaluate: Evaluate, stream: Stream, model: str, after_call: Callable[[], None]) -> str:
    init: protocol.Init | None = None
    results: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    while True:
        message = bytes(stream.read(protocol.HEADER_SIZE)).decode("ascii", "replace").strip()
        match message:
            case "STATUS":
                if results is not None:
                    stream.write(protocol.header("HAVEDATA"))
                else:
                    stream.write(protocol.header("READY" if init else "NEEDINIT"))
            case "INIT":
                init = protocol.read_init(stream.read)
                check_model(model, init.parameters.get("model", ""))
            case "POSDATA":
                batch_size = init.batch_size if init else 1
                results = evaluate(*stream.read_positions(batch_size, evaluate.natoms))
            case "GETFORCE" if results is not None:
                stream.write_forces(*results, extras=[""] * len(results[0]))
                results = None
                after_call()
            case "EXIT":
                return "exit"
            case _:
                raise UserError(
                    f"the server sent {message!r}, which is not what the i-PI protocol allows "
                    "here: check that --address and --mode belong to an i-PI server."
                )


def is_another(served: str, wanted: str) -> bool:
    """Tell two models of different kinds apart, where both are known; file names may differ."""
    kinds = [spec.partition(":")[0].partition("?")[0] for spec in (served, wanted)]
    return bool(served and wanted) and kinds[0] != kinds[1]


def check_model(served: str, wanted: str) -> None:
    """Refuse to play the student where the input wants the teacher."""
    if is_another(served, wanted):
        raise UserError(
            f"this driver serves {served!r} but the <ffsocket> at this address asks for "
            f"{wanted!r}: swap the --address of your drivers or correct <parameters>."
        )
