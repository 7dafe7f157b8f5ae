"""The inner loop of RESPA-BAOAB in the driver: one request for all inner steps of an outer step."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor

from integrators.bath import Bath
from integrators.inner_loop import take_inner_steps
from integrators.splitting import Splitting, fast_part
from integrators.state import Evaluation
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.errors import UserError

NEEDED = ("q", "p", "masses", "cell", "friction", "noise", "groups")


class Propagator:
    """Walks ``fast_part(n)`` of :mod:`integrators.splitting` in atomic units.

    Parameters
    ----------
    evaluate : Evaluator
        Of the student; each structure is evaluated once, since the last one is remembered.
    """

    def __init__(self, evaluate: Evaluator) -> None:
        self._evaluate = evaluate
        self._known: tuple[Tensor, Tensor, Evaluation] | None = None

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energy, forces (N, 3) and virial (3, 3) at positions (N, 3), atomic units."""
        known = self._known
        if known is None or not (torch.equal(known[0], positions) and torch.equal(known[1], cell)):
            found = self._evaluate(positions.numpy()[None], cell.numpy()[None])
            energy, forces, virial = (torch.from_numpy(part[0:1])[0] for part in found)
            known = self._known = (
                positions.clone(),
                cell.clone(),
                Evaluation(energy, forces, virial),
            )
        return known[2]

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return ``energy`` (), ``forces`` (N, 3) and ``virial`` (3, 3) at ``q`` in ``cell``.

        Raises
        ------
        UserError
            If there are not as many atoms as there should be, or the model fails.
        """
        found = self(*(torch.from_numpy(np.array(arrays[name])) for name in ("q", "cell")))
        values = {"energy": found.energy, "forces": found.forces, "virial": found.virial}
        return {name: value.numpy() for name, value in values.items()}

    def propagate(
        self, arrays: Mapping[str, np.ndarray], *, n: int, timestep: float, kT: float, fixcom: bool
    ) -> dict[str, np.ndarray]:
        """Take ``n`` inner steps between two slow kicks.

        Parameters
        ----------
        arrays : mapping
            ``q``, ``p`` (N, 3); ``masses`` (N,); ``cell`` (3, 3), rows are lattice vectors;
            ``friction`` (N,) and ``noise`` (n, N, 3), standard normal numbers, both empty without a
            thermostat; ``groups`` (G, N), bool. Atomic units.
        n : int
            Inner steps.
        timestep : float
            Length of all of them.
        kT : float
            Thermal energy.
        fixcom : bool
            Whether the centre of mass is kept still.

        Returns
        -------
        dict
            ``q``, ``p``, the student's ``energy`` (), ``forces`` (N, 3) and ``virial`` (3, 3) at
            ``q``; ``heat`` () that went into the atoms; ``twice_kinetic`` (n, G), Σ m v² of every
            group behind every thermostat step.

        Raises
        ------
        UserError
            If an array is missing or has another shape, or the model fails.
        """
        _check(arrays, n, self._evaluate.natoms)
        # a buffer that came over the wire is read-only
        q, p, masses, cell = (
            torch.from_numpy(np.array(arrays[k])) for k in ("q", "p", "masses", "cell")
        )
        groups = torch.from_numpy(np.array(arrays["groups"])).to(masses)
        bath = None
        if len(arrays["noise"]):
            bath = Bath(kT=kT, friction=torch.from_numpy(np.array(arrays["friction"])))
        taken = take_inner_steps(
            q,
            p,
            masses,
            cell,
            self,
            _splitting(n, thermostat=bath is not None),
            timestep=timestep,
            bath=bath,
            noise=torch.from_numpy(np.array(arrays["noise"])),
            groups=groups,
            fixcom=fixcom,
        )
        results = {
            "q": taken.positions,
            "p": taken.momenta,
            "energy": taken.evaluation.energy,
            "forces": taken.evaluation.forces,
            "virial": taken.evaluation.virial,
            "heat": taken.heat,
            "twice_kinetic": taken.twice_kinetic,
        }
        return {name: value.numpy() for name, value in results.items()}


@cache  # exact fractions take longer than a step of a small student
def _splitting(n: int, *, thermostat: bool) -> Splitting:
    return fast_part(n) if thermostat else fast_part(n).without_ou()


def _check(arrays: Mapping[str, np.ndarray], n: int, natoms: int) -> None:
    if missing := [name for name in NEEDED if name not in arrays]:
        raise UserError(f"a request to propagate lacks {', '.join(missing)}.")
    if not (isinstance(n, int) and n >= 1):
        raise UserError(f"a request to propagate has n={n!r} inner steps: give 1 or more.")
    bath = len(arrays["noise"]) > 0
    shapes = {
        "q": (natoms, 3),
        "p": (natoms, 3),
        "masses": (natoms,),
        "cell": (3, 3),
        "friction": (natoms,) if bath else (0,),
        "noise": (n, natoms, 3) if bath else (0,),
        "groups": (len(arrays["groups"]), natoms),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise UserError(
                f"a request to propagate has {name} of shape {arrays[name].shape} where {shape} is "
                f"expected: --structure has {natoms} atoms, and must be the one that runs."
            )
