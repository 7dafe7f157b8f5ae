"""What moves atoms on a device: operations are gathered up, and walked in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from integrators.constraints import Constraints
from integrators.device import program_source as codes
from integrators.device.launches import Launches, shared, warp
from integrators.device.numbers import RandomNumbers
from integrators.device.program import block_of, program_kernel
from integrators.device.program_source import GROUPS
from integrators.splitting import FAST, SLOW


class Moves:
    """The operations of a splitting.

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
        What such a step multiplies velocities and numbers by; none without thermostat.
    kT : float
        Of it.
    clip : float, optional
        Bound on the norm of an atom's slow force.

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
        clip: float | None,
    ) -> None:
        self._q, self._v, self._extra = q, v, extra
        self._m, self._inverse, self._omega = masses, inverse, frequencies
        self._numbers, self._weights, self._kT = numbers, tuple(weights), kT
        self._shape = tuple(q.shape[:2])
        self._twice = q.new_zeros(max(len(numbers), 1), *self._shape)
        self.lost = torch.zeros(1, dtype=torch.int32, device=q.device)
        self._clip, self._forces = clip, dict[str, Tensor]()
        self._images: Tensor | None = None
        self._differs = False
        self._group(None)

    def hold(self, constraints: Constraints) -> None:
        """Have distances held, in the images of this start."""
        if self._images is None:
            self._group(constraints)
        assert self._images is not None
        self._images[: len(constraints.images)].copy_(torch.from_numpy(constraints.images))

    def begin(self) -> None:
        """Count from zero again."""
        self._heat.zero_()
        self.lost.zero_()
        self._pending, self._stops, self._summed = list[tuple[int, float, int]](), False, 0

    @property
    def heat(self) -> Tensor:
        """The energy that the thermostat has brought in, of beads and groups of atoms."""
        return self._heat

    @property
    def twice_kinetic(self) -> Tensor:
        """M v² of every atom of every bead behind every thermostat step, shape (n, P, N)."""
        return self._twice[: len(self._numbers)]

    def kick(self, level: str, force: Tensor, time: float, *, beside: Tensor | None = None) -> None:
        """Change velocities by a force (P, N, 3) over a time.

        Or by how much it differs from that ``beside``. Both stay where they are.
        """
        self._forces[level] = force
        if beside is not None:
            self._forces[FAST] = beside
        if level != FAST:
            self._differs = beside is not None
        self._add(codes.KICK if level == FAST else codes.SLOW_KICK, time=time)
        self._onto_manifold()

    def drift(self, time: float) -> None:
        """Move freely, in rings, or along the manifold of what is held."""
        if self._most:
            self._add(codes.LEAD, time=time)
        self._add(codes.DRIFT, time=time)
        self._onto_manifold()

    def heat_up(self, draw: int) -> None:
        """Take a thermostat step, with the numbers of ``draw``."""
        if self._most and len(self._extra):
            self._add(codes.ACROSS, draw=draw)
        self._add(codes.THERMOSTAT, draw=draw)
        self._onto_manifold(heat=1.0)

    def stop(self) -> None:
        """Stop the centre of mass; the energy that it had leaves as heat."""
        if self._block.alone:
            self._add(codes.STOP)
            return
        self.walk(adds=True)
        self._stops = True

    def measure(self, draw: int) -> None:
        """Keep the kinetic energy of every atom behind thermostat step ``draw``."""
        self._add(codes.MEASURE, draw=draw)

    def _add(self, code: int, *, time: float = 0.0, draw: int = 0) -> None:
        if len(self._pending) == codes.MOST_OPERATIONS:
            self.walk()
        self._pending.append((code, time, draw))

    def _onto_manifold(self, *, heat: float = 0.0) -> None:
        """Project velocities; what that takes away counts as heat, or does not."""
        if self._most:
            self._add(codes.TANGENT, time=heat)

    def walk(self, *, adds: bool = False) -> None:
        """Launch what was asked for; with ``adds`` momenta are added up behind it."""
        if not self._pending and not self._stops:
            return
        asked = {code for code, *_ in self._pending}
        kicked = {FAST: {codes.KICK, codes.SLOW_KICK}, SLOW: {codes.SLOW_KICK}}
        forces = [
            self._forces.get(name, self._v) if asked & those else self._v
            for name, those in kicked.items()
        ]
        how = self._stops, adds, self._summed
        key = (*self._pending, *how, *(force.data_ptr() for force in forces))
        if key not in self._launches:
            self._launches[key] = self._launch(self._pending, forces, adds)
        self._launches[key].run()
        self._pending, self._stops = [], False
        self._summed = 1 - self._summed if adds else self._summed

    def _group(self, held: Constraints | None) -> None:
        """Put atoms into groups, each moved by one thread."""
        n, device = self._shape[1], self._q.device
        clusters = [] if held is None else _members(held)
        alone = np.setdiff1d(np.arange(n), [a for members in clusters for a in members])
        groups = [*clusters, *([a] for a in alone.tolist())]
        members = np.zeros((len(groups), max(map(len, groups), default=1)), np.int32)
        for row, group in zip(members, groups, strict=True):
            row[: len(group)] = group
        self._groups = len(groups)
        self._heat = self._q.new_zeros(self._shape[0], self._groups)
        self._most = 0 if held is None else held.squares.shape[1]
        self._block = block_of(device, self._groups)
        self._kernel = program_kernel(
            atoms=members.shape[1], most=self._most, extra=len(self._extra), block=self._block
        )
        blocks = 1 if self._block.alone else -(-self._groups // GROUPS)
        self._sums = self._q.new_zeros(2, blocks, 3)
        self._launches = dict[tuple[Any, ...], Launches]()
        self._pending, self._stops, self._summed = [], False, 0

        def constant(array: Any, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.as_tensor(array, dtype=dtype, device=device).contiguous()

        def of_groups(array: np.ndarray) -> np.ndarray:
            """Have a row for every group, of zeros for atoms by themselves."""
            rest = np.zeros((self._groups - len(array), *array.shape[1:]), array.dtype)
            return np.concatenate([array, rest])

        weights = self._weights or (self._q.new_zeros(self._shape),) * 2
        if not len(self._extra):
            weights = tuple(weight.expand(self._shape).contiguous() for weight in weights)
        # Warp has no arrays of vectors that are empty
        more, noise = (
            array if array.numel() else self._q.new_zeros(1, *self._q.shape)
            for array in (self._extra, self._numbers.values)
        )
        noise = noise.view(len(noise), -1, *self._q.shape)
        self._kept = {
            "m": self._m,
            "inverse": self._inverse,
            "members": constant(members, torch.int32),
            "sizes": constant([len(group) for group in groups], torch.int32),
            "decay": weights[0],
            "width": weights[1],
            "heat": self._heat,
            "twice": self._twice,
            "lost": self.lost,
        }
        vectors = {
            "q": self._q,
            "v": self._v,
            "more": more,
            "noise": noise,
        }
        self._state = self._kernel.State()
        _fill(self._state, self._kept, vectors)
        self._state.mass = float(self._m.sum())
        self._bonds = self._kernel.Bonds()
        if held is not None:
            self._images = constant(of_groups(held.images))
            arrays = {
                "pairs": constant(of_groups(held.pairs), torch.int32),
                "counts": constant(of_groups(held.counts), torch.int32),
                "squares": constant(of_groups(held.squares)),
                "width": torch.sqrt(self._kT * self._inverse),
            }
            vectors |= {"images": self._images}
            _fill(self._bonds, arrays, {"images": self._images})
            self._kept |= arrays
        self._kept |= vectors

    def _launch(
        self, moves: Sequence[tuple[int, float, int]], forces: Sequence[Tensor], adds: bool
    ) -> Launches:
        device, w = self._q.device, self._omega
        program = self._kernel.Program()
        names = zip(*moves, strict=True) if moves else ((), (), ())
        kinds = torch.int32, torch.float64, torch.int32
        numbers = [
            torch.tensor(name, dtype=kind, device=device)
            for name, kind in zip(names, kinds, strict=True)
        ]
        turns = [
            torch.stack(
                [
                    torch.cos(w * time),
                    torch.where(w > 0.0, torch.sin(w * time) / w, time),
                    w * torch.sin(w * time),
                ]
            )
            for _, time, _ in moves
        ]
        arrays = dict(zip(("codes", "times", "draws"), numbers, strict=True))
        arrays["turns"] = torch.stack(turns) if turns else w.new_zeros(1, 3, len(w))
        _fill(program, arrays, {})
        program.stops, program.adds = int(self._stops), int(adds)
        program.differs, program.clip = int(self._differs), self._clip or 0.0
        launches, vec3d = Launches(device), warp().vec3d
        launches.keep(arrays)
        launches.add(
            *(self._kernel.walk, (self._shape[0], len(self._sums[0]), self._block.threads)),
            *(self._state, self._bonds, program, *(shared(force, vec3d) for force in forces)),
            *(self._sums[self._summed], self._sums[1 - self._summed]),
            block=self._block.threads,
        )
        return launches


def _members(held: Constraints) -> list[list[int]]:
    """Return the atoms of every cluster."""
    return [
        np.unique(pairs[:count]).tolist()
        for pairs, count in zip(held.pairs, held.counts, strict=True)
    ]


def _fill(structure: Any, arrays: dict[str, Tensor], vectors: dict[str, Tensor]) -> None:
    for name, tensor in arrays.items():
        setattr(structure, name, shared(tensor))
    for name, tensor in vectors.items():
        setattr(structure, name, shared(tensor, warp().vec3d))
