"""`mts doctor`: a report that goes on whatever is broken."""

import json

import pytest
from typer.testing import CliRunner

from mts_driver.bench import doctor
from mts_driver.cli.main import application

TOPICS = ["versions", "machine", "GPU", "connections", "memory"]


def run(*arguments):
    done = CliRunner().invoke(application(), ["doctor", *map(str, arguments)])
    assert done.exception is None, done.output
    return done.output


def test_everything_is_looked_at_and_told_in_json_too(tmp_path):
    output = run("--no-speed", "--json", tmp_path / "doctor.json")
    found = json.loads((tmp_path / "doctor.json").read_text())
    assert list(dict.fromkeys(one["topic"] for one in found)) == TOPICS
    for one in found:
        assert one["name"] in output and one["value"] in output and one["remedy"] in output
    sockets = {one["name"]: one for one in found if one["topic"] == "connections"}
    assert sockets["unix sockets"]["value"].endswith("works")
    assert sockets["ZeroMQ"]["value"].endswith("works")


def test_what_is_broken_has_a_remedy_and_the_report_goes_on(monkeypatch):
    monkeypatch.setattr(doctor, "UNIX_PREFIX", "/no/such/folder/ipi_")
    monkeypatch.setattr(doctor, "free_memory_MB", lambda: 100.0)
    output = run("--no-speed", "--atoms", 1_000_000)
    assert "FileNotFoundError" in output and "-> give another --prefix" in output
    assert output.count("-> a GPU, a bigger machine") == 2
    assert "lines have a remedy" in output


@pytest.mark.parametrize("device", ["cpu"])
def test_models_are_timed(device, monkeypatch):
    monkeypatch.setattr(doctor, "USUAL_MS", {"student:water": 0.7, "student:none": 1.0})
    by_name = {one.name: one for one in doctor._speed(device)}
    assert "ms a call for 192 atoms on cpu" in by_name["student:water"].value
    assert "none" in by_name["student:none"].value and by_name["student:none"].remedy
