"""From a specification such as ``so3lr`` to a potential bound to a set of atoms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mts_driver.errors import UserError
from mts_driver.potentials.backends import backend_for, file_and_options, options_of
from mts_driver.potentials.devices import check_device

if TYPE_CHECKING:
    from integrators.state import Potential
    from mts_driver.potentials.ranks.exchange import Ranks


NAMED = ("so3lr", "ase", "metatomic", "classical")
"""Kinds of models that a student can be, too, beside the files of `mts distill`."""
SO3LR_OPTIONS = ("charge", "backend")


def load_potential(
    spec: str,
    numbers: Sequence[int],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    ranks: Ranks | None = None,
) -> Potential:
    """Load the model that ``spec`` names for atoms of the given atomic ``numbers``.

    Parameters
    ----------
    spec : str
        ``so3lr`` (``so3lr?charge=-1`` for an ion),
        ``student:FILE`` (a path, or the name of a packaged student such as ``water``), both also
        with ``?backend=device`` (see `mts_driver.potentials.backends`),
        ``ase:MODULE:CALLABLE?key=value`` (any ASE calculator), ``metatomic:FILE`` (any model that
        was exported with metatomic; ``?forces=direct&variant=NAME&extensions=FOLDER``),
        ``classical:FILE`` (a force field in JSON, always in float64 on the CPU), or
        ``socket:NAME`` (a program that is a client of i-PI's protocol).
    numbers : sequence of int, length N
        Atomic numbers, in the order of the positions that the potential will be called with.
    device : str
        A torch device, such as ``cpu`` or ``cuda:0``.
    dtype : str
        ``float32`` or ``float64``.
    ranks : Ranks, optional
        Processes that evaluate each structure together, as `mts_driver.drivers.mpi` has them.

    Returns
    -------
    Potential
        Callable ``(positions (..., N, 3), cell (3, 3) or (..., 3, 3)) -> Evaluation``: tensors in
        Å; energies (...,) in eV, forces (..., N, 3) in eV/Å and virials (..., 3, 3) in eV.

    Raises
    ------
    UserError
        If the specification, an element, the device or the precision is not supported, or the
        model cannot be shared out among ranks.

    Notes
    -----
    ``so3lr`` is the network of Kabylda et al., J. Am. Chem. Soc. 2025 (10.1021/jacs.5c09558), with
    the weights of the package ``so3krates-torch``.
    """
    device = str(device)
    if dtype not in ("float32", "float64"):
        raise UserError(f"dtype={dtype!r} is not supported: use 'float32' or 'float64'.")
    check_device(device)
    kind, _, rest = spec.partition(":")
    if ranks is not None:
        require_shareable(spec, device, ranks.size)
    if kind.partition("?")[0] == "so3lr" and kind == spec:
        from mts_driver.potentials.so3lr.potential import SO3LR

        charge = spec_charge(spec) or 0.0
        backend = backend_for(spec, options_of(spec, SO3LR_OPTIONS).get("backend"), device)
        if backend == "device":
            where = {"device": device, "dtype": dtype}
            if ranks is not None:
                from mts_driver.potentials.so3lr.device.shared import SharedDeviceSO3LR

                return SharedDeviceSO3LR(numbers, ranks, charge=charge, **where)
            from mts_driver.potentials.so3lr.device.potential import DeviceSO3LR

            return DeviceSO3LR(numbers, charge=charge, **where)
        if ranks is not None:
            from mts_driver.potentials.so3lr.shared import SharedSO3LR

            return SharedSO3LR(numbers, ranks, charge=charge, dtype=dtype)
        return SO3LR(numbers, charge=charge, dtype=dtype)
    if kind == "student" and rest:
        from mts_driver.potentials.student.file import load_student

        return load_student(rest, numbers, device=device, dtype=dtype, ranks=ranks)
    if kind == "ase" and rest:
        if ranks is not None:
            from mts_driver.potentials.ase_on_ranks import AseOnRanks

            return AseOnRanks(rest, numbers, ranks=ranks)
        from mts_driver.potentials.ase import AsePotential

        return AsePotential.from_spec(rest, numbers)
    if kind == "metatomic":
        from mts_driver.potentials.metatomic.potential import MetatomicPotential

        return MetatomicPotential(spec, numbers, device=device, dtype=dtype, ranks=ranks)
    if kind == "classical":
        from mts_driver.potentials.classical.file import read_model

        if device != "cpu":
            raise UserError(f"{spec} on device={device!r}: classical models run on the cpu.")
        return read_model(classical_file(spec), numbers)
    if kind == "socket":
        from mts_driver.potentials.socket import SocketPotential

        return SocketPotential(rest, numbers)
    raise UserError(
        f"potential {spec!r} is not known: use 'so3lr', 'student:FILE', "
        "'ase:MODULE:CALLABLE?key=value', 'metatomic:FILE', 'classical:FILE' or 'socket:NAME'."
    )


def require_shareable(spec: str, device: str, ranks: int) -> None:
    """Refuse models that several processes cannot evaluate together, as far as names tell.

    Raises
    ------
    UserError
        If it is a program or a classical model, or an ASE calculator on another device than the
        cpu or whose ``receptive_field_A`` is not given.
    """
    kind = spec.partition(":")[0].partition("?")[0]
    if (device != "cpu" and kind == "ase") or kind in ("socket", "classical"):
        raise UserError(
            f"{spec} on {device} cannot be shared out among {ranks} ranks: so3lr, students and "
            "metatomic: can, on the cpu and on GPUs, and ase: on the cpu."
        )
    if kind == "ase" and "receptive_field_A=" not in spec:
        raise UserError(
            f"{spec} cannot be shared out among {ranks} ranks: say within how many Å atoms matter "
            "to an atomic energy, with receptive_field_A=12 behind its '?'."
        )


def classical_file(spec: str) -> Path:
    """Return the file of ``classical:FILE``.

    Raises
    ------
    UserError
        If it is left out.
    """
    name = spec.removeprefix("classical:")
    if not name or name == spec:
        raise UserError(
            f"potential {spec!r} is incomplete: write classical:FILE, such as classical:water.json."
        )
    return Path(name)


def from_anywhere(spec: str) -> str:
    """Return the specification of the same model for a process in another folder."""
    if spec.startswith("metatomic:"):
        from mts_driver.potentials.metatomic.specification import absolute

        return absolute(spec)
    if spec.startswith("classical:"):
        return f"classical:{classical_file(spec).resolve()}"
    return spec


def as_potential(
    model: Any, atoms: Any, *, device: str = "cpu", dtype: str = "float32", name: str = "model"
) -> Potential:
    """Return a potential for atoms from whatever a user may have.

    Parameters
    ----------
    model : str, ase.calculators.calculator.BaseCalculator or Potential
        A specification, which is loaded for the charge and spin of the atoms; a calculator, which
        finds both in ``info`` of the atoms that it is asked about; or a potential for these atoms,
        which is taken as it is.
    atoms : ase.Atoms
        As `spec_for` takes them.
    device, dtype : str
        Of a model that is loaded; see `load_potential`.
    name : str
        Of the parameter, for messages.

    Raises
    ------
    UserError
        If it is none of these, or cannot be loaded.
    """
    if isinstance(model, str):
        spec = model if model.startswith("student:") else spec_for(model, atoms)
        return load_potential(spec, atoms.numbers.tolist(), device=device, dtype=dtype)
    if hasattr(model, "get_property") and not isinstance(model, type):
        from mts_driver.potentials.ase import AsePotential

        told = {key: atoms.info[key] for key in ("charge", "multiplicity") if key in atoms.info}
        return AsePotential(model, atoms.numbers, name=type(model).__name__, info=told)
    if callable(model) and not isinstance(model, type):
        found: Potential = model
        return found
    raise UserError(
        f"{name}={model!r} is no model: give a specification such as 'so3lr', an ASE calculator "
        "(an object, not its class), or a potential of load_potential."
    )


def student_spec(student: str | Path | None) -> tuple[str | None, Path | None]:
    """Return the specification of a student (None: there is none) and a file of the user's.

    Parameters
    ----------
    student : str, Path or None
        None or ``none``, a file, the name of a packaged student, or a specification.

    Raises
    ------
    UserError
        If a file does not exist.
    """
    if student is None or student == "none":
        return None, None
    student = str(student)
    rest = student.removeprefix("student:")
    file, _ = file_and_options(rest)
    if Path(file).is_file():
        return f"student:{rest}", Path(file)
    if rest == student and student.partition(":")[0].partition("?")[0] in NAMED:
        return student, None
    if "/" in file or file.endswith(".safetensors"):
        raise UserError(
            f"student={student!r} does not exist: make one with `mts distill`, or use the "
            "packaged one, water."
        )
    return f"student:{rest}", None


def spec_for(spec: str, atoms: Any) -> str:
    """Return the specification of the same model for the charge and spin of ``atoms``.

    Parameters
    ----------
    atoms : ase.Atoms
        Of `mts_driver.structures.files.read_structure`: ``info["charge"]`` in e, 0 where it is left
        out, and ``info["multiplicity"]``, 1 where it is left out.

    Raises
    ------
    UserError
        If the model takes no charge or spin and they are not 0 and 1, or if the specification has
        another charge.
    """
    charge, multiplicity = atoms.info.get("charge", 0), atoms.info.get("multiplicity", 1)
    if spec.startswith("metatomic:"):
        from mts_driver.potentials.metatomic.specification import for_system

        return for_system(spec, charge, multiplicity)
    if multiplicity != 1 and "{multiplicity}" not in spec and "{unpaired}" not in spec:
        raise UserError(
            f"potential {spec!r} is needed for a system of multiplicity {multiplicity}, but is for "
            "singlets: use a model that takes a spin, and say where it goes with {multiplicity} or "
            "{unpaired}."
        )
    spec = spec.replace("{multiplicity}", str(multiplicity))
    return with_charge(spec.replace("{unpaired}", str(multiplicity - 1)), charge)


def with_charge(spec: str, charge: int) -> str:
    """Return the specification of the same model for a system of another total charge, e.

    Raises
    ------
    UserError
        If the model takes no charge and it is not zero, or if the specification has another one.
    """
    if "{charge}" in spec:
        return spec.replace("{charge}", str(charge))
    own = spec_charge(spec)
    if charge == 0 or own == charge:
        return spec
    if own is not None and "charge=" in spec:
        raise UserError(
            f"potential {spec!r} is for a charge of {own:+g} e, but the structure says "
            f"{charge:+d} e: correct one of them."
        )
    if own is not None:
        return f"{spec}{'&' if '?' in spec else '?'}charge={charge}"
    raise UserError(
        f"potential {spec!r} is needed for a system of charge {charge}: say where its charge goes "
        "with {charge}, as in 'so3lr?charge={charge}'."
    )


def spec_charge(spec: str) -> float | None:
    """Total charge (e) that ``so3lr`` or ``metatomic:FILE`` is for; None for other models.

    Raises
    ------
    UserError
        If it is no number, or another option is given.
    """
    if spec.startswith("metatomic:"):
        from mts_driver.potentials.metatomic.specification import Specification

        return float(Specification.parse(spec).charge or 0)
    if spec.partition("?")[0] != "so3lr":
        return None
    value = options_of(spec, SO3LR_OPTIONS).get("charge", "0")
    try:
        charge = float(value)
        if not math.isfinite(charge):
            raise ValueError(value)
    except ValueError as error:
        raise UserError(
            f"potential {spec!r}: charge={value} is no total charge in e, as in 'so3lr?charge=-1'."
        ) from error
    return charge
