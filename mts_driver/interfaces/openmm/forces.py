"""OpenMM: teacher and student as the forces of its `MTSLangevinIntegrator`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from integrators.levels import SingleLevel, TwoLevel
from integrators.splitting import FAST, SLOW
from integrators.state import Potential
from mts_driver.errors import UserError, whole_number
from mts_driver.interfaces.openmm.checks import (
    box_of,
    check_forces,
    check_particles,
    known_charge,
    loose_hydrogen,
)
from mts_driver.interfaces.openmm.models import Checked, LevelsAtPositions
from mts_driver.potentials.load import as_potential, student_spec
from mts_driver.structures.reading.charge import read_charge
from mts_driver.units import KJ_MOL_EV

if TYPE_CHECKING:
    from openmm import State, System
    from openmm.app import Topology

Model = str | BaseCalculator | Potential
NM_A = 10.0
OURS = "mts-driver: "
"""What the names of our forces begin with."""


class LevelForces:
    """The forces that `add_forces` has added, and what they have seen.

    Attributes
    ----------
    slow_group : int or None
        Force group of teacher − student, for once an outer step; None without a student.
    fast_group : int
        Force group of the student, for every inner step; without one, of the teacher.
    """

    def __init__(
        self,
        system: System,
        levels: LevelsAtPositions,
        *,
        slow_group: int | None,
        fast_group: int,
        loose: int | None,
    ) -> None:
        self.slow_group, self.fast_group = slow_group, fast_group
        self._system, self._levels, self._loose = system, levels, loose

    def groups(self, inner_steps: int = 1) -> list[tuple[int, int]]:
        """Return what OpenMM's integrators of multiple time steps take as ``groups``.

        Call it when the system has all its forces.

        Parameters
        ----------
        inner_steps : int
            Steps of the student in an outer one; 1 without a student.

        Raises
        ------
        UserError
            If it is out of range, or a force of the system is in neither group, where these
            integrators would leave it out.
        """
        inner_steps = whole_number(inner_steps, name="inner_steps", least=1)
        if self.slow_group is None and inner_steps > 1:
            raise UserError(
                f"inner_steps={inner_steps}: without a student there are no inner steps: give 1, "
                "or a student."
            )
        ours = [group for group in (self.slow_group, self.fast_group) if group is not None]
        check_forces(self._system, ours, prefix=OURS, loose=self._loose)
        fast = [(self.fast_group, inner_steps)]
        return fast if self.slow_group is None else [(self.slow_group, 1), *fast]

    @property
    def clip_events(self) -> int:
        """Forces of atoms that were scaled back to the bound of |F_teacher − F_student|."""
        return self._levels.clip_events

    @property
    def max_force_difference_eV_A(self) -> float:
        """Largest |F_teacher − F_student| so far, before that, eV/Å; beyond 3 it is wrong."""
        return self._levels.max_force_difference_eV_A


def add_forces(
    system: System,
    topology: Topology,
    *,
    teacher: Model,
    student: Model | None = "water",
    charge: int | None = None,
    multiplicity: int | None = None,
    slow_group: int = 0,
    fast_group: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
) -> LevelForces:
    """Add the two levels of multiple time steps to a system of OpenMM, each a force group.

    The fast group is the student, the slow one teacher − student. OpenMM's
    ``MTSLangevinIntegrator(temperature, friction, dt, forces.groups(n))`` then asks the teacher
    once a step of ``dt`` and the student n times: the algorithm of `mts_driver.simulate`.

    Parameters
    ----------
    system : openmm.System
        With the masses of its particles (0: held in place) and constraints, both as OpenMM keeps
        them, and no force field. Restraints, biases, thermostats, barostats and
        ``CMMotionRemover`` may be there. Its default box becomes that of the topology where it has
        not been set. Bonds of the topology are added as springs of strength zero, by which OpenMM
        knows what is a molecule: its barostats move molecules, and its reporters wrap them, whole.
    topology : openmm.app.Topology
        Of the same atoms: their elements, bonds, formal charges if there are any, and whether the
        system is periodic, which is what ``getPeriodicBoxVectors()`` not being None says.
    teacher : str, ASE calculator or Potential
        A specification such as ``"so3lr"`` (see `mts_driver.load_potential`), any ASE calculator
        object, or a potential for these atoms.
    student : str, ASE calculator, Potential or None
        The same; also a file of `mts distill` or the name of a packaged student. None for the
        teacher alone, in ``fast_group``.
    charge : int, optional
        Total charge, e. By default the sum of the formal charges of the topology, 0 without any.
    multiplicity : int, optional
        2S + 1; by default 1.
    slow_group, fast_group : int
        Force groups, 0 to 31. Forces of others that are in one of them act with it.
    device, dtype : str
        Of models that are loaded here; see `mts_driver.load_potential`.

    Returns
    -------
    LevelForces
        The groups for the integrator; while it runs, clipped forces and the largest
        |F_teacher − F_student|.

    Raises
    ------
    UserError
        If system and topology do not agree, a particle is no atom or its element is not known to a
        model, a force field is there, a charge contradicts, or a parameter is out of range. What
        goes wrong later, such as a trajectory that blows up, is an ``OpenMMException`` with one
        sentence.

    Warns
    -----
    UserWarning
        If the number of electrons is odd and no multiplicity was given.

    Notes
    -----
    The force groups have the energies E_student and E_teacher − E_student, so that OpenMM's
    potential energy is the teacher's. The slow force on an atom is bounded to 6.5 eV/Å
    (150 kcal/mol/Å, Cattin et al., arXiv:2510.06562); the energy is not. Where a force is clipped
    it is no derivative of that energy, and the conserved energy jumps: see ``clip_events``.

    Positions may lie outside the box, and molecules across its border; the models take the box of
    the context, rectangular or triclinic, at every call. Monte Carlo barostats ask for energies
    only, of both models at every attempt.

    ``MTSLangevinIntegrator`` and ``MTSIntegrator`` take ``groups``. Integrators with one time step
    (``LangevinMiddleIntegrator``, ``VerletIntegrator``, ...) ask both models at each step: give
    them ``student=None``. Integrators of Drude particles, of DPD, and those of accelerated dynamics
    that scale groups by themselves are not for these forces; ``RPMDIntegrator`` is not tested.

    A model is no data, so a system with these forces cannot be written to XML or copied: do so
    before. Checkpoints and states of a context are as usual.

    Examples
    --------
    >>> forces = add_forces(system, topology, teacher="so3lr", student="water")  # doctest: +SKIP
    >>> integrator = openmm.MTSLangevinIntegrator(
    ...     300 * unit.kelvin, 1 / unit.picosecond, 6 * unit.femtosecond, forces.groups(6)
    ... )  # doctest: +SKIP
    """
    openmm = _import_openmm()
    _check_groups(slow_group, fast_group)
    spec = student_spec(student)[0] if isinstance(student, str) else student
    numbers = check_particles(system, topology)
    ours = [fast_group] if spec is None else [slow_group, fast_group]
    loose = loose_hydrogen(topology)
    check_forces(system, ours, prefix=OURS, loose=loose)
    if any(force.getName().startswith(OURS) for force in system.getForces()):
        raise UserError("system has these forces already: call add_forces once.")
    box_nm = box_of(system, topology)
    atoms = _atoms(numbers, known_charge(topology, charge), multiplicity)
    made = {"device": device, "dtype": dtype}
    slow = Checked(as_potential(teacher, atoms, name="teacher", **made), "the teacher")
    fast = None
    if spec is not None:
        fast = Checked(as_potential(spec, atoms, name="student", **made), "the student")
    levels = LevelsAtPositions(
        SingleLevel(slow) if fast is None else TwoLevel(slow, fast), len(numbers)
    )
    periodic = box_nm is not None
    if box_nm is not None:
        system.setDefaultPeriodicBoxVectors(*box_nm)
    wanted = {FAST: fast_group} if fast is None else {SLOW: slow_group, FAST: fast_group}
    for level, group in wanted.items():
        force = openmm.PythonForce(_Computation(levels, level, periodic))
        force.setUsesPeriodicBoundaryConditions(periodic)
        force.setForceGroup(group)
        force.setName(f"{OURS}{level}")
        system.addForce(force)
    bonds = openmm.HarmonicBondForce()
    for bond in topology.bonds():
        bonds.addBond(bond[0].index, bond[1].index, 0.1, 0.0)
    bonds.setUsesPeriodicBoundaryConditions(periodic)
    bonds.setForceGroup(ours[0])
    bonds.setName(f"{OURS}molecules")
    system.addForce(bonds)
    return LevelForces(
        system,
        levels,
        slow_group=None if fast is None else slow_group,
        fast_group=fast_group,
        loose=loose,
    )


class _Computation:
    """What OpenMM calls: a level's energy, kJ/mol, and forces (N, 3), kJ/mol/nm."""

    def __init__(self, levels: LevelsAtPositions, level: str, periodic: bool) -> None:
        self._levels, self._level, self._periodic = levels, level, periodic

    def __call__(self, state: State) -> tuple[float, np.ndarray]:
        from openmm.unit import nanometer

        x = state.getPositions(asNumpy=True).value_in_unit(nanometer)
        cell = torch.zeros(3, 3, dtype=torch.float64)
        if self._periodic:
            box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(nanometer)
            cell = torch.tensor(NM_A * np.asarray(box, float))
        found = self._levels.evaluate(self._level, torch.tensor(NM_A * np.asarray(x, float)), cell)
        return float(found.energy) / KJ_MOL_EV, found.forces.numpy() * (NM_A / KJ_MOL_EV)

    def __reduce__(self) -> NoReturn:
        # OpenMM pickles what it can, at once and with all weights
        raise TypeError("a model cannot be written with a system")


def _atoms(numbers: np.ndarray, charge: int | None, multiplicity: int | None) -> Atoms:
    """Return atoms that tell the models charge and spin, and nothing else."""
    atoms = Atoms(numbers, np.zeros((len(numbers), 3)))
    if charge is not None:
        atoms.info["charge"] = charge
    if multiplicity is not None:
        atoms.info["multiplicity"] = whole_number(multiplicity, name="multiplicity", least=1)
    read_charge(atoms, "topology")
    electrons = int(numbers.sum()) - (charge or 0)
    if electrons % 2 and multiplicity is None:
        warnings.warn(
            f"topology: {electrons} electrons, an odd number, are taken as they are: give charge "
            "or multiplicity if this is an ion or a radical.",
            stacklevel=3,
        )
    return atoms


def _check_groups(slow_group: int, fast_group: int) -> None:
    for name, group in (("slow_group", slow_group), ("fast_group", fast_group)):
        whole_number(group, name=name, least=0, most=31)
    if slow_group == fast_group:
        raise UserError(
            f"slow_group={slow_group} is fast_group too: give two, since a group is what has a "
            "time step of its own."
        )


def _import_openmm() -> Any:
    try:
        import openmm
        from openmm import PythonForce  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"needs OpenMM 8.4 or newer ({error}): pip install 'mts-driver[openmm]'"
        ) from error
    return openmm
