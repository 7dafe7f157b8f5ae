"""Potentials with parameters, whose gradients through trajectories torch finds too."""

import torch

from integrators.state import Evaluation


class Fitted(torch.nn.Module):
    """``energy(x, **parameters)`` with forces that carry a graph where positions do."""

    def __init__(self, energy, **parameters):
        super().__init__()
        for name, value in parameters.items():
            value = torch.as_tensor(value, dtype=torch.float64)
            setattr(self, name, torch.nn.Parameter(value))
        self._energy = energy

    def __call__(self, positions, cell):
        keep = torch.is_grad_enabled() and positions.requires_grad
        with torch.enable_grad():
            x = positions if keep else positions.detach().requires_grad_()
            energy = self._energy(x, **dict(self.named_parameters()))
            (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=keep)
        virial = torch.zeros(*energy.shape, 3, 3, dtype=x.dtype)
        found = Evaluation(energy, -slope, virial)
        return found if keep else Evaluation(*(t.detach() for t in found))


def springs(x, k, k4, well):
    """A chain of anharmonic bonds, each atom in a well."""
    bonds = (x[..., 1:, :] - x[..., :-1, :]).square().sum(-1)
    return (0.5 * k * bonds + k4 * bonds**2).sum(-1) + 0.5 * well * x.square().sum((-2, -1))


def ripple(x, height):
    """What a teacher adds to springs."""
    return height * torch.cos(x).prod(-1).sum(-1) + 0.02 * x.pow(4).sum((-2, -1))
