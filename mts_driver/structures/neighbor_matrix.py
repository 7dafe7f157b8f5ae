"""Neighbours of all atoms in rows of fixed length, on the device where positions are.

The search is that of ``nvalchemi-toolkit-ops``. Rows are sorted, so that sums over them have the
same bits every time, and stay at the same place in memory until one of them is too short.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from integrators.device.launches import Launches, launch, on_torch_stream, shared, warp
from mts_driver.errors import UserError
from mts_driver.structures.neighbor_kernels import list_kernels

ROUND = 8
"""Lengths of rows are multiples of it."""
SPARE = 1.2
"""How much longer rows are made than the longest of the atoms as they are."""
WIDEST_SKIN_A = 4.0
MOST_THREADS, THREADS = 128, 2**18
"""That share the search for the neighbours of an atom, and of as many in all as keep a GPU busy."""
MARGIN = 1.5
"""How much longer than the last step the next may be."""
MOST_BY_ALL_PAIRS = {"cpu": 2_000, "cuda": 12_000}
"""Atoms of a periodic system that are searched for pair by pair: a GPU has many threads for it,
and a list of cells, which it cannot record, costs the host a millisecond."""


class NeighborMatrix:
    """All pairs within ``cutoff_A``, both ways, and those in a skin around it.

    Parameters
    ----------
    cutoff_A, skin_A : float
        Largest distance of a pair, and how much further lists reach, Å.
    periodic : tuple of bool
        Along which of its vectors a cell repeats.
    method : str, optional
        ``naive``, all pairs, or ``cell_list``; by default what the size asks for.
    ordered : bool
        Whether neighbours are sorted, so that sums over them have the same bits every time; a GPU
        finds them in any order, and sorts long rows slowly.
    within : NeighborMatrix, optional
        A list of the same atoms that reaches further and has no thinner skin: instead of a search,
        its rows are sifted, also where it is old but has all pairs. To be updated before.

    Raises
    ------
    UserError
        If the package that searches is not installed.

    Attributes
    ----------
    neighbors : int32 Tensor, shape (R·N, K)
        Atom n of replica r has the number r·N + n. Beyond ``count`` any numbers.
    count : int32 Tensor, shape (R·N,)
        How many there are; more than K where rows are too short.
    images : int32 Tensor, shape (R·N, K, 3)
        In which cell the neighbour is: x_j + image · cell − x_i is the vector to it.
    reference : Tensor, shape (R, N, 3)
        Where atoms were when the list was made.
    told : int32 Tensor, shape (2,)
        Above zero once somebody has found atoms at positions for which pairs may be missing; and
        where a row of the last list is too short.
    generation : int
        Changes when these are at another place.
    builds : int
        How often `build` has made the list; what a device decides in `refresh` is not known here.
    """

    def __init__(
        self,
        *,
        cutoff_A: float,
        skin_A: float,
        periodic: tuple[bool, bool, bool] = (True, True, True),
        method: str | None = None,
        ordered: bool = True,
        within: "NeighborMatrix | None" = None,
    ) -> None:
        if find_spec("nvalchemiops") is None:
            raise UserError(
                "lists of neighbours on a device need nvalchemi-toolkit-ops, which is not "
                "installed: pip install 'mts-driver[gpu]', or use --device cpu."
            )
        self.cutoff_A, self.skin_A, self.periodic = cutoff_A, skin_A, periodic
        self.method, self._ordered, self._within = method, ordered, within
        self._generation_within = -1
        self.generation = self.builds = 0
        self._longest = 1
        self.neighbors, self.count, self.images = torch.zeros(3, 0, 0, dtype=torch.int32)
        self._state: Any = None
        self.reference, self._cells = torch.zeros(0), torch.zeros(0)
        self.told = torch.zeros(2, dtype=torch.int32)
        self._positions, self._before = torch.zeros(2, 0, 3, dtype=torch.float64)
        self._anew = torch.zeros(0, dtype=torch.bool)
        self._forced = torch.zeros(1, dtype=torch.bool)
        self._found = tuple[Tensor, ...]()
        self._decide, self._keep = (Launches(torch.device("cpu")) for _ in range(2))

    def update(self, positions: Tensor, cells: Tensor) -> None:
        """Make the list anew if it does not have all pairs any more; waits for the device.

        Parameters
        ----------
        positions : float64 Tensor, shape (R, N, 3)
            Å.
        cells : float64 Tensor, shape (R, 3, 3)
            Rows are lattice vectors, Å; all zeros for isolated systems.
        """
        same = self._cells.shape == cells.shape and torch.equal(self._cells, cells)
        if self._within is not None:
            same = same and self._within.generation == self._generation_within
        if not same or self.reference.shape != positions.shape:
            self._prepare(positions, cells)
        elif bool(self.moved(positions)):
            _require_finite(positions)
            self.build(positions)
        while bool(self.overflow()):
            self._prepare(positions, cells)

    def build(self, positions: Tensor) -> None:
        """Make the list anew in the same cells; nothing here waits for the device."""
        self.renew()
        self.refresh(positions)
        self.builds += 1

    def refresh(self, positions: Tensor, *, search: bool = True) -> None:
        """Make the list anew if another step like the last one may need it; waits for nothing.

        A step is what lies between two such calls. The device decides, for every replica, and
        leaves lists alone that will do. Where a list of cells is known to do (`due`), the host may
        spare itself the search, which costs it a millisecond.
        """
        if search or self._state is None:
            self._look_at(positions)
        else:
            self._positions.copy_(positions.reshape(-1, 3))
            self._anew.zero_()
        if search and self._state is not None:
            found = self._of_cells()
            assert found[0].data_ptr() == self._found[0].data_ptr()
        self._keep.run()

    def due(self, positions: Tensor) -> Tensor:
        """Tell whether `refresh` would make a list of cells anew here, as a bool on the device."""
        self._look_at(positions)
        return self._anew.any()

    def _look_at(self, positions: Tensor) -> None:
        """Have the device decide which lists are to be new; those of all pairs are searched."""
        self._positions.copy_(positions.reshape(-1, 3))
        self._anew.copy_(self._forced.expand_as(self._anew))
        self._decide.run()

    def vectors(self, positions: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return which entries there are (M, K), their atoms (M, K), and vectors to them, Å."""
        x, shape = positions.reshape(-1, 3), self.neighbors.shape
        there = self._columns < self.count[:, None]
        j = torch.where(there, self.neighbors, 0).long()
        shifts = self.images.double().view(len(cells), -1, 3) @ cells
        return there, j, x[j] + shifts.view(*shape, 3) - x[:, None]

    def renew(self) -> None:
        """Have `refresh` make the next list anew."""
        self._forced.fill_(True)

    def reach_further(self) -> None:
        """Have a wider skin from the next `update` on.

        Raises
        ------
        UserError
            If it is wide already: atoms that move so far between two looks have flown away.
        """
        if self.skin_A >= WIDEST_SKIN_A:
            raise UserError(
                f"atoms move by more than {self.skin_A / 2:g} Å in one outer step: the trajectory "
                "has blown up. Use a shorter outer step, or relax the structure first."
            )
        self.skin_A = min(2.0 * self.skin_A, WIDEST_SKIN_A)
        self.make_room()

    def make_room(self) -> None:
        """Have rows that are long enough from the next `update` on; they never get shorter."""
        self.reference = torch.zeros(0)

    def moved(self, positions: Tensor) -> Tensor:
        """Tell whether pairs may be missing, as a bool on the device."""
        # written so that a NaN counts
        return ~(2.0 * _furthest(positions, self.reference).amax() < self.skin_A)

    def look(self, positions: Tensor) -> None:
        """Have `told` say so if pairs may be missing here; waits for nothing."""
        vec3d = warp().vec3d
        launch(
            *(list_kernels().look, (len(self.neighbors),), shared(positions.view(-1, 3), vec3d)),
            *(shared(self.reference.view(-1, 3), vec3d), self.skin_A, self.told),
            block=256,
        )

    def overflow(self) -> Tensor:
        """Tell whether a row was too short for all neighbours, as a bool on the device."""
        return self.told[1] > 0

    def _prepare(self, positions: Tensor, cells: Tensor) -> None:
        """Find out how long rows must be, have memory for them, and make the list."""
        replicas, atoms = positions.shape[:2]
        flat, device = positions.reshape(-1, 3), positions.device
        _require_finite(positions)
        self._cells = cells.clone()
        self._where, self._batch = dict[str, Tensor](), dict[str, Tensor]()
        if bool(cells.any()):
            axes = torch.tensor([self.periodic] * replicas, device=device)
            self._where = {"cell": self._cells, "pbc": axes}
            if replicas == 1:
                self._where = {"cell": self._cells, "pbc": axes[0]}
        if replicas > 1:
            numbers = torch.arange(replicas, dtype=torch.int32, device=device)
            self._batch = {"batch_idx": numbers.repeat_interleave(atoms)}
        self._positions = flat.clone()
        self._anew = torch.ones(replicas, dtype=torch.bool, device=device)
        if self._within is not None:
            self._generation_within = self._within.generation
        width = self._search(None)
        self._longest = max(int(width.amax()), self._longest)
        length = -(-int(SPARE * self._longest + 1) // ROUND) * ROUND
        self._search(length)
        shape = len(flat), length
        self.neighbors = torch.zeros(shape, dtype=torch.int32, device=device)
        self.count = torch.zeros(len(flat), dtype=torch.int32, device=device)
        self.images = torch.zeros(*shape, 3, dtype=torch.int32, device=device)
        self._columns = torch.arange(length, device=device)
        self.reference, self._before = positions.clone(), positions.clone()
        self._forced = torch.ones(1, dtype=torch.bool, device=device)
        self.told = torch.zeros(2, dtype=torch.int32, device=device)
        self.generation += 1
        self._launches(atoms)
        self.build(positions)

    @property
    def recordable(self) -> bool:
        """Whether `refresh` may be part of a CUDA graph, which a list of cells may not."""
        return self._state is None

    def _launches(self, atoms: int) -> None:
        """Put together what is launched around a search, and the search of all pairs."""
        device, wp = self.neighbors.device, warp()
        self._decide, self._keep, kernels = Launches(device), Launches(device), list_kernels()
        x, reference, before = (
            shared(t.view(-1, 3), wp.vec3d) for t in (self._positions, self.reference, self._before)
        )
        rows, images = self.neighbors.shape, shared(self.images, wp.vec3i)
        found_images = shared(self._found[2], wp.vec3i)
        self._decide.add(
            *(kernels.spent, (rows[0],), x, reference, before, atoms, self.skin_A, MARGIN),
            *(self._anew, self.told),
        )
        self._add_search(self._decide)
        self._keep.add(
            *(kernels.take, tuple(rows), self._found[0], found_images, self._anew, atoms),
            *(int(self._ordered), self._found[1], self.neighbors, images),
        )
        self._keep.add(
            *(kernels.taken, (rows[0],), x, atoms, self._found[1], rows[1], self._anew),
            *(self.count, reference, before, self.told, self._forced),
        )

    def _add_search(self, to: Launches) -> None:
        """Add the search of all pairs, or of another list's, unless there is a list of cells."""
        if self._state is not None:
            return
        wp, kernels, replicas, found = warp(), list_kernels(), len(self._cells), self._found
        rows, reach = len(self._positions), self.cutoff_A + self.skin_A
        atoms = rows // replicas
        place, threads = (self._anew, atoms), max(1, min(MOST_THREADS, atoms // 4, THREADS // rows))
        x, cells = shared(self._positions, wp.vec3d), shared(self._cells, wp.mat33d)
        out = found[1], found[0], shared(found[2], wp.vec3i)
        if (far := self._within) is not None:
            to.add(kernels.empty, (rows,), *place, found[1])
            to.add(
                *(kernels.sift, (rows, threads), x, cells, *place, threads, reach, far.count),
                *(far.neighbors, shared(far.images, wp.vec3i), *out),
            )
            return
        inverses = torch.linalg.pinv(self._cells)
        axes = wp.vec3i(*map(int, self.periodic if self._where else (False,) * 3))
        fractions = shared(torch.zeros_like(self._positions), wp.vec3d)
        cells_of = shared(torch.zeros_like(self._positions, dtype=torch.int32), wp.vec3i)
        to.add(
            *(kernels.clear, (rows,), x, shared(inverses, wp.mat33d), axes, *place, found[1]),
            *(fractions, cells_of),
        )
        widths = shared(reach * inverses.norm(dim=1), wp.vec3d)
        to.add(
            *(kernels.search, (rows, threads), x, fractions, cells_of, cells, widths, axes),
            *(*place, threads, reach, *out),
        )

    def _search(self, length: int | None) -> Tensor:
        """Have rows of a length, or of any, and return how many are found for each."""
        replicas, rows = len(self._cells), len(self._positions)
        small = not self._where or rows <= MOST_BY_ALL_PAIRS[self._positions.device.type] * replicas
        small = small or self._within is not None
        self._state = None
        self._anew.fill_(True)
        if (self.method or ("naive" if small else "cell_list")) == "naive":
            shape = rows, length or 1
            place = {"dtype": torch.int32, "device": self._positions.device}
            self._found = (
                *(torch.zeros(shape, **place), torch.zeros(rows, **place)),
                torch.zeros(*shape, 3, **place),
            )
            once = Launches(self._positions.device)
            self._add_search(once)
            once.run()
        else:
            self._prepare_cells(length)
            self._found = self._of_cells()
        return self._found[1]

    def _prepare_cells(self, length: int | None) -> None:
        """Prepare the search of the package."""
        from nvalchemiops.torch.neighbors import prepare_neighbor_list

        several = "batch_" if len(self._cells) > 1 else ""
        self._state = prepare_neighbor_list(
            *(self._positions, self.cutoff_A + self.skin_A),
            **(self._where | self._batch),
            method=f"{several}cell_list",
            **({} if several else {"strategy": "atom_centric"}),
            max_neighbors=length,
            fixed_cell=True,
            selective=True,
        )

    def _of_cells(self) -> tuple[Tensor, ...]:
        """Search for the replicas whose lists are to be new; results are always in one place."""
        from nvalchemiops.torch.neighbors import neighbor_list

        where = self._where | self._batch | {"rebuild_flags": self._anew}
        with on_torch_stream(self._positions.device):
            found: tuple[Tensor, ...] = neighbor_list(
                self._positions, self.cutoff_A + self.skin_A, **where, state=self._state
            )
        return found


def _furthest(positions: Tensor, before: Tensor) -> Tensor:
    """Return the longest way of an atom of every replica."""
    return (positions - before).square().sum(-1).amax(-1).sqrt()


def _require_finite(positions: Tensor) -> None:
    if not bool(torch.isfinite(positions).all()):
        raise UserError("positions are not finite: the trajectory has blown up.")
