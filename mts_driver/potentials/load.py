"""From a specification such as ``so3lr`` to a potential bound to a set of atoms."""

from collections.abc import Sequence

from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.potentials.devices import check_device


def load_potential(
    spec: str, numbers: Sequence[int], *, device: str = "cpu", dtype: str = "float32"
) -> Potential:
    """Load the model that ``spec`` names for atoms of the given atomic ``numbers``.

    Parameters
    ----------
    spec : str
        ``so3lr`` (``so3lr?charge=-1`` for an ion),
        ``student:FILE`` (a path, or the name of a packaged student such as ``water``) or
        ``ase:MODULE:CALLABLE?key=value`` (any ASE calculator).
    numbers : sequence of int, length N
        Atomic numbers, in the order of the positions that the potential will be called with.
    device : str
        A torch device, such as ``cpu`` or ``cuda:0``.
    dtype : str
        ``float32`` or ``float64``.

    Returns
    -------
    Potential
        Callable ``(positions (..., N, 3), cell (3, 3) or (..., 3, 3)) -> Evaluation``.

    Raises
    ------
    UserError
        If the specification, an element, the device or the precision is not supported.
    """
    if dtype not in ("float32", "float64"):
        raise UserError(f"dtype={dtype!r} is not supported: use 'float32' or 'float64'.")
    check_device(device)
    kind, _, rest = spec.partition(":")
    if kind.partition("?")[0] == "so3lr":
        from mts_driver.potentials.so3lr import SO3LR

        charge = _charge(spec)
        return SO3LR(numbers, charge=charge, device=device, dtype=dtype)
    if kind == "student" and rest:
        from mts_driver.potentials.student_file import load_student

        return load_student(rest, numbers, device=device, dtype=dtype)
    if kind == "ase" and rest:
        from mts_driver.potentials.ase import AsePotential

        return AsePotential.from_spec(rest, numbers)
    raise UserError(
        f"potential {spec!r} is not known: use 'so3lr', 'student:FILE' or "
        "'ase:MODULE:CALLABLE?key=value'."
    )


def with_charge(spec: str, charge: int) -> str:
    """Return the specification of the same model for a system of another total charge, e.

    Raises
    ------
    UserError
        If the model takes no charge and it is not zero.
    """
    if "{charge}" in spec:
        return spec.replace("{charge}", str(charge))
    if charge == 0:
        return spec
    if spec == "so3lr":
        return f"so3lr?charge={charge}"
    raise UserError(
        f"potential {spec!r} is needed for a system of charge {charge}: say where its charge goes "
        "with {charge}, as in 'so3lr?charge={charge}'."
    )


def _charge(spec: str) -> float:
    """Total charge (e) from ``so3lr?charge=Q``; a neutral system where it is left out."""
    key, _, value = spec.partition("?")[2].partition("=")
    try:
        if "?" in spec and key != "charge":
            raise ValueError(key)
        return float(value or 0.0)
    except ValueError as error:
        raise UserError(
            f"potential {spec!r}: the only option of so3lr is the total charge in e, "
            "as in 'so3lr?charge=-1'."
        ) from error
