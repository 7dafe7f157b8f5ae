"""Radial distribution functions (the only module that imports freud)."""

import importlib.util
from dataclasses import dataclass

import numpy as np
from ase.geometry import find_mic
from scipy.signal import find_peaks

from mts_driver.analysis.statistics import MIN_BLOCKS
from mts_driver.analysis.trajectory import Trajectory
from mts_driver.errors import UserError

BIN_WIDTH_A = 0.05
LONGEST_A = 10.0
CLEAR = 1 / 3
MOST_PAIRS = 2e8
"""Over all frames, some seconds' work; pairs of hydrogens take fewer frames, evenly spread."""


@dataclass(frozen=True)
class RDF:
    """g(r) of one kind of atom around another or itself.

    Attributes
    ----------
    pair : str
        E.g. ``O–O``; in pairs with hydrogen without those in one molecule.
    r : array, shape (B,)
        Bin centres, Å.
    g : array, shape (B,)
        Radial distribution function.
    stderr : array, shape (B,)
        Standard error from consecutive blocks of frames; NaN if there are too few frames.
    """

    pair: str
    r: np.ndarray
    g: np.ndarray
    stderr: np.ndarray

    def first_peak(self) -> tuple[float, float, float]:
        """Position (Å), height and standard error of the first clear peak, else of the highest.

        It rises by a third of the highest above what is around: that of hydrogen bonds in water may
        be lower than the one behind it. Position and height are those of the parabola through its
        highest bin and its neighbours.
        """
        clear, _ = find_peaks(self.g, prominence=CLEAR * self.g.max())
        k = int(clear[0] if len(clear) else np.argmax(self.g))
        if 0 < k < len(self.g) - 1:
            left, top, right = self.g[k - 1 : k + 2]
            curvature = left - 2 * top + right
            shift = 0.5 * (left - right) / curvature if curvature < 0 else 0.0
            height = top - 0.25 * (left - right) * shift
        else:
            shift, height = 0.0, self.g[k]
        return (
            float(self.r[k] + shift * (self.r[1] - self.r[0])),
            float(height),
            float(self.stderr[k]),
        )


def available() -> bool:
    """Whether freud is installed."""
    return importlib.util.find_spec("freud") is not None


def choose_atoms(symbols: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the pair to look at, and its atoms as a mask of shape (N,).

    Oxygens, if there are at least two, and all heavy atoms otherwise.
    """
    oxygen = symbols == "O"
    return ("O–O", oxygen) if oxygen.sum() >= 2 else ("heavy–heavy", symbols != "H")


def longest_r(cells: np.ndarray) -> float:
    """Largest r that minimum images allow in all cells (shape (F, 3, 3)), at most 10 Å."""
    volumes = np.abs(np.linalg.det(cells))
    faces = np.linalg.norm(np.cross(np.roll(cells, -1, axis=1), np.roll(cells, -2, axis=1)), axis=2)
    width = float((volumes[:, None] / faces).min())
    # a hair below the half, where freud still counts every pair once
    return min(LONGEST_A, 0.4999 * width)


def pairs_of(symbols: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the pairs to look at, as two masks (N,) each: that of `choose_atoms`, and hydrogens.

    Only those of at least two atoms.
    """
    name, heavy = choose_atoms(symbols)
    hydrogen, kind = symbols == "H", name.partition("–")[0]
    found = {name: (heavy, heavy), f"{kind}–H": (heavy, hydrogen), "H–H": (hydrogen, hydrogen)}
    return {
        pair: (a, b)
        for pair, (a, b) in found.items()
        if a.any() and b.any() and (a | b).sum() > 1 and (pair.endswith("H") or a.sum() > 1)
    }


def radial_distribution(
    trajectory: Trajectory, *, r_max: float, pair: str | None = None
) -> RDF | None:
    """Average g(r) over the frames.

    Parameters
    ----------
    trajectory : Trajectory
        Without the equilibration.
    r_max : float
        Å, below half the smallest width of the cells; see `longest_r`.
    pair : str, optional
        One of `pairs_of`, by default its first. With hydrogen, pairs in one molecule are left out.

    Returns
    -------
    RDF or None
        None for fewer than two atoms of the pair.

    Raises
    ------
    UserError
        If freud is not installed.
    """
    if not available():
        raise UserError("radial distribution functions need freud: pip install freud-analysis")
    import freud

    pair = pair or choose_atoms(trajectory.symbols)[0]
    known = pairs_of(trajectory.symbols)
    if pair not in known or len(trajectory) == 0:
        return None
    centre, around = known[pair]
    alike = np.array_equal(centre, around)
    with_hydrogen = pair.endswith("–H")
    inside = _pairs_in_molecules(trajectory, centre, around) if with_hydrogen else None
    frames = np.arange(len(trajectory))
    if with_hydrogen:
        frames = frames[:: _every(trajectory, centre, around, r_max)]
    bins = max(1, round(r_max / BIN_WIDTH_A))
    accumulated = freud.density.RDF(bins=bins, r_max=r_max)
    per_block = []
    n_blocks = min(2 * MIN_BLOCKS, len(frames))
    blocks = np.array_split(frames, n_blocks)
    for block in blocks:
        within = np.zeros(bins)
        for k, frame in enumerate(block):
            # freud wants vectors in columns
            box = freud.box.Box.from_matrix(trajectory.cells[frame].T)
            x = box.wrap(trajectory.positions[frame])
            accumulated.compute(
                (box, x[centre]), query_points=None if alike else x[around], reset=k == 0
            )
            if inside is not None:
                within += _within(x, trajectory.cells[frame], inside, bins, r_max)
        # freud's own g(r) has the volume of the last frame
        density = around.sum() / np.abs(np.linalg.det(trajectory.cells[block])).mean()
        g = (accumulated.bin_counts - within) / (len(block) * centre.sum() * density)
        g /= _shells(bins, r_max)
        per_block.append(g)
    return RDF(
        pair=pair,
        r=np.array(accumulated.bin_centers, dtype=float),
        g=np.average(per_block, axis=0, weights=[len(b) for b in blocks]),
        stderr=np.std(per_block, axis=0, ddof=1) / np.sqrt(n_blocks)
        if n_blocks >= MIN_BLOCKS
        else np.full(bins, np.nan),
    )


def _pairs_in_molecules(
    trajectory: Trajectory, centre: np.ndarray, around: np.ndarray
) -> np.ndarray:
    """Return the ordered pairs of atoms that are in one molecule, (2, P)."""
    member = trajectory.molecules()
    order = np.argsort(member, kind="stable")
    found = [np.empty((2, 0), int)]
    for part in np.split(order, np.flatnonzero(np.diff(member[order])) + 1):
        i, j = np.meshgrid(part[centre[part]], part[around[part]], indexing="ij")
        both = np.stack([i.ravel(), j.ravel()])
        found.append(both[:, both[0] != both[1]])
    return np.concatenate(found, axis=1)


def _within(
    x: np.ndarray, cell: np.ndarray, pairs: np.ndarray, bins: int, r_max: float
) -> np.ndarray:
    """Histogram of the distances of pairs (2, P), nearest images."""
    if pairs.shape[1] == 0:
        return np.zeros(bins)
    distances = find_mic(x[pairs[0]] - x[pairs[1]], cell, pbc=True)[1]
    return np.asarray(np.histogram(distances, bins, (0.0, r_max))[0], float)


def _shells(bins: int, r_max: float) -> np.ndarray:
    """Volumes of the shells, Å³, shape (bins,)."""
    return np.diff(4.0 / 3.0 * np.pi * np.linspace(0.0, r_max, bins + 1) ** 3)


def _every(trajectory: Trajectory, centre: np.ndarray, around: np.ndarray, r_max: float) -> int:
    """Return how many frames to go on after one, to look at no more than `MOST_PAIRS` pairs."""
    volume = float(np.abs(np.linalg.det(trajectory.cells)).mean())
    near = centre.sum() * around.sum() * min(1.0, 4.0 / 3.0 * np.pi * r_max**3 / volume)
    return max(1, int(np.ceil(len(trajectory) * near / MOST_PAIRS)))
