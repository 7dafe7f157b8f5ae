"""A friction of their own for hydrogens, on top of any of i-PI's thermostats.

High friction on hydrogens alone damps the resonance of the outer step with their vibrations, where
that on all atoms would stop diffusion (Cattin et al., arXiv:2602.14975).
"""

from __future__ import annotations

import numpy as np
from ipi.engine.thermostats import MultiThermo, ThermoLangevin, ThermoPILE_L
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants

HYDROGEN_NAMES = ("H", "D", "T", "H2")
"""i-PI's labels of hydrogen; masses cannot tell, since repartitioning changes them."""


def is_hydrogen(beads) -> np.ndarray:
    """Return which atoms of an i-PI ``Beads`` object are hydrogens, shape (N,)."""
    return np.isin(np.asarray(beads.names, dtype=str), HYDROGEN_NAMES)


def local_friction(thermostat) -> float:
    """Return the friction that a thermostat exerts on each (centroid) momentum, atomic units.

    Zero for thermostats that act on the kinetic energy of all atoms, and for coloured noise.
    """
    if type(thermostat) is MultiThermo:
        return sum(local_friction(part) for part in thermostat.tlist)
    if type(thermostat) in (ThermoLangevin, ThermoPILE_L) and thermostat.tau > 0:
        return 1.0 / float(thermostat.tau)
    return 0.0


class HydrogenFriction:
    """What hydrogens lack in friction, as one more exact Ornstein-Uhlenbeck step on their momenta.

    Two such steps in a row with frictions γ and γ' are one with γ + γ', so that hydrogens see just
    ``friction``. In path integrals it acts on the centroids; the other modes of the ring polymer
    have a stronger friction from PILE.

    Parameters
    ----------
    integrator : ipi.engine.motion.dynamics.NVTIntegrator
        Bound; its thermostat, masses, random numbers and temperature are used.
    friction : float
        Of hydrogens, in all, atomic units.

    Attributes
    ----------
    friction : float
        As given.
    atoms : int array
        Numbers of the hydrogens.

    Raises
    ------
    ValueError
        If there is no hydrogen, or its friction would be smaller than that of the other atoms.
    """

    def __init__(self, integrator, friction: float) -> None:
        own = local_friction(integrator.thermostat)
        if not (np.isfinite(friction) and friction >= own):
            raise ValueError(
                f"<hydrogen_friction> is {friction:g}, the thermostat has {own:g} already (atomic "
                "units): hydrogens can have more friction than other atoms, not less; raise it, "
                "or raise <tau>"
            )
        if getattr(integrator.thermostat, "pilect", 0.0) > 0:
            raise ValueError(
                "<hydrogen_friction> acts on centroids at the temperature of the ensemble, and "
                "<pile_centroid_t> gives them another: remove one of the two"
            )
        hydrogen = is_hydrogen(integrator.beads)
        if not hydrogen.any():
            raise ValueError("<hydrogen_friction> is given, but there is no hydrogen: remove it")
        free = np.repeat(hydrogen, 3)
        free[np.asarray(integrator.fixatoms_dof, dtype=int)] = False
        self._of = integrator
        self._dof = np.flatnonzero(free)
        self._decay = float(np.exp(-(friction - own) * integrator.tdt))
        self.friction = friction
        self.atoms = np.flatnonzero(hydrogen)

    def step(self) -> None:
        """Apply the step; the heat goes to the conserved energy."""
        nm, c = self._of.nm, self._decay
        masses = dstrip(nm.dynm3)[0, self._dof]
        kT = Constants.kb * self._of.ensemble.temp * nm.nbeads
        before = dstrip(nm.pnm)[0, self._dof]
        noise = self._of.prng.gvec(len(self._dof))
        after = c * before + np.sqrt((1.0 - c * c) * kT * masses) * noise
        nm.pnm[0, self._dof] = after
        self._of.ensemble.eens -= 0.5 * float(((after**2 - before**2) / masses).sum())

    def mix(self, noise: np.ndarray, own: float) -> None:
        """Turn the noise (N, 3) of a step with the friction ``own`` into that of both, in place.

        For one step with the friction of hydrogens in all, that does the same. None may be fixed.
        """
        a, b = np.exp(-own * self._of.tdt), self._decay
        width = np.sqrt(1.0 - (a * b) ** 2)
        more = self._of.prng.gvec(len(self._dof)).reshape(-1, 3)
        mixed = b * np.sqrt(1.0 - a * a) * noise[self.atoms] + np.sqrt(1.0 - b * b) * more
        noise[self.atoms] = mixed / width if width > 0 else 0.0
