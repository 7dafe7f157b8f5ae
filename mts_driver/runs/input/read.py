"""What ``mts run`` must know of an i-PI input before i-PI reads it, checked with clear errors."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from integrators.ipi.versions import is_supported, requirement
from mts_driver.drivers.ipi_socket.transport import MODES, UNIX_PREFIX, Address
from mts_driver.errors import UserError
from mts_driver.runs.input.check import check_input
from mts_driver.runs.input.elsewhere import put_elsewhere
from mts_driver.runs.input.systems import SystemInput, check_starts, systems_of

KNOWN_PARAMETERS = ("model", "device", "dtype", "threads", "ranks", "periodic", "start")
_UNUSED = "__DUMMY__"
"""In checkpoints of an <ffrotations>, which has a socket or an <ffdirect> and stores both."""


@dataclass(frozen=True)
class Driver:
    """The driver of an ``<ffsocket>``, or of an ``<ffdirect>`` over ZeroMQ.

    Attributes
    ----------
    name : str
        Name of the ``<ffsocket>`` or ``<ffdirect>``.
    address : Address
        Where i-PI will listen, or the driver over ZeroMQ.
    model : str
        Specification of the potential.
    options : dict
        The other entries of ``<parameters>``: ``device``, ``dtype``, ``threads``,
        ``ranks``.
    periodic : bool
        Whether the model sees the cell; i-PI has one for isolated molecules, too.
    needs_virial : bool
        Whether it is run at constant pressure.
    started : bool
        Whether ``mts run`` starts it; else somebody does, perhaps on another machine.
    """

    name: str
    address: Address
    model: str
    options: dict[str, str] = field(default_factory=dict)
    periodic: bool = True
    needs_virial: bool = False
    started: bool = True


@dataclass(frozen=True)
class RunInput:
    """The part of an i-PI input that concerns drivers and levels.

    Attributes
    ----------
    path : Path
        The file.
    drivers : tuple of Driver
        Those to start.
    models : dict
        The models that are known by name of the force field, also those of drivers that somebody
        else starts.
    addresses : tuple of Address
        All sockets that i-PI will open, also for drivers started by hand.
    teachers, students : tuple of str
        Names of the force fields with mts_weights [1, 0] and [-1, 1] (with three levels, [1, 0, 0]
        and [0, -1, 1]) in any system.
    prefix : str
        Prefix of the output files.
    checkpoints : tuple of str
        Names of the checkpoint outputs.
    step, total_steps : int
        Steps done and wanted.
    """

    path: Path
    drivers: tuple[Driver, ...]
    models: dict[str, str]
    addresses: tuple[Address, ...]
    teachers: tuple[str, ...]
    students: tuple[str, ...]
    prefix: str
    checkpoints: tuple[str, ...]
    step: int
    total_steps: int

    @property
    def teacher(self) -> str | None:
        """The only teacher, if there is one."""
        return self.teachers[0] if len(self.teachers) == 1 else None

    @property
    def student(self) -> str | None:
        """The only student, if there is one."""
        return self.students[0] if len(self.students) == 1 else None


def check_ipi_version(found: str | None = None) -> None:
    """Refuse versions of i-PI that the integrator has not been tested with.

    Raises
    ------
    UserError
        If ``found`` (default: the installed version) is none of `integrators.ipi.versions`.
    """
    found = found or version("ipi")
    if not is_supported(found):
        raise UserError(
            f"i-PI {found} is not supported by mts-driver: `pip install '{requirement()}'`."
        )


def read_input(path: Path, elsewhere: Mapping[str, str] | None = None) -> RunInput:
    """Parse and check an i-PI input or checkpoint.

    Parameters
    ----------
    path : Path
        The file.
    elsewhere : mapping of str to str, optional
        Drivers that run on other machines, and their addresses: see `put_elsewhere`.

    Raises
    ------
    UserError
        If the file is missing or no i-PI input, or if levels, weights, sockets or models do not
        fit together.
    """
    if not path.is_file():
        raise UserError(f"i-PI input {str(path)!r} does not exist: `mts prepare` makes one.")
    try:
        root = ET.parse(path).getroot()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{str(path)!r} is not valid XML ({error}): correct that line.") from error
    if root.tag != "simulation":
        raise UserError(
            f"{str(path)!r} is no i-PI input: its first tag is <{root.tag}>, not <simulation>."
        )
    if root.find(".//ffmpi") is not None:
        raise UserError(
            f"{str(path)!r} has an <ffmpi>, whose drivers are in one job with i-PI: start them by "
            "`mpiexec -n 1 i-pi input.xml : -n 2 mts serve MODEL --mpi --mpi-name NAME --structure "
            "FILE`. `mts run` starts what answers an <ffsocket> or is asked over ZeroMQ."
        )
    put_elsewhere(root, elsewhere or {})
    sockets = [
        _read_socket(node, root) for node in root.iter("ffsocket") if node.get("name") != _UNUSED
    ]
    direct = [_read_direct(node) for node in root.iter("ffdirect")]
    sockets += [driver for driver in direct if driver is not None]
    _check_names(sockets)
    systems = systems_of(root)
    members = {node.get("name", "").strip(): set(_names_within(node)) for node in root}
    used = [_check_system(s, [d for d in sockets if d.model], members, path) for s in systems]
    teachers, students = (
        tuple(dict.fromkeys(name for names in found for name in names))
        for found in ([s.teachers for s in systems], [s.students for s in systems])
    )
    _check_shared(sockets, systems)
    under_pressure = set[str]()
    for system, drivers in zip(systems, used, strict=True):
        if _check_combinations(root, system, systems, drivers, path):
            under_pressure |= {driver.name for driver in drivers}
    sockets = [replace(d, needs_virial=d.name in under_pressure) for d in sockets]
    output = root.find("output")
    prefix = "i-pi" if output is None else output.get("prefix", "i-pi")
    return RunInput(
        path=path,
        drivers=tuple(s for s in sockets if s.model and s.started),
        models={s.name: s.model for s in sockets if s.model},
        addresses=tuple(s.address for s in sockets),
        teachers=teachers,
        students=students,
        prefix=prefix.strip(),
        checkpoints=tuple(n.get("filename", "restart").strip() for n in root.iter("checkpoint")),
        step=_integer(root, "step", "0"),
        total_steps=_integer(root, "total_steps", "1000"),
    )


def _names_within(node: ET.Element) -> Iterator[str]:
    """Names of a force field and, of a committee, of those that it is made of."""
    for one in node.iter():
        if one.tag.startswith("ff"):
            yield one.get("name", "").strip()


def _check_names(drivers: list[Driver]) -> None:
    names = [driver.name for driver in drivers]
    for name in names:
        # logs and counters are called after them
        if names.count(name) > 1 or name == "i-pi" or not name or "/" in name:
            raise UserError(
                f"{names.count(name)} <ffsocket>(s) or <ffdirect>(s) have the name {name!r}: give "
                "each one of its own, which can be the name of a file and is not i-pi."
            )


def _check_system(
    system: SystemInput, drivers: list[Driver], members: dict[str, set[str]], path: Path
) -> list[Driver]:
    """Require the models of a system to see what its start says, and the same of it; name them."""
    names = set().union(*(members.get(name, {name}) for name in system.weights))
    used = [driver for driver in drivers if driver.name in names]
    periodic = {driver.name: driver.periodic for driver in used}
    if len(set(periodic.values())) > 1:
        raise UserError(
            f"the <parameters> of {', '.join(periodic)} say `periodic: no` for some of them only, "
            "but they act on the same atoms: write it for all of them, or for none."
        )
    models = {driver.name: driver.model for driver in used}
    check_starts(system, path.parent, models=models, periodic=periodic)
    return used


def _check_combinations(
    root: ET.Element,
    system: SystemInput,
    systems: list[SystemInput],
    used: list[Driver],
    path: Path,
) -> bool:
    """Refuse what cannot work together; return whether the models have to give a virial."""
    named = {driver.name: driver for driver in used}
    student, teacher = (
        next((named[name] for name in names if name in named), None)
        for names in (system.students, system.teachers)
    )
    return check_input(
        root,
        system.node,
        [one.node for one in systems],
        weights=system.weights,
        folder=path.parent,
        periodic=used[0].periodic if used else None,
        student_mode=student.address.mode if student else "",
        both_in_one=student is not None
        and teacher is not None
        and student.address == teacher.address,
    )


def _check_shared(drivers: list[Driver], systems: list[SystemInput]) -> None:
    """Let only a teacher and its student share a driver over ZeroMQ."""
    pairs = [{*system.teachers, *system.students} for system in systems]
    for one in drivers:
        names = [d.name for d in drivers if d.address == one.address and d.address.mode == "zmq"]
        if len(names) > 1 and not (len(names) == 2 and set(names) in pairs):
            raise UserError(
                f"the <ffdirect>s {', '.join(names)} have the same address {one.address}: only the "
                "teacher, with <mts_weights> [1, 0], and the student, with [-1, 1], can share a "
                "driver; give the others addresses of their own."
            )
        ranks = {d.options.get("ranks", "1") for d in drivers if d.address == one.address}
        if len(names) > 1 and len(ranks) > 1:
            raise UserError(
                f"the <ffdirect>s {', '.join(names)} share a driver and have ranks: "
                f"{', '.join(sorted(ranks))}: give both the same number."
            )


def _text(node: ET.Element, tag: str, default: str) -> str:
    return (node.findtext(tag) or default).strip()


def _integer(node: ET.Element, tag: str, default: str) -> int:
    text = _text(node, tag, default)
    try:
        return int(text)
    except ValueError:
        raise UserError(f"<{tag}> is {text!r}: write a whole number, without exponent.") from None


def _read_socket(node: ET.Element, root: ET.Element) -> Driver:
    name = node.get("name", "").strip()
    mode = node.get("mode", "inet").strip()
    if mode not in MODES:
        raise UserError(f"<ffsocket name={name!r}> has mode={mode!r}: use {', '.join(MODES)}.")
    host, port = _text(node, "address", "localhost"), _text(node, "port", "65535")
    if mode == "inet":
        address = Address.parse(f"{host}:{port}", mode)
    else:
        address = Address(mode, path=root.get("sockets_prefix", UNIX_PREFIX).strip() + host)
        if len(address.path) > 100:
            raise UserError(
                f"<ffsocket name={name!r}>: the socket {address.path!r} is longer than the 100 "
                "characters that systems allow: shorten <address>."
            )
    return _driver(node, name, address, _read_parameters(node, name))


def _read_direct(node: ET.Element) -> Driver | None:
    """Return the driver that an ``<ffdirect>`` asks over ZeroMQ, if ``mts run`` should start it."""
    name = node.get("name", "").strip()
    if "ipc://" not in _text(node, "parameters", ""):
        return None
    # verbosity is i-PI's own addition to a checkpoint
    options = _read_parameters(node, name, ("address", "timeout", "verbosity"))
    address = Address("zmq", path=options.pop("address").removeprefix("ipc://"))
    for other in ("timeout", "verbosity"):
        options.pop(other, None)
    return _driver(node, name, address, options) if "model" in options else None


def _driver(node: ET.Element, name: str, address: Address, options: dict[str, str]) -> Driver:
    model = options.pop("model", "")
    word, start = (options.pop(key, "yes") for key in ("periodic", "start"))
    for key, value in (("periodic", word), ("start", start)):
        if model and value not in ("yes", "no"):
            raise UserError(
                f"<parameters> of <{node.tag} name={name!r}> has {key}: {value!r}: write yes or no."
            )
    if model and word == "no" and node.get("pbc", "False").strip() == "True":
        raise UserError(
            f"<{node.tag} name={name!r} pbc='True'> with `periodic: no` would have a molecule torn "
            "apart at the sides of its box: write pbc='False'."
        )
    return Driver(name, address, model, options, word != "no", started=start != "no")


def _read_parameters(node: ET.Element, name: str, more: tuple[str, ...] = ()) -> dict[str, str]:
    text = _text(node, "parameters", "{}").strip("{} \n\t")
    options = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = item.partition(":")
        options[key.strip()] = value.strip()
    known = (*KNOWN_PARAMETERS, *more)
    unknown = sorted(set(options) - set(known))
    if "model" in options and unknown:
        raise UserError(
            f"<parameters> of <{node.tag} name={name!r}> has {', '.join(unknown)}, which mts run "
            f"does not know: use {', '.join(known)}."
        )
    return options
