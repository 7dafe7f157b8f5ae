"""Runs as users start them: through commands, with checkpoints, with and without the plugin."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from ipi.engine.simulation import Simulation
from ipi.inputs.simulation import InputSimulation
from ipi_input import (
    BAROSTAT,
    GLE,
    HELD,
    LANGEVIN,
    ONE_LEVEL,
    PILE,
    REFERENCE_CELL,
    forcefield,
    simulation_xml,
)
from running import LONG_S, environment

from integrators.ipi import register

I_PI = [str(Path(sysconfig.get_path("scripts")) / "i-pi")]
WITH_PLUGIN = [sys.executable, "-m", "integrators.ipi.plugin"]

OUTPUT = """
  <properties stride='1' filename='p'>[step, conserved, temperature, potential]</properties>
  <trajectory stride='1' filename='x' format='xyz'>positions</trajectory>
  <checkpoint stride='12' filename='chk' overwrite='False'/>"""
REGISTER = "<ffdirect name='respa'><pes>custom</pes><pes_path>register.py</pes_path></ffdirect>"


def run(command, folder, name="input.xml"):
    return subprocess.run(
        [*command, name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        env=environment(),
        check=False,
    )


def outputs(folder):
    return np.loadtxt(folder / "out.p"), (folder / "out.x_0.xyz").read_text()


def prepare(folder, **options):
    folder.mkdir()
    (folder / "input.xml").write_text(simulation_xml(folder, output=OUTPUT, **options))
    return folder


@pytest.mark.parametrize("route", ["command", "register file", "register file of old"])
def test_restarted_run_is_the_uninterrupted_one(tmp_path, route):
    if route == "command":
        command = WITH_PLUGIN
        options = {"dynamics": LANGEVIN + "<force_clip units='ev/ang'>0.3</force_clip>"}
    else:
        command, options = I_PI, {"extra_ff": REGISTER}
    file = Path(register.__file__).read_text()
    if route == "register file of old":  # from when the plugin was integrators/ipi_plugin.py
        file = file.replace(
            "from integrators.ipi.plugin import", "from integrators.ipi_plugin import"
        )
    whole = prepare(tmp_path / "whole", **options)
    (whole / "register.py").write_text(file)
    result = run(command, whole)
    assert result.returncode == 0, result.stdout + result.stderr
    texts = [f.read_text() for f in whole.glob("out.chk_*")]
    (text,) = [t for t in texts if "<step>12</step>" in t.replace(" ", "")]
    assert "splitting='respa-baoab'" in text
    assert ("<force_clip>" in text) == (route == "command")

    part = tmp_path / "part"
    part.mkdir()
    (part / "register.py").write_text(file)
    (part / "input.xml").write_text(text)
    result = run(command, part)
    assert result.returncode == 0, result.stdout + result.stderr

    expected, found = outputs(whole)[0], outputs(part)[0]
    assert len(found) == 8
    np.testing.assert_allclose(found, expected[-8:], rtol=1e-13)


MIDDLE = forcefield("middle", "k: 0.095")
FRICTION = "<hydrogen_friction units='inverseps'>50</hydrogen_friction>"
ENSEMBLES = {
    "nve": {"mode": "nve", "dynamics": ""},
    "hydrogen friction": {"dynamics": LANGEVIN + FRICTION},
    "svr": {"dynamics": LANGEVIN.replace("langevin", "svr")},
    "gle": {"dynamics": GLE},
    "constraints": {"dynamics": LANGEVIN + HELD, "fixcom": True},
    "constraints, nve": {"mode": "nve", "dynamics": HELD},
    "npt": {"mode": "npt", "dynamics": LANGEVIN + BAROSTAT},
    "flexible": {"mode": "npt", "dynamics": LANGEVIN + BAROSTAT.replace("isotropic", "flexible")},
    "nst": {"mode": "nst", "dynamics": LANGEVIN + REFERENCE_CELL},
    "pile_g": {"dynamics": PILE.replace("pile_l", "pile_g"), "beads": 4, "fixcom": True},
    "contraction": {
        "dynamics": PILE + FRICTION,
        "beads": 4,
        "weights": (("teacher", "[1, 0]"), ("student", "[-1, 0]"), ("student", "[0, 1]")),
        "nbeads": (2, 2, 4),
    },
    "three levels": {
        "extra_ff": MIDDLE,
        "nmts": "[1, 2, 2]",
        "weights": (("teacher", "[1, 0, 0]"), ("middle", "[-1, 1, 0]"), ("student", "[0, -1, 1]")),
    },
    "fixed atoms": {"fixatoms": "<fixatoms>[1]</fixatoms>"},
}


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_restart_is_exact_in_every_ensemble(load, ensemble):
    whole = load(**ENSEMBLES[ensemble])
    checkpoint = InputSimulation()
    for k in range(1, 21):
        whole.syslist[0].motion.step(k)
        if k == 12:
            checkpoint.store(whole)
            text = checkpoint.write("simulation")
    part = Simulation.load_from_xml(text)
    for k in range(13, 21):
        part.syslist[0].motion.step(k)
    for name in ("q", "p"):
        found, expected = (np.array(getattr(s.syslist[0].beads, name)) for s in (part, whole))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    energies = [float(s.syslist[0].ensemble.econs) for s in (part, whole)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-10)
    cells = [np.array(s.syslist[0].cell.h) for s in (part, whole)]
    np.testing.assert_allclose(cells[0], cells[1], rtol=1e-12)


NATIVE = {
    "nve": {"mode": "nve", "dynamics": "", "splitting": "obabo"},
    "nvt obabo": {"splitting": "obabo"},
    "nvt baoab": {"splitting": "baoab"},
    "one level": {"splitting": "baoab", "nmts": "[1]", "weights": ONE_LEVEL},
    "npt": {"mode": "npt", "dynamics": LANGEVIN + BAROSTAT, "splitting": "baoab"},
    "nst": {"mode": "nst", "dynamics": LANGEVIN + REFERENCE_CELL, "splitting": "obabo"},
    "pimd": {"beads": 4, "dynamics": PILE, "splitting": "obabo"},
    "suzuki-chin": {
        "mode": "sc",
        "beads": 4,
        "dynamics": PILE,
        "splitting": "obabo",
        "nmts": "[1]",
        "weights": ONE_LEVEL,
    },
}


@pytest.mark.parametrize("native", NATIVE)
def test_native_inputs_run_unchanged_with_the_plugin(tmp_path, native):
    folders = [prepare(tmp_path / name, **NATIVE[native]) for name in ("plain", "plugin")]
    for command, folder in zip((I_PI, WITH_PLUGIN), folders, strict=True):
        result = run(command, folder)
        assert result.returncode == 0, result.stdout + result.stderr
    (plain, plain_xyz), (plugin, plugin_xyz) = map(outputs, folders)
    assert np.array_equal(plain, plugin)
    assert plain_xyz == plugin_xyz


def test_without_the_plugin_i_pi_says_that_it_does_not_know_the_splitting(tmp_path):
    result = run(I_PI, prepare(tmp_path / "run"))
    assert result.returncode != 0
    assert "respa-baoab is not a valid option" in result.stdout + result.stderr


def replica_exchange(folder, splitting="respa-baoab"):
    """Write an input with two replicas, and return its folder."""
    prepare(folder, splitting=splitting)
    # i-PI's default, threads, lets the replicas draw from one generator in any order
    text = (folder / "input.xml").read_text()
    text = text.replace("<simulation ", "<simulation threading='False' ")
    system = text[text.index("<system>") : text.index("</system>") + len("</system>")]
    hot = system.replace(
        "<temperature units='kelvin'>300", "<temperature units='kelvin'>320"
    ).replace("<system>", "<system prefix='hot'>")
    exchange = "<smotion mode='remd'><remd><stride>2</stride></remd></smotion>"
    (folder / "input.xml").write_text(
        text.replace(system, system.replace("<system>", "<system prefix='cold'>") + hot + exchange)
    )
    return folder


def test_native_replica_exchange_runs_unchanged_with_the_plugin(tmp_path):
    plain, plugin = (replica_exchange(tmp_path / name, "baoab") for name in ("plain", "plugin"))
    for command, folder in ((I_PI, plain), (WITH_PLUGIN, plugin)):
        result = run(command, folder)
        assert result.returncode == 0, result.stdout + result.stderr
    for name in ("cold_out.p", "hot_out.p"):
        assert (plain / name).read_text() == (plugin / name).read_text()


def test_replica_exchange_restarts_exactly(tmp_path):
    whole = replica_exchange(tmp_path / "whole")
    result = run(WITH_PLUGIN, whole)
    assert result.returncode == 0, result.stdout + result.stderr
    part = tmp_path / "part"
    part.mkdir()
    texts = [f.read_text() for f in whole.glob("out.chk_*")]
    (checkpoint,) = [t for t in texts if "<step>12</step>" in t.replace(" ", "")]
    assert checkpoint.count("splitting='respa-baoab'") == 2
    (part / "input.xml").write_text(checkpoint)
    result = run(WITH_PLUGIN, part)
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("cold_out.p", "hot_out.p"):
        expected, found = np.loadtxt(whole / name), np.loadtxt(part / name)
        np.testing.assert_allclose(found, expected[-8:], rtol=1e-12)
