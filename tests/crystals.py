"""Crystals and the energies of their atoms as sums over images, for tests of observables."""

import torch
from torch import Tensor, nn

FCC = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64) / 2
DIAMOND = torch.cat([FCC, FCC + 0.25])


def crystal(basis, constant):
    """Positions and cell of one cubic cell."""
    return constant * basis, constant * torch.eye(3, dtype=torch.float64)


def neighbours(positions, cell, reach_A):
    """Vectors (..., N, N × images, 3) from each atom to all others and their images."""
    heights = 1 / torch.linalg.inv(cell.detach()).norm(dim=0)
    steps = [torch.arange(-n, n + 1).to(cell) for n in (reach_A / heights).int().add(1).tolist()]
    apart = positions[..., None, :, :] - positions[..., :, None, :]
    return (apart[..., None, :] + torch.cartesian_prod(*steps) @ cell).flatten(-3, -2)


class LennardJones(nn.Module):
    """4 ε ((σ/r)¹² - (σ/r)⁶), smoothly cut off between 2.0 and 2.6 σ₀."""

    def __init__(self, epsilon_eV=0.0104, sigma_A=3.4):
        super().__init__()
        self.epsilon_eV = nn.Parameter(torch.tensor(epsilon_eV, dtype=torch.float64))
        self.sigma_A = nn.Parameter(torch.tensor(sigma_A, dtype=torch.float64))
        self.span_A = 2.0 * sigma_A, 2.6 * sigma_A

    def energy(self, positions: Tensor, cell: Tensor) -> Tensor:
        squared = neighbours(positions, cell, self.span_A[1]).square().sum(-1)
        inside = (squared > 1e-6) & (squared < self.span_A[1] ** 2)
        r = squared.where(inside, 1.0).sqrt()
        t = ((r - self.span_A[0]) / (self.span_A[1] - self.span_A[0])).clamp(0, 1)
        switch = 1 - t**3 * (10 - 15 * t + 6 * t**2)
        sixth = (self.sigma_A / r) ** 6
        pairs = 4 * self.epsilon_eV * (sixth**2 - sixth) * switch
        return 0.5 * pairs.where(inside, 0.0).sum((-2, -1))


class StillingerWeber(nn.Module):
    """Silicon of Stillinger and Weber (1985) near the diamond lattice: four neighbours an atom."""

    def __init__(self):
        super().__init__()
        self.epsilon_eV = nn.Parameter(torch.tensor(2.1683, dtype=torch.float64))
        self.strength = nn.Parameter(torch.tensor(21.0, dtype=torch.float64))

    def energy(self, positions: Tensor, cell: Tensor) -> Tensor:
        A, B, sigma, a, gamma = 7.049556277, 0.6022245584, 2.0951, 1.8, 1.2
        vectors = neighbours(positions, cell, a * sigma)
        distances = vectors.detach().square().sum(-1)
        nearest = distances.where(distances > 1e-6, torch.inf).topk(4, largest=False).indices
        vectors = vectors.take_along_dim(nearest[..., None], -2)
        r = vectors.norm(dim=-1)
        x = r / sigma
        pairs = A * (B * x**-4 - 1) * torch.exp(1 / (x - a))
        unit = vectors / r[..., None]
        j, k = torch.triu_indices(4, 4, 1)
        angles = (unit[..., j, :] * unit[..., k, :]).sum(-1) + 1 / 3
        soft = torch.exp(gamma / (x - a))
        triples = self.strength * soft[..., j] * soft[..., k] * angles**2
        return self.epsilon_eV * (0.5 * pairs.sum((-2, -1)) + triples.sum((-2, -1)))
