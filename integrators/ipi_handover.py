"""Hands the inner loop over to a driver that can propagate, in one message an outer step.

The driver walks the same splitting with the same noise, so that the trajectory is that of the steps
taken here, to rounding. What it cannot do stays here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ipi.engine.thermostats import ThermoLangevin
from ipi.utils.depend import dstrip
from ipi.utils.messages import info, verbosity
from ipi.utils.units import Constants

from integrators.ipi_friction import local_friction


class Handover:
    """The inner steps of one integrator, taken elsewhere.

    Parameters
    ----------
    integrator : integrators.ipi_integrator.RespaMixin
        Bound.
    driver : object
        With ``propagate(values, arrays) -> arrays``, see `mts_driver.drivers.propagator`.
    """

    def __init__(self, integrator, driver) -> None:
        self._of, self._driver = integrator, driver

    @classmethod
    def of(cls, integrator) -> Handover | None:
        """Return one if the student's driver offers it and it can do what the input asks for."""
        parts = [part for part in integrator.forces.mforces if part.mts_weights[-1] == 1]
        driver = getattr(getattr(parts[-1], "ff", None), "driver", None) if parts else None
        if not hasattr(driver, "propagate"):
            return None
        reason = _obstacle(integrator)
        where = f"in i-PI, since {reason}" if reason else "in the driver, one message an outer step"
        info(f" @RESPA: inner steps are taken {where}", verbosity.low)
        return None if reason else cls(integrator, driver)

    def step(self, n: int, timestep: float) -> None:
        """Take ``n`` inner steps, ``timestep`` in all, atomic units."""
        of = self._of
        beads, monitor = of.beads, of.monitor
        masses = np.array(dstrip(beads.m))
        friction = noise = np.zeros(0)
        if hasattr(of, "tstep"):
            friction, noise = self._noise(n, len(masses))
        found = self._driver.propagate(
            {
                "n": n,
                "timestep": timestep,
                "kT": Constants.kb * float(of.ensemble.temp),
                "fixcom": bool(of.fixcom),
            },
            {
                "q": np.array(dstrip(beads.q)).reshape(-1, 3),
                "p": np.array(dstrip(beads.p)).reshape(-1, 3),
                "masses": masses,
                "cell": np.array(dstrip(of.forces.cell.h)).T,
                "friction": friction,
                "noise": noise,
                "groups": np.array(list(monitor.groups.values())),
            },
        )
        beads.q[0], beads.p[0] = found["q"].reshape(-1), found["p"].reshape(-1)
        of.ensemble.eens -= float(found["heat"])
        for values in found["twice_kinetic"]:
            monitor.record(dict(zip(monitor.groups, values, strict=True)))

    def _noise(self, n: int, natoms: int) -> tuple[np.ndarray, np.ndarray]:
        """Friction (N,) and noise (n, N, 3), drawn in the order in which i-PI's steps draw it."""
        of, prng = self._of, self._of.prng
        own, extra = local_friction(of.thermostat), of.hydrogen_friction
        friction, noise = np.full(natoms, own), np.empty((n, natoms, 3))
        for k in range(n):
            noise[k] = prng.gvec(3 * natoms).reshape(-1, 3)
            if extra is not None:
                extra.mix(noise[k], own)
        if extra is not None:
            friction[extra.atoms] = extra.friction
        return friction, noise


def _obstacle(integrator) -> str | None:
    """Return what a driver cannot do, in words."""
    checks: list[tuple[Any, str]] = [
        (len(integrator.nmts) != 2, "there are not two levels"),
        (integrator.beads.nbeads > 1, "there are several beads"),
        (integrator.enstype not in ("nve", "nvt"), f"the ensemble is {integrator.enstype}"),
        (len(integrator.fixatoms_dof) > 0, "there are fixed atoms"),
        (
            hasattr(integrator, "tstep") and type(integrator.thermostat) is not ThermoLangevin,
            "the thermostat is not 'langevin'",
        ),
    ]
    return next((reason for applies, reason in checks if applies), None)
