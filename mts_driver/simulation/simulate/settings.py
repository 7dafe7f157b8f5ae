"""The choices that a trajectory is made of, checked before any work."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mts_driver.errors import UserError, whole_number
from mts_driver.thermostats import HIGH_FRICTION_PER_PS
from mts_driver.time_steps import TimeSteps


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """How atoms are moved.

    Attributes
    ----------
    outer_fs, inner_fs : float
        Time steps of teacher and student, fs; the same without a student.
    temperature_K : float
        Of the thermostat and of velocities that are drawn, K.
    friction_per_ps, hydrogen_friction_per_ps : float
        Of all atoms, and of hydrogens, 1/ps; 0: none.
    hydrogen_mass_Da : float
        Da, taken from heavy atoms; 0: natural masses.
    steps, stride, checkpoint_stride : int
        Outer steps in all, between frames and records, and between checkpoints.
    seed : int
        Of velocities and thermostat.
    high_pass : bool
        Whether the noise is coloured; then no friction is of hydrogens alone.
    high_friction_per_ps : float
        What it has more on fast motion, 1/ps.
    constrain_hydrogens, rigid_water : bool
        Whether bonds to hydrogen are held, and both hydrogens of a water too.
    bond_lengths_A : mapping of str to float
        By kind or elements, Å; empty for averages.

    Raises
    ------
    UserError
        If one of them is out of range, or the outer step is no multiple of the inner one.
    """

    outer_fs: float
    inner_fs: float
    temperature_K: float
    friction_per_ps: float
    hydrogen_friction_per_ps: float
    hydrogen_mass_Da: float
    steps: int
    stride: int
    checkpoint_stride: int
    seed: int
    high_pass: bool = False
    high_friction_per_ps: float = HIGH_FRICTION_PER_PS
    constrain_hydrogens: bool = False
    rigid_water: bool = False
    bond_lengths_A: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        TimeSteps(self.outer_fs, self.inner_fs)
        if not 0 < self.temperature_K < math.inf:
            raise UserError(f"temperature_K={self.temperature_K!r}: give a finite number above 0.")
        for name in ("friction_per_ps", "hydrogen_friction_per_ps", "hydrogen_mass_Da"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"{name}={getattr(self, name)!r}: give a finite number, 0 or above."
                )
        if self.bond_lengths_A and not self.constrained:
            raise UserError(
                "bond_lengths_A without constrain_hydrogens: no bond is held; give both, or none."
            )
        if self.constrained and self.hydrogen_friction_per_ps != self.friction_per_ps:
            raise UserError(
                "hydrogen_friction_per_ps with constrained hydrogens: atoms whose bond is held "
                "must have one friction; leave it out."
            )
        for name, least in (("steps", 1), ("stride", 1), ("checkpoint_stride", 1), ("seed", 0)):
            value = whole_number(getattr(self, name), name=name, least=least)
            object.__setattr__(self, name, value)

    @property
    def constrained(self) -> bool:
        """Whether any bond is held."""
        return self.constrain_hydrogens or self.rigid_water

    @property
    def n_inner(self) -> int:
        """Inner steps an outer one."""
        return TimeSteps(self.outer_fs, self.inner_fs).n_inner
