"""How a command ends that was interrupted, or cannot go on."""

import pytest

from mts_driver.cli.ending import ended_in_a_sentence
from mts_driver.errors import UserError


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 1),
        (UserError("timestep_fs = 0: give a positive one."), 2),
        (FileNotFoundError(2, "No such file", "start.xyz"), 2),
        (MemoryError("no room"), 2),
    ],
)
def test_every_end_has_its_status(raised, status):
    with pytest.raises(SystemExit) as end, ended_in_a_sentence():
        raise raised
    assert end.value.code == status


@pytest.mark.parametrize("wrapped", [SystemError("error return"), ImportError("init failed")])
@pytest.mark.parametrize(("signal", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_signal_in_compiled_code_is_still_one(wrapped, signal, status):
    # a handler of Python's that raises while C code runs reaches Python as another error's cause
    with pytest.raises(SystemExit) as end, ended_in_a_sentence():
        raise wrapped from signal
    assert end.value.code == status


def test_faults_of_ours_pass():
    with pytest.raises(ImportError), ended_in_a_sentence():
        raise ImportError("initialization failed") from ValueError()
