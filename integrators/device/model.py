"""What a potential offers whose lists and forces stay on a device."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from integrators.state import Evaluation


class DeviceModel(Protocol):
    """A potential whose lists can be made and used without the host."""

    device: torch.device
    recordable: bool
    """Whether `evaluate` may be part of a graph; what may not is asked between two graphs."""

    forces_stay: bool
    """Whether `forces` are always at one place, where they lie until the model is asked again."""

    @property
    def place(self) -> tuple[int, ...]:
        """Another one whenever its arrays are at another place: what was recorded is void then."""
        ...

    @property
    def lists_recordable(self) -> bool:
        """Whether `rebuild` may be part of a graph; what may not is called before it."""
        ...

    def update(self, x: Tensor, cells: Tensor) -> None:
        """Have lists with room enough for these positions and cells; waits for the device."""
        ...

    def rebuild(self, x: Tensor, *, search: bool = True) -> None:
        """Make lists anew, in the same cells and places, that may not do; waits for nothing.

        For a step as long as that since the last call. Without ``search`` lists that are not
        recordable stay as they are, which was `due` to be told.
        """
        ...

    def due(self, x: Tensor) -> Tensor:
        """Tell, as a bool on the device, whether `rebuild` would make such lists anew here."""
        ...

    def forces(self, x: Tensor, cells: Tensor) -> Tensor:
        """Return forces (P, N, 3) at positions (P, N, 3)."""
        ...

    def evaluate(self, x: Tensor, cells: Tensor) -> Evaluation:
        """Energies (P,), forces (P, N, 3) and virials (P, 3, 3) at positions (P, N, 3)."""
        ...

    def told(self) -> tuple[Tensor, ...]:
        """Tell on the device what was wrong: up to three int32 arrays (2,), at fixed places.

        Above zero in any of them where lists may have lacked pairs since they were made, at
        positions where the model was asked; and where room was too small in the last list and
        evaluation.
        """
        ...

    def renew(self) -> None:
        """Have the next `rebuild` make lists anew."""
        ...

    def reach_further(self) -> None:
        """Have lists for which atoms may move further, from the next `update` on."""
        ...

    def make_room(self) -> None:
        """Have more room from the next `update` on."""
        ...
