"""What a bug report needs: versions, the machine, what works on it, and how fast the models are."""

import os
import platform
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import shared_memory
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule

from mts_driver.bench.table import cpu_name, version_of
from mts_driver.drivers.ipi_socket.transport import UNIX_PREFIX
from mts_driver.errors import UserError
from mts_driver.processes import free_memory_MB

PACKAGES = (
    *("mts-driver", "torch", "ipi", "ase", "numpy", "scipy", "numba", "vesin", "safetensors"),
    *(
        "so3krates-torch",
        "torch-geometric",
        "pyzmq",
        "mpi4py",
        "freud-analysis",
        "kinisi",
        "openmm",
    ),
)
WATERS = 4
"""Along an edge of the box whose forces are timed: 192 atoms."""
USUAL_MS = {"student:water": 0.7, "so3lr": 35.0}
"""Of a call for 192 atoms on two cores of an AMD EPYC; `mts doctor` printed them there."""
SLOW = 4.0
"""Times as long as usual, which is not the processor's fault alone."""
NEEDED_MB_AN_ATOM = {"student:water": 0.007, "so3lr": 0.2}
"""About, in float32, on top of what a model loads; see `mts bench mpi`."""


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes
    ----------
    topic, name, value : str
        What was looked at, and what was found.
    remedy : str
        What to do about it; empty where it is as it should be.
    """

    topic: str
    name: str
    value: str
    remedy: str = ""


def examine(*, atoms: int, speed: bool, device: str) -> Iterator[Finding]:
    """Yield findings one by one; the last ones, about speed, take seconds.

    Parameters
    ----------
    atoms : int
        Size of the system that the free memory is compared with.
    speed : bool
        Whether the models are timed.
    device : str
        That they are timed on.
    """
    yield from _versions()
    yield from _machine()
    yield from _gpus()
    yield from _connections()
    yield from _memory(atoms)
    if speed:
        yield from _speed(device)


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "python", platform.python_version())
    yield Finding("versions", "system", platform.platform())
    for name in PACKAGES:
        yield Finding("versions", name, version_of(name) or "not installed")


def _machine() -> Iterator[Finding]:
    yield Finding("machine", "processor", cpu_name())
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    pinned = "" if usable == cores else "processes are pinned to fewer: see taskset, or the queue"
    yield Finding("machine", "cores", f"{usable} of {cores}", pinned)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = "other work takes the cores, so that times mean little" if load > usable else ""
    yield Finding("machine", "load of the last minute", f"{load:.1f}", busy)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        if name in os.environ:
            yield Finding("machine", name, os.environ[name])


def _gpus() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield Finding("GPU", "CUDA", f"none that torch {torch.__version__} can use")
        return
    for k in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(k))
        yield Finding(
            "GPU",
            f"cuda:{k}",
            f"{torch.cuda.get_device_name(k)}, {free:.0f} of {total:.0f} GiB free",
        )


def _connections() -> Iterator[Finding]:
    yield _tried("unix sockets", UNIX_PREFIX + "*", _unix_socket, "give another --prefix")
    yield _tried("inet sockets", "localhost", _inet_socket, "see to the loopback device")
    yield _tried("shared memory", "/dev/shm", _shared_memory, "use --mode unix")
    yield _tried("ZeroMQ", "ipc://", _zmq_socket, "use --mode unix")
    if find_spec("mpi4py") is None:
        yield Finding("connections", "MPI", "mpi4py is not installed; nothing needs it yet")
    else:
        yield _tried("MPI", "mpi4py", _mpi, "install an MPI library, such as the mpich wheel")


def _tried(name: str, where: str, attempt: Callable[[], str], remedy: str) -> Finding:
    try:
        found = attempt()
    except Exception as error:  # whatever it is: the report goes on, and says so
        return Finding("connections", name, f"{where}: {type(error).__name__}: {error}", remedy)
    return Finding("connections", name, found or f"{where}: works")


def _unix_socket() -> str:
    path = f"{UNIX_PREFIX}doctor-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        os.unlink(path)
    return ""


def _inet_socket() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
    return ""


def _shared_memory() -> str:
    block = shared_memory.SharedMemory(create=True, size=8)
    block.close()
    block.unlink()
    return ""


def _zmq_socket() -> str:
    from mts_driver.drivers.zmq.sockets import try_to_listen

    with tempfile.TemporaryDirectory() as folder:
        try_to_listen(f"ipc://{folder}/doctor")
    return ""


def _mpi() -> str:
    from importlib import import_module

    return str(import_module("mpi4py.MPI").Get_library_version()).splitlines()[0]


def _memory(atoms: int) -> Iterator[Finding]:
    free_MB = free_memory_MB()
    if free_MB is None:
        yield Finding("memory", "free", "not known on this system")
        return
    yield Finding("memory", "free", f"{free_MB / 1024:.1f} GiB")
    for model, each_MB in NEEDED_MB_AN_ATOM.items():
        needed_MB = each_MB * atoms
        remedy = "" if needed_MB < free_MB else "a GPU, a bigger machine, or fewer atoms"
        enough = f"{needed_MB / 1024:.1f} GiB for {atoms:,} atoms, about"
        yield Finding("memory", model, enough, remedy)


def _speed(device: str) -> Iterator[Finding]:
    from mts_driver.potentials import load_potential
    from mts_driver.potentials.timing import milliseconds_per_call

    box = water_box()
    for model, usual_ms in USUAL_MS.items():
        try:
            potential: Any = load_potential(model, box.numbers.tolist(), device=device)
            ms = milliseconds_per_call(potential, box, calls=20)
        except (UserError, ImportError, RuntimeError) as error:
            yield Finding("speed", model, f"{error}", "install 'mts-driver[so3lr]'")
            continue
        slow = device == "cpu" and ms > SLOW * usual_ms
        yield Finding(
            "speed",
            model,
            f"{ms:.2f} ms a call for {len(box)} atoms on {device} ({usual_ms:g} ms on two cores "
            "of an AMD EPYC)",
            "close other work, or see the threads above" if slow else "",
        )


def water_box() -> Atoms:
    """Return water molecules on a grid, turned at random: enough like water to time forces in."""
    rng, box = np.random.default_rng(1), Atoms()
    for site in np.ndindex(WATERS, WATERS, WATERS):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate(3.1 * np.array(site))
        box += water
    box.cell, box.pbc = [3.1 * WATERS] * 3, True
    return box
