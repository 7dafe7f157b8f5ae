"""Sets up simulations of i-PI in this process."""

import pytest
from ipi.engine.simulation import Simulation
from ipi_input import simulation_xml

from integrators.ipi import plugin as ipi_plugin


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Set up a simulation from the options of ``simulation_xml``, in a fresh folder."""
    monkeypatch.chdir(tmp_path)
    ipi_plugin.register()
    return lambda **options: Simulation.load_from_xml(simulation_xml(tmp_path, **options))
