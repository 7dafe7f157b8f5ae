"""Trajectories of the MD17 and rMD17 sets."""

import zipfile
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from mts_driver.errors import UserError
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


def read_md17(path: Path | str, *, timestep_fs: float = TIMESTEP_FS) -> Frames:
    """Read a ``.npz`` file: z, R in Å and F in kcal/mol/Å, or rMD17's names for them.

    Velocities are central differences of positions, good to the square of the time step, so that
    the first frame and the last are left out.

    Parameters
    ----------
    path : path
        The file; nothing in it is unpickled.
    timestep_fs : float
        Between its frames.

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
            order = np.array(file["old_indices"]) if "old_indices" in file.files else None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"'{path}' is no .npz file of numbers: {error}.") from error
    for what, names in NAMES.items():
        if what not in arrays:
            raise UserError(f"'{path}' has no array {' or '.join(names)} ({what}).")
    numbers, x = arrays["numbers"].astype(int), arrays["positions"].astype(float)
    forces = arrays["forces"].astype(float) * KCAL_MOL_EV
    if order is not None and (np.diff(order) != 1).any():
        raise UserError(
            f"'{path}' holds frames that do not follow one another in time (its old_indices jump), "
            "so that there is nothing between them: take the file of MD17 that they were drawn "
            "from."
        )
    if x.ndim != 3 or len(x) < 3 or forces.shape != x.shape:
        raise UserError(
            f"'{path}' has positions of the shape {x.shape} and forces of {forces.shape}; both "
            "must be (frames, atoms, 3), with at least 3 frames."
        )
    masses = atomic_masses[numbers][:, None] * EV_FS2_A2_PER_AMU
    return Frames(
        numbers,
        timestep_fs,
        x[1:-1],
        (x[2:] - x[:-2]) / (2.0 * timestep_fs),
        (forces / masses)[1:-1],
    )
