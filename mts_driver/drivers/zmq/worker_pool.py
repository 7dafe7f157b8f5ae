"""One address for several workers: hands requests on, and notices a worker that has died.

A worker is ``mts serve`` in a process of its own, whose `Server` connects here instead of listening
itself. What clients send is not read, only handed on with a ticket.
"""

import os
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import zmq

from mts_driver.drivers.counters import Stats, read_stats
from mts_driver.drivers.zmq.keys import guard
from mts_driver.drivers.zmq.messages import Message
from mts_driver.drivers.zmq.sockets import READY, bind, check_address, new_socket
from mts_driver.errors import UserError
from mts_driver.processes import Child

CHECK_MS = 200
PATIENCE_S = 5.0
ATTEMPTS = 2
"""Workers that may die over a request before it is refused."""
REMEMBERED = 1024


@dataclass
class _Open:
    """A request that a worker has not answered yet; ``frames`` begin with the client's name."""

    frames: list[bytes]
    attempts: int = 0


@dataclass
class _Worker:
    child: Child
    stats_file: Path
    ready: bool = False
    open: dict[bytes, _Open] = field(default_factory=dict)
    counted: dict[str, Any] = field(default_factory=dict)


class Front:
    """Listens for clients and shares their requests out among workers.

    A request goes to the worker that has the fewest open: its client's last one, which remembers
    its structure, unless another has fewer.

    Parameters
    ----------
    address : str
        ``ipc://PATH`` or ``tcp://HOST:PORT``.
    workers : sequence of list of str
        Arguments of ``mts serve`` for each worker: the model and its options.
    stats : Stats
        Receives the sum of the workers' counters.
    keys : Path, optional
        Folder of keys, for TCP beyond this machine.
    queue : int
        Requests that may be open at once; the others wait in their connections.
    tell : callable
        Takes lines for the log.
    """

    def __init__(
        self,
        address: str,
        workers: Sequence[list[str]],
        *,
        stats: Stats,
        keys: Path | None = None,
        queue: int = 64,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        check_address(address, keys=keys)
        self._stats, self._queue, self._tell = stats, queue, tell
        self._workers: dict[bytes, _Worker] = {}
        self._dead: list[_Worker] = []
        self._homes: OrderedDict[bytes, bytes] = OrderedDict()
        self._tickets = 0
        self._scratch = Path(tempfile.mkdtemp(prefix="mts-serve-"))  # for this user only
        self._context = zmq.Context()
        self._clients = new_socket(self._context, zmq.ROUTER)
        self._back = new_socket(self._context, zmq.ROUTER, inside=True)
        self._guard = None
        try:
            if keys is not None:
                self._guard = guard(self._context, self._clients, keys)
            bind(self._clients, address)
            inside = f"ipc://{self._scratch}/front"
            bind(self._back, inside)
            for k, arguments in enumerate(workers):
                self._start(f"worker {k}", arguments, inside)
        except BaseException:
            self.close()
            raise

    def _start(self, name: str, arguments: list[str], inside: str) -> None:
        file = self._scratch / f"{name.replace(' ', '')}.json"
        more = ["--zmq", inside, "--worker", name, "--stats", str(file)]
        more += ["--parent", str(os.getpid()), "--quiet"]
        child = Child(name, "mts_driver.cli.serve", [*arguments, *more], log=None)
        self._workers[name.encode()] = _Worker(child, file)
        self._tell(f"{name} is process {child.process.pid}: {' '.join(arguments)}")

    def wait_until_ready(self) -> None:
        """Wait until all workers have loaded their models.

        Raises
        ------
        UserError
            If one ends before.
        """
        while not all(worker.ready for worker in self._workers.values()):
            self._back.poll(CHECK_MS)
            self._hand_back()
            for worker in self._workers.values():
                if worker.child.code is not None:
                    raise UserError(
                        f"{worker.child.name} {worker.child.how_it_ended()} before it was ready: "
                        "its message is above."
                    )

    def serve(self, *, after_call: Callable[[], None] = lambda: None) -> None:
        """Hand requests and answers on until the process is told to end.

        ``after_call`` is called after answers, and now and then while nobody asks.

        Raises
        ------
        UserError
            If no worker is left.
        """
        checked_s = 0.0
        everybody, inside = zmq.Poller(), zmq.Poller()
        everybody.register(self._clients, zmq.POLLIN)
        for poller in (everybody, inside):
            poller.register(self._back, zmq.POLLIN)
        while True:
            # clients wait in their connections while as much is open as may be
            (everybody if self._room() else inside).poll(CHECK_MS)
            self._hand_back()
            after_call()
            while self._room() and self._clients.poll(0):
                self._hand_out(_Open(self._clients.recv_multipart()))
            if time.monotonic() - checked_s > 1e-3 * CHECK_MS:
                self._requeue_from_dead_workers()
                checked_s = time.monotonic()

    def close(self) -> None:
        """End the workers, then the sockets."""
        for worker in self._workers.values():  # all at once, and then wait for each
            worker.child.process.terminate()
        for worker in self._workers.values():
            worker.child.stop(patience=PATIENCE_S)
        if self._guard is not None:
            self._guard.stop()
        self._clients.close()
        self._back.close(linger=0)
        self._context.term()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _room(self) -> bool:
        return sum(len(worker.open) for worker in self._workers.values()) < self._queue

    def _hand_out(self, request: _Open) -> None:
        who = request.frames[0]
        name = self._homes.get(who, b"")
        fewest = min(len(worker.open) for worker in self._workers.values())
        if name not in self._workers or len(self._workers[name].open) > fewest:
            homes = list(self._homes.values())
            name = min(self._workers, key=lambda w: (len(self._workers[w].open), homes.count(w)))
        self._homes[who] = name
        self._homes.move_to_end(who)
        if len(self._homes) > REMEMBERED:
            self._homes.popitem(last=False)
        self._tickets += 1
        ticket = str(self._tickets).encode()
        self._workers[name].open[ticket] = request
        self._back.send_multipart([name, ticket, *request.frames])

    def _hand_back(self) -> None:
        """Send on what workers have answered."""
        while self._back.poll(0):
            name, *frames = self._back.recv_multipart()
            worker = self._workers.get(name)
            if worker is None:  # it has died since, and another has its requests
                continue
            if frames == [READY]:
                worker.ready = True
                continue
            ticket, *answer = frames
            del worker.open[ticket]
            # before the answer: whoever has it finds it counted
            worker.counted = read_stats(worker.stats_file)
            self._stats.add_up([w.counted for w in (worker, *self._others(worker))])
            self._clients.send_multipart(answer)

    def _others(self, worker: _Worker) -> Iterator[_Worker]:
        yield from (w for w in (*self._workers.values(), *self._dead) if w is not worker)

    def _requeue_from_dead_workers(self) -> None:
        dead = {n: w for n, w in self._workers.items() if w.child.code is not None}
        self._hand_back()  # what they still had said
        for name, worker in dead.items():
            del self._workers[name]
            self._dead.append(worker)
            for oldest in islice(worker.open.values(), 1):  # the others had only queued behind it
                oldest.attempts += 1
            self._tell(
                f"{worker.child.name} (process {worker.child.process.pid}) "
                f"{worker.child.how_it_ended()}; {len(worker.open)} open requests, "
                f"{len(self._workers)} workers left"
            )
        if not self._workers:
            last = self._dead[-1].child
            raise UserError(
                f"no worker is left: the last one, {last.name}, {last.how_it_ended()}. See the "
                "messages above, and start again; clients wait for a server that comes back."
            )
        for request in [one for worker in dead.values() for one in worker.open.values()]:
            if request.attempts < ATTEMPTS:
                self._hand_out(request)
            else:
                self._refuse(request)

    def _refuse(self, request: _Open) -> None:
        end = request.frames.index(b"") + 1 if b"" in request.frames else 1
        text = f"{ATTEMPTS} workers have died over this request, and nobody else should."
        self._clients.send_multipart(
            [*request.frames[:end], *Message("error", {"text": text}).pack()]
        )
