"""Where a trajectory has got to: a safetensors file that is replaced in one step.

Tensors hold what must not lose a bit, the header says in JSON what the trajectory is of; nothing is
run from it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from integrators.constraints import Distances
from mts_driver.errors import UserError
from mts_driver.files import check_output, first_difference, replacing

FORMAT = 1
KEY = "mts_simulation"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A moment of a trajectory.

    Attributes
    ----------
    step : int
        Outer steps done.
    arrays : dict of str to ndarray
        Positions, momenta and all that is summed up.
    values : dict
        JSON-able: everything else.
    """

    step: int
    arrays: dict[str, np.ndarray]
    values: dict[str, Any]

    def distances(self) -> Distances:
        """Return those that are held."""
        return Distances(self.arrays["held_pairs"], self.arrays["held_lengths"])


class CheckpointFile:
    """The file of one trajectory.

    Parameters
    ----------
    path : Path
        Made with the first checkpoint.
    identity : mapping
        JSON-able: what the trajectory depends on, by the names of parameters.

    Raises
    ------
    UserError
        If the file could not be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        check_output(path, name="checkpoint")
        self.path, self._identity = path, json.loads(json.dumps(identity))

    def load(self) -> Checkpoint | None:
        """Return the last checkpoint, or None if there is none.

        Raises
        ------
        UserError
            If the file is something else, damaged, or of another trajectory; what differs is named.
        """
        if not self.path.exists():
            return None
        remedy = "give another checkpoint, or remove it to start anew."
        try:
            with safe_open(self.path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})[KEY])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            form, before, step = header["format"], header["identity"], header["step"]
            values = header["values"]
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(
                f"checkpoint '{self.path}' is not one of a simulation ({type(error).__name__}: "
                f"{error}): {remedy}"
            ) from error
        if form != FORMAT:
            raise UserError(f"checkpoint '{self.path}' has format {form}, not {FORMAT}: {remedy}")
        if (name := first_difference(before, self._identity)) is not None:
            raise UserError(
                f"checkpoint '{self.path}' is of a simulation with "
                f"{name}={before.get(name)!r}, not {self._identity.get(name)!r}: {remedy}"
            )
        return Checkpoint(step, arrays, values)

    def save(self, now: Checkpoint) -> None:
        """Write a checkpoint; a kill leaves the one before."""
        header = {
            "format": FORMAT,
            "identity": self._identity,
            "step": now.step,
            "values": now.values,
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in now.arrays.items()}
        contents = save(arrays, metadata={KEY: json.dumps(header)})
        with replacing(self.path) as part:
            part.write_bytes(contents)
