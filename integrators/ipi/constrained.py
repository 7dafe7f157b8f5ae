"""Distances that are held, inside i-PI: ``<constrain>`` names the file that lists them.

The same drifts along the manifold and projections as in the loop of a driver, on i-PI's arrays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ipi.engine.thermostats import ThermoGLE, ThermoLangevin, ThermoSVR
from ipi.utils.depend import dstrip
from ipi.utils.messages import info, verbosity
from ipi.utils.units import Constants, unit_to_internal

from integrators import distances_file

OFF = 1e-7
"""Of a length, and of a velocity, relative: a start that is further off is moved; no RESTART is."""


class HeldDistances:
    """The constraints of one integrator.

    Parameters
    ----------
    integrator : integrators.ipi.integrator.RespaMixin
        Bound.
    file : str
        See `integrators.distances_file`.

    Attributes
    ----------
    pairs, lengths : arrays, shapes (M, 2) and (M,)
        In Bohr.
    lost_degrees : array, shape (N,)
        Degrees of freedom that atoms have lost, at the start.

    Raises
    ------
    ValueError
        If the file is none, or the simulation cannot hold distances.
    """

    def __init__(self, integrator, file: str) -> None:
        # for inputs that ask for it only: it takes torch and numba
        import torch

        from integrators.compiled_constraints import bonds_of, fill_across, rattle, shake
        from integrators.constraints import Constraints, Distances

        self._of = integrator
        _check(integrator)
        self._bonds_of, self._rattle, self._shake, self._make = bonds_of, rattle, shake, Constraints
        self._fill_across = fill_across if type(_thermostat(integrator)) is ThermoGLE else None
        self.pairs, lengths_A = distances_file.read(Path(file))
        self.lengths = lengths_A * unit_to_internal("length", "angstrom", 1.0)
        self._distances = Distances(self.pairs, self.lengths)
        masses = np.array(dstrip(integrator.beads.m))
        try:
            made = self._made(self._q())
            onto = made.onto(torch.from_numpy(self._q()), torch.from_numpy(masses))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"<constrain> {file}: {error}") from error
        self.lost_degrees = made.lost_degrees(onto, torch.from_numpy(masses)).numpy()
        self._m = masses[:, None].repeat(3, axis=1)
        self._ready = False
        self._load(made, onto.numpy())
        info(f" @RESPA: {made.count} distances of {file} are held", verbosity.low)

    def _load(self, c, q: np.ndarray) -> None:
        """Load what is compiled: half a second, which the first step would take."""
        bonds, p = np.empty((*c.squares.shape, 3)), np.zeros_like(q)
        self._bonds_of(q, c.pairs, c.images, c.counts, bonds)
        shared = c.inverse_masses
        self._shake(q, p, self._m, 1.0, bonds, c.pairs, c.squares, c.images, shared, c.counts)
        self._rattle(q, p, self._m, c.pairs, c.images, shared, c.counts)
        if self._fill_across is not None:
            self._fill_across(q, p, self._m, 0.0, p, c.pairs, c.images, shared, c.counts)

    def _q(self) -> np.ndarray:
        return np.array(dstrip(self._of.beads.q)).reshape(-1, 3)

    def _p(self) -> np.ndarray:
        return np.array(dstrip(self._of.beads.p)).reshape(-1, 3)

    def _made(self, q: np.ndarray):
        cell = np.array(dstrip(self._of.forces.cell.h)).T
        return self._make.of(self._distances, np.array(dstrip(self._of.beads.m)), q, cell)

    def begin_step(self) -> None:
        """See which images are bonded; before the first step, move the start onto the manifold."""
        self._now = self._made(self._q())
        if not self._ready:
            self._ready = True
            self._move_start()

    def _move_start(self) -> None:
        import torch

        q, p = self._q(), self._p()
        made, masses = self._now, torch.from_numpy(self._m[:, 0].copy())
        moved = made.onto(torch.from_numpy(q), masses).numpy()
        if np.abs(moved - q).max() > OFF * self.lengths.max():
            self._of.beads.q[:] = moved.reshape(1, -1)
            q = moved
        v = torch.from_numpy(p / self._m)
        tangent = made.tangent(torch.from_numpy(q), v, masses).numpy()
        if np.abs(tangent - p / self._m).max() > OFF * max(np.abs(p / self._m).max(), 1e-30):
            self._of.beads.p[:] = (tangent * self._m).reshape(1, -1)

    def before_drift(self) -> None:
        """Remember the bonds that the next drift is along."""
        c = self._now
        self._lead = np.empty((*c.squares.shape, 3))
        self._bonds_of(self._q(), c.pairs, c.images, c.counts, self._lead)

    def behind_drift(self, dt: float) -> None:
        """Bring a free drift back onto the manifold."""
        q, p, c = self._q(), self._p(), self._now
        shared = c.inverse_masses
        self._shake(q, p, self._m, dt, self._lead, c.pairs, c.squares, c.images, shared, c.counts)
        self._rattle(q, p, self._m, c.pairs, c.images, shared, c.counts)
        self._of.beads.q[:], self._of.beads.p[:] = q.reshape(1, -1), p.reshape(1, -1)

    def before_thermostat(self) -> None:
        """Give momenta the part across the manifold that coloured noise starts from."""
        if self._fill_across is None:
            return
        of, c = self._of, self._now
        q, p, kT = self._q(), self._p(), Constants.kb * float(of.ensemble.temp)
        noise, shared = of.prng.gvec(p.size).reshape(p.shape), c.inverse_masses
        gained = self._fill_across(q, p, self._m, kT, noise, c.pairs, c.images, shared, c.counts)
        of.ensemble.eens -= gained
        of.beads.p[:] = p.reshape(1, -1)

    def project(self) -> float:
        """Project the momenta, and return the kinetic energy that goes."""
        q, p, c = self._q(), self._p(), self._now
        lost = self._rattle(q, p, self._m, c.pairs, c.images, c.inverse_masses, c.counts)
        self._of.beads.p[:] = p.reshape(1, -1)
        return float(lost)


def _thermostat(integrator) -> Any:
    return getattr(integrator, "thermostat", None) if hasattr(integrator, "tstep") else None


def _check(integrator) -> None:
    """Refuse what distances cannot be held beside."""
    thermostat = _thermostat(integrator)
    checks = (
        (
            integrator.beads.nbeads > 1,
            "path integrals, whose bonds have no fixed length",
        ),
        (integrator.enstype not in ("nve", "nvt"), f"the ensemble {integrator.enstype}"),
        (len(integrator.fixatoms_dof) > 0, "fixed atoms"),
        (
            thermostat is not None
            and type(thermostat) not in (ThermoLangevin, ThermoSVR, ThermoGLE),
            f"the thermostat {type(thermostat).__name__}: use 'langevin', 'svr' or 'gle'",
        ),
        (
            type(thermostat) is ThermoGLE and thermostat._C._func is None,
            "coloured noise that has a covariance of its own: leave <C> out",
        ),
        (
            integrator.hydrogen_friction is not None,
            "<hydrogen_friction>: atoms whose distance is held must have one friction",
        ),
        (len(integrator.nmts) > 2, "three levels"),
    )
    for applies, what in checks:
        if applies:
            raise ValueError(f"<constrain> does not go with {what}")
