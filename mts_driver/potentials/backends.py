"""Which of two ways a model of ours is evaluated: by kernels for the CPU, or on a device."""

from pathlib import Path
from typing import Any

from mts_driver.errors import UserError

BACKENDS = ("cpu", "device")
"""``device`` keeps positions, lists and forces where the model is, and runs on the CPU, too."""


def options_of(spec: str, known: tuple[str, ...]) -> dict[str, str]:
    """Return the options behind the ``?`` of a specification, ``key=value&key=value``.

    Raises
    ------
    UserError
        If one is not ``known``, or has no value.
    """
    found: dict[str, str] = {}
    for part in filter(None, spec.partition("?")[2].split("&")):
        key, _, value = part.partition("=")
        if key not in known or not value or key in found:
            allowed = " and ".join(f"{name}=..." for name in known)
            raise UserError(f"potential {spec!r}: {part!r} is no option of it: it has {allowed}.")
        found[key] = value
    if (backend := found.get("backend")) is not None and backend not in BACKENDS:
        raise UserError(f"potential {spec!r}: backend={backend!r} is not known: use cpu or device.")
    return found


def backend_for(spec: str, asked: str | None, device: str) -> str:
    """Return the backend that is asked for, or the usual one of the device.

    Raises
    ------
    UserError
        If it does not run there.
    """
    on_cpu = device.startswith("cpu")
    if asked == "cpu" and not on_cpu:
        raise UserError(
            f"potential {spec!r}: backend=cpu has no kernels for device={device!r}: leave it out, "
            "or use --device cpu."
        )
    return asked or ("cpu" if on_cpu else "device")


def file_and_options(student: str) -> tuple[str, str]:
    """Split what stands behind ``student:`` into a file or name, and ``?…`` or nothing."""
    if Path(student).is_file():
        return student, ""
    name, question, options = student.partition("?")
    return name, question + options


def without_backend(spec: str) -> str:
    """Return the specification of the same model, wherever it is evaluated."""
    name, _, options = spec.partition("?")
    kept = [part for part in options.split("&") if part and not part.startswith("backend=")]
    return "?".join([name, "&".join(kept)] if kept else [name])


def is_on_device(model: Any) -> bool:
    """Tell whether it is a model of ours on a device, an `integrators.device.model.DeviceModel`."""
    parts = ("device", "place", "update", "rebuild", "forces", "told", "make_room")
    return all(hasattr(model, part) for part in parts)


def on_device(student: Any, teacher: Any | None) -> dict[str, Any] | None:
    """Return models by level for steps on the device of the student; None if it is on none.

    A teacher of another kind or device is a `integrators.device.guest.Guest` there.
    """
    from integrators.device.guest import Guest
    from integrators.splitting import FAST

    if not is_on_device(student):
        return None
    if teacher is None:
        return {FAST: student}
    at_home = is_on_device(teacher) and teacher.device == student.device
    return {"teacher": teacher if at_home else Guest(teacher, student.device), FAST: student}
