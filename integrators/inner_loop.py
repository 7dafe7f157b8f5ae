"""The inner steps of an outer one without what they don't need: the loop of a driver.

Walks the same splitting as :func:`integrators.engine.step`, the reference that it is tested
against, in place and with momenta: on a CPU a frozen state for every operation costs as much as a
cheap student does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from integrators.bath import Bath
from integrators.splitting import OU, Drift, Kick, Splitting
from integrators.state import Evaluation, Potential


@dataclass(frozen=True)
class Taken:
    """What a loop of n steps leaves.

    Attributes
    ----------
    positions, momenta : Tensor, shape (N, 3)
        At its end.
    evaluation : Evaluation
        There.
    heat : Tensor, shape ()
        Energy that thermostat and centre of mass have brought in.
    twice_kinetic : Tensor, shape (n, G)
        Σ p²/m of every group behind every thermostat step.
    """

    positions: Tensor
    momenta: Tensor
    evaluation: Evaluation
    heat: Tensor
    twice_kinetic: Tensor


def take_inner_steps(
    positions: Tensor,
    momenta: Tensor,
    masses: Tensor,
    cell: Tensor,
    potential: Potential,
    splitting: Splitting,
    *,
    timestep: float,
    bath: Bath | None = None,
    noise: Tensor | Sequence[Tensor] = (),
    groups: Tensor,
    fixcom: bool = False,
) -> Taken:
    """Apply a splitting with one level of forces from left to right.

    Parameters
    ----------
    positions, momenta : Tensor, shape (N, 3)
        Left as they are. Any consistent units.
    masses : Tensor, shape (N,)
        Positive.
    potential : Potential
        Called where a drift has moved the atoms, and once at the start.
    splitting : Splitting
        E.g. ``fast_part(6)``.
    timestep : float
        Of the whole splitting.
    bath, noise : Bath, and Tensor of shape (n, N, 3), optional
        The thermostat, and the standard normal numbers of its n steps.
    groups : Tensor, shape (G, N)
        Ones and zeros: atoms whose kinetic energy is reported together.
    fixcom : bool
        Whether the centre of mass is kept still, after every kick and every OU step as in i-PI.
    """
    q, p = positions.clone(), momenta.clone()
    m = masses[:, None]
    inverse, share = 1.0 / m, m / masses.sum()
    found, draws, heat = potential(q, cell), iter(noise), p.new_zeros(())
    moved, seen = False, []
    factors: dict[float, tuple[Tensor, Tensor]] = {}
    for op in splitting:
        dt = float(op.weight) * timestep
        match op:
            case Kick():
                if moved:
                    found, moved = potential(q, cell), False
                p.add_(found.forces, alpha=dt)
            case Drift():
                q.addcmul_(p, inverse, value=dt)
                moved = True
                continue
            case OU():
                assert bath is not None
                if dt not in factors:
                    friction = torch.as_tensor(bath.friction, dtype=p.dtype, device=p.device)
                    decay = torch.exp(-friction.reshape(-1, 1) * dt)
                    variance = -torch.expm1(-2.0 * friction.reshape(-1, 1) * dt) * bath.kT * m
                    factors[dt] = decay, torch.sqrt(variance)
                decay, width = factors[dt]
                heat -= 0.5 * (p.square() * inverse).sum()
                p.mul_(decay).addcmul_(width, next(draws))
                heat += 0.5 * (p.square() * inverse).sum()
        if fixcom:
            total = p.sum(0)
            p.sub_(share * total)
            heat -= 0.5 * total.square().sum() / masses.sum()
        if isinstance(op, OU):
            seen.append(groups @ (p.square() * inverse).sum(-1))
    if moved:
        found = potential(q, cell)
    twice_kinetic = torch.stack(seen) if seen else groups.new_zeros(0, len(groups))
    return Taken(q, p, found, heat, twice_kinetic)
