"""Which points of a scan are safe, and the outer step to recommend."""

from typing import Any

from mts_driver.simulation.holes import HOLE_EV_A
from mts_driver.validation.criteria import SIGNIFICANT, TOLERANCE_K

HEATING_K = 3.0
"""Predicted from the drift without a thermostat; the sharper test."""
VARIANCE = 0.10
"""Part by which the variance of X-H bonds may be off, or three standard errors."""


def faults(row: dict[str, Any], temperature_K: float) -> list[str]:
    """Return what speaks against a point; empty if it is safe.

    Parameters
    ----------
    row : dict
        A row of the scan, with ``T_H_error`` and ``T_heavy_error``.
    """
    if row["blown_up"]:
        return ["blew up"]
    out = []
    if not row["max_dF"] <= HOLE_EV_A:
        out.append(f"hole of {row['max_dF']:.1f} eV/Å")
    heating = row["predicted_heating_K"]
    if row["drift_meV_atom_ps"] is None:
        out.append("blew up without a thermostat")
    elif heating is not None and heating > HEATING_K:
        out.append(f"heats by {heating:.0f} K")
    for name in ("H", "heavy"):
        found, error = row[f"T_{name}"], row[f"T_{name}_error"]
        if found is not None and abs(found - temperature_K) > max(TOLERANCE_K, SIGNIFICANT * error):
            out.append(f"T({name}) {found:.0f} K")
    ratio, error = row["xh_var_ratio"], row["xh_var_ratio_error"] or 0.0
    if ratio is not None and abs(ratio - 1) > max(VARIANCE, SIGNIFICANT * error):
        out.append(f"X–H variance × {ratio:.2f}")
    return out


def recommend(rows: list[dict[str, Any]], friction_per_ps: float) -> dict[str, float | None]:
    """Return the largest safe outer steps, with the friction of all atoms alike and with any.

    Extra friction keeps averages of positions, but not dynamics.
    """
    safe = [row for row in rows if row["safe"]]
    alike = [row["outer_fs"] for row in safe if row["friction"] == friction_per_ps]
    return {
        "recommended_outer_fs": max(alike, default=None),
        "recommended_for_sampling_outer_fs": max((row["outer_fs"] for row in safe), default=None),
    }
