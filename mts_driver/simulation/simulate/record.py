"""What a trajectory shows on its way: values over time, temperatures, and where the student fails.

All of it goes into checkpoints, so that a continued trajectory shows the same.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.jsonio import decode, encode

from integrators.compiled_loop import Found
from integrators.degrees_of_freedom import of_atoms, of_groups
from integrators.outer_steps import Stepped
from mts_driver.analysis.statistics import block_average, canonical_error_K
from mts_driver.errors import UserError
from mts_driver.simulation.holes import Seen
from mts_driver.simulation.resumable_watch import ResumableWatch
from mts_driver.simulation.simulate.result import Holes
from mts_driver.simulation.simulate.settings import SimulationSettings
from mts_driver.simulation.simulate.start import Start
from mts_driver.simulation.simulate.timed_model import BLOWN_UP
from mts_driver.structures.solutes import temperature_groups
from mts_driver.units import BOLTZMANN_EV_K

MOST_FRAMES = 50
"""Of holes, and of hard frames: they are kept in memory."""
EXPLODED_K = 1e5
ALWAYS = (
    *("step", "time_ps", "potential_energy_eV", "kinetic_energy_eV", "conserved_energy_eV"),
    "max_force_difference_eV_A",
)
NAMES = {
    "all": "temperature_K",
    "H": "temperature_H_K",
    "heavy": "temperature_heavy_K",
    "solute H": "temperature_solute_H_K",
    "solute heavy": "temperature_solute_heavy_K",
}


class Record:
    """Sees the first structure, and the end of every outer step.

    Parameters
    ----------
    start : Start
        Of the trajectory.
    settings : SimulationSettings
        Of it.
    clip_eV_A : float
        Bound on the force difference of an atom.
    fixcom : bool
        Whether the centre of mass is kept still, which costs degrees of freedom.

    Attributes
    ----------
    groups : dict of str to bool array
        Atoms whose temperatures are read, of those that have degrees of freedom.
    temperatures_K : dict of str to float
        Of the last thermostat step, for the progress bar.
    """

    def __init__(
        self, start: Start, settings: SimulationSettings, *, clip_eV_A: float, fixcom: bool
    ) -> None:
        self._start, self._settings, self._clip_eV_A = start, settings, clip_eV_A
        moves = np.isfinite(start.masses)
        groups = temperature_groups(start.atoms)
        each = of_atoms(start.masses_Da, moves, fixcom=fixcom) - start.lost_degrees
        self._dof = of_groups(groups, each)
        self.groups = {name: groups[name] & moves for name in self._dof}
        self._columns = (*ALWAYS, *(NAMES[name] for name in self._dof))
        self._rows: list[list[float]] = []
        self._sums, self._readings = np.zeros(len(self._dof)), 0
        self._since, self._readings_since = np.zeros(len(self._dof)), 0
        self._largest_since_eV_A = 0.0
        self._frames: dict[str, list[Atoms]] = {}
        self._watch = ResumableWatch(start.atoms, self._keep)
        self._clip_events = 0
        self._heat_eV = 0.0
        self.temperatures_K: dict[str, float] = {}

    def begin(self, positions: np.ndarray, teacher: Found, student: Found) -> None:
        """See the first structure, with all forces known."""
        self._look(0, positions, teacher, student)
        self._add_row(0, self._start.momenta, float(teacher[0][0]))

    def see(self, step: int, stepped: Stepped) -> None:
        """See the end of an outer step.

        Raises
        ------
        UserError
            If the trajectory has blown up.
        """
        self._heat_eV += stepped.heat
        readings_K = stepped.twice_kinetic / BOLTZMANN_EV_K / np.array(list(self._dof.values()))
        for sums in (self._sums, self._since):
            sums += readings_K.sum(axis=0)
        self._readings += len(readings_K)
        self._readings_since += len(readings_K)
        self.temperatures_K = dict(zip(self._dof, readings_K[-1].tolist(), strict=True))
        if not (readings_K < EXPLODED_K).all():
            raise UserError(f"{readings_K.max():.3g} K at outer step {step}: {BLOWN_UP}")
        self._look(step, stepped.positions, stepped.teacher, stepped.student)
        if step % self._settings.stride == 0:
            self._add_row(step, stepped.momenta, float(stepped.teacher[0][0]))

    def _look(self, step: int, positions: np.ndarray, teacher: Found, student: Found) -> None:
        difference = teacher[1] - student[1]
        norms = np.linalg.norm(difference[0], axis=1)
        self._clip_events += int((norms > self._clip_eV_A).sum())
        self._largest_since_eV_A = max(self._largest_since_eV_A, float(norms.max()))
        label = float(teacher[0][0]), teacher[1][0]
        self._watch.look(
            Seen(
                step=step,
                time_fs=round(step * self._settings.outer_fs, 6),
                positions=positions[None].copy(),
                cell=self._start.cell,
                differences=difference,
                teacher=lambda _: label,
            )
        )

    def _keep(self, file: str, frame: Atoms) -> bool:
        kept = self._frames.setdefault(file, [])
        if len(kept) < MOST_FRAMES:
            kept.append(frame)
        return True

    def _add_row(self, step: int, momenta: np.ndarray, potential_eV: float) -> None:
        moves = np.isfinite(self._start.masses)
        squares = np.square(momenta[moves]).sum(axis=1)
        kinetic_eV = float((squares / self._start.masses[moves]).sum() / 2)
        seen = self._readings_since
        means = self._since / seen if seen else np.full(len(self._since), math.nan)
        total_eV = kinetic_eV + potential_eV - self._heat_eV
        row = [step, 1e-3 * self._settings.outer_fs * step, potential_eV, kinetic_eV, total_eV]
        self._rows.append([*row, self._largest_since_eV_A, *means.tolist()])
        self._since, self._readings_since = np.zeros_like(self._since), 0
        self._largest_since_eV_A = 0.0

    @property
    def largest_eV_A(self) -> float:
        """Largest |F_teacher − F_student| of an atom so far, eV/Å."""
        return self._watch.largest_eV_A

    def saved(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what a checkpoint needs: arrays, and values for JSON."""
        arrays = {
            "rows": np.array(self._rows).reshape(-1, len(self._columns)),
            "temperature_sums": self._sums,
            "temperature_sums_since": self._since,
        }
        return arrays, {
            "readings": [self._readings, self._readings_since],
            "largest_since_eV_A": self._largest_since_eV_A,
            "clip_events": self._clip_events,
            "heat_eV": self._heat_eV,
            "watch": self._watch.saved(),
            "frames": {name: encode(frames) for name, frames in self._frames.items()},
        }

    def restore(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Take over what `saved` returned."""
        self._rows = arrays["rows"].tolist()
        self._sums = arrays["temperature_sums"].copy()
        self._since = arrays["temperature_sums_since"].copy()
        self._readings, self._readings_since = values["readings"]
        self._largest_since_eV_A = values["largest_since_eV_A"]
        self._clip_events, self._heat_eV = values["clip_events"], values["heat_eV"]
        self._watch.restore(values["watch"])
        self._frames.update({name: decode(text) for name, text in values["frames"].items()})

    def close(self) -> None:
        """Keep the hardest frame that is still held back."""
        self._watch.close()

    def properties(self) -> dict[str, np.ndarray]:
        """Return the values over time."""
        table = np.array(self._rows).reshape(-1, len(self._columns))
        found = {name: table[:, k].copy() for k, name in enumerate(self._columns)}
        found["step"] = found["step"].astype(np.int64)
        return found

    def mean_temperatures_K(self) -> dict[str, float]:
        """Return the means over all thermostat steps."""
        if self._readings == 0:
            return {}
        return dict(zip(self._dof, (self._sums / self._readings).tolist(), strict=True))

    def temperature_errors_K(self, frictions_per_ps: np.ndarray) -> dict[str, float | None]:
        """Return the standard errors of the means, None where nothing is known."""
        found, values = dict[str, float | None](), self.properties()
        picoseconds = 1e-3 * self._settings.outer_fs * float(values["step"][-1])
        for name, group in self.groups.items():
            readings = values[NAMES[name]][1:]
            scatter = block_average(readings).stderr if len(readings) else math.nan
            friction = float(frictions_per_ps[group].mean())
            floor = canonical_error_K(
                self._settings.temperature_K, int(group.sum()), friction, picoseconds
            )
            if name.startswith("solute"):  # exchanges heat with what is around it as well
                floor = 0.0
            error = max(0.0 if math.isnan(scatter) else scatter, floor)
            found[name] = error if error > 0 else None
        return found

    def holes(self) -> Holes:
        """Return where the student was wrong."""
        frames = [frame for kept in self._frames.values() for frame in kept]
        return Holes(
            steps=self._watch.holes,
            hard_frames=self._watch.hard_frames,
            clip_events=self._clip_events,
            max_force_difference_eV_A=self._watch.largest_eV_A,
            frames=tuple(sorted(frames, key=lambda frame: int(frame.info["step"]))),
        )
