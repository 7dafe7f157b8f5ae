"""From what a run showed to a row of the scan, beside that of single steps."""

import math
from typing import Any

import numpy as np
from ase import Atoms

from integrators.degrees_of_freedom import FEWEST
from mts_driver.analysis.statistics import BlockAverage, canonical_error_K
from mts_driver.structures.fixed import moving_atoms
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.thermostats import high_pass_noise
from mts_driver.validation.drift import degrees_that_heat, predicted_heating_K
from mts_driver.validation.resonance.point import DISCARDED, Measured
from mts_driver.validation.resonance.points import Point, ScanSettings, Setup
from mts_driver.validation.resonance.spectrum import Spectrum


def as_row(
    atoms: Atoms,
    settings: ScanSettings,
    point: Point,
    measured: Measured,
    drift: float | None,
    before: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return what JSON can hold of a point.

    Parameters
    ----------
    drift : float or None
        meV/atom/ps; None if the run without a thermostat blew up.
    before : list of dict
        Rows so far, that of single steps first.
    """
    reference = before[0] if before else None
    friction_H = _friction_H(point, before)
    row: dict[str, Any] = {
        "outer_fs": point.outer_fs,
        "inner_fs": point.inner_fs,
        **point.setup._asdict(),
        "mean_friction_H_per_ps": friction_H,
        "high_pass_friction_H_per_ps": measured.high_pass_friction_H_per_ps,
        **_temperatures(settings, point, measured, friction_H),
        "xh_mean": _mean(measured.xh_mean),
        **_with_ratio("xh_variance_A2", "xh_var_ratio", measured.xh_variance, reference),
        "max_dF": measured.max_dF if math.isfinite(measured.max_dF) else 1e9,
        "drift_meV_atom_ps": drift,
        "predicted_heating_K": heating_K(
            atoms,
            point,
            drift,
            friction_H_per_ps=friction_H,
            lost_degrees=measured.lost_degrees,
        ),
        **_diffusion(point, measured, reference),
        "s_per_ps": measured.s_per_ps,
        "speedup": 1.0 if reference is None else reference["s_per_ps"] / measured.s_per_ps,
        "blown_up": measured.blown_up,
        **_vibrations(measured.vdos),
    }
    return row


def _friction_H(point: Point, before: list[dict[str, Any]]) -> float:
    """Return at what friction hydrogens give heat to the thermostat, 1/ps.

    That of coloured noise comes from their motion at the shortest step with the same masses and
    white noise. Without one there is the friction of slow motion: heating is an upper bound then.
    """
    if not point.high_pass:
        return point.hydrogen_friction_per_ps
    white = point.setup._replace(high_pass=False)
    found = (row["high_pass_friction_H_per_ps"] for row in before if Setup.of(row) == white)
    return next((value for value in found if value is not None), point.friction_per_ps)


def heating_K(
    atoms: Atoms,
    point: Point,
    drift: float | None,
    *,
    friction_H_per_ps: float | None = None,
    lost_degrees: np.ndarray | float = 0.0,
) -> float | None:
    """Return what a drift leads to, K; None without one, or where nothing can heat.

    Parameters
    ----------
    friction_H_per_ps : float, optional
        Of hydrogens, 1/ps; by default that of the point. Heavy atoms count as slow under coloured
        noise, which they are for the most part, so that the heating is rather overrated.
    """
    masses = repartitioned_masses(atoms, point.hydrogen_mass_Da)
    degrees = degrees_that_heat(atoms, masses) - lost_degrees
    if drift is None or degrees.sum() < FEWEST:
        return None
    if friction_H_per_ps is None:
        friction_H_per_ps = point.hydrogen_friction_per_ps
    frictions = np.where(atoms.numbers == 1, friction_H_per_ps, point.friction_per_ps)
    # a bath takes f_i k_B γ_i (T - T_bath) a time from atom i, so that frictions add up
    mean = float((frictions * degrees).sum() / degrees.sum())
    return predicted_heating_K(drift, mean, degrees.sum() / moving_atoms(atoms).sum())


def _temperatures(
    settings: ScanSettings, point: Point, measured: Measured, friction_H_per_ps: float
) -> dict[str, float | None]:
    kept_ps = (1 - DISCARDED) * settings.picoseconds * settings.replicas
    found: dict[str, float | None] = {}
    for name, gamma in (
        ("H", friction_H_per_ps),
        ("heavy", point.friction_per_ps),
        # a solute exchanges heat with what is around it, all atoms with the bath alone
        ("solute H", math.inf),
        ("solute heavy", math.inf),
    ):
        average, key = measured.temperatures_K.get(name), f"T_{name.replace(' ', '_')}"
        found |= {key: _mean(average), f"{key}_error": None}
        if average is not None:
            degrees = measured.degrees[name]
            floor = canonical_error_K(settings.temperature_K, degrees / 3, gamma, kept_ps)
            found[f"{key}_error"] = max(_error(average) or 0.0, floor)
    return found


def _with_ratio(
    name: str, ratio: str, average: BlockAverage | None, reference: dict[str, Any] | None
) -> dict[str, float | None]:
    """Return a value, its ratio to that of single steps, and the standard errors of both."""
    value, error = _mean(average), _error(average)
    found = {name: value, f"{name}_error": error, ratio: None, f"{ratio}_error": None}
    if reference is None:
        return found | {ratio: 1.0 if value else None}
    single = reference[name]
    if value and single:
        relative = math.hypot((error or 0.0) / value, (reference[f"{name}_error"] or 0.0) / single)
        found |= {ratio: value / single, f"{ratio}_error": abs(value / single) * relative}
    return found


def _diffusion(
    point: Point, measured: Measured, reference: dict[str, Any] | None
) -> dict[str, float | None]:
    """Return the same of diffusion, whose ratio is without the inertia of coloured noise."""
    name, ratio = "diffusion_cm2_s", "diffusion_ratio"
    found = _with_ratio(name, ratio, measured.diffusion_cm2_s, reference)
    if point.high_pass:
        pace = high_pass_noise(point.friction_per_ps).slowdown
        for key in (ratio, f"{ratio}_error"):
            value = found[key]
            found[key] = None if value is None else pace * value
    return found


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
