"""``mts resonance``: what it reports, that it notices resonance, and that it resumes."""

import json
import math
import os
import signal
import subprocess

import pytest
from ase.io import write
from running import HERE, LONG_S, MTS, environment, here, toy_water, wait_for

from mts_driver.cli.console import plain_console
from mts_driver.cli.resonance import _table
from mts_driver.validation.resonance.judge import faults
from mts_driver.validation.resonance.resonance import _drawn

ROW = {
    "outer_fs": 6.0,
    "inner_fs": 1.0,
    "friction": 1.0,
    "blown_up": False,
    "max_dF": 0.5,
    "drift_meV_atom_ps": 0.3,
    "predicted_heating_K": 1.0,
    "T_H": 301.0,
    "T_H_error": 3.0,
    "T_heavy": 299.0,
    "T_heavy_error": 3.0,
    "xh_var_ratio": 1.02,
    "xh_var_ratio_error": 0.05,
    "safe": True,
}
SCAN = ["--ps", "0.12", "--equilibrate-ps", "0", "--hydrogen-friction-per-ps", "50"]
WHITE = ["--no-high-pass", "--no-constrain-hydrogens"]
# bonds of the toy have a period of 11 fs, which hydrogens of 4 Da make 20
PAIR = ["--teacher", "ase:toy_calculators:ToyWater"]


def test_a_point_without_faults_is_safe():
    assert faults(ROW, 300.0) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blown_up": True}, "blew up"),
        ({"max_dF": 3.5}, "hole of 3.5 eV/Å"),
        ({"max_dF": math.nan}, "hole of nan"),
        ({"predicted_heating_K": 4.0}, "heats by 4 K"),
        ({"drift_meV_atom_ps": None}, "blew up without a thermostat"),
        ({"T_H": 315.0}, "T(H) 315 K"),
        ({"T_heavy": 280.0}, "T(heavy) 280 K"),
        ({"T_solute_heavy": 330.0, "T_solute_heavy_error": 8.0}, "T(solute heavy) 330 K"),
        ({"xh_var_ratio": 1.3}, "variance × 1.30"),
    ],
)
def test_faults_are_named(change, said):
    (found,) = faults(ROW | change, 300.0)
    assert said in found


def scan(folder, *options):
    """Run the command in a folder with a toy as the teacher."""
    pytest.importorskip("so3krates_torch")
    command = ["resonance", folder / "water.extxyz", *options, "--json", folder / "scan.json"]
    return here(*command)


@pytest.fixture
def water(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    cluster = toy_water(2)
    cluster.pbc = False
    write(tmp_path / "water.extxyz", cluster)
    return tmp_path


def test_the_packaged_pair_on_water(water):
    """SO3LR and the student that ships: 12 fs with natural masses are too long."""
    steps = ["--outer-fs", "2", "--outer-fs", "12", "--hydrogen-mass-Da", "0"]
    done = scan(water, *SCAN, *WHITE, *steps)
    assert done.returncode == 0, done.stderr
    found = json.loads((water / "scan.json").read_text())
    assert (water / "scan.png").stat().st_size > 20_000
    assert not (water / "scan.part").exists()
    rows = {(row["outer_fs"], row["hmr"], row["friction"]): row for row in found["scan"]}
    assert set(rows) == {(t, 0, friction) for t in (2, 12) for friction in (1, 50)}
    keys = {"T_H", "T_heavy", "xh_mean", "xh_var_ratio", "max_dF", "drift_meV_atom_ps"}
    assert all(keys < set(row) for row in found["scan"])
    assert not rows[12, 0, 1]["safe"]
    assert found["recommended_outer_fs"] in (2, None)
    # a drift belongs to time steps and masses, not to a thermostat
    assert rows[2, 0, 1]["drift_meV_atom_ps"] == rows[2, 0, 50]["drift_meV_atom_ps"]
    assert 0.95 < found["reference"]["xh_mean"] < 1.0
    assert "exists: choose another name" in scan(water, *SCAN, *WHITE, *steps).stderr


def test_coloured_noise_and_held_bonds_with_the_packaged_pair(water):
    options = ["--outer-fs", "12", "--hydrogen-mass-Da", "4", "--for", "sampling"]
    done = scan(water, "--ps", "0.12", "--equilibrate-ps", "0", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((water / "scan.json").read_text())
    white, friction, coloured, held, both = found["scan"]
    assert both["high_pass"] and both["constrained"] and not held["high_pass"]
    assert both["drift_meV_atom_ps"] == held["drift_meV_atom_ps"]
    assert coloured["high_pass"] and held["constrained"] and not white["constrained"]
    assert coloured["drift_meV_atom_ps"] == friction["drift_meV_atom_ps"]
    # a tenth of a picosecond does not show vibrations: the friction of slow motion is a bound
    assert coloured["mean_friction_H_per_ps"] == 1.0
    assert held["inner_fs"] == 2 and held["xh_var_ratio"] is None and held["blown_up"] is False
    (length,) = found["bond_lengths_A"].values()
    assert held["xh_mean"] == pytest.approx(length) and 0.95 < length < 1.0
    assert set(found["recommended"]) == {"dynamics", "sampling"}
    assert found["purpose"] == "sampling"
    best = found["recommended"]["sampling"]
    assert (best is None) == (found["recommended_for_sampling_outer_fs"] is None)
    assert ("recommended for sampling, 12 fs: mts prepare" in done.stdout) == (best is not None)


def test_a_stopped_scan_continues_and_other_settings_are_refused(water):
    options = [*PAIR, *SCAN, *WHITE, "--outer-fs", "2", "--hydrogen-mass-Da", "4"]
    command = [MTS, "resonance", water / "water.extxyz", *options, "--json", water / "scan.json"]
    running = subprocess.Popen(
        list(map(str, command)),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs these tests in the background has it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    state = water / "scan.part"
    wait_for(state.exists)
    running.send_signal(signal.SIGINT)
    message = running.communicate(timeout=LONG_S)[1]
    assert running.returncode == 130, message
    assert message == "stopped. The same command continues where it was.\n"
    # marked so that its reuse shows
    found = json.loads(state.read_text())
    found["rows"][0]["s_per_ps"] = 123.0
    state.write_text(json.dumps(found))
    refused = scan(water, *options, "--seed", "5")
    assert refused.returncode == 2
    assert "is a scan with --seed 1, not 5" in refused.stderr
    assert scan(water, *options).returncode == 0
    assert json.loads((water / "scan.json").read_text())["reference"]["s_per_ps"] == 123.0


def test_the_numbers_outlast_a_picture_that_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mts_driver.validation.resonance.figure.draw", fail)
    said = "no picture: OSError: [Errno 28] No space left on device"
    assert _drawn({}, tmp_path / "a.png") == (None, said)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_cuts_no_number(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    more = {"hmr": 0, "friction": 1.0, "xh_mean": 0.9912, "diffusion_ratio": 0.87, "speedup": 12.3}
    more |= {
        "diffusion_ratio_error": 0.21,
        "high_pass": False,
        "constrained": False,
        "rigid_water": False,
    }
    row = {**ROW, **more, "safe": False, "faults": ["T(H) 315 K", "X–H variance × 1.23"]}
    held = row | {"hmr": 4.0, "constrained": True}
    others = [row | {"hmr": 4.0, "high_pass": True}, held, held | {"rigid_water": True}]
    found = {"student": "a[b]", "structure": "x/[c].xyz", "atoms": 9, "friction_per_ps": 1.0}
    found |= {"reference": row, "scan": others}
    console = plain_console()
    console.print(_table(found, narrow=width < 150))
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= width
    for word in (
        "a[b]",
        "x/[c].xyz",
        "0.9912",
        "0.50",
        "0.9",
        "1–51",
        "held",
        "12.3",
        "1.02",
        "301",
        "315",
        "1.23",
    ):
        assert word in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--outer-fs", "0"], "--outer-fs 0"),
        (["--ps", "0.05"], "the outer step of 12 fs needs at least 0.12"),
        (["--hydrogen-friction-per-ps", "0.5"], "give at least the 1 of --friction-per-ps"),
        (["--for", "fun"], "--for fun: use dynamics or sampling"),
        (["--constrain-hydrogens", "--outer-fs", "3"], "--constrained-inner-fs 2: no --outer-fs"),
        (["--json", "scan.txt"], "must end in .json"),
    ],
)
def test_impossible_scans_are_refused(water, options, message):
    done = here("resonance", water / "water.extxyz", *options)
    assert done.returncode == 2
    assert message in done.stderr
