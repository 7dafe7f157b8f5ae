"""ASE: multiple time steps as one of its dynamics, and our potentials as its calculators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes
from ase.md.md import MolecularDynamics

from integrators.compiled_loop import Found
from integrators.degrees_of_freedom import of_atoms, of_groups
from integrators.levels import DEFAULT_CLIP
from integrators.outer_steps import OuterSteps
from integrators.state import Potential
from mts_driver.errors import UserError, require_number, whole_number
from mts_driver.potentials.load import as_potential, student_spec
from mts_driver.structures.files import read_atoms
from mts_driver.structures.fixed import moving_atoms
from mts_driver.structures.masses import repartitioned_masses, with_masses
from mts_driver.structures.solutes import temperature_groups
from mts_driver.structures.tensors import cell_of


class PotentialCalculator(Calculator):
    """A potential of this project as an ASE calculator: energy, forces, and stress in a cell.

    Without a stress where the potential has none, such as that of direct forces.

    Parameters
    ----------
    potential : Potential
        Bound to the atoms that the calculator will be asked about.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (ASE's own type)

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate the potential; eV, eV/Å and eV/Å³."""
        super().calculate(atoms, properties, system_changes)
        system: Atoms = self.atoms  # type: ignore[assignment]
        if system.pbc.any() and not system.pbc.all():
            raise UserError(
                f"pbc={system.pbc.tolist()}: potentials are for systems that are periodic along "
                "all vectors of their cell, or along none; make a slab periodic in a high cell."
            )
        numbers = getattr(self.potential, "numbers", None)
        if numbers is not None and not np.array_equal(numbers, system.numbers):
            raise UserError(
                f"the potential is bound to other atoms than these {len(system)}, or to another "
                "order of them: load one with load_potential for atoms.numbers."
            )
        found = self.potential(torch.from_numpy(system.positions), cell_of(system))
        forces = found.forces.detach().cpu().double().numpy()
        self.results = {"energy": float(found.energy), "forces": forces}
        has_virial = getattr(self.potential, "has_virial", True)
        if system.pbc.all() and system.cell.rank == 3 and has_virial is not False:
            stress = -found.virial.detach().cpu().double().numpy() / system.get_volume()
            self.results["stress"] = stress.flat[[0, 4, 8, 5, 2, 1]]


class NormalNumbers(Protocol):
    """Where noise comes from: numpy's generators, `numpy.random`, or one's own."""

    def standard_normal(self, size: tuple[int, ...]) -> np.ndarray:
        """Return standard normal numbers of a shape."""
        ...


class RespaBAOAB(MolecularDynamics):
    """Multiple time-step Langevin dynamics: a student moves the atoms, ``atoms.calc`` corrects it.

    A step is an outer step of RESPA-BAOAB, B_slow(½) [B_fast(½) A(½) O A(½) B_fast(½)]ⁿ B_slow(½),
    with the calculator of the atoms asked once, at its end. ASE's loggers, trajectories and
    observers see atoms at the ends of steps. The temperature that they print there is a few per
    cent too low for hydrogens; `temperatures_K` is unbiased.

    Parameters
    ----------
    atoms : ase.Atoms
        With the calculator of the teacher, and masses and momenta as they should be. Atoms of
        ``FixAtoms`` are held in place.
    timestep : float
        Outer time step, in ASE's unit of time, such as ``6 * units.fs``.
    inner_steps : int
        Steps of the student in an outer one; one fs each is good with natural and with heavy
        hydrogens.
    student : str, ASE calculator or Potential
        File of `mts distill` or name of a packaged student such as ``"water"``, a specification as
        in `mts_driver.load_potential`, a calculator object, or a potential for these atoms.
    temperature_K : float
        Of the Langevin thermostat, K.
    friction : float or ndarray of shape (N,)
        Of the thermostat, of all atoms or of each, 1/(ASE's unit of time), such as
        ``1 / (1000 * units.fs)`` for 1/ps. 0 for constant energy.
    hydrogen_mass_Da : float, optional
        Move mass from heavy atoms to their hydrogens until these have so much, Da; 4 goes with
        outer steps of 6 fs. The masses of ``atoms`` are changed, and momenta with them so that
        every atom keeps its kinetic energy. By default masses stay as they are.
    fixcom : bool
        Whether the centre of mass is kept still; never where atoms are held.
    rng : object, optional
        With ``standard_normal(size)``, such as ``numpy.random.default_rng(1)``; by default
        ``numpy.random``, as elsewhere in ASE.
    device, dtype : str
        Of a student that is loaded here; see `mts_driver.load_potential`.
    **options
        Those of ASE's ``MolecularDynamics``: ``trajectory``, ``logfile``, ``loginterval``, ...

    Attributes
    ----------
    clip_events : int
        Forces of atoms that were scaled back to the bound of |F_teacher − F_student|, 6.5 eV/Å.
    max_force_difference_eV_A : float
        Largest of them so far, before that, eV/Å; beyond 3 the student is wrong.

    Raises
    ------
    UserError
        If the atoms have no calculator or one without forces, constraints other than ``FixAtoms``,
        a cell that is periodic along some of its vectors only, or a parameter is out of range.

    Notes
    -----
    Algorithm 1 of Cattin et al., arXiv:2510.06562; see also Leimkuhler and Matthews, J. Chem. Phys.
    2013, 138, 174102. ``FixAtoms``, masses, ``dt`` and the calculator may be changed between steps;
    other constraints are refused, and other atoms.

    Examples
    --------
    >>> dyn = RespaBAOAB(atoms, timestep=6 * units.fs, inner_steps=6, student="water",
    ...                  temperature_K=300, friction=1 / (1000 * units.fs))  # doctest: +SKIP
    >>> dyn.run(1000)  # doctest: +SKIP
    """

    def __init__(
        self,
        atoms: Atoms,
        timestep: float,
        *,
        inner_steps: int,
        temperature_K: float,
        friction: float | np.ndarray,
        student: str | BaseCalculator | Potential = "water",
        hydrogen_mass_Da: float | None = None,
        fixcom: bool = True,
        rng: NormalNumbers | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        **options: Any,
    ) -> None:
        _require_forces(atoms)
        understood = read_atoms(atoms)
        inner_steps = whole_number(inner_steps, name="inner_steps", least=1)
        for name, value in (("timestep", timestep), ("temperature_K", temperature_K)):
            require_number(value, name=name)
            if not 0 < value < np.inf:
                raise UserError(f"{name}={value!r}: give a finite number above 0.")
        if np.ndim(friction) and np.shape(friction) != (len(atoms),):
            raise UserError(
                f"friction has shape {np.shape(friction)}: give one number, or one of each of the "
                f"{len(atoms)} atoms."
            )
        spread = np.broadcast_to(np.asarray(friction, float), len(atoms))
        if not (np.isfinite(spread).all() and (spread >= 0).all()):
            raise UserError(f"friction={friction!r}: give finite numbers, 0 or above.")
        if hydrogen_mass_Da is not None:
            _repartition(atoms, understood, hydrogen_mass_Da)
        spec = student_spec(student)[0] if isinstance(student, str) else student
        if spec is None:
            raise UserError(
                "student='none': give one; single steps are what ase.md.langevin.Langevin is for."
            )
        fast = as_potential(spec, understood, device=device, dtype=dtype, name="student")
        self._inner_steps, self._temperature_K, self._friction = inner_steps, temperature_K, spread
        self._fixcom, self._rng = fixcom, np.random if rng is None else rng
        self._fast = fast
        self._outer: OuterSteps | None = None
        self._numbers, self._setting = understood.numbers, tuple[Any, ...]()
        self.clip_events, self.max_force_difference_eV_A = 0, 0.0
        self._sums, self._readings = np.zeros(0), 0
        super().__init__(atoms, timestep, **options)

    def todict(self) -> dict[str, Any]:
        """Return the parameters, which ASE writes into trajectories."""
        uniform = bool((self._friction == self._friction[0]).all())
        return {
            **super().todict(),
            "inner_steps": self._inner_steps,
            "temperature_K": self._temperature_K,
            "friction": float(self._friction[0]) if uniform else self._friction.tolist(),
        }

    @property
    def temperatures_K(self) -> dict[str, float]:
        """Mean temperatures over all thermostat steps of ``all`` atoms, ``H`` and ``heavy``, K."""
        if self._readings == 0:
            return {}
        return dict(zip(self._dof, (self._sums / self._readings).tolist(), strict=True))

    def step(self) -> None:
        """Take one outer step."""
        atoms = self.atoms
        held = ~moving_atoms(atoms)
        calculator, constraints = id(atoms.calc), [id(one) for one in atoms.constraints]
        arrays = (held, atoms.get_masses(), atoms.numbers, atoms.pbc)
        setting = (self.dt, calculator, constraints, *(array.tobytes() for array in arrays))
        if self._outer is None or setting != self._setting:
            self._look_again()
            self._prepare(held)
            self._setting = setting
        assert self._outer is not None
        noise = self._rng.standard_normal(size=(self._inner_steps, len(atoms), 3))
        before = atoms.get_positions()
        try:
            found = self._outer.take(before, atoms.get_momenta(), cell_of(atoms).numpy(), noise)
        except BaseException:
            # the atoms as they were, at the end of the last step
            atoms.set_positions(before, apply_constraint=False)
            raise
        atoms.set_momenta(found.momenta, apply_constraint=False)
        norms = np.linalg.norm(found.force_difference, axis=1)
        self.clip_events += int((norms > DEFAULT_CLIP).sum())
        self.max_force_difference_eV_A = max(self.max_force_difference_eV_A, float(norms.max()))
        readings_K = found.twice_kinetic / units.kB / np.array(list(self._dof.values()))
        self._sums = self._sums + readings_K.sum(axis=0)
        self._readings += len(readings_K)

    def _look_again(self) -> None:
        """Refuse what has become of the atoms where it cannot be honoured, as at the beginning."""
        _require_forces(self.atoms)
        read_atoms(self.atoms)
        if not np.array_equal(self.atoms.numbers, self._numbers):
            raise UserError(
                "atoms have other elements, or another order, than those that the student was "
                "loaded for: make another RespaBAOAB for them."
            )

    def _prepare(self, held: np.ndarray) -> None:
        """Build the loop for the atoms as they are now."""
        if held.all():
            raise UserError("all atoms are held by FixAtoms: let one of them go.")
        masses = self.atoms.get_masses()
        fixcom = self._fixcom and not held.any()
        groups = temperature_groups(self.atoms)
        self._held, self._dof = held, of_groups(groups, of_atoms(masses, ~held, fixcom=fixcom))
        self._sums, self._readings = np.zeros(len(self._dof)), 0
        self._outer = OuterSteps(
            self._ask_teacher,
            self._ask_student,
            masses=np.where(held, np.inf, masses),
            n=self._inner_steps,
            timestep=self.dt,
            kT=units.kB * self._temperature_K,
            friction=self._friction,
            groups=np.array([groups[name] & ~held for name in self._dof]).reshape(-1, len(held)),
            clip=DEFAULT_CLIP,
            fixcom=fixcom,
        )

    def _ask_teacher(self, positions: np.ndarray, cells: np.ndarray) -> Found:
        """Ask the calculator, which keeps its forces for whoever asks at the end of the step."""
        self.atoms.set_positions(positions[0], apply_constraint=False)
        forces = self.atoms.get_forces(apply_constraint=False)
        if not np.isfinite(forces).all():
            raise UserError(f"atoms.calc returned forces that are not finite at step {self.nsteps}")
        return np.zeros(1), np.array(forces, float)[None], np.zeros((1, 3, 3))

    def _ask_student(self, positions: np.ndarray, cells: np.ndarray) -> Found:
        found = self._fast(torch.from_numpy(positions[0].copy()), torch.from_numpy(cells[0].copy()))
        forces = found.forces.detach().cpu().double().numpy()
        if not np.isfinite(forces).all():
            raise UserError(
                f"the student returned forces that are not finite at step {self.nsteps}: the "
                "trajectory has blown up. Use a shorter timestep, or a better student."
            )
        return np.zeros(1), forces[None], np.zeros((1, 3, 3))


def _require_forces(atoms: Atoms) -> None:
    if atoms.calc is None:
        raise UserError("atoms.calc is None: give the atoms the calculator of the teacher.")
    offered = getattr(atoms.calc, "implemented_properties", ["forces"])
    if "forces" not in offered:
        raise UserError(
            f"atoms.calc, {type(atoms.calc).__name__}, gives no forces (it offers "
            f"{', '.join(offered)}): use another calculator."
        )


def _repartition(atoms: Atoms, understood: Atoms, hydrogen_mass_Da: float) -> None:
    """Make hydrogens heavy, and leave every atom its kinetic energy."""
    before, after = atoms.get_masses(), repartitioned_masses(understood, hydrogen_mass_Da)
    momenta = with_masses(atoms.get_velocities(), before, after) * after[:, None]
    atoms.set_masses(after)
    atoms.set_momenta(momenta, apply_constraint=False)
