"""`mts serve` against real servers: i-PI's sockets in all modes, i-PI itself, and ASE."""

import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ipi.engine.atoms import Atoms as IpiAtoms
from ipi.engine.cell import GenericCell
from ipi.engine.forcefields import FFSocket
from ipi.interfaces.sockets import InterfaceSocket
from running import LONG_S, MTS, environment, wait_for

from mts_driver.drivers.counters import Stats, read_stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.ipi_socket.client import serve
from mts_driver.drivers.ipi_socket.transport import Address
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.units import BOHR_A, HARTREE_EV, HARTREE_PER_BOHR_EV_A

EMT_SPEC = "ase:ase.calculators.emt:EMT"
MODES = ("unix", "inet", "shm")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def copper(seed=1, strain=0.0):
    """Four atoms in a cell that is upper triangular in i-PI's convention, as i-PI keeps them."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell([[3.6, 0, 0], [0.3, 3.7, 0], [0.2, -0.4, 3.8]], scale_atoms=True)
    atoms.rattle(0.1, seed=seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


class Server:
    """i-PI's own socket force field, with our client in a thread."""

    def __init__(self, mode: str, folder: Path, *, batch_size: int = 1, natoms: int = 4) -> None:
        port = free_port()
        interface = InterfaceSocket(
            address="localhost" if mode == "inet" else "t",
            port=port,
            mode=mode,
            timeout=LONG_S,
            sockets_prefix=str(folder / "ipi_"),
            batch_size=batch_size,
        )
        self.forcefield = FFSocket(name="test", interface=interface, dopbc=False, pars={})
        where = f"localhost:{port}" if mode == "inet" else "t"
        self.address = Address.parse(where, mode, prefix=str(folder / "ipi_"))
        self.stats = Stats(EMT_SPEC, folder / "stats.json")
        self.evaluator = Evaluator(
            load_potential(EMT_SPEC, [29] * natoms), natoms, stats=self.stats
        )
        self.outcome: list[object] = []

    def serve(self, **options) -> None:
        try:
            self.outcome.append(serve(self.evaluator, self.address, timeout=LONG_S, **options))
        except UserError as error:
            self.outcome.append(error)

    def __enter__(self) -> "Server":
        # the client comes first: it must wait for the server
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        time.sleep(0.15)
        self.forcefield.start()
        return self

    def __exit__(self, *_) -> None:
        self.forcefield.stop()
        self.thread.join(timeout=LONG_S)
        assert not self.thread.is_alive()

    def ask(self, *structures):
        """Evaluate ASE structures through i-PI; energies, forces, virials in eV and Å."""
        requests = []
        for k, structure in enumerate(structures):
            atoms = IpiAtoms(len(structure))
            atoms.q[:] = structure.positions.ravel() / BOHR_A
            cell = GenericCell(structure.cell.array.T / BOHR_A)
            requests.append(self.forcefield.queue(atoms, cell, reqid=k))
        wait_for(lambda: all(r["status"] == "Done" for r in requests), what="forces")
        found = [request["result"] for request in requests]
        for request in requests:
            self.forcefield.release(request)
        return (
            np.array([r[0] for r in found]) * HARTREE_EV,
            np.array([r[1].reshape(-1, 3) for r in found]) * HARTREE_PER_BOHR_EV_A,
            np.array([r[2] for r in found]) * HARTREE_EV,
        )


@pytest.mark.parametrize("mode", MODES)
def test_energies_and_forces_arrive_in_every_mode(mode, tmp_path):
    with Server(mode, tmp_path) as server:
        for seed in (1, 2):
            atoms = copper(seed)
            energies, forces, _ = server.ask(atoms)
            atoms.calc = EMT()
            assert energies[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(forces[0], atoms.get_forces(), atol=1e-9)
    assert server.outcome == ["exit"]
    assert read_stats(tmp_path / "stats.json")["calls"] == 2


@pytest.mark.parametrize("mode", MODES)
def test_virials_are_strain_derivatives_through_the_protocol(mode, tmp_path):
    step = 1e-4
    with Server(mode, tmp_path) as server:
        virial = server.ask(copper())[2][0]
        for a, b in ((0, 0), (1, 1), (0, 1), (1, 2), (0, 2)):
            strain = np.zeros((3, 3))
            strain[a, b] = strain[b, a] = step
            plus, minus = (server.ask(copper(strain=s * strain))[0][0] for s in (1, -1))
            weight = 1 if a == b else 2
            assert virial[a, b] == pytest.approx(-(plus - minus) / (2 * step * weight), abs=2e-4)
    np.testing.assert_allclose(virial, virial.T, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_batches_are_answered_in_order_and_padding_costs_nothing(mode, tmp_path):
    structures = [copper(seed) for seed in range(5)]
    with Server(mode, tmp_path, batch_size=3) as server:
        energies, forces, virials = server.ask(*structures)
        assert server.stats.structures == 5  # of six in two batches
    for k, atoms in enumerate(structures):
        atoms.calc = EMT()
        assert energies[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(forces[k], atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(
            virials[k], -atoms.get_volume() * atoms.get_stress(voigt=False), atol=1e-6
        )


def test_a_wrong_number_of_atoms_is_an_error_that_says_what_to_do(tmp_path):
    server = Server("unix", tmp_path, natoms=7)
    server.thread = threading.Thread(target=server.serve, daemon=True)
    server.forcefield.start()
    server.thread.start()
    atoms = IpiAtoms(4)
    request = server.forcefield.queue(atoms, GenericCell(np.eye(3)), reqid=0)
    wait_for(lambda: server.outcome, what="error")
    assert "sent 4 atoms, but --structure has 7" in str(server.outcome[0])
    assert request["status"] != "Done"
    server.forcefield.stop()


def test_a_driver_for_another_model_refuses(tmp_path):
    server = Server("unix", tmp_path)
    server.forcefield.pars = {"model": "so3lr", "device": "cpu"}
    server.thread = threading.Thread(target=server.serve, kwargs={"model": EMT_SPEC}, daemon=True)
    server.forcefield.start()
    server.thread.start()
    server.forcefield.queue(IpiAtoms(4), GenericCell(np.eye(3)), reqid=0)
    wait_for(lambda: server.outcome, what="error")
    assert "asks for 'so3lr'" in str(server.outcome[0])
    server.forcefield.stop()


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("name", "tcp", "use one of unix, inet, shm"),
        ("localhost", "inet", "has no port"),
        ("localhost:99999", "inet", "has no port"),
        ("", "unix", "is empty"),
    ],
)
def test_a_wrong_address_says_what_to_write(text, mode, message):
    with pytest.raises(UserError, match=message):
        Address.parse(text, mode)


def test_addresses_are_names_or_paths():
    assert Address.parse("water", "unix").path == "/tmp/ipi_water"
    assert Address.parse("/run/x", "shm").path == "/run/x"
    assert str(Address.parse("31415", "inet")) == "localhost:31415"


def test_nobody_there_is_an_error_after_the_timeout(tmp_path):
    lines = []
    with pytest.raises(UserError, match=r"no i-PI server at .*nobody after .*--timeout"):
        serve(None, Address("unix", str(tmp_path / "nobody")), timeout=0.2, tell=lines.append)
    assert len(lines) == 1 and "waiting" in lines[0]


def serve_process(*options, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [MTS, "serve", EMT_SPEC, "--structure", "start.extxyz", *map(str, options)],
        cwd=folder,
        text=True,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def test_ase_as_the_server_which_never_says_exit(tmp_path):
    from ase.calculators.socketio import SocketIOCalculator

    atoms = copper()
    atoms.write(tmp_path / "start.extxyz")
    name = f"mts-test-ase-{os.getpid()}"
    driver = serve_process("--address", name, folder=tmp_path)
    reference = atoms.copy()
    reference.calc = EMT()
    with SocketIOCalculator(unixsocket=name, timeout=LONG_S) as calculator:
        atoms.calc = calculator
        for _ in range(3):
            assert atoms.get_potential_energy() == pytest.approx(reference.get_potential_energy())
            np.testing.assert_allclose(atoms.get_forces(), reference.get_forces(), atol=1e-7)
            np.testing.assert_allclose(atoms.get_stress(), reference.get_stress(), atol=1e-7)
            for one in (atoms, reference):
                one.rattle(0.05, seed=3)
    _, messages = driver.communicate(timeout=LONG_S)
    assert driver.returncode == 0, messages
    assert "closed the connection; 3 calls" in messages


PIMD = """
<simulation verbosity='low' sockets_prefix='{prefix}'>
  <output prefix='out'>
    <properties filename='md' stride='1'> [ step, potential{{electronvolt}} ] </properties>
    <trajectory filename='pos' stride='1' format='xyz' cell_units='angstrom'>
      positions{{angstrom}} </trajectory>
    <trajectory filename='for' stride='1' format='xyz' cell_units='angstrom'>
      forces{{ev/ang}} </trajectory>
  </output>
  <total_steps> 4 </total_steps>
  <prng> <seed> 5 </seed> </prng>
  <ffsocket name='emt' mode='{mode}' pbc='False'>
    <address> pimd </address> <batch_size> 3 </batch_size> <timeout> 60 </timeout>
  </ffsocket>
  <system>
    <initialize nbeads='4'>
      <file mode='ase'> start.extxyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces> <force forcefield='emt'/> </forces>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> 1 </timestep>
        <thermostat mode='pile_l'> <tau units='femtosecond'> 100 </tau> </thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""


@pytest.mark.parametrize("mode", ["unix", "shm"])
def test_a_plain_ipi_runs_path_integrals_in_batches(mode, tmp_path):
    copper().write(tmp_path / "start.extxyz")
    (tmp_path / "input.xml").write_text(PIMD.format(prefix=tmp_path / "s_", mode=mode))
    options = ["--mode", mode, "--address", tmp_path / "s_pimd", "--stats", "stats.json"]
    driver = serve_process(*options, folder=tmp_path)
    done = subprocess.run(
        [MTS.with_name("i-pi"), "input.xml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert driver.wait(timeout=LONG_S) == 0
    assert driver.stderr is not None
    driver.stderr.close()
    stats = read_stats(tmp_path / "stats.json")
    # five evaluations of four beads in batches of three, of which the second is padded; at the
    # start all beads of a batch are one structure. A plain i-PI sends what it has when it looks: on
    # a busy machine that may be a batch of one bead, when it is still queueing the others
    calls, structures = stats["calls"], stats["structures"]
    assert stats["state"] == "done"
    assert 10 <= calls <= 5 * 4 and 2 <= structures - 4 * 4 <= 4
    reference = copper()
    reference.calc = EMT()
    for bead in range(4):
        # i-PI rotates no cell that is upper triangular already, so that frames compare directly
        positions, forces = (frames(tmp_path, what, bead) for what in ("pos", "for"))
        assert len(positions) == 5
        for x, f in zip(positions, forces, strict=True):
            reference.positions[:] = x
            np.testing.assert_allclose(f, reference.get_forces(), atol=2e-4)


def frames(folder: Path, what: str, bead: int) -> np.ndarray:
    lines = (folder / f"out.{what}_{bead}.xyz").read_text().splitlines()
    rows = [line.split()[1:4] for line in lines if line.split()[0] == "Cu"]
    return np.array(rows, float).reshape(-1, 4, 3)
