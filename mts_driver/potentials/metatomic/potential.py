"""A model of metatomic as a potential, alone or on ranks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from integrators.state import Evaluation
from mts_driver.potentials.arrays import ArrayPotential, Arrays, require_atoms
from mts_driver.potentials.devices import as_asked, as_batch
from mts_driver.potentials.metatomic.lists import DeviceLists, HostLists, Seen
from mts_driver.potentials.metatomic.model import Answer, ExportedModel, Structure
from mts_driver.potentials.metatomic.specification import Specification
from mts_driver.potentials.ranks.exchange import Ranks, sum_over_ranks
from mts_driver.potentials.ranks.pieces import require_reach


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
        on_device = (said.backend or ("cpu" if self.device.type == "cpu" else "device")) == "device"
        self._lists: HostLists | DeviceLists
        if on_device and ranks is None:
            self._lists = DeviceLists(self.model)
        else:
            self._lists = HostLists(self.model, ranks)
        if said.direct:
            _tell_once(self.name)

    @property
    def stays_on_device(self) -> bool:
        """Whether positions and forces do not come to the host, and are not kept."""
        return isinstance(self._lists, DeviceLists)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.model.device

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Evaluate all replicas; with lists on the device nothing comes to the host."""
        if not self.stays_on_device:
            return super().__call__(positions, cell)
        require_atoms(self, positions)
        found = self._evaluated(*as_batch(positions, cell, self.device))
        if self._direct:
            found[1].sub_(found[1].mean(1, keepdim=True))
        return as_asked(Evaluation(*found), positions)

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate all replicas at once; see `ArrayPotential.evaluate`.

        Raises
        ------
        UserError
            If the model fails.
        """
        given = (torch.tensor(a, device=self.device) for a in (positions_A, cells_A))
        energies, forces, virials = (t.cpu().numpy() for t in self._evaluated(*given))
        if self._ranks is not None:
            energies, forces, virials = sum_over_ranks(self._ranks, energies, forces, virials)
        if self._direct:
            forces = forces - forces.mean(1, keepdims=True)
        return energies, forces, virials

    def _evaluated(self, x: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (R,), forces (R, N, 3) and virials (R, 3, 3) at positions (R, N, 3)."""
        seen = self._lists.look(x, cells)
        with torch.set_grad_enabled(not self._direct):
            while self.model.is_new():  # so that a restart continues to the bit
                self._ask(x, cells, seen)
            return self._ask(x, cells, seen)

    def _ask(
        self, positions: Tensor, cells: Tensor, seen: list[Seen]
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, strain = positions.detach(), torch.zeros_like(cells)
        if not self._direct:
            x = x.requires_grad_()
            strain.requires_grad_()
        energies = x.new_zeros(len(x))
        forces, virials = torch.zeros_like(x), torch.zeros_like(strain)
        # else there are more ranks than atoms
        asked = [r for r, one in enumerate(seen) if one.piece is None or len(one.piece.own)]
        if not asked:
            return energies, forces, virials
        of_replicas = zip(x, strain, cells, seen, strict=True)
        structures = [self._structure(*one) for one in of_replicas]
        answer = self.model([structures[r] for r in asked])
        energies[asked] = answer.energies.detach()
        if self._direct:
            self._put_direct(answer, asked, seen, cells, forces, virials)
        elif answer.energies.requires_grad:  # else no atom has a neighbour
            found = torch.autograd.grad(answer.energies.sum(), (x, strain), allow_unused=True)
            for into, slope in zip((forces, virials), found, strict=True):
                if slope is not None:
                    into -= slope
        return energies, forces, virials

    def _structure(self, x: Tensor, strain: Tensor, cell: Tensor, seen: Seen) -> Structure:
        """Return a replica, or what this rank has of it, as functions of positions and strain."""
        types, own, piece = self._types, None, seen.piece
        if piece is not None:
            types, x = types[piece.atoms], x[piece.atoms]
            own = torch.from_numpy(piece.own).to(x.device)
        x, cell = x + x @ strain, cell + cell @ strain
        pairs = [(i, j, s, x[j] - x[i] + s.double() @ cell) for i, j, s in seen.pairs]
        return Structure(types, x, cell, pairs, own)

    def _put_direct(
        self,
        answer: Answer,
        asked: list[int],
        seen: list[Seen],
        cells: Tensor,
        forces: Tensor,
        virials: Tensor,
    ) -> None:
        for k, r in enumerate(asked):
            piece = seen[r].piece
            forces[r, slice(None) if piece is None else piece.atoms] = answer.forces[k]
            if self.has_virial and answer.stresses is not None:
                virials[r] = -torch.linalg.det(cells[r]).abs() * answer.stresses[k]


@cache
def _tell_once(name: str) -> None:
    print(
        f"{name}: direct forces, which are no gradient of the energy: total energies are not "
        "conserved, and a thermostat has to hold the temperature.",
        file=sys.stderr,
    )
