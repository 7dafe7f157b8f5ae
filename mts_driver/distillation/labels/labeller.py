"""The teacher for whatever frame is to be labelled, and what happens when it fails on one."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ase import Atoms

from integrators.state import Potential
from mts_driver.distillation.labels.kinds import MAY_FAIL
from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.load import spec_for
from mts_driver.structures.tensors import cell_of

KEPT = 8
FEWEST_TRIED, MOST_FAILED = 20, 0.5
"""Sampling ends when more than this share of at least so many frames has failed."""


class Labeller:
    """Labels frames of any composition with one teacher.

    Parameters
    ----------
    spec : str
        Specification of the teacher.
    labels : LabelFile
        Receives the labelled frames.
    device : str
        Torch device.

    Attributes
    ----------
    failed : list of str
        What went wrong with frames that the teacher could not label.
    """

    def __init__(self, spec: str, labels: LabelFile, *, device: str = "cpu") -> None:
        self.spec, self.labels, self.device = spec, labels, device
        self.failed: list[str] = []
        self._tried = 0
        self._loaded: OrderedDict[tuple[str, bytes], Potential] = OrderedDict()

    def teacher(self, atoms: Atoms) -> Potential:
        """Return the teacher bound to these atoms; charge and spin are those of ``info``."""
        key = (spec_for(self.spec, atoms), atoms.numbers.tobytes())
        if key not in self._loaded:
            self._loaded[key] = load_potential(key[0], atoms.numbers, device=self.device)
            if len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def label(
        self,
        frame: Atoms,
        *,
        kind: str,
        split: str,
        system: str,
        arrays: Mapping[str, np.ndarray] | None = None,
        **info: Any,
    ) -> bool:
        """Call the teacher and keep the result; False if it failed on this frame.

        Raises
        ------
        UserError
            If it fails on half of the displaced frames.
        """
        self._tried += 1
        try:
            found = self.teacher(frame)(torch.tensor(frame.positions), cell_of(frame))
            self.labels.add(
                frame,
                kind=kind,
                split=split,
                system=system,
                energy_eV=float(found.energy),
                forces_eV_A=found.forces.numpy(),
                arrays=arrays,
                info={**kept_info(frame), **info},
            )
        except UserError as error:
            if kind not in MAY_FAIL:
                raise
            self.failed.append(f"{kind} frame of {system}: {error}")
            if self._tried >= FEWEST_TRIED and len(self.failed) > MOST_FAILED * self._tried:
                raise UserError(
                    f"the teacher {self.spec!r} failed on {len(self.failed)} of {self._tried} "
                    f"displaced frames, the last time so: {error} The labels so far are kept in "
                    f"'{self.labels.path}'."
                ) from error
            return False
        return True


def kept_info(atoms: Atoms) -> dict[str, Any]:
    """Return what a label inherits from the structure: its charge and spin, if it has any."""
    charge, multiplicity = atoms.info.get("charge", 0), atoms.info.get("multiplicity", 1)
    found = {"charge": int(charge)} if charge else {}
    return found | ({"multiplicity": int(multiplicity)} if multiplicity != 1 else {})
