"""What is scanned: the settings, and the points that they make."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from mts_driver.errors import UserError
from mts_driver.time_steps import MOST_FLEXIBLE_FS, inner_fs_near
from mts_driver.validation.drift import FEWEST_STEPS


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is run.

    Attributes
    ----------
    outer_fs, inner_fs : float
        Time steps; the same for single stepping.
    hydrogen_mass_Da : float
        0 for natural masses.
    friction_per_ps, hydrogen_friction_per_ps : float
        Of the Langevin thermostat for heavy atoms and hydrogens.
    high_pass : bool
        Whether the noise is coloured: ``friction_per_ps`` on slow motion, more on fast.
    constrained, rigid_water : bool
        Whether bonds to hydrogen are held, and the distance of both hydrogens of a water as well.
    """

    outer_fs: float
    inner_fs: float
    hydrogen_mass_Da: float
    friction_per_ps: float
    hydrogen_friction_per_ps: float
    high_pass: bool = False
    constrained: bool = False
    rigid_water: bool = False

    @property
    def setup(self) -> "Setup":
        """What it has in common with points of other time steps."""
        return Setup(
            self.hydrogen_mass_Da,
            self.hydrogen_friction_per_ps,
            self.high_pass,
            self.constrained,
            self.rigid_water,
        )


class Setup(NamedTuple):
    """What is the same in all points of a line of the picture, under the keys of a row.

    Attributes
    ----------
    hmr : float
        Mass of hydrogens, Da; 0: natural.
    friction : float
        Of hydrogens, 1/ps.
    high_pass, constrained, rigid_water : bool
        As in `Point`.
    """

    hmr: float
    friction: float
    high_pass: bool
    constrained: bool
    rigid_water: bool

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Setup":
        """Return that of a row of the scan."""
        return cls(*(row[name] for name in cls._fields))

    def label(self, friction_per_ps: float) -> str:
        """Say what it is, beside the friction of all atoms."""
        name = f"H of {self.hmr:g} Da" if self.hmr else "natural masses"
        if self.constrained:
            name += ", rigid water" if self.rigid_water else ", bonds held"
        if self.high_pass:
            name += ", high-pass noise"
        more = self.friction != friction_per_ps
        return f"{name}, {self.friction:g}/ps on H" if more else name


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """What is scanned.

    Attributes
    ----------
    outer_fs : tuple of float
        Outer steps, fs.
    inner_fs : float
        About this long; a whole number of inner steps makes an outer one.
    hydrogen_mass_Da : tuple of float
        0 for natural masses.
    hydrogen_friction_per_ps : tuple of float
        Scanned with the heaviest hydrogens, beside the friction of all atoms.
    high_pass : bool
        Whether coloured noise is scanned, with the heaviest hydrogens.
    constrain_hydrogens : bool
        Whether held bonds are scanned, with the heaviest hydrogens.
    rigid_water : bool
        Whether the distance of both hydrogens of a water is held there, too.
    constrained_inner_fs : float
        Inner step with held bonds; outer steps that are no multiples are left out.
    picoseconds : float
        Of every run with the thermostat, and of every run without.
    replicas : int
        Runs with the thermostat in one batch.
    """

    teacher: str
    student: str
    outer_fs: tuple[float, ...]
    inner_fs: float
    hydrogen_mass_Da: tuple[float, ...]
    friction_per_ps: float
    hydrogen_friction_per_ps: tuple[float, ...]
    high_pass: bool
    constrain_hydrogens: bool
    rigid_water: bool
    constrained_inner_fs: float
    temperature_K: float
    picoseconds: float
    equilibrate_ps: float
    replicas: int
    seed: int

    def __post_init__(self) -> None:
        positive: list[tuple[str, float]] = [
            *(("outer_fs", value) for value in self.outer_fs),
            ("inner_fs", self.inner_fs),
            ("constrained_inner_fs", self.constrained_inner_fs),
            ("temperature_K", self.temperature_K),
            ("friction_per_ps", self.friction_per_ps),
            ("picoseconds", self.picoseconds),
            ("replicas", self.replicas),
        ]
        for name, value in positive:
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name}={value:g}: give a finite number above 0.")
        for value in self.hydrogen_friction_per_ps:
            if not self.friction_per_ps <= value < math.inf:
                raise UserError(
                    f"hydrogen_friction_per_ps={value:g}: give at least the "
                    f"{self.friction_per_ps:g} of friction_per_ps."
                )
        if not (self.outer_fs and self.hydrogen_mass_Da):
            raise UserError("outer_fs and hydrogen_mass_Da: give at least one of each to scan.")
        longest = max(self.outer_fs)
        if 1e3 * self.picoseconds < FEWEST_STEPS * longest:
            raise UserError(
                f"picoseconds={self.picoseconds:g}: the outer step of {longest:g} fs needs at "
                f"least {1e-3 * FEWEST_STEPS * longest:g}."
            )

    @property
    def heaviest_Da(self) -> float:
        """The largest mass of hydrogens; 0 if only natural ones are scanned."""
        return max(self.hydrogen_mass_Da)

    @property
    def constrained_outer_fs(self) -> list[float]:
        """Outer steps with held bonds: whole inner ones."""
        inner = self.constrained_inner_fs
        whole = [(t, round(t / inner)) for t in sorted(self.outer_fs)]
        return [t for t, n in whole if n and math.isclose(n * inner, t, rel_tol=1e-9)]

    def points(self) -> Iterator[Point]:
        """Single steps with natural masses first, which the others are compared with."""
        usual, heaviest = self.friction_per_ps, self.heaviest_Da
        natural = Setup(0.0, usual, high_pass=False, constrained=False, rigid_water=False)
        heavy = natural._replace(hmr=heaviest)
        # longer steps of natural hydrogens resonate, and nothing could be compared with them
        single_fs = min(self.inner_fs, MOST_FLEXIBLE_FS)
        yield self._point(natural, single_fs, single_fs)
        setups = [natural._replace(hmr=mass) for mass in sorted(self.hydrogen_mass_Da)]
        setups += [heavy._replace(friction=f) for f in sorted(self.hydrogen_friction_per_ps)]
        if self.high_pass:
            setups.append(heavy._replace(high_pass=True))
        for setup in setups:
            for outer in sorted(self.outer_fs):
                yield self._point(setup, outer, inner_fs_near(self.inner_fs, outer))
        if self.constrain_hydrogens:
            held = heavy._replace(constrained=True, rigid_water=self.rigid_water)
            for high_pass in (False, True)[: 1 + self.high_pass]:
                setup = held._replace(high_pass=high_pass)
                for outer in self.constrained_outer_fs:
                    yield self._point(setup, outer, self.constrained_inner_fs)

    def _point(self, setup: Setup, outer_fs: float, inner_fs: float) -> Point:
        return Point(
            outer_fs=outer_fs,
            inner_fs=inner_fs,
            hydrogen_mass_Da=setup.hmr,
            friction_per_ps=self.friction_per_ps,
            hydrogen_friction_per_ps=setup.friction,
            high_pass=setup.high_pass,
            constrained=setup.constrained,
            rigid_water=setup.rigid_water,
        )
