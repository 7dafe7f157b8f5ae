"""Any potential beside models that stay on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from integrators.state import Evaluation, Potential


class Guest:
    """A potential that is asked as it is, through the host or, if it can, here; a `DeviceModel`.

    Its calls are no part of what is recorded, and may wait: as a teacher it is asked once an outer
    step, while the student's inner steps stay on the device.

    Parameters
    ----------
    potential : Potential
        It has lists of its own.
    device : torch.device
        Of the other models.
    """

    recordable = forces_stay = False
    lists_recordable = True

    def __init__(self, potential: Potential, device: torch.device) -> None:
        self.device, self._potential = device, potential
        stays = getattr(potential, "stays_on_device", False)
        self._at_home = stays and getattr(potential, "device", None) == device
        self._never = torch.zeros((), dtype=torch.bool, device=device)
        self._nothing = torch.zeros(2, dtype=torch.int32, device=device)

    @property
    def place(self) -> tuple[int, ...]:
        """Always the same: nothing of it is recorded."""
        return ()

    def update(self, x: Tensor, cells: Tensor) -> None:
        """Leave the lists to the potential."""

    def rebuild(self, x: Tensor, *, search: bool = True) -> None:
        """Leave the lists to the potential."""

    def due(self, x: Tensor) -> Tensor:
        """Tell that there is none."""
        return self._never

    def forces(self, x: Tensor, cells: Tensor) -> Tensor:
        """Return forces (P, N, 3)."""
        return self.evaluate(x, cells).forces

    def evaluate(self, x: Tensor, cells: Tensor) -> Evaluation:
        """Energies (P,), forces (P, N, 3) and virials (P, 3, 3), of one bead without its axis."""
        given = [t.detach() for t in (x, cells)]
        if not self._at_home:  # copies, since it may keep what it gets
            given = [t.to("cpu", copy=True) for t in given]
        alone = len(x) == 1  # without the axis of beads, where potentials are fastest
        found = self._potential(*(t[0] if alone else t for t in given))
        parts = [part.detach().to(self.device) for part in found]
        return Evaluation(*(part[None] if alone else part for part in parts))

    def told(self) -> tuple[Tensor, ...]:
        """Tell that no list of this package lacks pairs or is too short."""
        return (self._nothing,)

    def renew(self) -> None:
        """Do nothing."""

    def reach_further(self) -> None:
        """Do nothing."""

    def make_room(self) -> None:
        """Do nothing."""
