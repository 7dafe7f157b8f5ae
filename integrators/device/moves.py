"""What moves atoms on a device: kernels over arrays that stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from integrators.constraints import Constraints
from integrators.device.held import Held
from integrators.device.kernels import coloured_kernel, move_kernels
from integrators.device.launches import Launches, shared, warp
from integrators.device.numbers import RandomNumbers


class Moves:
    """The operations of a splitting, each put together when it is first asked for.

    Parameters
    ----------
    q, v : float64 Tensors, shape (P, N, 3)
        Positions and velocities, of normal modes where there are beads.
    extra : float64 Tensor, shape (k, P, N, 3)
        Extra momenta of coloured noise, over √m.
    masses, inverse : float64 Tensors, shape (N,)
        0 both for atoms that are held.
    frequencies : float64 Tensor, shape (P,)
        Of normal modes; 0 for those that are free.
    numbers : RandomNumbers
        Of the thermostat steps.
    weights : sequence of Tensor
        What such a step multiplies velocities and numbers by.
    kT : float
        Of it.

    Attributes
    ----------
    lost : int32 Tensor, shape (1,)
        Above zero where distances that are held were not found again.
    """

    def __init__(
        self,
        q: Tensor,
        v: Tensor,
        extra: Tensor,
        *,
        masses: Tensor,
        inverse: Tensor,
        frequencies: Tensor,
        numbers: RandomNumbers,
        weights: Sequence[Tensor],
        kT: float,
    ) -> None:
        self._q, self._v, self._extra = q, v, extra
        self._m, self._inverse, self._omega = masses, inverse, frequencies
        self._numbers, self._weights, self._kT = numbers, weights, kT
        self._shape = tuple(q.shape[:2])
        self._heats = [q.new_zeros(self._shape), q.new_zeros(1)]
        self._center, self._share = q.new_zeros(1, 3), masses / masses.sum()
        self._twice = q.new_zeros(len(numbers), *self._shape)
        self._held: Held | None = None
        self.lost = torch.zeros(1, dtype=torch.int32, device=q.device)
        self._launches = dict[tuple[Any, ...], Launches]()

    def hold(self, constraints: Constraints) -> None:
        """Have distances held, in the images of this start."""
        if self._held is None:
            self._held = Held(constraints, self._inverse, self._shape[0])
            self._heats.append(self._held.heat)
            self.lost, self._launches = self._held.lost, {}
        self._held.in_images_of(constraints)

    def begin(self) -> None:
        """Count from zero again."""
        for number in (*self._heats, self.lost):
            number.zero_()

    def heat(self) -> Tensor:
        """Return the energy that the thermostat has brought in."""
        return torch.stack([heat.sum() for heat in self._heats]).sum()

    def twice_kinetic(self) -> Tensor:
        """Return Σ m v² of every atom behind every thermostat step, shape (n, N)."""
        return self._twice.sum(1)

    def kick(self, force: Tensor, time: float) -> None:
        """Change velocities by a force (P, N, 3), always in the same place, over a time."""

        def add(to: Launches) -> None:
            q, v, given = _vectors(self._q, self._v, force)
            to.add(move_kernels().kick, self._shape, v, given, self._inverse, time)
            if self._held is not None:
                self._held.tangent(to, q, v, heat=False)

        self._run(("kick", force.data_ptr(), time), add)

    def drift(self, time: float) -> None:
        """Move freely, in rings, or along the manifold of what is held."""

        def add(to: Launches) -> None:
            q, v = _vectors(self._q, self._v)
            if self._held is not None:
                self._held.lead(to, q, v, time)
            w = self._omega
            ahead = torch.where(w > 0.0, torch.sin(w * time) / w, time)
            turns = (torch.cos(w * time), ahead, w * torch.sin(w * time))
            to.add(move_kernels().drift, self._shape, q, v, *turns)
            if self._held is not None:
                self._held.tangent(to, q, v, heat=False)

        self._run(("drift", time), add)

    def white(self, draw: int) -> None:
        """Take the thermostat step of white noise with the numbers of ``draw``."""

        def add(to: Launches) -> None:
            q, v, drawn = _vectors(self._q, self._v, self._numbers[draw])
            decay, width = (t.expand(self._shape).contiguous() for t in self._weights)
            how = (decay, width, drawn, self._m, self._heats[0])
            to.add(move_kernels().white, self._shape, v, *how)
            if self._held is not None:
                self._held.tangent(to, q, v, heat=True)

        self._run(("white", draw), add)

    def coloured(self, draw: int) -> None:
        """Take that of coloured noise, beside which held bonds get a thermal part across them."""

        def add(to: Launches) -> None:
            q, v, extra, drawn = _vectors(self._q, self._v, self._extra, self._numbers[draw])
            if self._held is not None:
                (across,) = _vectors(self._numbers[draw][-1])
                self._held.across(to, q, across, torch.sqrt(self._kT * self._inverse), v)
            kernel = coloured_kernel(len(self._extra))
            how = (*self._weights, drawn, self._m, self._inverse, self._heats[0])
            to.add(kernel, self._shape, v, extra, *how)
            if self._held is not None:
                self._held.tangent(to, q, v, heat=True)

        self._run(("coloured", draw), add)

    def stop(self) -> None:
        """Stop the centre of mass; the energy that it had leaves as heat."""
        torch.mv(self._v[0].T, self._share, out=self._center[0])

        def add(to: Launches) -> None:
            v, center = _vectors(self._v, self._center)
            total = float(self._m.sum())
            to.add(move_kernels().stop, self._shape[1:], v, center, total, self._heats[1])

        self._run(("stop",), add)

    def measure(self, draw: int) -> None:
        """Keep the kinetic energy of every atom behind thermostat step ``draw``."""

        def add(to: Launches) -> None:
            (v,) = _vectors(self._v)
            to.add(move_kernels().measure, self._shape, v, self._m, self._twice[draw])

        self._run(("measure", draw), add)

    def _run(self, key: tuple[Any, ...], add: Callable[[Launches], None]) -> None:
        found = self._launches.get(key)
        if found is None:
            found = self._launches[key] = Launches(self._q.device)
            add(found)
        found.run()


def _vectors(*tensors: Tensor) -> list[Any]:
    return [shared(t, warp().vec3d) for t in tensors]
