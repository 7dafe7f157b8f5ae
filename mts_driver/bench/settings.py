"""What a benchmark is asked to measure."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from ase import Atoms

from mts_driver.errors import UserError
from mts_driver.time_steps import HELD_INNER_FS


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """The choices of the command line; each benchmark uses some of them.

    Attributes
    ----------
    structures : tuple of ase.Atoms
        Equilibrated structures; more than one only for ``kernels``.
    teacher : str
        Specification of the expensive model.
    students : tuple of str
        Specifications of the students; more than one only for ``kernels``.
    device : str
        Torch device of all models.
    threads : int
        CPU threads of every model; 0 for all cores.
    rounds : int
        How often everything is measured, in turn.
    seconds : float
        Aimed-at length of every single measurement, s.
    report : callable
        Told what is being measured.
    outer_fs, friction_outer_fs : tuple of float
        Outer time steps, fs; the second ones with friction on hydrogens.
    constrained_outer_fs : tuple of float
        Those with bonds to hydrogen that are held.
    constrained_inner_fs : float
        Their inner steps, about.
    rigid_outer_fs : tuple of float
        Those with rigid water as well.
    inner_fs : float
        Inner time step, fs.
    mode : str
        How i-PI talks to the drivers of multiple time steps: unix, shm or zmq.
    atoms, beads, ranks : tuple of int
        Sizes of the boxes, of the ring polymers, and of the teams of processes.
    model_atoms, model_ranks : int
        The large system of ``scaling``.
    rank_speed, link_GB_s, latency_us : float
        Its ranks: how many times as fast as one here, and what joins them.
    steps : int or None
        Outer steps of every trajectory; None for as many as take ``seconds``.
    """

    structures: tuple[Atoms, ...]
    teacher: str
    students: tuple[str, ...]
    device: str = "cpu"
    threads: int = 0
    rounds: int = 3
    seconds: float = 15.0
    report: Callable[[str], None] = lambda _: None
    outer_fs: tuple[float, ...] = (6.0,)
    inner_fs: float = 1.0
    friction_outer_fs: tuple[float, ...] = ()
    constrained_outer_fs: tuple[float, ...] = ()
    constrained_inner_fs: float = HELD_INNER_FS
    rigid_outer_fs: tuple[float, ...] = ()
    mode: str = "unix"
    atoms: tuple[int, ...] = ()
    beads: tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()
    model_atoms: int = 0
    model_ranks: int = 0
    rank_speed: float = 1.0
    link_GB_s: float = 1.0
    latency_us: float = 0.0
    steps: int | None = None

    @property
    def structure(self) -> Atoms:
        """The structure of a benchmark that takes one."""
        return self.structures[0]

    @property
    def student(self) -> str:
        """The student of a benchmark that takes one."""
        return self.students[0]

    def the_outer_fs(self) -> float:
        """Return the one outer time step of a benchmark that takes one.

        Raises
        ------
        UserError
            If several were given.
        """
        if len(self.outer_fs) != 1:
            given = ",".join(f"{t:g}" for t in self.outer_fs)
            raise UserError(f"--outer-fs {given!r}: this benchmark takes one number.")
        return self.outer_fs[0]


def thread_variables(threads: int) -> dict[str, str]:
    """Environment that gives a process this many threads; 0: all cores, as ``mts serve`` does."""
    if threads:
        return {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    return {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
