"""Trajectories of the MD17 and rMD17 sets, and our own in their format."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses

from mts_driver.errors import UserError
from mts_driver.files import replacing
from mts_driver.super_resolution.frames import Frames
from mts_driver.units import EV_FS2_A2_PER_AMU, KCAL_MOL_EV

NAMES = {
    "numbers": ("z", "nuclear_charges"),
    "positions": ("R", "coords"),
    "forces": ("F", "forces"),
}
"""Of the arrays, as MD17 and rMD17 call them."""
TIMESTEP_FS = 0.5
"""Of MD17, between frames (Chmiela et al., Sci. Adv. 2017, 3, e1603015)."""


def write_md17(
    path: Path, frames: Frames, energies_eV: np.ndarray, made: Mapping[str, Any]
) -> None:
    """Write frames as MD17's, with velocities (V, Å/fs) beside R, F, E and z.

    Parameters
    ----------
    frames : Frames
        With velocities and accelerations, of atoms with natural masses.
    energies_eV : array, shape (T,)
        Of the potential.
    made : mapping
        JSON-able, how: kept as text under ``made``, with the time step in fs.
    """
    assert frames.velocities_A_fs is not None and frames.accelerations_A_fs2 is not None
    forces = frames.accelerations_A_fs2 * _masses(frames.numbers)
    contents = io.BytesIO()
    np.savez(
        contents,
        z=frames.numbers,
        R=frames.positions_A,
        V=frames.velocities_A_fs,
        F=forces / KCAL_MOL_EV,
        E=energies_eV[:, None] / KCAL_MOL_EV,
        timestep_fs=frames.timestep_fs,
        made=json.dumps(dict(made)),
    )
    with replacing(path) as part:
        part.write_bytes(contents.getbuffer())


def made_of(path: Path) -> dict[str, Any] | None:
    """Return how `write_md17` was told that a file was made; None for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = json.loads(str(file["made"]))
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile):
        return None
    return found if isinstance(found, dict) else None


def read_md17(path: Path | str, *, timestep_fs: float | None = None) -> Frames:
    """Read a ``.npz`` file: z, R in Å and F in kcal/mol/Å, or rMD17's names for them.

    Velocities that the file does not have (V) are central differences of positions, good to the
    square of the time step, so that the first frame and the last are left out.

    Parameters
    ----------
    path : path
        The file; nothing in it is unpickled.
    timestep_fs : float
        Between its frames; by default what the file says, or else MD17's 0.5 fs.

    Raises
    ------
    UserError
        If it is no such file, or its frames are not in the order of time, as rMD17's are not.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"'{path}' does not exist.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {
                what: np.array(file[name])
                for what, names in NAMES.items()
                for name in names
                if name in file.files
            }
            extra = {
                name: np.array(file[name])
                for name in ("old_indices", "V", "timestep_fs")
                if name in file.files
            }
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"'{path}' is no .npz file of numbers: {error}.") from error
    for what, names in NAMES.items():
        if what not in arrays:
            raise UserError(f"'{path}' has no array {' or '.join(names)} ({what}).")
    numbers, x = arrays["numbers"].astype(int), arrays["positions"].astype(float)
    forces = arrays["forces"].astype(float) * KCAL_MOL_EV
    if "old_indices" in extra and (np.diff(extra["old_indices"]) != 1).any():
        raise UserError(
            f"'{path}' holds frames that do not follow one another in time (its old_indices jump), "
            "so that there is nothing between them: take the file of MD17 that they were drawn "
            "from."
        )
    if x.ndim != 3 or len(x) < 4 or forces.shape != x.shape:
        raise UserError(
            f"'{path}' has positions of the shape {x.shape} and forces of {forces.shape}; both "
            "must be (frames, atoms, 3), with at least 4 frames."
        )
    said = float(extra["timestep_fs"]) if "timestep_fs" in extra else None
    if said and timestep_fs and not np.isclose(said, timestep_fs):
        raise UserError(f"timestep_fs={timestep_fs:g}: '{path}' has frames every {said:g} fs.")
    timestep_fs = timestep_fs or said or TIMESTEP_FS
    if not ((numbers > 0) & (numbers < len(atomic_masses))).all():
        raise UserError(f"'{path}' has atomic numbers that no element has.")
    a = forces / _masses(numbers)
    if "V" in extra:
        return Frames(numbers, timestep_fs, x, extra["V"].astype(float), a)
    v = (x[2:] - x[:-2]) / (2.0 * timestep_fs)
    return Frames(numbers, timestep_fs, x[1:-1], v, a[1:-1])


def _masses(numbers: np.ndarray) -> np.ndarray:
    """Natural masses (N, 1), eV fs²/Å²."""
    found: np.ndarray = atomic_masses[numbers][:, None] * EV_FS2_A2_PER_AMU
    return found
