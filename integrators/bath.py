"""The heat bath of the Langevin thermostat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from integrators.gle import ColouredNoise

BOLTZMANN_EV_K = 8.617333262e-5
"""CODATA 2018; repeated from mts_driver.units, since this package stands alone (tested equal)."""

_FS_PER_PS = 1000.0


@dataclass(frozen=True, eq=False)
class Bath:
    """Target temperature and friction.

    Parameters
    ----------
    kT : float
        Thermal energy, eV.
    friction : float or Tensor of shape (N,)
        Langevin friction, 1/fs; one value per atom gives hydrogens a bath of their own. Zero
        leaves an atom without a thermostat.
    coloured : ColouredNoise, optional
        A friction that depends on frequency, for all atoms, in 1/fs; ``friction`` is then 0.

    Raises
    ------
    ValueError
        If kT or the friction is negative or not finite, or there are both kinds of friction.
    """

    kT: float
    friction: float | Tensor
    coloured: ColouredNoise | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.kT) and self.kT >= 0):
            raise ValueError(f"kT is {self.kT}; it must be zero or positive and finite")
        friction = torch.as_tensor(self.friction)
        if not bool((torch.isfinite(friction) & (friction >= 0)).all()):
            raise ValueError(f"friction is {self.friction}; it must be zero or positive and finite")
        if friction.ndim > 1:
            raise ValueError(f"friction has shape {tuple(friction.shape)}; need a number or (N,)")
        if self.coloured is not None and bool(friction.any()):
            raise ValueError(
                "coloured noise has a friction of its own, that of slow motion included: give "
                "friction=0 beside it"
            )

    @classmethod
    def from_temperature(
        cls,
        *,
        temperature_K: float,
        friction_per_ps: float | Tensor = 0.0,
        coloured: ColouredNoise | None = None,
    ) -> Bath:
        """Return the bath at a temperature in K with a friction in 1/ps, or with coloured noise."""
        return cls(BOLTZMANN_EV_K * temperature_K, friction_per_ps / _FS_PER_PS, coloured)
