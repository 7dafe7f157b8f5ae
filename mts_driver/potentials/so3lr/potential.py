"""The teacher by default: SO3LR, with the weights of the PyPI package ``so3krates-torch``.

The package's ASE calculator spends most of its time outside the network: it rebuilds a 12 Å list
and a DataLoader at every call and computes every pair twice. Here the same weights run on Verlet
lists with every pair listed once; tests hold the forces to the packaged calculator's.
"""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

from integrators.state import Evaluation
from mts_driver.errors import UserError
from mts_driver.potentials.arrays import require_atoms
from mts_driver.potentials.elements import check_elements
from mts_driver.potentials.ranks.pairs import Share
from mts_driver.potentials.so3lr.longrange import CUTOFF_A, LongRange
from mts_driver.potentials.so3lr.network import ALL, HalfListTransformer
from mts_driver.structures.neighbors import VerletList

ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl")
SKIN_A, SMALL_SKIN_A, MANY_ATOMS = 4.0, 1.0, 5000
"""Outer steps move hydrogens by half an ångström, and a list costs half a call to build; above
5000 atoms the memory for so many pairs counts more."""


class SO3LR:
    """SO3LR bound to one set of atoms; ``so3lr(positions, cell) -> Evaluation``.

    Parameters
    ----------
    numbers : sequence of int, length N
        Atomic numbers.
    charge : float
        Total charge of the system, e.
    device, dtype : str
        Torch device; ``float32`` or ``float64``. Energies are always summed in float64, the
        free-atom offsets apart, since |E| is some 10⁴ eV where kT is 0.03.

    Raises
    ------
    UserError
        If so3krates-torch is not installed or an element is not one of SO3LR's.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        *,
        charge: float = 0.0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        check_elements(numbers, ELEMENTS, model="SO3LR")
        self.numbers = np.array(numbers, np.int64)
        self.device = torch.device(device)
        self.dtype = getattr(torch, dtype)
        packaged, alphas, c6 = packaged_model(self.device, self.dtype)
        z = torch.as_tensor(self.numbers, device=self.device)
        self._network = HalfListTransformer(packaged, z, charge)
        self._long_range = LongRange(self.numbers, alphas, c6)
        shifts = packaged.atomic_energy_output_block.energy_shifts
        self.offset_eV = float(shifts.double().cpu()[self.numbers - 1].sum())
        self.short_A = float(packaged.r_max)
        self._lists: list[VerletList] = []

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energies (…) eV, forces (…, N, 3) eV/Å and virials (…, 3, 3) eV of all replicas."""
        require_atoms(self, positions)
        x = positions.detach().reshape(-1, len(self.numbers), 3).double().cpu().numpy()
        cells = (
            cell.detach()
            .double()
            .cpu()
            .expand(*positions.shape[:-2], 3, 3)
            .reshape(-1, 3, 3)
            .numpy()
        )
        i, j, vectors, r = self._pairs(x, cells)
        energies, pull = self.derived(i, j, vectors, r, replicas=len(x))
        atoms = x.shape[0] * x.shape[1]
        forces = sum_of_pairs(i, j, pull, atoms).view(x.shape)
        replica = i // len(self.numbers)
        virials = forces.new_zeros(len(x), 9)
        virials -= virials.index_add(0, replica, (vectors[:, :, None] * pull[:, None]).flatten(1))
        shape = positions.shape[:-2]
        return Evaluation(
            (energies + self.offset_eV).reshape(shape).to(positions.device),
            forces.reshape(positions.shape).to(positions),
            virials.reshape(*shape, 3, 3).to(positions),
        )

    def derived(
        self,
        i: Tensor,
        j: Tensor,
        vectors: Tensor,
        r: Tensor,
        *,
        replicas: int,
        share: Share | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Energies (R,) without offsets, and the derivative in the vector of each pair (P, 3).

        With a ``share``, what this rank's atoms and pairs have of the energy of one replica.
        """
        short = (r < self.short_A).nonzero()[:, 0]
        short_vectors = vectors[short].to(self.dtype).requires_grad_()
        r.requires_grad_()
        with torch.enable_grad():
            near = i[short], j[short], short_vectors
            energy, q, h = self._network(*near, replicas=replicas, share=share)
            atoms = ALL if share is None else share.atoms
            energy = energy.double().sum(-1) + self._long_range(i, j, r, q, h, atoms)
            d_short, d_r = torch.autograd.grad(energy.sum(), (short_vectors, r))
        pull = vectors * (d_r / r.detach())[:, None]
        pull[short] += d_short.double()
        return energy.detach(), pull

    @property
    def skin_A(self) -> float:
        """How much further lists of pairs reach, Å."""
        return SKIN_A if len(self.numbers) <= MANY_ATOMS else SMALL_SKIN_A

    def _pairs(self, x: np.ndarray, cells: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pairs of all replicas within the long cutoff, atoms numbered through."""
        while len(self._lists) < len(x):
            self._lists.append(VerletList(cutoff_A=CUTOFF_A, skin_A=self.skin_A))
        found = [p.pairs(*a) for p, *a in zip(self._lists, x, cells, strict=False)]
        n = len(self.numbers)
        i = np.concatenate([pairs.i + k * n for k, pairs in enumerate(found)])
        j = np.concatenate([pairs.j + k * n for k, pairs in enumerate(found)])
        vectors = np.concatenate([pairs.vectors for pairs in found])
        r = np.concatenate([pairs.distances for pairs in found])
        moved = [torch.from_numpy(a).to(self.device) for a in (i, j, vectors, r)]
        return moved[0], moved[1], moved[2], moved[3]


def sum_of_pairs(i: Tensor, j: Tensor, pull: Tensor, atoms: int) -> Tensor:
    """Return forces (atoms, 3) from derivatives (P, 3) in the vectors from i to j."""
    forces = torch.zeros(atoms, 3, dtype=pull.dtype, device=pull.device)
    return forces.index_add(0, i, pull).index_add(0, j, -pull)


@cache  # fragments are loaded by the dozen, each with its own atoms and the same weights
def packaged_model(device: torch.device, dtype: torch.dtype) -> tuple[Any, Tensor, Tensor]:
    """Return the model of ``so3krates-torch``, polarizabilities and C6 coefficients of elements.

    Raises
    ------
    UserError
        If the package cannot be imported.
    """
    try:
        from so3krates_torch.blocks.physical_potentials import ALPHAS, C6_COEF
    except ImportError as error:
        raise UserError(
            "potential 'so3lr' needs the package so3krates-torch, which cannot be imported "
            f"({error}): pip install 'mts-driver[so3lr]'"
        ) from error
    path = resources.files("so3krates_torch") / "pretrained" / "so3lr" / "so3lr.model"
    with resources.as_file(path) as file:
        # the one pickle that the project loads: it comes with the package that defines its classes
        packaged = torch.load(file, map_location="cpu", weights_only=False)
    return packaged.to(device, dtype).requires_grad_(False).eval(), ALPHAS, C6_COEF
