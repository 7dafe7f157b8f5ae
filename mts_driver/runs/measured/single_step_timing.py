"""The single-step baseline, timed inside the run that it is compared with."""

import time
from collections.abc import Sequence
from typing import Any

TIMESTEP_FS = 1.0
_UNTIMED = 2


def time_single_steps(
    simulation: Any, teachers: Sequence[str], *, steps: int
) -> tuple[float | None, str]:
    """Time velocity-Verlet steps with the teacher alone, then put every coordinate back.

    The steps go through i-PI's own positions, force cache and socket, but not through its
    integrator: neither the random numbers nor the thermostat's energy are touched, and positions
    and momenta are restored bitwise, so that the run that follows does not know.

    Parameters
    ----------
    simulation : ipi.engine.simulation.Simulation
        Bound, with its drivers connected or about to.
    teachers : sequence of str
        Names of the teachers' force fields; one can be timed.
    steps : int
        Steps to time; two more go before, untimed. 0 skips the measurement.

    Returns
    -------
    float or None, str
        Seconds a step, or None and the reason.
    """
    from ipi.utils.depend import dstrip
    from ipi.utils.units import unit_to_internal

    if steps == 0:
        return None, "the measurement was switched off"
    if len(simulation.syslist) != 1:
        return None, f"the input has {len(simulation.syslist)} systems, not one"
    system = simulation.syslist[0]
    beads = system.beads
    forces = [f for f in system.forces.mforces if f.ffield in teachers]
    if len(forces) != 1 or forces[0].nbeads != beads.nbeads:
        return None, "the teacher is not one force field on all beads"
    dt = unit_to_internal("time", "femtosecond", TIMESTEP_FS)
    positions, momenta = dstrip(beads.q).copy(), dstrip(beads.p).copy()
    masses = dstrip(beads.m3)
    force = dstrip(forces[0].f)
    start = time.perf_counter()
    for k in range(steps + _UNTIMED):
        if k == _UNTIMED:
            start = time.perf_counter()
        beads.p[:] += 0.5 * dt * force
        beads.q[:] += dt * dstrip(beads.p) / masses
        force = dstrip(forces[0].f)
        beads.p[:] += 0.5 * dt * force
    seconds = (time.perf_counter() - start) / steps
    beads.q[:] = positions
    beads.p[:] = momenta
    return seconds, ""
