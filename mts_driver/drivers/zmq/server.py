"""A driver that answers over ZeroMQ: structures, of several clients at once, and inner loops."""

import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq

from mts_driver.drivers.zmq.batching import Rhythm
from mts_driver.drivers.zmq.keys import guard
from mts_driver.drivers.zmq.messages import Message
from mts_driver.drivers.zmq.requests import Answers, Model, Request
from mts_driver.drivers.zmq.sockets import READY, bind, check_address, new_socket

EVALUATE = "evaluate"
CHECK_MS = 200
_Asked = tuple[list[bytes], Request]
"""The frames that lead the answer back, and the request."""


@dataclass(frozen=True)
class Limits:
    """How much a server takes on at once.

    Attributes
    ----------
    queue : int
        Requests that it holds; the others wait in ZeroMQ's connections, which are short, and in
        their clients.
    batch : int
        Requests of the kind ``evaluate`` that the model sees in one call.
    batch_wait_ms : float
        For so long after its answer a client is waited for, before the others are evaluated
        without it; see `Rhythm`.
    """

    queue: int = 64
    batch: int = 16
    batch_wait_ms: float = 2.0


class Server:
    """Binds to an address and answers everybody who asks there.

    Parameters
    ----------
    model : Model
        The only one, or the teacher.
    address : str
        ``ipc://PATH`` or ``tcp://HOST:PORT``.
    student : Model, optional
        The student, where both are here.
    keys : Path, optional
        Folder of keys, for TCP beyond this machine.
    limits : Limits
        Of what is taken on at once.
    worker : str
        Its name, if it connects to a front at the address instead.
    """

    def __init__(
        self,
        model: Model,
        address: str,
        *,
        student: Model | None = None,
        keys: Path | None = None,
        limits: Limits | None = None,
        worker: str = "",
    ) -> None:
        check_address(address, keys=keys)
        self._answers, self._limits = Answers(model, student), limits or Limits()
        self._waiting: deque[_Asked] = deque()
        self._rhythm = Rhythm(1e-3 * self._limits.batch_wait_ms)
        self._context = zmq.Context()
        self._guard = None
        # the name that ZeroMQ gives a client comes first, or behind the front's ticket
        self._who = 1 if worker else 0
        try:
            if worker:
                self._socket = new_socket(self._context, zmq.DEALER, inside=True)
                self._socket.setsockopt(zmq.IDENTITY, worker.encode())
                self._socket.connect(address)
                self._socket.send(READY)
            else:
                self._socket = new_socket(self._context, zmq.ROUTER)
                if keys is not None:
                    self._guard = guard(self._context, self._socket, keys)
                bind(self._socket, address)
        except BaseException:
            self.close()
            raise

    def serve(self, *, after_call: Callable[[], None] = lambda: None) -> None:
        """Answer until the process is told to end.

        ``after_call`` is called after answers, and now and then while nobody asks.
        """
        while True:
            if not self._waiting:
                # not for ever: a signal that comes just before the wait does not end it
                self._socket.poll(CHECK_MS)
            self._read()
            if not self._waiting:
                after_call()
                continue
            taken = self._take_one() or self._take_batch()
            answers = self._answers.to([request for _, request in taken])
            for (envelope, request), answer in zip(taken, answers, strict=True):
                self._socket.send_multipart([*envelope, *answer.pack()])
                if request.message.kind == EVALUATE:
                    self._rhythm.answered(request.who, time.monotonic())
            after_call()

    def close(self) -> None:
        """Close the socket; a file of ``ipc://`` is removed."""
        if self._guard is not None:
            self._guard.stop()
        self._socket.close()
        self._context.term()

    def _read(self) -> None:
        """Take what has arrived, up to the length of the queue."""
        while len(self._waiting) < self._limits.queue and self._socket.poll(0):
            frames = self._socket.recv_multipart()
            # whom to answer, for ZeroMQ and for a front, ends with the empty frame of a REQ socket
            end = frames.index(b"") + 1 if b"" in frames else len(frames)
            envelope, body = frames[:end], frames[end:]
            try:
                request = Request(envelope[self._who], Message.unpack(body))
            except Exception as error:  # bytes of anybody, which must not end the server
                answer = Message("error", {"text": str(error)})
                self._socket.send_multipart([*envelope, *answer.pack()])
                continue
            self._waiting.append((envelope, request))

    def _take_one(self) -> list[_Asked]:
        """Take the request whose turn it is, if it is answered by itself."""
        if self._waiting[0][1].message.kind == EVALUATE:
            return []
        return [self._waiting.popleft()]

    def _take_batch(self) -> list[_Asked]:
        """Take the structures to evaluate, and wait for those that should come any moment."""
        start = now = time.monotonic()
        while True:
            here = [request.who for _, request in self._waiting]
            until = self._rhythm.until(here, now)
            full = len(here) >= self._limits.queue or self._evaluations() >= self._limits.batch
            if until <= now or full:
                break
            # ZeroMQ's own wait counts whole milliseconds
            select.select([self._socket], [], [], until - now)
            self._read()
            now = time.monotonic()
        self._rhythm.missed(here, start, now)
        taken: list[_Asked] = []
        left: deque[_Asked] = deque()
        for one in self._waiting:
            chosen = one[1].message.kind == EVALUATE and len(taken) < self._limits.batch
            (taken if chosen else left).append(one)
        self._waiting = left
        return taken

    def _evaluations(self) -> int:
        return sum(request.message.kind == EVALUATE for _, request in self._waiting)
