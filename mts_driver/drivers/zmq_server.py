"""A driver that answers over ZeroMQ: single structures, and whole inner loops."""

from collections.abc import Callable
from urllib.parse import urlparse

import zmq

from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.messages import VERSION, Message
from mts_driver.drivers.propagator import Propagator
from mts_driver.errors import UserError

HEARTBEAT_MS = 5000
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def check_address(address: str) -> None:
    """Refuse what ZeroMQ cannot use, and what others could reach.

    Raises
    ------
    UserError
        If the address is not ``ipc://PATH`` or ``tcp://127.0.0.1:PORT``.
    """
    found = urlparse(address)
    if found.scheme == "ipc" and (path := address.removeprefix("ipc://")):
        if len(path) > 100:
            raise UserError(f"--zmq {address}: sockets have at most 100 characters; shorten it.")
        return
    if found.scheme == "tcp" and found.hostname in LOOPBACK and found.port:
        return
    if found.scheme == "tcp" and found.hostname and found.hostname not in LOOPBACK:
        raise UserError(
            f"--zmq {address} could be reached from other machines, which anybody could then use: "
            "bind to tcp://127.0.0.1:PORT, and reach it from there with `ssh -L PORT:localhost:"
            "PORT`."
        )
    raise UserError(f"--zmq {address!r} is no address: write ipc:///PATH or tcp://127.0.0.1:PORT.")


class Server:
    """Binds to an address and answers everybody who asks there, one after the other.

    Parameters
    ----------
    evaluate : Evaluator
        Of the model.
    address : str
        ``ipc://PATH`` or ``tcp://127.0.0.1:PORT``.
    model : str
        Its specification, told to clients.
    """

    def __init__(self, evaluate: Evaluator, address: str, *, model: str) -> None:
        check_address(address)
        self._evaluate, self._propagator = evaluate, Propagator(evaluate)
        self._model = model
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 1000)
        # a peer that is gone is noticed, and its queue dropped
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise UserError(
                f"cannot listen at --zmq {address} ({error}): choose another."
            ) from None

    def serve(self, *, after_call: Callable[[], None] = lambda: None) -> None:
        """Answer until the process is told to end."""
        while True:
            # an identity that ZeroMQ gave the client and the empty frame of its REQ socket come
            # first
            who, empty, *frames = self._socket.recv_multipart()
            try:
                answer = self._answer(Message.unpack(frames))
            except (UserError, ValueError) as error:
                answer = Message("error", {"text": str(error)})
            self._socket.send_multipart([who, empty, *answer.pack()])
            after_call()

    def close(self) -> None:
        """Close the socket; a file of ``ipc://`` is removed."""
        self._socket.close()
        self._context.term()

    def _answer(self, asked: Message) -> Message:
        match asked.kind:
            case "hello":
                natoms = self._evaluate.natoms
                return Message(
                    "welcome", {"model": self._model, "natoms": natoms, "version": VERSION}
                )
            case "evaluate":
                return Message("evaluated", {}, self._propagator.evaluate(asked.arrays))
            case "propagate":
                values = asked.values
                found = self._propagator.propagate(
                    asked.arrays,
                    n=values["n"],
                    timestep=float(values["timestep"]),
                    kT=float(values["kT"]),
                    fixcom=bool(values["fixcom"]),
                )
                return Message("propagated", {}, found)
        raise UserError(f"a message asks for {asked.kind!r}: use hello, evaluate or propagate.")
