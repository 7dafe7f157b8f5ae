"""A model of metatomic as a potential, alone or on ranks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mts_driver.potentials.arrays import ArrayPotential, Arrays
from mts_driver.potentials.metatomic.model import Answer, ExportedModel, Structure
from mts_driver.potentials.metatomic.specification import Specification
from mts_driver.potentials.ranks.exchange import Ranks, sum_over_ranks
from mts_driver.potentials.ranks.pieces import Piece, Pieces, require_reach
from mts_driver.structures.neighbors import VerletList

SKIN_A = 1.0


class MetatomicPotential(ArrayPotential):
    """A model that was exported with metatomic, bound to one set of atoms.

    Parameters
    ----------
    spec : str
        ``metatomic:FILE?key=value&key=value``.
    numbers : sequence of int, length N
        Atomic numbers.
    device, dtype : str
        Torch device; the precision is the model's own, and ``float64`` is refused for a model in
        float32.
    ranks : Ranks, optional
        Processes that evaluate each structure together, on the CPU.

    Attributes
    ----------
    has_virial : bool
        False for direct forces without a direct stress.

    Raises
    ------
    UserError
        If the specification, the file or the package is wrong or missing, or the model does not
        give energies in a known unit, lacks an element, needs what is not known here, takes no
        charge or spin where there is one, or does not run on the device.

    Notes
    -----
    Forces and virial are derivatives of the energy, taken in float64 down to the distances. Direct
    forces (``forces=direct``) are no derivative of any energy: their mean is taken out, a total
    energy is not conserved, and the energy beside them is the model's own. On ranks each evaluates
    its brick of atoms and all that are within the interaction range that the model declares, and
    differentiates the energies of its own atoms, so that the sum over ranks is the whole.
    """

    def __init__(
        self,
        spec: str,
        numbers: Sequence[int],
        *,
        device: str = "cpu",
        dtype: str = "float32",
        ranks: Ranks | None = None,
    ) -> None:
        said = Specification.parse(spec)
        self.name = str(said)
        self.model = ExportedModel(said, device=device, dtype=dtype)
        self.model.check_elements(numbers)
        self.numbers = np.asarray(numbers, int)
        self._types = torch.tensor(self.numbers, dtype=torch.int32, device=self.model.device)
        self._direct, self._ranks = said.direct, ranks
        if ranks is not None:
            require_reach(self.name, self.model.reach_A, per_atom=self.model.per_atom)
        # a stress of a piece is none of the whole
        self.has_virial = not said.direct or (self.model.gives_stress and ranks is None)
        self._lists: list[_Lists] = []
        if said.direct:
            _tell_once(self.name)

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate all replicas at once; see `ArrayPotential.evaluate`.

        Raises
        ------
        UserError
            If the model fails.
        """
        while len(self._lists) < len(positions_A):
            self._lists.append(_Lists(self.model, self._ranks))
        with torch.set_grad_enabled(not self._direct):
            while self.model.is_new():  # so that a restart continues to the bit
                self._evaluate(positions_A, cells_A)
            energies, forces, virials = self._evaluate(positions_A, cells_A)
        if self._ranks is not None:
            energies, forces, virials = sum_over_ranks(self._ranks, energies, forces, virials)
        if self._direct:
            forces = forces - forces.mean(1, keepdims=True)
        return energies, forces, virials

    def _evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        device = self.model.device
        x = torch.tensor(positions_A, dtype=torch.float64, device=device)
        strain = torch.zeros(len(x), 3, 3, dtype=torch.float64, device=device)
        if not self._direct:
            x.requires_grad_()
            strain.requires_grad_()
        energies = np.zeros(len(x))
        forces, virials = np.zeros(x.shape), np.zeros(strain.shape)
        asked, structures = [], []
        for r, (replica, cell) in enumerate(zip(x, cells_A, strict=True)):
            here = self._lists[r].update(positions_A[r], cell)
            if here is None or len(here.own):  # else there are more ranks than atoms
                asked.append(r)
                structures.append(self._structure(r, replica, strain[r], cell, here))
        if not asked:
            return energies, forces, virials
        answer = self.model(structures)
        energies[asked] = answer.energies.detach().cpu().numpy()
        if self._direct:
            self._put_direct(answer, asked, cells_A, forces, virials)
        elif answer.energies.requires_grad:  # else no atom has a neighbour
            found = torch.autograd.grad(answer.energies.sum(), (x, strain), allow_unused=True)
            for into, slope in zip((forces, virials), found, strict=True):
                if slope is not None:
                    into -= slope.cpu().numpy()
        return energies, forces, virials

    def _structure(
        self, r: int, x: Tensor, strain: Tensor, cell_A: np.ndarray, piece: Piece | None
    ) -> Structure:
        """Return a replica, or what this rank has of it, as functions of positions and strain."""
        types, own = self._types, None
        if piece is not None:
            types, x = types[piece.atoms], x[piece.atoms]
            own = torch.from_numpy(piece.own)
        cell = torch.tensor(cell_A, dtype=torch.float64, device=x.device)
        x, cell = x + x @ strain, cell + cell @ strain
        pairs = []
        for arrays in self._lists[r].pairs():
            i, j, cells = (torch.from_numpy(array).to(x.device) for array in arrays)
            pairs.append((i, j, cells, x[j] - x[i] + cells.double() @ cell))
        return Structure(types, x, cell, pairs, own)

    def _put_direct(
        self,
        answer: Answer,
        asked: list[int],
        cells_A: np.ndarray,
        forces: np.ndarray,
        virials: np.ndarray,
    ) -> None:
        for k, r in enumerate(asked):
            piece = self._lists[r].piece
            forces[r, slice(None) if piece is None else piece.atoms] = answer.forces[k].cpu()
            if self.has_virial and answer.stresses is not None:
                volume = abs(np.linalg.det(cells_A[r]))
                virials[r] = -volume * answer.stresses[k].cpu().numpy()


@cache
def _tell_once(name: str) -> None:
    print(
        f"{name}: direct forces, which are no gradient of the energy: total energies are not "
        "conserved, and a thermostat has to hold the temperature.",
        file=sys.stderr,
    )


class _Lists:
    """The lists of pairs of one replica: of all its atoms, or of this rank's piece."""

    def __init__(self, model: ExportedModel, ranks: Ranks | None) -> None:
        self._wanted = [one.cutoff_A for one in model.lists]
        self._pieces = Pieces(ranks, reach_A=model.reach_A) if ranks is not None else None
        self.piece: Piece | None = None
        self._begin()

    def _begin(self) -> None:
        self._verlet = {c: VerletList(cutoff_A=c, skin_A=SKIN_A) for c in set(self._wanted)}

    def update(self, positions_A: np.ndarray, cell_A: np.ndarray) -> Piece | None:
        """Look at a structure, and return what of it is evaluated here; None: all."""
        if self._pieces is not None:
            piece = self._pieces.of(positions_A, cell_A)
            if piece is not self.piece:
                self.piece = piece
                self._begin()
            positions_A = positions_A[piece.atoms]
        self._positions_A, self._cell_A = positions_A, cell_A
        return self.piece

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Atoms i and j (P,) and the cells (P, 3) between them, of every list that is wanted."""
        x = self._positions_A
        found = {}
        for cutoff_A, verlet in self._verlet.items():
            i, j, image, _ = verlet.stored(x, self._cell_A)
            apart = x[j] + verlet.shifts(self._cell_A)[image] - x[i]
            near = np.einsum("pa,pa->p", apart, apart) < cutoff_A**2
            cells = verlet.cells()[image[near]].astype(np.int64)
            found[cutoff_A] = i[near].astype(np.int64), j[near].astype(np.int64), cells
        return [found[cutoff_A] for cutoff_A in self._wanted]
