"""Hands steps over to a driver that can take them, in one message an outer step, or several.

The driver walks the same splitting. With the inner loop it gets the noise that i-PI draws, so that
the trajectory is that of the steps taken here, to rounding; whole outer steps are in
:mod:`integrators.ipi.run_ahead`. What a driver cannot do stays here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ipi.engine.thermostats import ThermoGLE, ThermoLangevin, ThermoPILE_L
from ipi.utils.depend import dstrip
from ipi.utils.messages import info, verbosity
from ipi.utils.nmtransform import mk_nm_matrix
from ipi.utils.units import Constants

from integrators.ipi.drivers import TakesInnerSteps, drivers
from integrators.ipi.friction import local_friction


class Handover:
    """The inner steps of one integrator, taken elsewhere.

    Parameters
    ----------
    integrator : integrators.ipi.integrator.RespaMixin
        Bound.
    driver : TakesInnerSteps
        Of the student.
    """

    def __init__(self, integrator, driver: TakesInnerSteps) -> None:
        self._of, self._driver = integrator, driver

    @classmethod
    def of(cls, integrator) -> Handover | None:
        """Return one if the student's driver offers it and it can do what the input asks for."""
        _, driver = drivers(integrator)
        if not isinstance(driver, TakesInnerSteps):
            return None
        reason = obstacle(integrator)
        where = f"in i-PI, since {reason}" if reason else "in the driver, one message an outer step"
        info(f" @RESPA: inner steps are taken {where}", verbosity.low)
        return None if reason else cls(integrator, driver)

    def step(self, n: int, timestep: float) -> None:
        """Take ``n`` inner steps, ``timestep`` in all, atomic units."""
        of = self._of
        noise = self._noise(n) if hasattr(of, "tstep") else np.zeros(0)
        values, arrays = request(of, n, timestep)
        found = self._driver.propagate(values, {**arrays, "noise": noise})
        take_over(of, found)

    def _noise(self, n: int) -> np.ndarray:
        """Noise (n, P, N, 3) of normal modes, drawn in the order in which i-PI's steps draw it."""
        of, prng, extra = self._of, self._of.prng, self._of.hydrogen_friction
        beads, natoms = of.beads.nbeads, of.beads.natoms
        if type(of.thermostat) is ThermoGLE:
            shape = dstrip(of.thermostat.s).shape
            across = 0 if of.held is None else 1
            noise = np.empty((n, shape[0] + across, beads, natoms, 3))
            for one in noise:
                if across:
                    one[-1] = prng.gvec(3 * natoms).reshape(-1, 3)
                one[: shape[0]] = prng.gvec(shape).reshape(-1, beads, natoms, 3)
            return noise
        noise = np.empty((n, beads, natoms, 3))
        for one in noise:
            for mode in one:
                mode[:] = prng.gvec(3 * natoms).reshape(-1, 3)
            if extra is not None:
                extra.mix(one[0], local_friction(of.thermostat))
        return noise


def request(of, n: int, timestep: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return values and arrays of a request to take steps from here, but for the noise."""
    beads = of.beads
    several = beads.nbeads > 1
    values = {
        "n": n,
        "timestep": timestep,
        "kT": Constants.kb * float(of.ensemble.temp) * beads.nbeads,
        "fixcom": bool(of.fixcom),
    }
    arrays = {
        "q": np.array(dstrip(beads.q)).reshape(beads.nbeads, -1, 3),
        "p": np.array(dstrip(beads.p)).reshape(beads.nbeads, -1, 3),
        "masses": np.array(dstrip(beads.m)),
        "cell": np.array(dstrip(of.forces.cell.h)).T,
        "friction": _friction(of) if hasattr(of, "tstep") else np.zeros(0),
        **_coloured(of),
        **({} if of.held is None else {"held": of.held.pairs, "lengths": of.held.lengths}),
        "groups": np.array(list(of.monitor.groups.values()), bool).reshape(-1, beads.natoms),
        "modes": mk_nm_matrix(beads.nbeads) if several else np.zeros(0),
        "omega": np.array(dstrip(of.nm.omegak)) if several else np.zeros(0),
    }
    return values, arrays


def take_over(of, found: dict[str, np.ndarray]) -> None:
    """Set positions, momenta, conserved energy and readings to those behind the steps."""
    nbeads = of.beads.nbeads
    of.beads.q[:] = found["q"].reshape(nbeads, -1)
    of.beads.p[:] = found["p"].reshape(nbeads, -1)
    of.ensemble.eens -= float(found["heat"])
    if "extra" in found:
        extra = of.thermostat.s
        extra[1:] = found["extra"].reshape(len(extra) - 1, -1)
    for values in found["twice_kinetic"]:
        of.monitor.record(dict(zip(of.monitor.groups, values, strict=True)))


def _friction(of) -> np.ndarray:
    """Friction (P, N) of every normal mode of every atom; none with coloured noise."""
    thermostat, natoms = of.thermostat, of.beads.natoms
    if type(thermostat) is ThermoGLE:
        return np.zeros(0)
    friction = np.full((of.beads.nbeads, natoms), local_friction(thermostat))
    if len(friction) > 1:
        friction[1:] = 1.0 / np.array(dstrip(thermostat.tauk))[:, None]
    if (extra := of.hydrogen_friction) is not None:
        friction[0, extra.atoms] = extra.friction
    return friction


def _coloured(of) -> dict[str, np.ndarray]:
    """Drift matrix and extra momenta of coloured noise; nothing without it."""
    thermostat: Any = of.thermostat if hasattr(of, "tstep") else None
    if type(thermostat) is not ThermoGLE:
        return {}
    extra = np.array(dstrip(thermostat.s))[1:].reshape(-1, of.beads.nbeads, of.beads.natoms, 3)
    return {"drift": np.array(dstrip(thermostat.A)), "extra": extra}


def obstacle(integrator) -> str | None:
    """Return what a driver cannot do, in words."""
    nm, nbeads = integrator.nm, integrator.beads.nbeads
    known = (ThermoLangevin, ThermoGLE) if nbeads == 1 else (ThermoPILE_L,)
    thermostat: Any = None
    if hasattr(integrator, "tstep"):
        thermostat = getattr(integrator, "thermostat", None)
    modes = nm.mode == "rpmd" and nm.propagator == "exact"
    names = "'langevin' or 'gle'" if nbeads == 1 else "'pile_l'"
    checks: list[tuple[Any, str]] = [
        (len(integrator.nmts) != 2, "there are not two levels"),
        (integrator.enstype not in ("nve", "nvt"), f"the ensemble is {integrator.enstype}"),
        (len(integrator.fixatoms_dof) > 0, "there are fixed atoms"),
        (
            thermostat is not None and type(thermostat) not in known,
            f"the thermostat is not {names}",
        ),
        (
            type(thermostat) is ThermoGLE and thermostat._C._func is None,
            "the coloured noise has a covariance of its own",
        ),
        (
            type(thermostat) is ThermoGLE and integrator.hydrogen_friction is not None,
            "hydrogens have a friction beside coloured noise",
        ),
        (
            nbeads > 1 and getattr(thermostat, "pilect", 0.0) > 0,
            "centroids have a temperature of their own",
        ),
        (
            nbeads > 1 and (not modes or len(nm.open_paths) or len(nm.bosons)),
            "the normal modes are not those of 'rpmd', propagated exactly",
        ),
        (
            any(f.nbeads != nbeads for f in integrator.forces.mforces if f.mts_weights[-1] == 1),
            "the student is on fewer beads",
        ),
    ]
    return next((reason for applies, reason in checks if applies), None)
