"""What is looked at in a run of the scan: temperatures at O, bonds, positions."""

import numpy as np
import torch
from ase import Atoms

from integrators.constraints import nearest_images
from integrators.splitting import Operation
from integrators.state import MDState
from integrators.thermometer import Thermometer
from mts_driver.simulation.dynamics import BlownUp, hottest
from mts_driver.simulation.holes import bonds_to_hydrogen
from mts_driver.structures.fixed import moving_atoms
from mts_driver.structures.solutes import temperature_groups
from mts_driver.structures.tensors import cell_of


class Observer:
    """Collects one value an outer step.

    Parameters
    ----------
    atoms : ase.Atoms
        Where the run starts.
    temperature_K : float
        The target.
    lost_degrees : Tensor of shape (N,)
        Degrees of freedom that atoms have lost to held distances.

    Attributes
    ----------
    temperatures : dict of str to list of float
        Of all atoms, hydrogens and heavy atoms, and of a solute, K.
    degrees : dict of str to float
        Their degrees of freedom.
    bond_mean, bond_square : list of float
        Mean length of X-H bonds, and mean square, Å and Å².
    heavy_positions : list of ndarray, shape (..., M, 3)
        Of the heavy atoms that move, Å.
    """

    def __init__(self, atoms: Atoms, temperature_K: float, lost_degrees: torch.Tensor) -> None:
        moves = moving_atoms(atoms)
        groups = {name: torch.tensor(mask) for name, mask in temperature_groups(atoms).items()}
        self._thermometer = Thermometer(groups, torch.tensor(moves), lost_degrees)
        self.degrees = self._thermometer.degrees
        self._hottest_K = {
            name: hottest(count) * temperature_K for name, count in self.degrees.items()
        }
        self._heavy = torch.tensor(np.flatnonzero((atoms.numbers != 1) & moves))
        bonds = bonds_to_hydrogen(atoms)
        bonds = bonds[moves[bonds].any(axis=1)]
        self._bonds = torch.tensor(bonds)
        vectors = atoms.positions[bonds[:, 0]] - atoms.positions[bonds[:, 1]]
        # positions are not wrapped: a bond keeps the periodic image that it starts in
        self._images = torch.from_numpy(nearest_images(vectors, cell_of(atoms).numpy()))
        self.temperatures: dict[str, list[float]] = {}
        self.bond_mean: list[float] = []
        self.bond_square: list[float] = []
        self.heavy_positions: list[np.ndarray] = []

    def on_op(self, k: int, op: Operation, state: MDState) -> None:
        """See the state after an operation of the splitting."""
        self._thermometer(k, op, state)

    def on_step(self, state: MDState) -> None:
        """See the state after an outer step.

        Raises
        ------
        BlownUp
            If it is too hot.
        """
        found = self._thermometer.temperatures_K
        self._thermometer.reset()
        if not all(value < self._hottest_K[name] for name, value in found.items()):
            raise BlownUp
        for name, value in found.items():
            self.temperatures.setdefault(name, []).append(value)
        x = state.positions.detach().cpu()
        if len(self._bonds):
            d = x[..., self._bonds[:, 0], :] - x[..., self._bonds[:, 1], :] - self._images
            lengths = torch.linalg.vector_norm(d, dim=-1)
            self.bond_mean.append(float(lengths.mean()))
            self.bond_square.append(float(lengths.square().mean()))
        self.heavy_positions.append(x[..., self._heavy, :].float().numpy())
