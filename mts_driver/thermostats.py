"""Which thermostat a run has: white noise, or noise that damps fast vibrations only."""

import math
from typing import TYPE_CHECKING

from mts_driver.errors import UserError

if TYPE_CHECKING:
    from integrators.gle import ColouredNoise

THERMOSTATS = ("auto", "langevin", "high-pass")
BEYOND_FS = 6.0
"""Outer steps up to here need no more than white noise of 1/ps."""
HIGH_FRICTION_PER_PS = 50.0
"""Of the high-pass noise on the fastest motion; see `mts resonance` for what it does."""
CUTOFF_PER_CM = 1200.0
"""Where half of it acts: above all that diffusion and libration do."""
HIGH_PASS_NAME = f"of second order, from {CUTOFF_PER_CM:g}/cm on"
"""What tells it from that of other versions, whose runs do not go on with it."""


def chosen(
    thermostat: str,
    *,
    outer_fs: float,
    student: bool = True,
    friction_per_ps: float = 1.0,
    hydrogen_friction: bool = False,
    beads: int = 1,
) -> str:
    """Return ``langevin`` or ``high-pass``: what is asked for, or what the outer step needs.

    Raises
    ------
    UserError
        If coloured noise is asked for where it cannot be had, or the name is another.
    """
    reasons = (
        (hydrogen_friction, "hydrogen_friction_per_ps, which is white noise"),
        (beads > 1, f"beads={beads}: the vibrations of ring polymers have noise of their own"),
        (friction_per_ps == 0, "friction_per_ps=0, which is constant energy"),
    )
    against = next((reason for applies, reason in reasons if applies), None)
    if thermostat == "auto":
        return "high-pass" if student and outer_fs > BEYOND_FS and not against else "langevin"
    if thermostat not in THERMOSTATS:
        raise UserError(f"thermostat={thermostat!r}: use {', '.join(THERMOSTATS)}.")
    if thermostat == "high-pass" and against:
        raise UserError(f"thermostat='high-pass' with {against}: leave one of the two out.")
    return thermostat


def high_friction(asked_per_ps: float | None, *, high_pass: bool) -> float:
    """Return what coloured noise has more on fast motion, 1/ps: what is asked for, or the usual.

    Raises
    ------
    UserError
        If it is no number above 0, or the noise is white.
    """
    if asked_per_ps is None:
        return HIGH_FRICTION_PER_PS
    if not high_pass:
        raise UserError(
            f"high_friction_per_ps={asked_per_ps:g} is of coloured noise, and this run has white "
            "noise: give thermostat='high-pass' as well, or leave it out."
        )
    if not 0 < asked_per_ps < math.inf:
        raise UserError(f"high_friction_per_ps={asked_per_ps:g}: give a finite number above 0.")
    return asked_per_ps


def high_pass_noise(
    friction_per_ps: float, high_friction_per_ps: float = HIGH_FRICTION_PER_PS
) -> "ColouredNoise":
    """Return the noise that ships: ``friction_per_ps`` on slow motion, and more on fast."""
    from integrators.gle import high_pass

    return high_pass(
        friction_per_ps=friction_per_ps,
        high_friction_per_ps=high_friction_per_ps,
        cutoff_per_cm=CUTOFF_PER_CM,
    )
