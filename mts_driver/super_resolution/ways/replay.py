"""The outer steps of a run taken once more: with the noise of its seed, nothing is left to guess.

Between two outer steps that are both stored, a trajectory follows from positions, velocities and
the teacher's forces at the first, the student, and the random numbers of the thermostat. These are
drawn anew from the seed in the input, in the order in which the run drew them.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ipi.utils.units import unit_to_internal, unit_to_user
from scipy.interpolate import CubicSpline

from integrators.compiled_loop import Found
from integrators.ipi.plugin import INVERSE_PS, register
from integrators.noise import CounterNoise
from integrators.outer_steps import OuterSteps
from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.simulation.simulate.random_numbers import RandomNumbers
from mts_driver.simulation.simulate.timed_model import TimedModel
from mts_driver.super_resolution.frames import Gaps
from mts_driver.super_resolution.ways.bridge import Bridged
from mts_driver.units import BOLTZMANN_EV_K

SAME_A = 1e-3
"""A replayed step that ends farther from the stored frame is not that of the run."""


@dataclass(frozen=True)
class Physics:
    """What a run's input says of its outer steps.

    Attributes
    ----------
    outer_fs, n_inner, temperature_K : float, int, float
        Of the steps and the thermostat.
    friction_per_fs, hydrogen_friction_per_fs : float
        0: constant energy.
    clip_eV_A : float or None
        Bound on the slow force of an atom.
    fixcom : bool
        Whether the centre of mass is kept still.
    seed : int
        Of all random numbers.
    draws_velocities : bool
        Whether the first of these are velocities.
    seeds_of_steps : bool
        Whether an outer step draws a seed, or all of its noise.
    """

    outer_fs: float
    n_inner: int
    temperature_K: float
    friction_per_fs: float
    hydrogen_friction_per_fs: float
    clip_eV_A: float | None
    fixcom: bool
    seed: int
    draws_velocities: bool
    seeds_of_steps: bool


def require_free_bonds(file: Path) -> None:
    """Refuse an input whose bonds are held: what fills in frames lets them vibrate.

    Raises
    ------
    UserError
        If it has a ``<constrain>``.
    """
    if (ET.parse(file).getroot().findtext(".//constrain") or "").strip():
        raise UserError(
            f"{file} holds distances (<constrain>), and frames of it cannot be filled in but by "
            "splines: give model='quintic'."
        )


def read_physics(file: Path) -> Physics:
    """Read it from an input as ``mts prepare`` writes them.

    Raises
    ------
    UserError
        If there is something in it that cannot be replayed.
    """
    root = ET.parse(file).getroot()
    dynamics = root.find(".//dynamics")
    mode = "" if dynamics is None else dynamics.get("mode", "").strip()
    thermostat = root.find(".//thermostat")
    kind = "" if thermostat is None else thermostat.get("mode", "").strip()
    require_free_bonds(file)
    nmts = _numbers(root, ".//nmts")
    if mode not in ("nve", "nvt") or (mode == "nvt" and kind != "langevin") or len(nmts) != 2:
        raise UserError(
            f"{file} cannot be replayed: only outer steps at constant volume, with a student and "
            "a Langevin thermostat or none, can."
        )
    friction = 1.0 / _value(root, ".//thermostat/tau", "time", "femtosecond") if kind else 0.0
    register()  # the unit of <hydrogen_friction>
    hydrogen = _value(root, ".//hydrogen_friction", "frequency", INVERSE_PS, missing=0.0) / 1000.0
    whole = _numbers(root, ".//device_steps") != [] and _numbers(root, ".//device_steps")[0] > 0
    if hydrogen and not whole:
        raise UserError(
            f"{file} cannot be replayed: hydrogens with a friction of their own draw noise in "
            "another order, unless <device_steps> are taken."
        )
    if not (seed := _numbers(root, ".//prng/seed")):
        raise UserError(f"{file} cannot be replayed: it has no <seed>.")
    clip = _value(root, ".//force_clip", "force", "ev/ang", missing=0.0)
    velocities = root.find(".//initialize/velocities")
    return Physics(
        _value(root, ".//timestep", "time", "femtosecond"),
        int(nmts[1]),
        _value(root, ".//ensemble/temperature", "temperature", "kelvin", missing=0.0),
        friction,
        max(friction, hydrogen) if friction else 0.0,
        clip or None,
        (root.findtext(".//motion/fixcom") or "true").strip().lower() == "true",
        int(seed[0]),
        velocities is not None and velocities.get("mode", "").strip() == "thermal",
        whole,
    )


def _numbers(root: ET.Element, path: str) -> list[float]:
    words = (root.findtext(path) or "").strip(" []\n").split(",")
    try:
        return [float(word) for word in words if word.strip()]
    except ValueError as error:
        raise UserError(f"<{path.rpartition('/')[2]}> of the input is not understood.") from error


def _value(
    root: ET.Element, path: str, kind: str, unit: str, *, missing: float | None = None
) -> float:
    node = root.find(path)
    if node is None:
        if missing is None:
            raise UserError(f"the input has no <{path.rpartition('/')[2]}>.")
        return missing
    given = node.get("units", "atomic_unit").strip()
    try:
        found = unit_to_internal(kind, given, float(node.text or 0.0))
        return float(unit_to_user(kind, unit, found))
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(f"<{node.tag}> of the input is not understood ({error}).") from error


class Noise:
    """The random numbers of all outer steps, drawn as far as they are asked for.

    Parameters
    ----------
    physics : Physics
        Of the run.
    masses : array, shape (N,)
        eV fs²/Å².
    places : array, shape (n_inner,)
        Of the thermostat steps in the splitting.
    """

    def __init__(self, physics: Physics, masses: np.ndarray, places: np.ndarray) -> None:
        self._physics, self._masses, self._places = physics, masses, places
        self._shape = (len(places), len(masses), 3)
        self._begin()

    def __call__(self, step: int) -> np.ndarray:
        """Noise (n_inner, N, 3) of the outer step behind ``step`` of them."""
        if step < self._done:
            self._begin()
        self._skip(step - self._done)
        return self._draw()

    def _begin(self) -> None:
        self._random, self._done = RandomNumbers(self._physics.seed), 0
        if self._physics.draws_velocities:
            self._random.velocities(self._masses, self._physics.temperature_K)

    def _skip(self, steps: int) -> None:
        self._done += steps
        if self._physics.friction_per_fs and self._physics.seeds_of_steps:
            self._random.skip(steps)
        elif self._physics.friction_per_fs:
            for _ in range(steps):
                self._random.normal(self._shape)

    def _draw(self) -> np.ndarray:
        self._done += 1
        shape = self._shape
        if not self._physics.friction_per_fs:
            return np.zeros(shape)
        if not self._physics.seeds_of_steps:
            return self._random.normal(shape)
        noise = CounterNoise(self._random.seed())
        like = torch.empty(shape[1:], dtype=torch.float64)
        return np.stack([noise(0, int(op), like).numpy() for op in self._places])


class Replay:
    """Fills gaps between outer steps; see `mts_driver.super_resolution.fillers.Filler`.

    Parameters
    ----------
    physics : Physics
        Of the run.
    student : Potential
        Of the run.
    numbers, masses : array, shape (N,)
        Of the atoms; eV fs²/Å².
    cell_A : array, shape (3, 3)
        Zeros for an isolated system.
    steps : array of int, shape (F,)
        Outer steps at which frames are stored.
    """

    def __init__(
        self,
        physics: Physics,
        student: Potential,
        numbers: np.ndarray,
        masses: np.ndarray,
        cell_A: np.ndarray,
        steps: np.ndarray,
    ) -> None:
        self._physics, self._masses, self._cell_A, self._steps = physics, masses, cell_A, steps
        self._model = TimedModel(student, "the student")
        self._seen: list[np.ndarray] = []
        self._forces = np.zeros((1, len(masses), 3))
        friction = np.where(numbers == 1, physics.hydrogen_friction_per_fs, physics.friction_per_fs)
        self._outer = OuterSteps(
            self._teacher,
            self._student,
            masses=masses,
            n=physics.n_inner,
            timestep=physics.outer_fs,
            kT=BOLTZMANN_EV_K * physics.temperature_K,
            friction=friction,
            groups=np.ones((1, len(masses)), bool),
            clip=physics.clip_eV_A,
            fixcom=physics.fixcom,
        )
        self._noise = Noise(physics, masses, self._outer.thermostat_steps)

    def _teacher(self, positions: np.ndarray, cells: np.ndarray) -> Found:
        """Return the stored forces; energies and virials move nothing."""
        return np.zeros(1), self._forces, np.zeros((1, 3, 3))

    def _student(self, positions: np.ndarray, cells: np.ndarray) -> Found:
        self._seen.append(positions[0].copy())
        return self._model(positions, cells)

    def __call__(self, gaps: Gaps, steps: int) -> Bridged:
        """Take the outer step of each gap.

        Raises
        ------
        UserError
            If a gap is no outer step, forces are not known, or a step ends elsewhere than in the
            run.
        """
        known = gaps.known(3, "a replay")
        if not np.isclose(gaps.duration_fs, self._physics.outer_fs, rtol=1e-6):
            raise UserError(
                f"frames {gaps.duration_fs:g} fs apart cannot be replayed: that needs all outer "
                f"steps of {self._physics.outer_fs:g} fs."
            )
        n = self._physics.n_inner
        if steps % n and n % steps:
            raise UserError(
                f"{steps} intervals in an outer step of {n} inner ones: for a replay, one must be "
                "a multiple of the other."
            )
        inside, astray = [], []
        for k in range(len(gaps)):
            path = self._take(known, k)
            end = known.right[0][k]
            astray.append(np.linalg.norm(path[-1] - end, axis=-1))
            if astray[-1].max() > SAME_A:
                raise UserError(
                    f"outer step {self._steps[gaps.first[k]]} ends {astray[-1].max():.2g} Å from "
                    "where the run was: its noise, its student or its input were others. Give "
                    "--model to fill the gaps in another way."
                )
            path[-1] = end
            inside.append(_at(path, known, k, steps))
        return Bridged(np.stack(inside, 1), np.array(astray), np.zeros((0, 0)))

    def _take(self, known: Gaps, k: int) -> np.ndarray:
        """Positions (n + 1, N, 3) at the ends of the inner steps of gap k, the first included."""
        x, v, a = (side[k] for side in known.left)
        masses = np.where(np.isfinite(self._masses), self._masses, 0.0)[:, None]
        self._forces = (a * masses)[None]
        noise = self._noise(int(self._steps[known.first[k]]))
        self._seen.clear()
        self._outer.take(x, v * masses, self._cell_A, noise)
        return np.stack([x, *self._seen[-self._physics.n_inner :]])


def _at(path: np.ndarray, known: Gaps, k: int, steps: int) -> np.ndarray:
    """Positions within the gap, at ``steps`` intervals."""
    n = len(path) - 1
    if n % steps == 0:
        return path[n // steps : n : n // steps]
    times = np.linspace(0.0, known.duration_fs, n + 1)
    ends = ((1, known.left[1][k]), (1, known.right[1][k]))
    found: np.ndarray = CubicSpline(times, path, bc_type=ends)(
        known.duration_fs * np.arange(1, steps) / steps
    )
    return found
