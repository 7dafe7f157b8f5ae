"""A model that was exported with metatomic: loaded, checked, and asked, in Å and eV.

The only module that imports metatomic and metatensor. The file is a TorchScript archive, from which
no objects of Python are unpickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.potentials.elements import check_elements
from mts_driver.potentials.metatomic.specification import Specification

_PAIR = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
REHEARSALS = 2
"""Calls until TorchScript has optimised a model, which then rounds differently."""
_INPUTS = ("charge", "spin_multiplicity")


class PairList(NamedTuple):
    """A list of pairs that a model asks for.

    Attributes
    ----------
    cutoff_A : float
        Largest distance, Å.
    full : bool
        Whether a pair is in it in both directions.
    options : metatomic.torch.NeighborListOptions
        What the library calls it.
    """

    cutoff_A: float
    full: bool
    options: Any


class Structure(NamedTuple):
    """What a model is asked about; float64, on its device.

    Attributes
    ----------
    types : int32 Tensor, shape (M,)
        Atomic numbers.
    positions, cell : Tensor, shapes (M, 3) and (3, 3)
        Å; a cell of zeros is none.
    pairs : list of tuple of Tensor
        For every `PairList` of the model: atoms i and j (P,), the cells (P, 3) from one to the
        other, and x_j + shift − x_i (P, 3), Å; each pair once.
    own : int64 Tensor, shape (m,), optional
        Atoms whose energies count; by default all.
    """

    types: Tensor
    positions: Tensor
    cell: Tensor
    pairs: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    own: Tensor | None = None


class Answer(NamedTuple):
    """Of R structures, float64.

    Attributes
    ----------
    energies : Tensor, shape (R,)
        Of the atoms that count, eV.
    forces : list of Tensor, shapes (M, 3)
        Direct forces of the atoms that count and zeros elsewhere, eV/Å; empty without them.
    stresses : Tensor, shape (R, 3, 3), optional
        Direct stresses, eV/Å³.
    """

    energies: Tensor
    forces: list[Tensor]
    stresses: Tensor | None


class ExportedModel:
    """A model out of a file.

    Parameters
    ----------
    spec : Specification
        The file, and what of it.
    device, dtype : str
        Torch device; ``float64`` for a model of that precision.

    Attributes
    ----------
    lists : list of PairList
        That it asks for.
    reach_A : float
        How far atoms are that an atomic energy depends on, Å; infinite for long ranges.
    per_atom : bool
        Whether it gives energies of atoms.
    gives_stress : bool
        Whether direct forces come with a stress.

    Raises
    ------
    UserError
        If the package or the file is missing, or the model cannot do what is asked.
    """

    def __init__(self, spec: Specification, *, device: str, dtype: str) -> None:
        self.name = str(spec)
        spec.require_files()
        try:
            import metatensor.torch
            import metatomic.torch
        except ImportError as error:
            raise UserError(
                f"potential {self.name!r} needs metatomic-torch ({error}): pip install "
                "'mts-driver[metatomic]'."
            ) from error
        self._metatomic: Any = metatomic.torch
        self._metatensor: Any = metatensor.torch
        try:
            with _calm():
                written = spec.file.stat().st_mtime_ns
                self._loaded = _load(spec.file.resolve(), written, spec.extensions, device)
        except Exception as error:
            raise UserError(
                f"potential {self.name!r}: {spec.file} cannot be loaded as a model of metatomic "
                f"({_reason(error)}): give a file that AtomisticModel.save wrote, and "
                "?extensions=FOLDER if it needs some."
            ) from error
        model = self._loaded.model
        self._can = model.capabilities()
        self._check(device, dtype)
        self.device, self.dtype = torch.device(device), getattr(torch, self._can.dtype)
        self.lists = [
            PairList(o.engine_cutoff("angstrom"), o.full_list, o)
            for o in model.requested_neighbor_lists()
        ]
        self.reach_A = float(self._can.engine_interaction_range("angstrom"))
        self._choose_outputs(spec)
        self._inputs = self._read_inputs(spec)
        self._checked = False

    def is_new(self) -> bool:
        """Whether another rehearsal is due, and count it."""
        self._loaded.rehearsals -= 1
        return self._loaded.rehearsals >= 0

    def check_elements(self, numbers: Sequence[int]) -> None:
        """Raise a `UserError` for an element that the model does not know."""
        known = [chemical_symbols[z] for z in self._can.atomic_types if 0 < z < 119]
        check_elements(numbers, known, model=f"potential {self.name!r}")

    def __call__(self, structures: Sequence[Structure]) -> Answer:
        """Ask about structures at once; energies can be differentiated.

        Raises
        ------
        UserError
            If the model fails.
        """
        selected = None
        if structures[0].own is not None:
            rows = [_rows(r, s.own) for r, s in enumerate(structures) if s.own is not None]
            selected = self._metatensor.Labels(["system", "atom"], torch.cat(rows).int())
        options = self._metatomic.ModelEvaluationOptions(
            length_unit="angstrom", outputs=self._requests, selected_atoms=selected
        )
        try:
            with _calm():
                systems = [self._system(one) for one in structures]
                # whether a model gives what it declares is looked at once
                new = not self._checked
                found = self._loaded.model(systems, options, check_consistency=new)
        except Exception as error:
            raise UserError(f"potential {self.name!r} failed: {_reason(error)}") from error
        self._checked = True
        return self._read(found, structures)

    def _check(self, device: str, dtype: str) -> None:
        can, kind = self._can, torch.device(device).type
        if kind not in can.supported_devices:
            raise UserError(
                f"potential {self.name!r} runs on {', '.join(can.supported_devices)}, not on "
                f"device={device!r}: use one of them."
            )
        if can.dtype not in ("float32", "float64"):
            raise UserError(f"potential {self.name!r} is in {can.dtype}: export it in float32.")
        if dtype == "float64" != can.dtype:
            raise UserError(
                f"potential {self.name!r} is in float32, and dtype='float64' is asked for: leave "
                "dtype out, or export the model in float64."
            )
        if not can.length_unit:
            raise UserError(
                f"potential {self.name!r} declares no unit of length: export it again with one."
            )

    def _choose_outputs(self, spec: Specification) -> None:
        """Choose what is asked for, in the model's units, and by what it is multiplied."""
        energy = self._pick("energy", spec.variant)
        self.per_atom = self._can.outputs[energy].sample_kind == "atom"
        kinds = {energy: "atom" if self.per_atom else "system"}
        units = {energy: "eV"}
        self._energy, self._force, self._stress = energy, "", ""
        if spec.direct:
            self._force = self._pick("non_conservative_force", spec.variant)
            kinds[self._force], units[self._force] = "atom", "eV/angstrom"
            name = "non_conservative_stress" + (f"/{spec.variant}" if spec.variant else "")
            if name in self._can.outputs:
                self._stress = name
                kinds[name], units[name] = "system", "eV/angstrom^3"
        self.gives_stress = bool(self._stress)
        self._requests, self._factors = {}, {}
        for name, unit in units.items():
            own = self._can.outputs[name].unit
            if not own:
                raise UserError(
                    f"potential {self.name!r} declares no unit of its output {name!r}: export it "
                    "again with one."
                )
            # a factor of our own, in float64: that of the library is applied in place
            self._factors[name] = self._metatomic.unit_conversion_factor(own, unit)
            self._requests[name] = self._metatomic.ModelOutput(unit=own, sample_kind=kinds[name])

    def _pick(self, output: str, variant: str | None) -> str:
        try:
            found: str = self._metatomic.pick_output(output, self._can.outputs, variant)
        except Exception as error:
            there = ", ".join(sorted(self._can.outputs)) or "nothing"
            raise UserError(
                f"potential {self.name!r}: the model has no {output!r}"
                f"{f' of the variant {variant!r}' if variant else ''} to choose (it gives {there}):"
                " use another model, or ?variant=NAME."
            ) from error
        return found

    def _read_inputs(self, spec: Specification) -> dict[str, float]:
        """Return what every system is told, by name."""
        asked = self._loaded.model.requested_inputs(use_new_names=True)
        for name, one in asked.items():
            if name not in _INPUTS or one.sample_kind != "system":
                raise UserError(
                    f"potential {self.name!r} asks for {name!r} of every {one.sample_kind}: only "
                    "the charge and the spin multiplicity of the system can be given; use another "
                    "model."
                )
        told = {"charge": (spec.charge, 0), "spin_multiplicity": (spec.multiplicity, 1)}
        for name, (value, default) in told.items():
            if name not in asked and value not in (None, default):
                raise UserError(
                    f"potential {self.name!r} is asked about a system with a {name} of {value}, "
                    "but the model takes none: use a model that does."
                )
        return {n: float(d if v is None else v) for n, (v, d) in told.items() if n in asked}

    def _system(self, structure: Structure) -> Any:
        periodic = bool(structure.cell.detach().any())
        system = self._metatomic.System(
            types=structure.types,
            positions=structure.positions.to(self.dtype),
            cell=structure.cell.to(self.dtype),
            pbc=torch.full((3,), periodic, device=self.device),
        )
        for wanted, (i, j, cells, vectors) in zip(self.lists, structure.pairs, strict=True):
            if wanted.full:
                i, j = torch.cat([i, j]), torch.cat([j, i])
                cells, vectors = torch.cat([cells, -cells]), torch.cat([vectors, -vectors])
            samples = torch.cat([i[:, None], j[:, None], cells], 1).int()
            block = self._block(vectors[:, :, None], (_PAIR, samples), "distance", vector=True)
            system.add_neighbor_list(wanted.options, block)
        for name, value in self._inputs.items():
            none = torch.zeros(1, 1, dtype=torch.int32, device=self.device)
            values = torch.full((1, 1), value, device=self.device)
            block = self._block(values, (["system"], none), name)
            keys = self._labels(["_"], none)
            data = self._metatensor.TensorMap(keys, [block])
            data.set_info("unit", "e" if name == "charge" else "")
            system.add_data(name, data)
        return system

    def _labels(self, names: list[str], values: Tensor) -> Any:
        return self._metatensor.Labels(names, values, assume_unique=True)

    def _block(
        self, values: Tensor, samples: tuple[list[str], Tensor], what: str, *, vector: bool = False
    ) -> Any:
        axes = torch.arange(3, dtype=torch.int32, device=self.device)[:, None]
        return self._metatensor.TensorBlock(
            values=values.to(self.dtype),
            samples=self._labels(*samples),
            components=[self._labels(["xyz"], axes)] if vector else [],
            properties=self._labels([what], axes[:1]),
        )

    def _read(self, found: dict[str, Any], structures: Sequence[Structure]) -> Answer:
        """Sort rows to their structures and atoms, and drop those that do not count."""
        sizes = [len(one.types) for one in structures]
        first = torch.tensor([0, *np.cumsum(sizes)[:-1]], device=self.device)
        counts = torch.ones(sum(sizes), dtype=torch.float64, device=self.device)
        if structures[0].own is not None:  # there are models that give all atoms all the same
            counts.zero_()
            for start, one in zip(first, structures, strict=True):
                counts[start + one.own] = 1.0
        block = found[self._energy].block()
        values = block.values.double().reshape(-1) * self._factors[self._energy]
        of = block.samples.column("system").long()
        if self.per_atom:
            values = values * counts[first[of] + block.samples.column("atom").long()]
        energies = values.new_zeros(len(sizes)).index_add(0, of, values)
        forces: list[Tensor] = []
        if self._force:
            block = found[self._force].block()
            row = first[block.samples.column("system").long()]
            row = row + block.samples.column("atom").long()
            values = block.values.double().reshape(-1, 3) * self._factors[self._force]
            every = values.new_zeros(sum(sizes), 3).index_add(0, row, values)
            forces = list((every * counts[:, None]).split(sizes))
        stresses = None
        if self._stress:
            block = found[self._stress].block()
            values = block.values.double().reshape(-1, 3, 3) * self._factors[self._stress]
            stresses = values[torch.argsort(block.samples.column("system"))]
        return Answer(energies, forces, stresses)


@dataclass
class _Loaded:
    """A model that all potentials of a process share."""

    model: Any
    rehearsals: int = REHEARSALS


@lru_cache(maxsize=4)
def _load(file: Path, written: int, extensions: Path | None, device: str) -> _Loaded:
    """Load a file that was written at a time, once a process: fragments are many potentials."""
    import metatomic.torch

    folder = None if extensions is None else str(extensions)
    model = metatomic.torch.load_atomistic_model(str(file), folder)
    kind = torch.device(device).type
    # else it is refused behind this
    return _Loaded(model.to(device) if kind in model.capabilities().supported_devices else model)


def _rows(number: int, own: Tensor) -> Tensor:
    return torch.stack([torch.full_like(own, number), own], 1)


@contextmanager
def _calm() -> Iterator[None]:
    """Keep back what the library tells those who write models about names that have changed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deprecated")
        yield


def _reason(error: Exception) -> str:
    """Return the line of a message of torch that says why, without its backtraces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if "TorchScript" in lines[0] else lines[0]
