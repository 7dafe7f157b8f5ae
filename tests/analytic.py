"""Analytic potentials for tests, with forces by automatic differentiation or by hand."""

import torch

from integrators.state import Evaluation


class Analytic:
    """Energy from a function of positions (..., N, 3); counts its calls."""

    def __init__(self, energy):
        self._energy = energy
        self.calls = 0

    def __call__(self, positions, cell):
        self.calls += 1
        with torch.enable_grad():
            x = positions.detach().requires_grad_(True)
            energy = self._energy(x)
            (gradient,) = torch.autograd.grad(energy.sum(), x)
        virial = torch.einsum("...na,...nb->...ab", positions, -gradient)
        return Evaluation(energy.detach(), -gradient, virial)


def stiff_springs(x):
    """Anharmonic, coupled: neighbours along the chain of atoms, and each atom to the origin."""
    bonds = (x[..., 1:, :] - x[..., :-1, :]).square().sum(-1)
    return (0.5 * bonds + 0.1 * bonds**2).sum(-1) + 0.25 * x.square().sum((-2, -1))


def stiff_and_soft(x):
    """The same with a gentle force on top: what a teacher adds to a good student."""
    return stiff_springs(x) + 0.3 * torch.cos(x).prod(-1).sum(-1) + 0.02 * x.pow(4).sum((-2, -1))


def chain_state(replicas=(), *, n_atoms=4, seed=0):
    """Positions, velocities and unequal masses of a small chain, float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*replicas, n_atoms, 3)
    positions = torch.randn(shape, generator=generator, dtype=torch.float64)
    velocities = torch.randn(shape, generator=generator, dtype=torch.float64)
    masses = torch.linspace(1.0, 4.0, n_atoms, dtype=torch.float64)
    return positions, velocities, masses


class Tape:
    """Noise that hands out given arrays in turn, whatever the step and the operation."""

    def __init__(self, arrays):
        self._arrays = iter(arrays)

    def __call__(self, step, op, like):
        return next(self._arrays).reshape(like.shape)
