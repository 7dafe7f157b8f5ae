"""Models of argon, exported with metatomic, whose answers ASE's Lennard-Jones knows."""

# what is exported has the annotations that metatomic compares
# ruff: noqa: UP006, UP035, UP045
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
    unit_conversion_factor,
)

SIGMA_A, EPSILON_EV, CUTOFF_A = 3.4, 0.0104, 6.0


def known_answer() -> LennardJones:
    return LennardJones(sigma=SIGMA_A, epsilon=EPSILON_EV, rc=CUTOFF_A, ro=5.0, smooth=True)


class Argon(torch.nn.Module):
    """Lennard-Jones atoms, smooth; with ``passes``, neighbours of neighbours matter, too."""

    def __init__(
        self,
        length: float,
        energy: float,
        full: bool,
        passes: bool,
        inputs: bool,
        masses: bool,
        deaf: bool,
    ):
        super().__init__()
        self.sigma, self.epsilon = SIGMA_A * length, EPSILON_EV * energy
        self.cutoff, self.smooth_from = CUTOFF_A * length, 5.0 * length
        self.full, self.passes, self.inputs = full, passes, inputs
        self.masses, self.deaf = masses, deaf
        self.options = NeighborListOptions(cutoff=self.cutoff, full_list=full, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.options]

    def requested_inputs(self) -> Dict[str, ModelOutput]:
        if self.masses:
            return {"mass": ModelOutput(unit="u", sample_kind="atom")}
        if self.inputs:
            return {
                "charge": ModelOutput(unit="e", sample_kind="system"),
                "spin_multiplicity": ModelOutput(unit="", sample_kind="system"),
            }
        return {}

    def summed(self, system: System, of_second: torch.Tensor, pair: torch.Tensor) -> torch.Tensor:
        """Sum over the neighbours of every atom."""
        samples = system.get_neighbor_list(self.options).samples.values.long()
        i, j = samples[:, 0], samples[:, 1]
        found = torch.zeros(len(system), dtype=pair.dtype).index_add(0, i, pair * of_second[j])
        if not self.full:
            found = found.index_add(0, j, pair * of_second[i])
        return found

    def atomic(self, system: System) -> torch.Tensor:
        d = system.get_neighbor_list(self.options).values.squeeze(-1)
        pairs = system.get_neighbor_list(self.options).samples.values
        i, j = pairs[:, 0].long(), pairs[:, 1].long()
        apart = system.positions[j] - system.positions[i]
        apart = apart + pairs[:, 2:].to(d.dtype) @ system.cell
        if len(d) > 0 and (apart - d).abs().max() > 1e-3 * self.sigma:
            raise ValueError("vectors and cells of pairs do not agree")
        r2 = d.square().sum(-1)
        rc2, ro2 = self.cutoff**2, self.smooth_from**2
        bend = (rc2 - r2) ** 2 * (rc2 + 2 * r2 - 3 * ro2) / (rc2 - ro2) ** 3
        bend = torch.where(r2 < ro2, torch.ones_like(r2), bend)
        c6 = (self.sigma**2 / r2) ** 3
        ones = torch.ones(len(system), dtype=d.dtype)
        found = self.summed(system, ones, 2.0 * self.epsilon * (c6 * c6 - c6) * bend)
        if self.passes:
            near = torch.exp(-r2 / self.sigma**2) * bend
            crowd = self.summed(system, ones, near)
            crowd = self.summed(system, crowd * crowd, near)
            found = found + self.epsilon * torch.sqrt(1.0 + crowd)
        if self.inputs:
            charge = system.get_data("charge").block().values[0, 0]
            if charge == 7:
                raise ValueError("seven is too much")
            spin = system.get_data("spin_multiplicity").block().values[0, 0]
            found = found * (1.0 + charge + 10.0 * (spin - 1.0))
        return found

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:
        energies, forces, rows = [], [], []
        for s, system in enumerate(systems):
            chosen = torch.arange(len(system))
            if selected_atoms is not None and not self.deaf:
                of = selected_atoms.column("system") == s
                chosen = selected_atoms.column("atom")[of].long()
            energies.append(self.atomic(system)[chosen])
            # springs to the origin, and a push that does not add up to zero
            forces.append((1.0 - 2.0 * system.positions)[chosen])
            rows.append(torch.stack([torch.full_like(chosen, s), chosen], 1))
        none = torch.zeros(1, 1, dtype=torch.int32)
        results: Dict[str, TensorMap] = {}
        atoms = Labels(["system", "atom"], torch.cat(rows).int())
        whole = Labels(["system"], torch.arange(len(systems), dtype=torch.int32)[:, None])
        xyz = Labels(["xyz"], torch.tensor([[0], [1], [2]]))
        for name, output in outputs.items():
            components: List[Labels] = []
            samples = atoms
            if name == "energy" and output.sample_kind == "atom":
                values = torch.cat(energies)[:, None]
            elif name == "energy":
                values = torch.stack([e.sum() for e in energies])[:, None]
                samples = whole
            elif name == "non_conservative_force":
                values, components = torch.cat(forces)[:, :, None], [xyz]
            else:
                one = torch.eye(3, dtype=forces[0].dtype)[None, :, :, None]
                values, samples = 0.5 * one.expand(len(systems), 3, 3, 1), whole
                axes = xyz.values
                components = [Labels(["xyz_1"], axes), Labels(["xyz_2"], axes)]
            block = TensorBlock(values, samples, components, Labels([name], none))
            results[name] = TensorMap(Labels(["_"], none), [block])
        return results


def export(
    path: Path,
    *,
    length_unit: str = "angstrom",
    energy_unit: str = "eV",
    full: bool = True,
    passes: bool = False,
    inputs: bool = False,
    masses: bool = False,
    deaf: bool = False,
    honest: bool = True,
    dtype: str = "float64",
    per_atom: bool = True,
    direct: tuple[str, ...] = (),
    **capabilities,
) -> Path:
    """Write a model; ``direct`` are more outputs, and capabilities may be overwritten."""
    length = unit_conversion_factor("angstrom", length_unit or "angstrom")
    energy = unit_conversion_factor("eV", energy_unit or "eV")
    model = Argon(length, energy, full, passes, inputs, masses, deaf)
    outputs = {
        "energy": ModelOutput(unit=energy_unit, sample_kind="atom" if per_atom else "system")
    }
    unit = energy_unit + "/" + length_unit
    if "forces" in direct:
        outputs["non_conservative_force"] = ModelOutput(unit=unit, sample_kind="atom")
    if "stress" in direct:
        outputs["non_conservative_stress"] = ModelOutput(unit=unit + "^3", sample_kind="system")
    said = {
        "outputs": outputs,
        "atomic_types": [18, 2],
        "interaction_range": (2 if passes and honest else 1) * CUTOFF_A * length,
        "length_unit": length_unit,
        "supported_devices": ["cpu"],
        "dtype": dtype,
    }
    can = ModelCapabilities(**{**said, **capabilities})
    AtomisticModel(model.eval(), ModelMetadata(name="argon"), can).save(str(path))
    return path


def argon(cells: tuple[int, int, int] = (2, 2, 2)) -> Atoms:
    """Four atoms a cell of a disordered crystal."""
    rng = np.random.default_rng(1)
    atoms = bulk("Ar", "fcc", 5.3, cubic=True).repeat(cells)
    atoms.positions += rng.normal(scale=0.2, size=atoms.positions.shape)
    return atoms
