"""What a driver says to requests over ZeroMQ; no sockets here.

Structures of several clients are evaluated as one batch. Of every client the last structure is
remembered, so that its next inner loop begins with forces that are known.
"""

import traceback
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import Any

import numpy as np

from mts_driver.drivers.evaluator import Evaluator, Results
from mts_driver.drivers.ipi_socket.client import is_another
from mts_driver.drivers.steps_on_ranks import propagator_of
from mts_driver.drivers.zmq.messages import VERSION, Message
from mts_driver.errors import UserError

CALLS = 8
"""Calls of a client whose structures are remembered."""
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
        super().__init__(
            evaluate.potential,
            evaluate.natoms,
            stats=evaluate.stats,
            periodic=evaluate.periodic,
        )
        # several, since contracted ring polymers are asked for between two inner loops
        self._known: deque[tuple[np.ndarray, np.ndarray, Results]] = deque(maxlen=CALLS)

    def __call__(self, positions: np.ndarray, cells: np.ndarray) -> Results:
        """As `Evaluator`, free for the structures (B, N, 3) of one of the last calls."""
        found = self.recall(positions, cells)
        return found or self.learn(positions, cells, super().__call__(positions, cells))

    def recall(self, positions: np.ndarray, cells: np.ndarray) -> Results | None:
        """Return the results if the structures are those of one of the last calls."""
        for q, known_cells, results in self._known:
            # the first number tells most structures apart
            if (
                q[0, 0, 0] == positions[0, 0, 0]
                and np.array_equal(q, positions)
                and np.array_equal(known_cells, cells)
            ):
                return results
        return None

    def learn(self, positions: np.ndarray, cells: np.ndarray, results: Results) -> Results:
        """Keep the results."""
        self._known.appendleft((positions.copy(), cells.copy(), results))
        return results


@dataclass(frozen=True)
class Model:
    """A model, and the specification that clients know it by."""

    spec: str
    evaluate: Evaluator


class Answers:
    """Answers requests with one model, or with a teacher and a student.

    Parameters
    ----------
    model : Model
        The only one, or the teacher.
    student : Model, optional
        The student, where both are here.
    """

    def __init__(self, model: Model, student: Model | None = None) -> None:
        self._model, self._student = model, student
        self._natoms = model.evaluate.natoms
        self._clients: OrderedDict[bytes, _Client] = OrderedDict()

    def to(self, requests: Sequence[Request]) -> list[Message]:
        """Return an answer to each; several must all be of the kind ``evaluate``."""
        if len(requests) == 1 and requests[0].message.kind != "evaluate":
            return [self._alone(requests[0])]
        return self._evaluated(requests)

    def _client(self, who: bytes) -> "_Client":
        if who not in self._clients:
            self._clients[who] = _Client(self._model, self._student)
            if len(self._clients) > REMEMBERED:
                self._clients.popitem(last=False)
        self._clients.move_to_end(who)
        return self._clients[who]

    def _wanted(self, message: Message) -> Model:
        """Return the model that a message asks for; the only one if there is no other."""
        if self._student is None:
            return self._model
        both, wanted = (self._model, self._student), str(message.values.get("model", ""))
        for found in (
            [one for one in both if one.spec == wanted],
            [one for one in both if wanted and not is_another(one.spec, wanted)],
        ):
            if len({one.spec for one in found}) == 1:  # both may be the same, as in tests of a run
                return found[0]
        raise UserError(
            f"a message asks for the model {wanted!r}: this driver has {both[0].spec!r} and "
            f"{both[1].spec!r}; name one of them."
        )

    def _alone(self, request: Request) -> Message:
        asked = request.message
        try:
            if asked.kind == "hello":
                spec = self._wanted(asked).spec
                about = {"model": spec, "natoms": self._natoms, "version": VERSION}
                return Message("welcome", about)
            if asked.kind in ("propagate", "run"):
                return Message(asked.kind, {}, self._taken(request))
        except Exception as error:  # whatever one client has sent, the others are still served
            return _error(error)
        return _error(f"a message asks for {asked.kind!r}: use hello, evaluate, propagate or run.")

    def _taken(self, request: Request) -> dict[str, np.ndarray]:
        """Take steps for a client."""
        values, arrays = request.message.values, request.message.arrays
        for name, array in arrays.items():
            if (array.dtype == bool) != (name == "groups"):
                raise UserError(f"a request to propagate has {name} of type {array.dtype}.")
        propagator = self._client(request.who).propagator
        _number(values, "n")
        options: dict[str, Any] = {
            "n": values["n"],
            "timestep": _number(values, "timestep"),
            "kT": _number(values, "kT"),
            "fixcom": bool(values.get("fixcom")),
        }
        if request.message.kind == "propagate":
            found = propagator.propagate(arrays, **options)
        else:
            seeds, clip = values.get("seeds"), _number(values, "clip")
            if not isinstance(seeds, list) or not all(
                type(seed) is int and 0 <= seed < 2**63 for seed in seeds
            ):
                raise UserError("a request to run has seeds that are no list of whole numbers.")
            found = propagator.run(arrays, **options, seeds=seeds, clip=clip)
        for name, array in found.items():
            if not np.isfinite(array.sum()):
                raise UserError(
                    f"the steps of a request ended with {name} that is not finite: check its "
                    "arrays, or use a shorter time step."
                )
        return found

    def _evaluated(self, requests: Sequence[Request]) -> list[Message]:
        answers: dict[int, Message] = {}
        tasks: list[_Task] = []
        for k, request in enumerate(requests):
            try:
                model = self._wanted(request.message)
                memory = self._client(request.who).memory[model.spec]
                task = _Task(k, model, memory, *self._structures(request.message))
            except UserError as error:
                answers[k] = _error(error)
                continue
            if found := task.memory.recall(task.positions, task.cells):
                answers[k] = task.answer(found)
            else:
                tasks.append(task)
        # neighbour lists belong to places in the batch: each client keeps its own
        tasks.sort(key=lambda task: (task.model.spec, requests[task.index].who))
        for _, group in groupby(tasks, lambda task: task.model.spec):
            together = list(group)
            for task, result in zip(together, self._batch(together), strict=True):
                if isinstance(result, Exception):
                    answers[task.index] = _error(result)
                else:
                    known = task.memory.learn(task.positions, task.cells, result)
                    answers[task.index] = task.answer(known)
        return [answers[k] for k in range(len(requests))]

    def _batch(self, tasks: Sequence["_Task"]) -> Sequence[Results | Exception]:
        """Evaluate structures for the same model in one call."""
        try:
            energies, forces, virials = tasks[0].model.evaluate(
                np.concatenate([task.positions for task in tasks]),
                np.concatenate([task.cells for task in tasks]),
            )
        except Exception as error:
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
        several, natoms = q.shape[:-2], self._natoms
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
    model: Model
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


class _Client:
    """What is remembered of a client, for every model, and its steps."""

    def __init__(self, model: Model, student: Model | None) -> None:
        both = [model, student] if student else [model]
        self.memory = {one.spec: LastEvaluated(one.evaluate) for one in both}
        fast, slow = (student or model), (model if student else None)
        one, other = self.memory[fast.spec], self.memory[slow.spec] if slow else None
        self.propagator = propagator_of(one, other)


def _number(values: Mapping[str, Any], name: str) -> float:
    found = values.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not isfinite(found):
        raise UserError(f"a request to propagate lacks a value: {name!r} is {str(found)[:40]}.")
    return float(found)


def _error(error: object) -> Message:
    if isinstance(error, Exception) and not isinstance(error, UserError):
        traceback.print_exception(error)  # to the log of the driver
        error = f"{type(error).__name__}: {error}"
    return Message("error", {"text": str(error)})
