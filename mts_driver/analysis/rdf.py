"""Radial distribution functions (the only module that imports freud)."""

import importlib.util
from dataclasses import dataclass

import numpy as np

from mts_driver.analysis.statistics import MIN_BLOCKS
from mts_driver.analysis.trajectory import Trajectory
from mts_driver.errors import UserError

BIN_WIDTH_A = 0.05
LONGEST_A = 10.0


@dataclass(frozen=True)
class RDF:
    """g(r) of one kind of atom around itself.

    Attributes
    ----------
    pair : str
        E.g. ``O–O``.
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
        """Position (Å), height and standard error of the highest peak.

        In a liquid that is the first one. Position and height are those of the parabola through
        the highest bin and its neighbours.
        """
        k = int(np.argmax(self.g))
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


def radial_distribution(trajectory: Trajectory, *, r_max: float) -> RDF | None:
    """Average g(r) over the frames.

    Parameters
    ----------
    trajectory : Trajectory
        Without the equilibration.
    r_max : float
        Å, below half the smallest width of the cells; see `longest_r`.

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

    pair, atoms = choose_atoms(trajectory.symbols)
    if atoms.sum() < 2 or len(trajectory) == 0:
        return None
    bins = max(1, round(r_max / BIN_WIDTH_A))
    accumulated = freud.density.RDF(bins=bins, r_max=r_max)
    per_block = []
    n_blocks = min(2 * MIN_BLOCKS, len(trajectory))
    for block in np.array_split(np.arange(len(trajectory)), n_blocks):
        for k, frame in enumerate(block):
            # freud wants vectors in columns
            box = freud.box.Box.from_matrix(trajectory.cells[frame].T)
            points = box.wrap(trajectory.positions[frame][atoms])
            accumulated.compute((box, points), reset=k == 0)
        per_block.append(np.array(accumulated.rdf, dtype=float))
    sizes = [len(b) for b in np.array_split(np.arange(len(trajectory)), n_blocks)]
    enough = n_blocks >= MIN_BLOCKS
    return RDF(
        pair=pair,
        r=np.array(accumulated.bin_centers, dtype=float),
        g=np.average(per_block, axis=0, weights=sizes),
        stderr=np.std(per_block, axis=0, ddof=1) / np.sqrt(n_blocks)
        if enough
        else np.full(bins, np.nan),
    )
