"""Which points of a scan are safe, and what to ask of `mts prepare` for the largest step."""

from typing import Any

from mts_driver.simulation.holes import HOLE_EV_A
from mts_driver.thermostats import chosen
from mts_driver.validation.criteria import SIGNIFICANT, TOLERANCE_K
from mts_driver.validation.resonance.points import Setup

HEATING_K = 3.0
"""Predicted from the drift without a thermostat; the sharper test."""
VARIANCE = 0.10
"""Part by which the variance of X-H bonds may be off, or three standard errors."""
PURPOSES = ("dynamics", "sampling")
USUAL = {"friction_per_ps": 1.0, "temperature_K": 300.0}
"""Defaults of `mts prepare`, which need not be given."""


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
    for name in ("H", "heavy", "solute H", "solute heavy"):
        found = row.get(key := f"T_{name.replace(' ', '_')}")
        allowed = max(TOLERANCE_K, SIGNIFICANT * (row.get(f"{key}_error") or 0.0))
        if found is not None and abs(found - temperature_K) > allowed:
            out.append(f"T({name}) {found:.0f} K")
    ratio, error = row["xh_var_ratio"], row["xh_var_ratio_error"] or 0.0
    if ratio is not None and abs(ratio - 1) > max(VARIANCE, SIGNIFICANT * error):
        out.append(f"X–H variance × {ratio:.2f}")
    return out


def recommend(
    rows: list[dict[str, Any]], friction_per_ps: float, temperature_K: float
) -> dict[str, Any]:
    """Return the largest safe outer steps for dynamics and for sampling.

    White noise of the friction of all atoms, coloured noise and held bonds leave slow motion alone:
    these are for dynamics. More friction on all motion of hydrogens keeps averages of positions
    only, and is for sampling, as all others are.

    Returns
    -------
    dict
        ``recommended_outer_fs`` and ``recommended_for_sampling_outer_fs``, fs or None, and
        ``recommended``, for every purpose None or ``outer_fs``, ``arguments`` of
        `mts_driver.prepare` and the same as ``options`` of ``mts prepare``.
    """
    safe = [row for row in rows if row["safe"]]
    gentle = [row for row in safe if row["friction"] == friction_per_ps]
    found = {
        purpose: _found(among, friction_per_ps, temperature_K)
        for purpose, among in (("dynamics", gentle), ("sampling", safe))
    }
    steps = {purpose: one and one["outer_fs"] for purpose, one in found.items()}
    return {
        "recommended_outer_fs": steps["dynamics"],
        "recommended_for_sampling_outer_fs": steps["sampling"],
        "recommended": found,
    }


def _found(
    rows: list[dict[str, Any]], friction_per_ps: float, temperature_K: float
) -> dict[str, Any] | None:
    if not rows:
        return None
    best = max(rows, key=lambda row: (row["outer_fs"], _plainness(Setup.of(row), friction_per_ps)))
    given = arguments(best, friction_per_ps, temperature_K)
    return {"outer_fs": best["outer_fs"], "arguments": given, "options": as_options(given)}


def _plainness(setup: Setup, friction_per_ps: float) -> tuple[float, ...]:
    """Order what reaches the same step: what changes the least comes last."""
    more = setup.friction - friction_per_ps
    return (-more, -setup.constrained, -setup.high_pass, -setup.hmr)


def arguments(row: dict[str, Any], friction_per_ps: float, temperature_K: float) -> dict[str, Any]:
    """Return what `mts_driver.prepare` takes for a run like that of a row."""
    setup = Setup.of(row)
    found: dict[str, Any] = {
        "outer_fs": row["outer_fs"],
        "inner_fs": row["inner_fs"],
        "hydrogen_mass_Da": setup.hmr,
    }
    given = {"friction_per_ps": friction_per_ps, "temperature_K": temperature_K}
    found |= {name: value for name, value in given.items() if value != USUAL[name]}
    more = setup.friction != friction_per_ps
    if more:
        found["hydrogen_friction_per_ps"] = setup.friction
    if setup.constrained:
        found["rigid_water" if setup.rigid_water else "constrain_hydrogens"] = True
    thermostat = "high-pass" if setup.high_pass else "langevin"
    by_itself = chosen(
        "auto",
        outer_fs=row["outer_fs"],
        friction_per_ps=friction_per_ps,
        hydrogen_friction=more,
    )
    if setup.high_pass or thermostat != by_itself:
        found["thermostat"] = thermostat
    return found


def as_options(given: dict[str, Any]) -> str:
    """Return arguments of `mts_driver.prepare` as they are typed behind ``mts prepare``."""
    words = []
    for name, value in given.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(value if isinstance(value, str) else f"{value:.12g}")
    return " ".join(words)
