"""The exact state of dynamics that are sampled: eight digits, as in labels, are too few for it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from integrators.state import MDState
from mts_driver.files import replacing


def file_name(system: str) -> str:
    """Return the name of a system with what no file name may hold replaced."""
    return re.sub(r"[^\w.+-]", "_", system)


class StateFile:
    """Positions and velocities at the last label of one system; written before the label is.

    Parameters
    ----------
    folder : Path
        Of the labels.
    system : str
        Name of the system.
    """

    def __init__(self, folder: Path, system: str) -> None:
        self.path = folder / f"{file_name(system)}-state.npz"
        self.system = system

    def write(self, stage: str, state: MDState) -> None:
        """Replace what was kept."""
        with replacing(self.path) as part:
            np.savez(
                part,
                system=self.system,
                stage=stage,
                step=state.step,
                positions_A=state.positions.numpy(),
                velocities_A_fs=state.velocities.numpy(),
            )

    def read(self, stage: str, fallback: MDState, *, latest: int) -> MDState:
        """Return the state that was kept in this stage, or ``fallback``.

        Parameters
        ----------
        fallback : MDState
            At the last label; a state of an earlier step than this is not that of the labels.
        latest : int
            Nor is one of a later step than this.
        """
        if not self.path.exists():
            return fallback
        with np.load(self.path) as kept:
            step = int(kept["step"])
            mine = str(kept["system"]) == self.system and str(kept["stage"]) == stage
            if not (mine and fallback.step <= step <= latest):
                return fallback
            return replace(
                fallback,
                positions=torch.from_numpy(kept["positions_A"]),
                velocities=torch.from_numpy(kept["velocities_A_fs"]),
                step=step,
            )
