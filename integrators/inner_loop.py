"""Steps without what they don't need: the loop of a driver.

Walks the same splittings as :func:`integrators.engine.step`, the reference that it is tested
against, in place and with momenta: on a CPU a frozen state for every operation costs as much as a
cheap student does. Ring polymers are propagated in their normal modes, as i-PI does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from integrators.splitting import OU, Drift, Kick, Splitting
from integrators.state import Evaluation, Potential


@dataclass(frozen=True)
class Taken:
    """What a loop with n thermostat steps leaves.

    Attributes
    ----------
    positions, momenta : Tensor, shape (P, N, 3)
        At its end.
    evaluations : dict of str to Evaluation
        There, for every level.
    heat : float
        Energy that thermostat and centre of mass have brought in.
    twice_kinetic : Tensor, shape (n, G)
        Σ p²/m of every group, over all beads, behind every thermostat step.
    """

    positions: Tensor
    momenta: Tensor
    evaluations: dict[str, Evaluation]
    heat: float
    twice_kinetic: Tensor


@dataclass(frozen=True)
class Ring:
    """Normal modes of free ring polymers of P beads.

    Attributes
    ----------
    matrix : Tensor, shape (P, P)
        Orthogonal; modes are ``matrix`` times beads, the centroid first.
    frequencies : Tensor, shape (P,)
        The first is not used.
    """

    matrix: Tensor
    frequencies: Tensor

    def modes(self, beads: Tensor) -> Tensor:
        """From beads (P, N, 3) to modes."""
        return (self.matrix @ beads.flatten(1)).view_as(beads)

    def beads(self, modes: Tensor) -> Tensor:
        """From modes (P, N, 3) to beads."""
        return (self.matrix.mT @ modes.flatten(1)).view_as(modes)


def take_steps(
    positions: Tensor,
    momenta: Tensor,
    masses: Tensor,
    cell: Tensor,
    potentials: Mapping[str, Potential],
    splitting: Splitting,
    *,
    timestep: float,
    kT: float = 0.0,
    friction: Tensor | None = None,
    noise: Iterable[Tensor] = (),
    groups: Tensor,
    fixcom: bool = False,
    ring: Ring | None = None,
) -> Taken:
    """Apply a splitting from left to right.

    Parameters
    ----------
    positions, momenta : Tensor, shape (P, N, 3)
        Of P beads, left as they are. Any consistent units.
    masses : Tensor, shape (N,)
        Positive.
    potentials : mapping of str to Potential
        For every level; called with (P, N, 3) where a drift has moved the atoms, and once at the
        start.
    splitting : Splitting
        E.g. ``fast_part(6)``, or a whole outer step, ``respa_baoab(6)``.
    timestep : float
        Of the whole splitting.
    kT, friction : float, and Tensor of shape (P, N), optional
        Of the thermostat on every normal mode; with P beads kT is P times that of the temperature.
    noise : iterable of Tensor, shape (P, N, 3)
        Standard normal numbers of its steps, in normal modes.
    groups : Tensor, shape (G, N)
        Ones and zeros: atoms whose kinetic energy is reported together.
    fixcom : bool
        Whether the centre of mass is kept still, after every kick and every OU step as in i-PI.
    ring : Ring, optional
        For more than one bead.
    """
    q, p = positions.clone(), momenta.clone()
    if ring is not None:
        q, p = ring.modes(q), ring.modes(p)
    # full arrays and plain numbers: on a CPU broadcasting costs more than the arithmetic
    m = masses[:, None].expand(-1, 3).contiguous()
    inverse, total_mass = 1.0 / m, float(masses.sum())
    share, heat = m / total_mass, 0.0
    members = groups.repeat_interleave(3, dim=1)
    draws, seen = iter(noise), []
    forces: dict[str, Tensor] = {}
    # where the beads are, known as long as they stay: back from the modes comes a rounding error
    beads: Tensor | None = positions
    found: dict[str, Evaluation] = {}
    factors: dict[float, tuple[Tensor, Tensor]] = {}
    for op in splitting:
        dt = float(op.weight) * timestep
        match op:
            case Kick(level=level):
                if level not in forces:
                    if beads is None:
                        beads = q if ring is None else ring.beads(q)
                    found[level] = potentials[level](beads, cell)
                    here = found[level].forces
                    forces[level] = here if ring is None else ring.modes(here)
                p.add_(forces[level], alpha=dt)
            case Drift():
                q[0].addcmul_(p[0], inverse, value=dt)
                if ring is not None:
                    _turn(q, p, m, ring.frequencies, dt)
                forces.clear()
                beads = None
                continue
            case OU():
                assert friction is not None
                if dt not in factors:
                    x = friction[..., None] * dt
                    width = torch.sqrt(-torch.expm1(-2.0 * x) * kT * m)
                    factors[dt] = torch.exp(-x).expand_as(p).contiguous(), width
                decay, width = factors[dt]
                heat -= 0.5 * _twice_kinetic(p, inverse)
                p.mul_(decay).addcmul_(width, next(draws))
                heat += 0.5 * _twice_kinetic(p, inverse)
        if fixcom:
            total = p[0].sum(0)
            p[0].addcmul_(share, total, value=-1.0)
            heat -= 0.5 * float(total @ total) / total_mass
        if isinstance(op, OU):
            seen.append(members @ (p * p * inverse).sum(0).flatten())
    if ring is not None:
        q, p = ring.beads(q), ring.beads(p)
    kinetic = torch.stack(seen) if seen else groups.new_zeros(0, len(groups))
    return Taken(q, p, found, heat, kinetic)


def _twice_kinetic(p: Tensor, inverse: Tensor) -> float:
    return float(torch.vdot(p.flatten(), (p * inverse).flatten()))


def _turn(q: Tensor, p: Tensor, m: Tensor, frequencies: Tensor, dt: float) -> None:
    """Advance the free ring polymer modes but the centroid, harmonic oscillators, in place."""
    w = frequencies[1:, None, None]
    c, s = torch.cos(w * dt), torch.sin(w * dt)
    moved = c * q[1:] + (s / w) * (p[1:] / m)
    p[1:] = c * p[1:] - (s * w) * (m * q[1:])
    q[1:] = moved
