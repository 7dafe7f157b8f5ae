"""Checkpoints of i-PI hold what their inputs held."""

import xml.etree.ElementTree as ET

import pytest

from mts_driver.runs.checkpoints import write_checkpoints_well


@pytest.mark.parametrize(
    "spec", ["ase:tblite.ase:TBLite?method=GFN1-xTB&verbosity=0", "a<b", "so3lr"]
)
def test_any_model_survives(spec, monkeypatch):
    from ipi.engine.outputs import CheckpointOutput
    from ipi.utils import inputvalue

    monkeypatch.setattr(inputvalue, "write_type", inputvalue.write_type)
    monkeypatch.setattr(CheckpointOutput, "write", CheckpointOutput.write)
    write_checkpoints_well()
    text = ET.fromstring(f"<p>{inputvalue.write_type(dict, {'model': spec})}</p>").text
    assert inputvalue.read_type(dict, text) == {"model": spec}
    assert ET.fromstring(f"<p>{inputvalue.write_type(str, spec)}</p>").text.strip() == spec
