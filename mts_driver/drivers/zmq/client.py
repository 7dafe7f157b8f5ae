"""Asks a driver over ZeroMQ; waits for one that starts late, and asks again one that came back."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from mts_driver.drivers.zmq.keys import identify
from mts_driver.drivers.zmq.messages import ANSWERS, Message
from mts_driver.drivers.zmq.sockets import check_address, connect, new_socket
from mts_driver.errors import UserError

POLL_MS = 200
RECONNECT_S = 0.05


@dataclass
class Question:
    """A message that was sent, and what came back so far."""

    kind: str
    frames: list[bytes]
    answer: Message | UserError | None = None


class Client:
    """A connection that is made at the first question.

    Parameters
    ----------
    address : str
        As the server's.
    keys : Path, optional
        For a server that asks for keys: a folder with ``server.key`` and this client's secret key,
        or the file of the latter beside the former.
    timeout_s : float
        Without any answer for so long, it gives up.
    interrupted : callable
        Asked while it waits; true ends the wait.
    """

    def __init__(
        self,
        address: str,
        *,
        keys: Path | None = None,
        timeout_s: float = 600.0,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        check_address(address, keys=keys)
        self.address, self.timeout_s = address, timeout_s
        self._keys, self._interrupted = keys, interrupted
        # the process's own: one that were collected with a connection still open would wait for it
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket: zmq.Socket[bytes] | None = None
        self._lock = threading.Lock()  # i-PI may run several systems in threads
        self._open: Question | None = None

    def ask(self, message: Message) -> Message:
        """Send a message and return its answer.

        A question has no memory, so that one which a dead server left open is asked again.

        Raises
        ------
        UserError
            If the server says what is wrong, or does not know this client's key, or none answers
            in time, or the wait is interrupted.
        """
        return self.finish(self.begin(message))

    def begin(self, message: Message) -> Question:
        """Send a message and return at once; its answer is that of `finish`."""
        question = Question(message.kind, message.pack())
        with self._lock:
            self._settle()  # one at a time
            self._send(question.frames)
            self._open = question
        return question

    def finish(self, question: Question) -> Message:
        """Wait for the answer; raises as `ask`."""
        with self._lock:
            if question is self._open:
                self._settle()
        if isinstance(question.answer, UserError):
            raise question.answer
        assert question.answer is not None
        return question.answer

    def _settle(self) -> None:
        """Wait for the answer to the open question."""
        if self._open is not None:
            question, self._open = self._open, None
            try:
                question.answer = self._answer(question)
            except UserError as error:
                self.close()  # an answer that comes after all is not that of the next question
                question.answer = error

    def _send(self, frames: list[bytes]) -> None:
        try:
            socket, monitor = self._connected()
            if monitor.poll(0):  # it went since the last answer: what is sent there may be lost
                self._check_welcome(monitor)
                self.close()
                socket, _ = self._connected()
            try:
                socket.send_multipart(frames, zmq.NOBLOCK)
            except zmq.Again:
                # ZeroMQ leaves a server that has sent what is no answer, without a word and for
                # good: a blocking send would never end
                self.close()
                self._connected()[0].send_multipart(frames, zmq.NOBLOCK)
        except UserError:
            self.close()  # a connection half made
            raise

    def _answer(self, question: Question) -> Message:
        deadline = time.monotonic() + self.timeout_s
        while True:
            socket, monitor = self._connected()
            ready = dict(self._poller.poll(POLL_MS))
            if socket in ready and (frames := _received(socket)):
                answer = Message.unpack(frames)
                if answer.kind == "error":
                    text = answer.values.get("text", "an error without a text")
                    raise UserError(f"the driver at {self.address}: {text}")
                if answer.kind != ANSWERS.get(question.kind, question.kind):
                    raise UserError(
                        f"the driver at {self.address} answers {question.kind!r} with "
                        f"{answer.kind!r}: install the same mts-driver on both sides."
                    )
                return answer
            if self._interrupted():
                raise UserError(f"stopped while waiting for the driver at {self.address}.")
            if time.monotonic() > deadline:
                raise UserError(
                    f"the driver at {self.address} has not answered for {self.timeout_s:g} s: "
                    f"start it with `mts serve MODEL --zmq ADDRESS`, or see its log{self._hint}"
                )
            if monitor in ready:  # it is gone: ask whoever comes next
                self._check_welcome(monitor)
                self.close()
                time.sleep(RECONNECT_S)
                self._send(question.frames)

    @property
    def _hint(self) -> str:
        if not self.address.startswith("tcp:"):
            return "."
        if self._keys is None:
            return "; if the server has keys, this client needs `keys` too."
        return f"; the server.key of {self._keys} must be that of its --keys."

    def _check_welcome(self, monitor: "zmq.Socket[bytes]") -> None:
        if recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise UserError(
                f"the driver at {self.address} does not know the key in {self._keys}: put its "
                "public half into clients/ of the server's --keys, and start the server again."
            )

    def _connected(self) -> "tuple[zmq.Socket[bytes], zmq.Socket[bytes]]":
        if self._socket is None:
            self._socket = new_socket(self._context, zmq.REQ)
            if self._keys is not None:
                identify(self._socket, self._keys)
            gone = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            self._monitor = self._socket.get_monitor_socket(gone)
            connect(self._socket, self.address)
            self._poller = zmq.Poller()
            for one in (self._socket, self._monitor):
                self._poller.register(one, zmq.POLLIN)
        return self._socket, self._monitor

    def close(self) -> None:
        """End the connection; the next question makes a new one."""
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close()
            self._socket = None


def _received(socket: "zmq.Socket[bytes]") -> list[bytes]:
    """Take the answer; nothing if what has come is of another question, which ZeroMQ drops."""
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return []
