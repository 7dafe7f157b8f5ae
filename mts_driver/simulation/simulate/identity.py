"""What a simulation depends on, which its checkpoint must have been written with."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from mts_driver.potentials.backends import file_and_options, without_backend
from mts_driver.potentials.student.file import find_student
from mts_driver.simulation.simulate.settings import SimulationSettings
from mts_driver.simulation.simulate.start import Start
from mts_driver.thermostats import HIGH_FRICTION_PER_PS, HIGH_PASS_NAME


def identity_of(
    start: Start,
    settings: SimulationSettings,
    teacher: Any,
    student: Any,
    trajectory: str | Path | None,
    dtype: str,
) -> dict[str, Any]:
    """Return what a checkpoint must have been written with, by the names of parameters."""
    names = ("outer_fs", "inner_fs", "temperature_K", "friction_per_ps", "hydrogen_mass_Da")
    more = ("hydrogen_friction_per_ps", "seed", "stride")
    found: dict[str, Any] = {name: getattr(settings, name) for name in (*names, *more)}
    for name in ("high_pass", "constrain_hydrogens", "rigid_water", "bond_lengths_A"):
        if value := getattr(settings, name):  # checkpoints of before these were there go on
            found[name] = value
    if settings.high_pass:
        found["thermostat"] = f"high-pass, {HIGH_PASS_NAME}"
    if settings.high_friction_per_ps != HIGH_FRICTION_PER_PS:
        found["high_friction_per_ps"] = settings.high_friction_per_ps
    found["atoms"] = start.fingerprint()
    found["teacher"], found["student"] = _called(teacher), _called(student)
    found["dtype"] = dtype
    found["trajectory"] = None if trajectory is None else Path(trajectory).name
    return found


def _called(model: Any) -> str | None:
    """Return a name that tells models apart, as far as one can."""
    if model is None:
        return None
    if not isinstance(model, str):
        return f"{type(model).__module__}.{type(model).__qualname__}"
    if model.startswith("student:"):
        file, _ = file_and_options(model.removeprefix("student:"))
        return f"student {sha256(find_student(file).read_bytes()).hexdigest()}"
    return without_backend(model)  # which may be another when it goes on
