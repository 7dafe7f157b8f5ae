"""What a driver says to requests over ZeroMQ; no sockets here.

Structures of several clients are evaluated as one batch. Of every client the last structure is
remembered, so that its next inner loop begins with forces that are known.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mts_driver.drivers.evaluator import Evaluator, Results
from mts_driver.drivers.messages import VERSION, Message
from mts_driver.drivers.propagator import Propagator
from mts_driver.errors import UserError

REMEMBERED = 64
"""Clients whose last structure is kept; the one that has not asked for longest is forgotten."""


@dataclass(frozen=True)
class Request:
    """A message, and who asks."""

    who: bytes
    message: Message


class LastEvaluated(Evaluator):
    """An evaluator that knows its last structures, also where they were evaluated elsewhere."""

    def __init__(self, evaluate: Evaluator) -> None:
        super().__init__(evaluate.potential, evaluate.natoms, stats=evaluate.stats)
        self._known: tuple[np.ndarray, np.ndarray, Results] | None = None

    def __call__(self, positions: np.ndarray, cells: np.ndarray) -> Results:
        """As `Evaluator`, free for the structures (B, N, 3) of the last call."""
        found = self.recall(positions, cells)
        return found or self.learn(positions, cells, super().__call__(positions, cells))

    def recall(self, positions: np.ndarray, cells: np.ndarray) -> Results | None:
        """Return the results if the structures are those of the last call."""
        known = self._known
        if known and np.array_equal(known[0], positions) and np.array_equal(known[1], cells):
            return known[2]
        return None

    def learn(self, positions: np.ndarray, cells: np.ndarray, results: Results) -> Results:
        """Keep the results."""
        self._known = positions.copy(), cells.copy(), results
        return results


class Answers:
    """Answers requests with one model.

    Parameters
    ----------
    evaluate : Evaluator
        Of the model.
    model : str
        Its specification, told to clients.
    """

    def __init__(self, evaluate: Evaluator, *, model: str) -> None:
        self._evaluate, self._model = evaluate, model
        self._clients: OrderedDict[bytes, tuple[LastEvaluated, Propagator]] = OrderedDict()

    def to(self, requests: Sequence[Request]) -> list[Message]:
        """Return an answer to each; several must all be of the kind ``evaluate``."""
        if len(requests) == 1 and requests[0].message.kind != "evaluate":
            return [self._alone(requests[0])]
        return self._evaluated(requests)

    def _client(self, who: bytes) -> tuple[LastEvaluated, Propagator]:
        if who not in self._clients:
            memory = LastEvaluated(self._evaluate)
            self._clients[who] = memory, Propagator(memory)
            if len(self._clients) > REMEMBERED:
                self._clients.popitem(last=False)
        self._clients.move_to_end(who)
        return self._clients[who]

    def _alone(self, request: Request) -> Message:
        asked = request.message
        try:
            if asked.kind == "hello":
                natoms = self._evaluate.natoms
                about = {"model": self._model, "natoms": natoms, "version": VERSION}
                return Message("welcome", about)
            if asked.kind == "propagate":
                return Message("propagated", {}, self._propagated(request))
        except (UserError, ValueError) as error:
            return _error(error)
        return _error(f"a message asks for {asked.kind!r}: use hello, evaluate or propagate.")

    def _propagated(self, request: Request) -> dict[str, np.ndarray]:
        values, arrays = request.message.values, request.message.arrays
        for name, array in arrays.items():
            if (array.dtype == bool) != (name == "groups"):
                raise UserError(f"a request to propagate has {name} of type {array.dtype}.")
        try:
            options = {
                "n": values["n"],
                "timestep": float(values["timestep"]),
                "kT": float(values["kT"]),
                "fixcom": bool(values["fixcom"]),
            }
        except (LookupError, TypeError) as error:
            raise UserError(f"a request to propagate lacks a value: {error}.") from error
        return self._client(request.who)[1].propagate(arrays, **options)

    def _evaluated(self, requests: Sequence[Request]) -> list[Message]:
        answers: dict[int, Message] = {}
        tasks = []
        for k, request in enumerate(requests):
            try:
                task = _Task(k, self._client(request.who)[0], *self._structures(request.message))
            except UserError as error:
                answers[k] = _error(error)
                continue
            if found := task.memory.recall(task.positions, task.cells):
                answers[k] = task.answer(found)
            else:
                tasks.append(task)
        # neighbour lists belong to places in the batch: each client keeps its own
        tasks.sort(key=lambda task: requests[task.index].who)
        for task, result in zip(tasks, self._batch(tasks), strict=True):
            if isinstance(result, Exception):
                answers[task.index] = _error(result)
            else:
                known = task.memory.learn(task.positions, task.cells, result)
                answers[task.index] = task.answer(known)
        return [answers[k] for k in range(len(requests))]

    def _batch(self, tasks: Sequence["_Task"]) -> Sequence[Results | UserError | ValueError]:
        if not tasks:
            return []
        try:
            energies, forces, virials = self._evaluate(
                np.concatenate([task.positions for task in tasks]),
                np.concatenate([task.cells for task in tasks]),
            )
        except (UserError, ValueError, RuntimeError) as error:
            if len(tasks) > 1:  # one of them is to blame, or there are too many for the memory
                return [self._batch([task])[0] for task in tasks]
            if isinstance(error, RuntimeError):
                raise
            return [error]
        found, end = [], 0
        for task in tasks:
            one = slice(end, end := end + len(task.positions))
            found.append((energies[one], forces[one], virials[one]))
        return found

    def _structures(self, asked: Message) -> tuple[np.ndarray, np.ndarray, bool]:
        """Positions (B, N, 3), cells (B, 3, 3), and whether several were asked for."""
        try:
            q, cell = asked.arrays["q"], asked.arrays["cell"]
        except KeyError as error:
            raise UserError(f"a request to evaluate lacks {error}.") from error
        several, natoms = q.shape[:-2], self._evaluate.natoms
        if q.ndim not in (2, 3) or q.shape[-2:] != (natoms, 3) or several == (0,):
            raise UserError(
                f"a request to evaluate has q of shape {q.shape} where (N, 3) or (B, N, 3) is "
                f"expected, and --structure has {natoms} atoms: give the one that runs."
            )
        if cell.shape != (*several, 3, 3) or bool in (q.dtype, cell.dtype):
            raise UserError(
                f"a request to evaluate has cell of shape {cell.shape} where {(*several, 3, 3)} is "
                "expected, or no numbers."
            )
        return q.reshape(-1, natoms, 3), cell.reshape(-1, 3, 3), bool(several)


@dataclass(frozen=True)
class _Task:
    """Structures of one request that are still to be evaluated."""

    index: int
    memory: LastEvaluated
    positions: np.ndarray
    cells: np.ndarray
    several: bool

    def answer(self, results: Results) -> Message:
        names = ("energy", "forces", "virial")
        found = results if self.several else tuple(part[0] for part in results)
        return Message(
            "evaluated", {}, {n: np.asarray(a) for n, a in zip(names, found, strict=True)}
        )


def _error(error: object) -> Message:
    return Message("error", {"text": str(error)})
