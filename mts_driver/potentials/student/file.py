"""Student files: safetensors with a JSON header; loading one runs no code from it."""

import json
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mts_driver.errors import UserError
from mts_driver.files import replacing
from mts_driver.potentials.backends import backend_for, file_and_options, options_of
from mts_driver.potentials.ranks.exchange import Ranks
from mts_driver.potentials.ranks.potential import SharedPotential
from mts_driver.potentials.student.device.potential import DeviceStudent
from mts_driver.potentials.student.device.shared import SharedDeviceStudent
from mts_driver.potentials.student.model import StudentConfig, StudentModel
from mts_driver.potentials.student.potential import Student
from mts_driver.potentials.student.shared import SharedStudent

FORMAT = 3
UNITS = {"length": "Å", "energy": "eV"}


def save_student(model: StudentModel, path: Path, record: dict[str, Any]) -> None:
    """Write the weights and a header with the architecture, the units and how it was made.

    Parameters
    ----------
    model : StudentModel
        The trained model.
    path : Path
        Usually ``NAME.safetensors``; replaced in one step, so that a kill leaves the old file.
    record : dict
        JSON-able provenance: teacher, structure, command, errors.
    """
    header = {"format": FORMAT, "config": model.config.as_dict(), "units": UNITS, "record": record}
    weights = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    contents = save(weights, metadata={"mts_student": json.dumps(header)})
    with replacing(path) as part:
        part.write_bytes(contents)


def read_student(path: Path) -> tuple[StudentModel, dict[str, Any]]:
    """Return the model and the provenance record of a student file.

    Raises
    ------
    UserError
        If the file is not a student, or of a version that this program does not know.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata["mts_student"])
        config = {**header["config"], "elements": tuple(header["config"]["elements"])}
        form, record = header["format"], header["record"]
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"student file '{path}' cannot be read ({type(error).__name__}: {error}): give a "
            "safetensors file made by 'mts distill'."
        ) from error
    if form != FORMAT:
        raise UserError(
            f"student file '{path}' has format {form}, this version of mts-driver "
            f"reads format {FORMAT}: distil the student again."
        )
    try:
        model = StudentModel(StudentConfig(**config))
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"student file '{path}' is damaged ({type(error).__name__}: {error}): copy it again, "
            "or distil the student again."
        ) from error
    return model, record


def find_student(spec: str) -> Path:
    """Return the file of a student: a path, or the name of a packaged student.

    Raises
    ------
    UserError
        If there is neither; the message lists the packaged ones.
    """
    path = Path(spec)
    if path.is_file():
        return path
    folder = Path(str(resources.files("mts_driver") / "students"))
    packaged = {file.stem: file for file in sorted(folder.glob("*.safetensors"))}
    if spec in packaged:
        return packaged[spec]
    raise UserError(
        f"student {spec!r} is neither a file nor a packaged student "
        f"({', '.join(packaged) or 'there are none'}): check the path, or make one with "
        "'mts distill'."
    )


def load_student(
    spec: str,
    numbers: Sequence[int],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    ranks: Ranks | None = None,
) -> Student | DeviceStudent | SharedPotential:
    """Load a student for atoms of the given atomic ``numbers``; see `find_student`.

    Behind its name may stand ``?backend=device``, see `mts_driver.potentials.backends`.
    """
    file, options = file_and_options(spec)
    asked = options_of(file + options, ("backend",)).get("backend") if options else None
    backend = backend_for(f"student:{spec}", asked, device)
    model, _ = read_student(find_student(file))
    name = f"the student {file!r}"
    if model.config.direct:
        print(
            f"{name} gives forces directly: its energies and virials are sent as zeros, so that "
            "constant-pressure runs must not be made with it.",
            file=sys.stderr,
        )
    model = model.to(getattr(torch, dtype))
    where = {"device": device, "dtype": dtype, "name": name}
    if backend == "device":
        if ranks is not None:
            return SharedDeviceStudent(model, numbers, ranks, **where)
        return DeviceStudent(model, numbers, **where)
    if ranks is not None:
        return SharedStudent(model, numbers, ranks, name=name)
    return Student(model, numbers, **where)
