"""A driver of several MPI processes: the first talks to the server, all evaluate together.

``mpiexec -n N mts serve MODEL --mpi``. The only module that imports mpi4py. Whatever fails on a
rank ends all of them, with one message: others would wait for it for ever.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import ase.parallel
import numpy as np

from mts_driver.drivers.evaluator import through_torch
from mts_driver.drivers.zmq.messages import Message
from mts_driver.errors import RankFailed, UserError
from mts_driver.potentials.arrays import ArrayPotential, Arrays

if TYPE_CHECKING:
    from integrators.state import Potential

_NAP_S = 1e-4
"""Between two looks for a request, which may be long in coming."""
_LAST_WORDS_S = 1.0
"""For mpiexec to pass on what a rank has said, which is lost when it ends them."""
_END, _EVALUATE, _STEPS = 0, 1, 2
_COLOUR = 1 << 20
"""Of our drivers, beside other programs' in a job with i-PI."""
_STATUS = 2


class MpiRanks:
    """The ranks of a driver, as `mts_driver.potentials.ranks.exchange.Ranks`.

    Parameters
    ----------
    name : str
        Of the ``<ffmpi>`` that they serve, in one job with i-PI; by default they are all of a job.

    Attributes
    ----------
    members : list of int
        Their numbers in the job.
    local_rank : int
        Of this one among all drivers of the job on its machine.

    Raises
    ------
    UserError
        If mpi4py or an MPI library cannot be loaded, or i-PI is not the first of the job.
    """

    def __init__(self, name: str = "") -> None:
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise UserError(
                f"--mpi needs mpi4py and an MPI library ({error}): pip install 'mts-driver[mpi]', "
                "or the MPI of the machine and mpi4py built for it."
            ) from error
        # ASE would have all ranks read and write together, which here each does for itself
        ase.parallel.world.comm = ase.parallel.DummyMPI()
        self._mpi: Any = MPI
        self._world = self._comm = MPI.COMM_WORLD
        self.name, self.rank, self.size = name, self._world.Get_rank(), self._world.Get_size()
        drivers = self._world
        if name:
            with all_end_together(self):
                drivers = self._drivers()
                self._comm = self._of_name(drivers)
        here = drivers.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank = here.Get_rank()
        here.Free()
        self.members = self._comm.allgather(self._world.Get_rank())
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()

    def _drivers(self) -> Any:
        """Part from i-PI, which is alone in colour 0."""
        if not self._world.Get_rank():
            raise UserError(
                f"--mpi-name {self.name} serves an i-PI that is the first process of the same job: "
                f"mpiexec -n 1 i-pi input.xml : -n 2 mts serve MODEL --mpi --mpi-name {self.name} "
                "--structure FILE."
            )
        return self._world.Split(_COLOUR, self._world.Get_rank())

    def _of_name(self, drivers: Any) -> Any:
        """Part from the drivers of other names."""
        names = drivers.allgather(self.name)
        return drivers.Split(sorted(set(names)).index(self.name), drivers.Get_rank())

    @property
    def alone(self) -> bool:
        """Whether nobody waits for this process."""
        return bool(self._world.Get_size() == 1)

    def cores(self) -> int:
        """Return the cores that each rank of this machine can have; 0 where the user has said."""
        if "OMP_NUM_THREADS" in os.environ:
            return 0
        here = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        return max(1, len(os.sched_getaffinity(0)) // int(here.Get_size()))

    def add_up(self, array: np.ndarray) -> None:
        """Replace an array by its sum over all ranks, in place."""
        _wait(self._comm.Iallreduce(self._mpi.IN_PLACE, array, op=self._mpi.SUM))

    def swap(self, rows: np.ndarray, sent: np.ndarray, received: np.ndarray) -> np.ndarray:
        """Send so many rows to each rank, the first to the first; return those of all for this."""
        found = np.empty((int(received.sum()), *rows.shape[1:]), rows.dtype)
        width = int(np.prod(rows.shape[1:], dtype=np.int64))
        _wait(self._comm.Ialltoallv([rows, sent * width], [found, received * width]))
        return found

    def send(self, request: np.ndarray) -> None:
        """Begin something on all ranks; from the first."""
        _wait(self._comm.Ibcast(request))

    def receive(self, request: np.ndarray) -> None:
        """Wait, at rest, for what the first rank begins."""
        waiting = self._comm.Ibcast(request)
        while not waiting.Test():
            time.sleep(_NAP_S)

    def same(self, array: np.ndarray) -> None:
        """Give all ranks the array of the first."""
        _wait(self._comm.Ibcast(array))

    def post(self, tag: int, array: np.ndarray) -> None:
        """Send an array to i-PI."""
        self._world.Send(array, dest=0, tag=tag)

    def next_tag(self) -> int:
        """Wait, at rest, for a message of i-PI, and return its tag."""
        status = self._mpi.Status()
        while not self._world.Iprobe(source=0, status=status):
            time.sleep(_NAP_S)
        return int(status.Get_tag())

    def take(self, tag: int, dtype: Any) -> np.ndarray:
        """Receive a message of i-PI with this tag."""
        status = self._mpi.Status()
        self._world.Probe(source=0, tag=tag, status=status)
        array = np.empty(status.Get_count(self._mpi.BYTE) // np.dtype(dtype).itemsize, dtype)
        self._world.Recv(array, source=0, tag=tag)
        return array

    def leave(self) -> None:
        """End together with i-PI: without our plugin it leaves MPICH half way, which kills others.

        At once, but by the C library: MPICH parts from mpiexec in there.
        """
        if self.name:
            sys.stdout.flush()
            sys.stderr.flush()
            self._mpi.Finalize()
            ctypes.CDLL(None).exit(0)

    def abort(self) -> NoReturn:
        """End all ranks."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_LAST_WORDS_S)
        self._world.Abort(_STATUS)
        os._exit(_STATUS)


def _wait(request: Any) -> None:
    """Wait for others, who may need this core: MPI itself would spin on it."""
    while not request.Test():
        os.sched_yield()


class Team:
    """All ranks and their models, in the order of loading, which is the same on all of them.

    Parameters
    ----------
    ranks : MpiRanks
        All of them. The first is asked, the others `follow`.
    """

    def __init__(self, ranks: MpiRanks) -> None:
        self.ranks = ranks
        self._potentials: list[Potential] = []
        self._steps: Any = None

    def load(
        self, spec: str, numbers: Sequence[int], *, device: str = "cpu", dtype: str = "float32"
    ) -> Potential:
        """Load a model on all ranks; see `mts_driver.load_potential`.

        ``cuda`` is a GPU for every rank of a machine, in turn.
        """
        from mts_driver.potentials import load_potential
        from mts_driver.potentials.devices import of_local_rank

        options = {"device": of_local_rank(device, self.ranks.local_rank), "dtype": dtype}
        shared = load_potential(spec, numbers, **options, ranks=self.ranks)
        self._potentials.append(shared)
        return Led(self, len(self._potentials) - 1, has_virial=getattr(shared, "has_virial", True))

    def evaluate(self, number: int, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate a model on all ranks; called by the first."""
        self.ranks.send(np.array([_EVALUATE, number, *positions_A.shape[:2]], np.int64))
        # whoever asks may live through an error, but not without the others
        with all_end_together(self.ranks):
            return self._together(number, positions_A, cells_A)

    def can_take_steps(self, *models: Any) -> bool:
        """Whether models are this team's, and can be evaluated where each rank has its atoms."""
        from mts_driver.potentials.ranks.potential import SharedPotential

        return self.ranks.size > 1 and all(
            getattr(model, "team", None) is self
            and isinstance(self._potentials[model.number], SharedPotential)
            for model in models
        )

    def take_steps(
        self, models: list[Any], arrays: Any, options: Any, *, periodic: bool, anew: bool
    ) -> tuple[dict[str, np.ndarray], list[tuple[int, float]]]:
        """Take whole outer steps on all ranks, each with its own atoms; called by the first.

        Parameters
        ----------
        models : list of Led
            Teacher and student.
        arrays, options : dict
            As `mts_driver.drivers.propagator.Propagator.run` takes them.
        periodic : bool
            Whether the models see the cell.
        anew : bool
            Whether atoms are shared out anew; else steps go on where the last ones ended.

        Returns
        -------
        dict
            As `Propagator.run`.
        list of tuple
            Calls of each model on the first rank, and the seconds they took.
        """
        numbers = [model.number for model in models]
        values = {"models": numbers, "periodic": periodic, "anew": anew, "options": options}
        frames = Message("run", values, arrays).pack()
        self.ranks.send(np.array([_STEPS, *map(len, frames), 0], np.int64))
        for frame in frames:
            self.ranks.same(np.frombuffer(bytearray(frame), np.uint8))
        with all_end_together(self.ranks):
            return self._step(frames)

    def _step(
        self, frames: Sequence[bytes]
    ) -> tuple[dict[str, np.ndarray], list[tuple[int, float]]]:
        from mts_driver.drivers.steps_on_ranks import OwnSteps, held_of

        message = Message.unpack(frames)
        values, arrays = message.values, message.arrays
        if self._steps is None or values["anew"]:
            teacher, student = (self._potentials[number] for number in values["models"])
            self._steps = OwnSteps(teacher, student, self.ranks, periodic=values["periodic"])
            self._steps.share_out(arrays["q"], arrays["cell"], held_of(arrays))
        before = [(one.calls, one.seconds) for one in self._steps.evaluators]
        found = self._steps.run(arrays, values["options"])
        after = [(one.calls, one.seconds) for one in self._steps.evaluators]
        spent = zip(before, after, strict=True)
        return found, [(b[0] - a[0], b[1] - a[1]) for a, b in spent]

    def follow(self) -> None:
        """Evaluate what the first rank is asked about, until it ends."""
        request = np.zeros(4, np.int64)
        while True:
            self.ranks.receive(request)
            what, *sizes = request.tolist()
            if what == _END:
                return
            if what == _STEPS:
                frames = [np.empty(size, np.uint8) for size in sizes[:2]]
                for frame in frames:
                    self.ranks.same(frame)
                self._step([frame.tobytes() for frame in frames])
            else:
                number, replicas, atoms = sizes
                structures = np.empty((replicas, atoms, 3)), np.empty((replicas, 3, 3))
                self._together(number, *structures)

    def end(self) -> None:
        """Let the other ranks go."""
        self.ranks.send(np.array([_END, 0, 0, 0], np.int64))

    def _together(self, number: int, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        potential, self._steps = self._potentials[number], None
        x, cells = (np.ascontiguousarray(a, np.float64) for a in (positions_A, cells_A))
        self.ranks.same(x)
        self.ranks.same(cells)
        if isinstance(potential, ArrayPotential):
            return potential.evaluate(x, cells)
        return through_torch(potential, x, cells)


class Led(ArrayPotential):
    """A model of a team, as its first rank sees it.

    Parameters
    ----------
    team : Team
        Has loaded it.
    number : int
        Which of its models.
    has_virial : bool
        Whether forces come from an energy.
    """

    def __init__(self, team: Team, number: int, *, has_virial: bool) -> None:
        self.team, self.number, self.has_virial = team, number, has_virial

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate replicas on all ranks; see `ArrayPotential.evaluate`."""
        return self.team.evaluate(self.number, positions_A, cells_A)


@contextmanager
def all_end_together(ranks: MpiRanks) -> Iterator[None]:
    """End all ranks where one fails, which says why: the others would wait for it for ever."""
    try:
        yield
    except BaseException as error:
        if ranks.alone:
            raise
        if isinstance(error, UserError | RankFailed):
            print(f"error: {error}", file=sys.stderr)
        elif not isinstance(error, SystemExit | KeyboardInterrupt):
            print(f"on rank {ranks.rank} of {ranks.size}:", file=sys.stderr)
            traceback.print_exception(error)
        ranks.abort()
