"""The potential of Stillinger and Weber for silicon, with forces between triples of atoms."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mts_driver.potentials.classical.model import ClassicalPotential
from mts_driver.potentials.classical.pair_models import only_element, require_element
from mts_driver.potentials.classical.parameters import check_names, parameter
from mts_driver.potentials.classical.terms.near_pairs import NearPairs
from mts_driver.potentials.classical.terms.term import DifferentiatedTerm, InternalTerm

SILICON = {
    "epsilon_eV": 2.1683,
    "sigma_A": 2.0951,
    "A": 7.049556277,
    "B": 0.6022245584,
    "p": 4.0,
    "q": 0.0,
    "a": 1.80,
    "lambda_": 21.0,
    "gamma": 1.20,
    "cos_theta0": -1.0 / 3.0,
}
"""Stillinger and Weber, Phys. Rev. B 31, 5262 (1985); as in LAMMPS's Si.sw."""
NEARLY_0 = -1e-9
"""Å; exp(σ/(r − aσ)) is zero there, so that the cutoff itself needs no care."""
# components of n⊗n, and how often each is there
_ROWS, _COLUMNS = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]
_WEIGHTS = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], dtype=torch.float64)


class StillingerWeber(ClassicalPotential):
    """Two- and three-body energies of one element, which end smoothly at aσ.

    With s = σ/r and f(r; γ) = exp(γσ/(r − aσ)) for r < aσ:

        E = ε Σ_{i<j} A (B sᵖ − s^q) f(r; 1)
          + ε λ Σ_i Σ_{j<k} f(r_ij; γ) f(r_ik; γ) (cos θ_jik − cos θ₀)²

    The sum over triples is taken from sums over neighbours, of f, f n and f n⊗n (n = d/r).

    Parameters
    ----------
    numbers : sequence of int, length N
        Atomic numbers, all the same.
    values : mapping of str to float, optional
        The names of `SILICON`, whose values are the defaults; λ is ``lambda_``. Each is a parameter
        and an attribute of the model.

    Raises
    ------
    UserError
        If a number is missing, unknown or out of its range, or there are several elements.
    """

    epsilon_eV: Tensor
    sigma_A: Tensor
    A: Tensor
    B: Tensor
    p: Tensor
    q: Tensor
    a: Tensor
    lambda_: Tensor
    gamma: Tensor
    cos_theta0: Tensor

    def __init__(self, numbers: Sequence[int], values: Mapping[str, float] | None = None) -> None:
        super().__init__(len(numbers), numbers)
        values = SILICON if values is None else values
        check_names(values, SILICON, what="stillinger-weber")
        self.element = only_element(numbers, "stillinger-weber")
        for name in SILICON:
            self.register_parameter(name, parameter(name, values[name]))
        cutoff_A = (self.a * self.sigma_A).item()
        self._pairs = NearPairs(self.atoms, cutoff_A=cutoff_A, switch_A=cutoff_A)
        self.terms += [InternalTerm(self._pairs, self._pair), DifferentiatedTerm(self._triples)]

    def prepare(self) -> None:
        """Follow the cutoff, which parameters decide."""
        self._pairs.end_at((self.a * self.sigma_A).item())

    def _pair(self, r: Tensor, kinds: Tensor, order: int) -> tuple[Tensor, ...]:
        away = (r - self.a * self.sigma_A).clamp_max(NEARLY_0)
        scale, pull = self.epsilon_eV * self.A * torch.exp(self.sigma_A / away), 1.0 / away
        # torch's pow loses the derivative with respect to an exponent of zero
        log = torch.log(self.sigma_A / r)
        near, far = self.B * torch.exp(self.p * log), torch.exp(self.q * log)
        found = [scale * (near - far)]
        if order > 0:
            # of f: f′ = f t
            t = -self.sigma_A * pull.square()
            slope = (self.q * far - self.p * near) / r
            found.append(scale * (slope + (near - far) * t))
        if order > 1:
            curve = self.p * (self.p + 1.0) * near - self.q * (self.q + 1.0) * far
            bend = t.square() - 2.0 * t * pull
            found.append(scale * (curve / r.square() + 2.0 * slope * t + (near - far) * bend))
        return tuple(found)

    def _triples(self, x: Tensor, cells: Tensor) -> Tensor:
        (i, j), _, d = self._pairs.vectors(x, cells)
        r = torch.linalg.vector_norm(d, dim=-1, keepdim=True)
        away = (r - self.a * self.sigma_A).clamp_max(NEARLY_0)
        f, n = torch.exp(self.gamma * self.sigma_A / away), d / r
        seconds = n[:, _ROWS] * n[:, _COLUMNS]
        even, odd = f * torch.cat((torch.ones_like(f), seconds), -1), f * n
        flat = x.new_zeros(x.shape[0] * self.atoms, 10)
        to_i, to_j = torch.cat((even, odd), -1), torch.cat((even, -odd), -1)
        sums = flat.index_add(0, torch.cat((i, j)), torch.cat((to_i, to_j))).square()
        c0 = self.cos_theta0
        weights = torch.cat((c0.square()[None], _WEIGHTS, -2.0 * c0.expand(3)))
        alone = (1.0 - c0).square() * f.square().sum(-1)
        atomic = (sums @ weights).reshape(len(x), -1).sum(1)
        twice = atomic - 2.0 * x.new_zeros(len(x)).index_add(0, i // self.atoms, alone)
        return 0.5 * self.epsilon_eV * self.lambda_ * twice

    def table(self) -> dict[str, Any]:
        """All of the model as it is written to a file, with the present values."""
        values = {name: getattr(self, name).item() for name in SILICON}
        return {"form": "stillinger-weber", "element": self.element, **values}

    @classmethod
    def from_table(cls, table: Mapping[str, Any], numbers: Sequence[int]) -> "StillingerWeber":
        """Make the model of a `table`."""
        check_names(table, ["form", "element", *SILICON], what="stillinger-weber")
        model = cls(numbers, {name: table[name] for name in SILICON})
        require_element(model.element, table["element"], "stillinger-weber")
        return model
