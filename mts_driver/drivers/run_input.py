"""What ``mts run`` must know of an i-PI input before i-PI reads it, checked with clear errors."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from mts_driver.drivers.transport import MODES, UNIX_PREFIX, Address
from mts_driver.errors import UserError

OLDEST_IPI, FIRST_UNTESTED_IPI = (3, 1, 9), (3, 4)
KNOWN_PARAMETERS = ("model", "device", "dtype", "threads")


@dataclass(frozen=True)
class Driver:
    """A driver that ``mts run`` starts for an ``<ffsocket>``, or an ``<ffdirect>`` over ZeroMQ.

    Attributes
    ----------
    name : str
        Name of the ``<ffsocket>`` or ``<ffdirect>``.
    address : Address
        Where i-PI will listen, or the driver over ZeroMQ.
    model : str
        Specification of the potential.
    options : dict
        The other entries of ``<parameters>``: ``device``, ``dtype``, ``threads``.
    """

    name: str
    address: Address
    model: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunInput:
    """The part of an i-PI input that concerns drivers and levels.

    Attributes
    ----------
    path : Path
        The file.
    drivers : tuple of Driver
        Those to start.
    addresses : tuple of Address
        All sockets that i-PI will open, also for drivers started by hand.
    teacher, student : str or None
        Names of the ``<ffsocket>`` blocks with mts_weights [1, 0] and [-1, 1] (with three levels,
        [1, 0, 0] and [0, -1, 1]).
    prefix : str
        Prefix of the output files.
    checkpoints : tuple of str
        Names of the checkpoint outputs.
    step, total_steps : int
        Steps done and wanted.
    """

    path: Path
    drivers: tuple[Driver, ...]
    addresses: tuple[Address, ...]
    teacher: str | None
    student: str | None
    prefix: str
    checkpoints: tuple[str, ...]
    step: int
    total_steps: int


def check_ipi_version(found: str | None = None) -> None:
    """Refuse versions of i-PI that the integrator has not been tested with.

    Raises
    ------
    UserError
        If ``found`` (default: the installed version) is outside 3.1.9 to 3.3.
    """
    found = found or version("ipi")
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:3])
    if numbers < OLDEST_IPI or numbers[:2] >= FIRST_UNTESTED_IPI:
        raise UserError(
            f"i-PI {found} is not supported: mts-driver works with 3.1.9 to 3.3. Install one with "
            "`pip install 'ipi>=3.1.9,<3.4'`."
        )


def read_input(path: Path) -> RunInput:
    """Parse and check an i-PI input or checkpoint.

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
    except ET.ParseError as error:
        raise UserError(f"{str(path)!r} is not valid XML ({error}): correct that line.") from error
    if root.tag != "simulation":
        raise UserError(
            f"{str(path)!r} is no i-PI input: its first tag is <{root.tag}>, not <simulation>."
        )
    for file in root.iterfind(".//initialize/file"):
        _check_start(file, path)
    sockets = [_read_socket(node, root) for node in root.iter("ffsocket")]
    direct = [_read_direct(node) for node in root.iter("ffdirect")]
    sockets += [driver for driver in direct if driver is not None]
    weights = _read_weights(root)
    _check_levels(root, weights)
    teacher = _the_only(name for name, w in weights.items() if w[0] == 1 and not any(w[1:]))
    student = _the_only(name for name, w in weights.items() if w[-2:] == [-1, 1])
    _check_shared(sockets, teacher, student)
    output = root.find("output")
    prefix = "i-pi" if output is None else output.get("prefix", "i-pi")
    return RunInput(
        path=path,
        drivers=tuple(s for s in sockets if s.model),
        addresses=tuple(s.address for s in sockets),
        teacher=teacher,
        student=student,
        prefix=prefix.strip(),
        checkpoints=tuple(n.get("filename", "restart").strip() for n in root.iter("checkpoint")),
        step=int(_text(root, "step", "0")),
        total_steps=int(_text(root, "total_steps", "1000")),
    )


def _check_shared(drivers: list[Driver], teacher: str | None, student: str | None) -> None:
    """Let only the teacher and the student share a driver over ZeroMQ."""
    for one in drivers:
        names = [d.name for d in drivers if d.address == one.address and d.address.mode == "zmq"]
        if len(names) > 1 and set(names) != {teacher, student}:
            raise UserError(
                f"the <ffdirect>s {', '.join(names)} have the same address {one.address}: only the "
                "teacher, with <mts_weights> [1, 0], and the student, with [-1, 1], can share a "
                "driver; give the others addresses of their own."
            )


def _text(node: ET.Element, tag: str, default: str) -> str:
    return (node.findtext(tag) or default).strip()


def _check_start(node: ET.Element, path: Path) -> None:
    name = (node.text or "").strip()
    if not (path.parent / name).is_file():
        raise UserError(
            f"the start {name!r} that {str(path)!r} names in <initialize> does not exist in "
            f"{path.parent.resolve()}: put it there or correct <file>."
        )
    if node.get("mode") == "ase":
        from mts_driver.structures.files import read_structure

        read_structure(path.parent / name)


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
    options = _read_parameters(node, name)
    return Driver(name, address, options.pop("model", ""), options)


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
    return Driver(name, address, options.pop("model"), options) if "model" in options else None


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


def _read_weights(root: ET.Element) -> dict[str, list[float]]:
    """Weights by force field; ring-polymer contraction splits those of the student in two."""
    weights: dict[str, list[float]] = {}
    for system in root.iter("forces"):
        here: dict[str, list[float]] = {}
        for node in system.iterfind("force"):
            text = _text(node, "mts_weights", "[1]").strip("[] ")
            name = node.get("forcefield", "").strip()
            try:
                found = [float(w) for w in text.split(",")]
                before = here.get(name, [0.0] * len(found))
                here[name] = [a + b for a, b in zip(before, found, strict=True)]
            except ValueError:
                raise UserError(
                    f"<mts_weights> [{text}] of forcefield {name!r} are not numbers, or not as "
                    "many as elsewhere: write [1, 0] for the teacher and [-1, 1] for the student."
                ) from None
        weights |= here
    return weights


def _check_levels(root: ET.Element, weights: dict[str, list[float]]) -> None:
    shown = "; ".join(f"{name}: {w}" for name, w in weights.items())
    remedy = "write [1, 0] for the teacher and [-1, 1] for the student, with <nmts> [1, n]"
    for node in root.iter("nmts"):
        found = re.findall(r"-?\d+", node.text or "")
        # in a checkpoint the tag carries its length, not text in brackets
        nmts = [int(n) for n in found] or [1]
        wrong = [name for name, w in weights.items() if len(w) != len(nmts)]
        if wrong:
            raise UserError(
                f"<nmts> {nmts} has {len(nmts)} level(s), but the <mts_weights> are {shown} "
                f"(wrong: {', '.join(wrong)}): {remedy}."
            )
    if any(len(w) > 1 for w in weights.values()):
        sums = {name: sum(w) for name, w in weights.items()}
        if not all(min(abs(s), abs(s - 1)) < 1e-9 for s in sums.values()) or all(
            abs(s) < 1e-9 for s in sums.values()
        ):
            raise UserError(
                f"the <mts_weights> do not sum up ({shown}): summed over the levels each force "
                f"must count 1 (the teacher) or 0 (the student), and one of them 1: {remedy}."
            )


def _the_only(names: Iterable[str]) -> str | None:
    found = list(names)
    return found[0] if len(found) == 1 else None
