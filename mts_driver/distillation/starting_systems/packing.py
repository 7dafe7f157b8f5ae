"""Put molecules together: far apart in one gas system, in contact, or packed in a periodic box.

A teacher call costs milliseconds before its first atom, so that small molecules are labelled many
at a time, further apart than the teacher sees. One thing they still share: SO3LR spreads what its
partial charges lack to the total charge evenly over all atoms of a system, at any distance. Forces
are thereby not quite those of the molecules alone: they differ by 0.001 to 0.02 eV/Å rms, as those
of a solute do with the solvent around it; copies of one molecule with one geometry don't differ.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.io import write
from ase.units import kg, m
from scipy.spatial.transform import Rotation

from mts_driver.errors import UserError

TOLERANCE_A = 2.0
"""Smallest distance between atoms of different molecules that packmol leaves."""
PACKING_LOOPS = 50
"""packmol needs a few for a liquid; its default of 200 and more takes minutes to give up."""


def gas(
    frames: Sequence[Atoms],
    *,
    name: str = "gas",
    atoms_per_system: int = 250,
    gap_A: float = 16.0,
) -> list[Atoms]:
    """Distribute isolated molecules or clusters over few systems, far from one another in each.

    Large and small ones are mixed, so that all systems have about the same number of atoms.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        One molecule or cluster each, not periodic; ``info["system"]`` names it, and
        ``info["charge"]`` in e is its charge, if not 0.
    name : str
        The systems become ``NAME-00``, ``NAME-01``, ...
    atoms_per_system : int
        About how many atoms a system has.
    gap_A : float
        Least distance between atoms of different frames.

    Returns
    -------
    list of ase.Atoms
        Not periodic; info has ``system``, the names of its ``members`` and their ``charge``.

    Raises
    ------
    UserError
        If there is no frame or one is periodic, or a size is not positive.
    """
    if not frames:
        raise UserError("gas: there is no molecule to place: give at least one.")
    if atoms_per_system < 1 or not gap_A > 0:
        raise UserError(
            f"gas: atoms_per_system={atoms_per_system} and gap_A={gap_A:g} must be positive."
        )
    for frame in frames:
        if frame.pbc.any():
            raise UserError(
                f"gas: {frame.info.get('system', frame.get_chemical_formula())} is periodic: only "
                "isolated molecules can be placed."
            )
    count = max(1, round(sum(map(len, frames)) / atoms_per_system))
    shares: list[list[Atoms]] = [[] for _ in range(min(count, len(frames)))]
    for frame in sorted(frames, key=len, reverse=True):
        min(shares, key=lambda share: sum(map(len, share))).append(frame)
    return [_spread(share, f"{name}-{k:02d}", gap_A) for k, share in enumerate(shares)]


def _spread(frames: Sequence[Atoms], name: str, gap_A: float) -> Atoms:
    """One system with the frames on the points of a cubic lattice."""
    centres = [(f.positions.min(axis=0) + f.positions.max(axis=0)) / 2.0 for f in frames]
    radii = [
        np.linalg.norm(f.positions - c, axis=1).max() for f, c in zip(frames, centres, strict=True)
    ]
    spacing = 2.0 * max(radii) + gap_A
    side = int(np.ceil(np.cbrt(len(frames))))
    system = Atoms()
    for k, (frame, centre) in enumerate(zip(frames, centres, strict=True)):
        point = spacing * np.array(np.unravel_index(k, (side, side, side)))
        system += Atoms(frame.numbers, frame.positions - centre + point)
    system.info = {
        "system": name,
        "members": " ".join(f.info.get("system", f.get_chemical_formula()) for f in frames),
        "charge": sum(f.info.get("charge", 0) for f in frames),
    }
    return system


def in_contact(
    first: Atoms, second: Atoms, *, distance_A: float, rng: np.random.Generator
) -> Atoms:
    """Both molecules, the second turned at random and brought near the first along a random line.

    Parameters
    ----------
    distance_A : float
        Distance of the two atoms, one of each molecule, that are closest; more if the second
        molecule finds a gap inside the first.

    Returns
    -------
    ase.Atoms
        The atoms of ``first``, where they were, then those of ``second``; no info.
    """
    line = rng.normal(size=3)
    line /= np.linalg.norm(line)
    turned = second.positions - second.positions.mean(axis=0)
    turned = turned @ Rotation.from_quat(rng.normal(size=4)).as_matrix().T
    turned += first.positions.mean(axis=0)
    # a pair separated by d + t·line is distance_A apart at the larger root of a quadratic in t,
    # and further apart beyond: the largest root of all pairs is where the first pair touches
    apart = (turned[None, :, :] - first.positions[:, None, :]).reshape(-1, 3)
    along = apart @ line
    square = along**2 - (apart**2).sum(axis=1) + distance_A**2
    touch = (np.sqrt(square[square >= 0]) - along[square >= 0]).max(initial=0.0)
    return Atoms(
        np.concatenate([first.numbers, second.numbers]),
        np.concatenate([first.positions, turned + touch * line]),
    )


def box(
    molecules: Sequence[tuple[Atoms, int]],
    *,
    name: str,
    density_g_cm3: float = 0.97,
    seed: int = 1,
) -> Atoms:
    """Pack molecules at random into a periodic cube with packmol.

    Parameters
    ----------
    molecules : sequence of (ase.Atoms, int)
        What, and how many of it.
    name : str
        Becomes ``info["system"]``; ``info["charge"]`` is the sum of those of the molecules.
    density_g_cm3 : float
        Of the box.
    seed : int
        Of packmol.

    Raises
    ------
    UserError
        If packmol is not installed, or finds no packing at this density.
    """
    try:
        from packmol.cli import get_binary_path
    except ModuleNotFoundError as error:
        raise UserError(
            "packing a box of liquid needs packmol: pip install 'mts-driver[general]'."
        ) from error

    packed = Atoms()
    for molecule, number in molecules:
        for _ in range(number):
            packed += Atoms(molecule.numbers, molecule.positions)
    side = np.cbrt(packed.get_masses().sum() / (density_g_cm3 * 1e3 * kg / m**3))
    sides = f"0. 0. 0. {side:.6f} {side:.6f} {side:.6f}"
    with TemporaryDirectory() as folder:
        lines = [f"tolerance {TOLERANCE_A}", f"seed {seed}", "filetype xyz", "output packed.xyz"]
        lines += [f"pbc {sides}", f"nloop {PACKING_LOOPS}"]
        for k, (molecule, number) in enumerate(molecules):
            write(Path(folder, f"{k}.xyz"), Atoms(molecule.numbers, molecule.positions))
            lines += [f"structure {k}.xyz", f"number {number}", f"inside box {sides}"]
            lines += ["end structure"]
        Path(folder, "box.inp").write_text("\n".join(lines) + "\n")
        told = subprocess.run(
            [str(get_binary_path()), "-i", "box.inp"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if told.returncode != 0 or "Success!" not in told.stdout:
            raise UserError(
                f"packmol found no packing of {name!r} at density_g_cm3={density_g_cm3:g} (exit "
                f"status {told.returncode}): give a lower density or another seed. Its last words: "
                f"{told.stdout[-300:].strip()} {told.stderr[-300:].strip()}"
            )
        packed.positions = np.loadtxt(Path(folder, "packed.xyz"), skiprows=2, usecols=(1, 2, 3))
    packed.set_cell([side] * 3)
    packed.pbc = True
    packed.info = {"system": name, "charge": sum(a.info.get("charge", 0) * n for a, n in molecules)}
    return packed
