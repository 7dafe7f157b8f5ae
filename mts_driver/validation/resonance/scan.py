"""The scan over outer steps, masses and frictions; resumable after every point."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from integrators.degrees_of_freedom import FEWEST
from integrators.state import Potential
from mts_driver.analysis.statistics import BlockAverage, canonical_error_K
from mts_driver.errors import UserError
from mts_driver.files import read_json, write_json
from mts_driver.progress import Progress
from mts_driver.simulation.dynamics import friction_of
from mts_driver.simulation.equilibrate import equilibrate
from mts_driver.structures.files import fingerprint
from mts_driver.structures.fixed import moving_atoms
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.validation.drift import (
    FEWEST_STEPS,
    degrees_that_heat,
    nve_respa_drift,
    predicted_heating_K,
)
from mts_driver.validation.resonance.judge import faults, recommend
from mts_driver.validation.resonance.point import DISCARDED, Measured, Point, run_point
from mts_driver.validation.resonance.spectrum import Spectrum


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
    temperature_K: float
    picoseconds: float
    equilibrate_ps: float
    replicas: int
    seed: int

    def __post_init__(self) -> None:
        positive: list[tuple[str, float]] = [
            *(("outer_fs", value) for value in self.outer_fs),
            ("inner_fs", self.inner_fs),
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
        longest = max(self.outer_fs, default=0.0)
        if 1e3 * self.picoseconds < FEWEST_STEPS * longest:
            raise UserError(
                f"picoseconds={self.picoseconds:g}: the outer step of {longest:g} fs needs at "
                f"least {1e-3 * FEWEST_STEPS * longest:g}."
            )

    def points(self) -> Iterator[Point]:
        """Single steps with natural masses first, which the others are compared with."""
        alike = {"friction_per_ps": self.friction_per_ps}
        plain = {**alike, "hydrogen_friction_per_ps": self.friction_per_ps}
        yield Point(outer_fs=self.inner_fs, inner_fs=self.inner_fs, hydrogen_mass_Da=0.0, **plain)
        heaviest = max(self.hydrogen_mass_Da)
        setups = [(mass, self.friction_per_ps) for mass in sorted(self.hydrogen_mass_Da)]
        setups += [(heaviest, more) for more in sorted(self.hydrogen_friction_per_ps)]
        for mass, friction in setups:
            for outer in sorted(self.outer_fs):
                yield Point(
                    outer_fs=outer,
                    inner_fs=outer / max(1, round(outer / self.inner_fs)),
                    hydrogen_mass_Da=mass,
                    hydrogen_friction_per_ps=friction,
                    **alike,
                )


def scan(
    atoms: Atoms,
    teacher: Potential,
    student: Potential,
    settings: ScanSettings,
    *,
    state_file: Path,
    report: Progress,
) -> dict[str, Any]:
    """Run all points that ``state_file`` does not hold yet, and judge them.

    Returns
    -------
    dict
        ``recommended_outer_fs``, ``recommended_for_sampling_outer_fs``, ``reference`` and
        ``scan``, a row a point.

    Raises
    ------
    UserError
        If ``state_file`` belongs to other settings, or masses cannot be repartitioned.
    """
    identity = {**json.loads(json.dumps(asdict(settings))), "structure": fingerprint(atoms)}
    rows = _load(state_file, identity)
    points = list(settings.points())
    for mass in settings.hydrogen_mass_Da:
        repartitioned_masses(atoms, mass)  # finds what cannot be repartitioned before any work
    start = _equilibrated(atoms, student, settings, report)
    for number in range(len(rows), len(points)):
        point = points[number]
        rows.append(_row(start, teacher, student, settings, point, rows, report))
        _save(state_file, identity, rows)
    for row in rows:
        row["faults"] = faults(row, settings.temperature_K)
        row["safe"] = not row["faults"]
    reference, *rest = rows
    return {
        **recommend(rest, settings.friction_per_ps),
        **asdict(settings),
        "atoms": len(atoms),
        "reference": reference,
        "scan": rest,
    }


def _equilibrated(
    atoms: Atoms, student: Potential, settings: ScanSettings, report: Progress
) -> Atoms:
    if settings.equilibrate_ps == 0:
        return atoms
    return equilibrate(
        atoms,
        repartitioned_masses(atoms, 0.0),
        student,
        temperature_K=settings.temperature_K,
        picoseconds=settings.equilibrate_ps,
        timestep_fs=min(settings.inner_fs, 1.0),
        seed=settings.seed,
        report=lambda step, of: report("equilibration with the student", step, of),
    )


def _row(
    atoms: Atoms,
    teacher: Potential,
    student: Potential,
    settings: ScanSettings,
    point: Point,
    before: list[dict[str, Any]],
    report: Progress,
) -> dict[str, Any]:
    mass, friction = point.hydrogen_mass_Da, point.hydrogen_friction_per_ps
    name = f"{point.outer_fs:g} fs, {f'H of {mass:g} Da' if mass else 'natural masses'}"
    name += f", {friction:g}/ps on H" if friction != point.friction_per_ps else ""
    measured = run_point(
        atoms,
        teacher,
        student,
        point,
        temperature_K=settings.temperature_K,
        picoseconds=settings.picoseconds,
        replicas=settings.replicas,
        seed=settings.seed,
        report=lambda step, of: report(name, step, 2 * of),
    )
    # without a thermostat its friction is no matter
    known = {(row["outer_fs"], row["hmr"]): row["drift_meV_atom_ps"] for row in before}
    if (point.outer_fs, mass) in known:
        drift = known[point.outer_fs, mass]
    else:
        found = nve_respa_drift(
            [atoms],
            teacher,
            student,
            outer_fs=point.outer_fs,
            inner_fs=point.inner_fs,
            picoseconds=settings.picoseconds,
            temperature_K=settings.temperature_K,
            hydrogen_mass_Da=mass,
            seeds=(settings.seed,),
            report=lambda _, step, of: report(name, of + step, 2 * of),
        ).mean
        drift = found if math.isfinite(found) else None
    return _as_row(atoms, settings, point, measured, drift, before)


def _as_row(
    atoms: Atoms,
    settings: ScanSettings,
    point: Point,
    measured: Measured,
    drift: float | None,
    before: list[dict[str, Any]],
) -> dict[str, Any]:
    moves, hydrogen = moving_atoms(atoms), atoms.numbers == 1
    counts = {"H": int((moves & hydrogen).sum()), "heavy": int((moves & ~hydrogen).sum())}
    gammas = {"H": point.hydrogen_friction_per_ps, "heavy": point.friction_per_ps}
    kept_ps = (1 - DISCARDED) * settings.picoseconds * settings.replicas
    row: dict[str, Any] = {
        "outer_fs": point.outer_fs,
        "inner_fs": point.inner_fs,
        "hmr": point.hydrogen_mass_Da,
        "friction": point.hydrogen_friction_per_ps,
    }
    for name, average in (("H", measured.T_H), ("heavy", measured.T_heavy)):
        floor = canonical_error_K(settings.temperature_K, counts[name], gammas[name], kept_ps)
        row[f"T_{name}"] = _mean(average)
        row[f"T_{name}_error"] = max(_error(average) or 0.0, floor) if average else None
    reference = before[0] if before else None
    variance, error = _mean(measured.xh_variance), _error(measured.xh_variance)
    row |= {
        "xh_mean": _mean(measured.xh_mean),
        "xh_variance_A2": variance,
        "xh_variance_A2_error": error,
        "xh_var_ratio": 1.0 if variance else None,
        "xh_var_ratio_error": None,
        "max_dF": measured.max_dF if math.isfinite(measured.max_dF) else 1e9,
        "drift_meV_atom_ps": drift,
        "predicted_heating_K": _heating_K(atoms, point, drift),
        "diffusion_cm2_s": measured.diffusion_cm2_s,
        "diffusion_ratio": 1.0 if measured.diffusion_cm2_s else None,
        "s_per_ps": measured.s_per_ps,
        "speedup": 1.0,
        "blown_up": measured.blown_up,
        **_vibrations(measured.vdos),
    }
    if reference is not None:
        row["speedup"] = reference["s_per_ps"] / measured.s_per_ps
        if variance and reference["xh_variance_A2"]:
            ratio = variance / reference["xh_variance_A2"]
            relative = [(error or 0.0) / variance]
            relative.append(
                (reference["xh_variance_A2_error"] or 0.0) / reference["xh_variance_A2"]
            )
            row |= {"xh_var_ratio": ratio, "xh_var_ratio_error": ratio * math.hypot(*relative)}
        if measured.diffusion_cm2_s and reference["diffusion_cm2_s"]:
            row["diffusion_ratio"] = measured.diffusion_cm2_s / reference["diffusion_cm2_s"]
    return row


def _heating_K(atoms: Atoms, point: Point, drift: float | None) -> float | None:
    """Return what a drift leads to; None without one, or where nothing can heat."""
    degrees = degrees_that_heat(atoms, repartitioned_masses(atoms, point.hydrogen_mass_Da))
    if drift is None or degrees.sum() < FEWEST:
        return None
    # a bath takes f_i k_B γ_i (T - T_bath) a time from atom i, so that frictions add up
    frictions = friction_of(atoms.numbers, point.friction_per_ps, point.hydrogen_friction_per_ps)
    mean = float((frictions.numpy() * degrees).sum() / degrees.sum())
    return predicted_heating_K(drift, mean, degrees.sum() / moving_atoms(atoms).sum())


def _vibrations(found: Spectrum | None) -> dict[str, Any]:
    if found is None:
        return {"xh_stretch_cm1": None, "xh_stretch_width_cm1": None, "vdos": None}
    return {
        "xh_stretch_cm1": found.stretch_peak_cm1,
        "xh_stretch_width_cm1": found.stretch_width_cm1,
        "vdos": {
            "wavenumber_cm1": found.wavenumber_cm1.round(1).tolist(),
            "hydrogens": found.density.round(4).tolist(),
        },
    }


def _mean(average: BlockAverage | None) -> float | None:
    return None if average is None or not math.isfinite(average.mean) else average.mean


def _error(average: BlockAverage | None) -> float | None:
    return None if average is None or not math.isfinite(average.stderr) else average.stderr


def _load(file: Path, identity: dict[str, Any]) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    remedy = "remove it to start anew."
    found = read_json(file, keys=["settings", "rows"], remedy=remedy)
    before, rows = found["settings"], found["rows"]
    for name in sorted(identity):
        if before.get(name) != identity[name]:
            raise UserError(
                f"'{file}' is a scan with {name}={before.get(name)}, not {identity[name]}: give "
                "another json_file, or remove it to start anew."
            )
    assert isinstance(rows, list)
    return rows


def _save(file: Path, identity: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    write_json(file, {"settings": identity, "rows": rows})
