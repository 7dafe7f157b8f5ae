"""What speaks against a student, read from the report of a check."""

from typing import Any

from mts_driver.analysis.statistics import canonical_error_K

TOLERANCE_K, SIGNIFICANT = 5.0, 3.0
"""A mean temperature is wrong if it is off by more, and by so many standard errors."""


def problems(found: dict[str, Any]) -> list[str]:
    """Return what speaks against the student in a report of `check`; empty if nothing does."""
    out = []
    if found["blown_up"]:
        out.append(f"the trajectory blew up in the {found['blown_up_in']}")
    if found["holes"]:
        out.append(f"{found['holes']} outer steps with a hole")
    if found["broken_bonds"]:
        out.append(f"{found['broken_bonds']} broken bonds between heavy atoms")
    if new := found["new_bonds"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in new.items())
        out.append(f"bonds between atoms that were apart at the start: {kinds}")
    for name, measured in found["temperature_at_O_K"].items():
        if measured is not None:
            off = measured["mean"] - found["temperature_K"]
            error = measured["stderr"]
            # a solute exchanges heat with what is around it, all atoms with the bath alone
            if error is None or "solute" not in name:
                error = max(error or 0.0, _canonical_error_K(name, measured, found))
            if abs(off) > max(TOLERANCE_K, SIGNIFICANT * error):
                out.append(f"{name} atoms are {off:+.0f} K off")
    return out


def _canonical_error_K(name: str, measured: dict[str, Any], found: dict[str, Any]) -> float:
    friction = found["hydrogen_friction_per_ps" if name.endswith("H") else "friction_per_ps"]
    return canonical_error_K(
        found["temperature_K"], measured["atoms"], friction, found["simulated_ps"]
    )
