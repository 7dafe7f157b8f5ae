"""Whatever a user names: a sentence before the work, never a traceback; and how commands end."""

import errno
import importlib
import os
import pickle
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from running import HERE, MTS, TEACHER, environment, toy_water
from safetensors.torch import save_file

from mts_driver import files
from mts_driver.cli.ending import sentence
from mts_driver.cli.main import main
from mts_driver.errors import UserError

LONG = 300 * "n"
LJ = ("--teacher", "ase:ase.calculators.lj:LennardJones")
# command, and the suffix of the file that it writes (none: a folder)
OUTPUTS = {
    "prepare -o": (("prepare", "water.xyz", "--student", "none", *LJ, "-o"), None),
    "check --json": (("check", "water", "water.xyz", *LJ, "--json"), ".json"),
    "check --work": (("check", "water", "water.xyz", *LJ, "--work"), None),
    "resonance --json": (("resonance", "water.xyz", *LJ, "--json"), ".json"),
    "distill -o": (("distill", "water.xyz", *LJ, "-o"), ".safetensors"),
    "distill --work": (("distill", "water.xyz", *LJ, "--work"), None),
    "distill --json": (("distill", "water.xyz", *LJ, "--json"), ".json"),
    "molecules -o": (("molecules", "--only", "ions", "-o"), ".extxyz"),
    "bench --json": (("bench", "kernels", "--structure", "water.xyz", *LJ, "--json"), ".json"),
    "keys": (("keys",), None),
}
PLACES = {
    "file": "a.file/run",
    "nothing": "nowhere/run",
    "long": LONG,
    "system": "/proc/run",
    "folder": "a_folder",
    "file itself": "a_file",
}
STRUCTURES = {
    "prepare": ("prepare", "{}", "-o", "run", "--student", "none", *LJ),
    "check": ("check", "water", "{}", *LJ),
    "resonance": ("resonance", "{}", *LJ),
    "distill": ("distill", "{}", *LJ),
    "bench": ("bench", "kernels", "--structure", "{}", *LJ),
    "serve": ("serve", LJ[1], "--address", "nobody", "--timeout", "0.1", "--structure", "{}"),
}
STUDENTS = {
    "prepare": ("prepare", "water.xyz", "-o", "run", "--student", "{}", *LJ),
    "check": ("check", "{}", "water.xyz", *LJ),
    "resonance": ("resonance", "water.xyz", "--student", "{}", *LJ),
    "distill": ("distill", "water.xyz", "--from", "{}", *LJ),
    "serve": ("serve", "student:{}", "--address", "nobody", "--structure", "water.xyz"),
}
DEVICES = {
    "prepare": ("prepare", "water.xyz", "-o", "run", "--student", "none"),
    "check": ("check", "water", "water.xyz"),
    "resonance": ("resonance", "water.xyz"),
    "distill": ("distill", "water.xyz"),
    "bench": ("bench", "kernels", "--structure", "water.xyz"),
    "serve": ("serve", "student:water", "--address", "nobody", "--structure", "water.xyz"),
}
ELSEWHERE = {
    "run": ("run", "{}"),
    "run --restart": ("run", "{}", "--restart"),
    "distill --from-run": ("distill", "--from-run", "{}"),
    "molecules --spice": ("molecules", "-o", "new.extxyz", "--spice", "{}"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a good structure and everything that is not what it should be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    toy_water(1).write("water.xyz")
    Path("a_folder").mkdir()
    for name in ("a_file", "a.file", "empty", "empty.xyz", "empty.safetensors"):
        Path(name).write_text("" if "empty" in name else "x")
    for name in ("garbage", "garbage.xyz", "garbage.cif", "garbage.safetensors"):
        Path(name).write_bytes(bytes(range(256)) * 8)
    Path("short.xyz").write_text("5\n\nH 0 0 0\n")
    Path("unknown.xyz").write_text("1\n\nQq 0 0 0\n")
    Path("charge.extxyz").write_text("1\nProperties=species:S:1:pos:R:3 charge=many\nHe 0 0 0\n")
    with zipfile.ZipFile("zip.safetensors", "w") as archive:
        archive.writestr("a", "b")
    Path("pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    whole = next((HERE.parents[1] / "mts_driver/students").glob("water.safetensors")).read_bytes()
    Path("half.safetensors").write_bytes(whole[: len(whole) // 2])
    for number, header in enumerate(
        (
            None,
            "[1]",
            '{"format": 3}',
            '{"format": 3, "record": {}, "config": {"elements": 5}}',
            '{"format": 3, "record": {}, "config": {"elements": ["H"], "cutoff": "wide"}}',
            '{"format": 3, "record": {}, "config": {"elements": ["Qq"]}}',
            '{"format": 2, "record": {}, "config": {"elements": ["H"]}}',
        )
    ):
        metadata = {"mts_student": header} if header else None
        save_file({"a": torch.zeros(2)}, f"strange{number}.safetensors", metadata=metadata)
    return tmp_path


def refused(capsys, monkeypatch, *words: str) -> str:
    """Run a command in this process; it must end with status 2 and leave no new file."""
    before = sorted(map(str, Path.cwd().rglob("*")))
    monkeypatch.setattr(sys, "argv", ["mts", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    message = capsys.readouterr().err
    assert ended.value.code == 2, message
    assert message.startswith("error: ") and len(message.splitlines()) == 1, message
    assert sorted(map(str, Path.cwd().rglob("*"))) == before
    return message


WORK = (
    "mts_driver.potentials.load_potential",
    "mts_driver.validation.check_student.load_potential",
    "mts_driver.validation.resonance.resonance.load_potential",
    "mts_driver.distillation.make_student.make",
    "mts_driver.distillation.starting_systems.molecules.starting_structures",
    "mts_driver.bench.kernels.measure",
)
# modules that are imported while a name is replaced would keep the replacement
for module in {*(name.rpartition(".")[0] for name in WORK), "mts_driver.distillation.warm_up"}:
    importlib.import_module(module)


def forbid_work(monkeypatch) -> None:
    """Make the test fail where a model is loaded or molecules are built."""

    def work(*_: object, **__: object) -> None:
        pytest.fail("the work began before the check")

    for name in WORK:
        monkeypatch.setattr(name, work)


def impossible() -> list[tuple[str, str]]:
    """Every pair of an output and a place where it cannot be."""
    fine = {None: ("nothing", "folder")}  # of a folder: it can be made, or is there
    replaced = ("distill --json", "bench --json")
    return [
        (output, place)
        for output, (_, suffix) in OUTPUTS.items()
        for place in PLACES
        if place not in fine.get(suffix, ()) and not (place == "file itself" and output in replaced)
    ]


@pytest.mark.parametrize(("output", "place"), impossible())
def test_places_are_checked_before_the_work(here, output, place, monkeypatch, capsys):
    words, suffix = OUTPUTS[output]
    path = PLACES[place] + (suffix or "")
    if place == "folder":
        Path(path).mkdir()
    elif place == "file itself":
        Path(path).write_text("precious")
    forbid_work(monkeypatch)
    assert path[:60] in refused(capsys, monkeypatch, *words, path)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("output", OUTPUTS)
def test_folders_that_take_no_file(here, output, error, monkeypatch, capsys):
    """Root may write anywhere and disks are not full here, so the system is made to say no."""
    words, suffix = OUTPUTS[output]

    def no(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    forbid_work(monkeypatch)
    monkeypatch.setattr(files.tempfile, "TemporaryFile", no)
    message = refused(capsys, monkeypatch, *words, f"new{suffix or ''}")
    assert os.strerror(error) in message


@pytest.mark.parametrize(
    "file",
    [
        *("a_file", "a_folder", "empty", "empty.xyz", "garbage", "garbage.xyz", "garbage.cif"),
        *("short.xyz", "unknown.xyz", "charge.extxyz", "a_file/x", "nowhere/x", LONG, "/dev/null"),
    ],
)
@pytest.mark.parametrize("command", STRUCTURES)
def test_structures_that_are_none(here, command, file, monkeypatch, capsys):
    words = [word.format(file) for word in STRUCTURES[command]]
    assert file[:60] in refused(capsys, monkeypatch, *words)


@pytest.mark.parametrize(
    "file",
    [
        *("empty.safetensors", "garbage.safetensors", "zip.safetensors", "pickle.safetensors"),
        *("half.safetensors", *(f"strange{k}.safetensors" for k in range(7)), "a_file"),
        *("a_folder", "a_file/x", "nowhere/x.safetensors", LONG, "/dev/null"),
    ],
)
@pytest.mark.parametrize("command", STUDENTS)
def test_students_that_are_none(here, command, file, monkeypatch, capsys):
    words = [word.format(file) for word in STUDENTS[command]]
    assert file[:60] in refused(capsys, monkeypatch, *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:9", "cuda:x", "mps", "meta", "gpu", ""])
@pytest.mark.parametrize("command", DEVICES)
def test_devices_that_are_not_there(here, command, device, monkeypatch, capsys):
    words = (*DEVICES[command], "--device", device)
    assert repr(device) in refused(capsys, monkeypatch, *words)


@pytest.mark.parametrize("file", ["a_file", "empty", "garbage", "a_file/x", "nowhere/x", LONG])
@pytest.mark.parametrize("command", ELSEWHERE)
def test_other_inputs_that_are_none(here, command, file, monkeypatch, capsys):
    words = [word.format(file) for word in ELSEWHERE[command]]
    message = refused(capsys, monkeypatch, *words)
    # of a file of a run its folder is meant
    assert file[:60] in message or (command == "distill --from-run" and "'.' holds" in message)


@pytest.mark.parametrize("file", ["labels.extxyz", "plan.json"])
def test_files_in_a_work_folder_that_are_none(here, file, monkeypatch, capsys):
    """What a killed run would go on from is garbage: said by name, and left as it is."""
    Path("work").mkdir()
    path = Path("work", file)
    path.write_bytes(bytes(range(256)))
    words = ("distill", "water.xyz", *LJ, "--work", "work")
    assert f"work/{file}" in refused(capsys, monkeypatch, *words)
    assert path.read_bytes() == bytes(range(256))


def ended(capsys, monkeypatch, error: BaseException) -> tuple[int, str]:
    """Return status and message of a command in whose midst something goes wrong."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("mts_driver.validation.resonance.resonance.read_structure", fail)
    monkeypatch.setattr(sys, "argv", ["mts", "resonance", "water.xyz"])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "'a/b': No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", b"a"), "'a': Permission denied"),
        (OSError("a library's own words"), "a library's own words"),
        (TimeoutError(), "TimeoutError"),
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "CUDA out of memory.)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), "not enough memory"),
        (UserError("[red]a[/x] file"), "[red]a[/x] file"),
    ],
)
def test_what_a_user_can_cause_is_a_sentence(here, error, words, monkeypatch, capsys):
    status, message = ended(capsys, monkeypatch, error)
    assert status == 2
    assert message.startswith("error: ") and words in message and message.count("\n") == 1


def test_faults_of_the_program_keep_their_traceback(here, monkeypatch, capsys):
    assert sentence(RuntimeError("size mismatch")) is None
    with pytest.raises(ZeroDivisionError):
        ended(capsys, monkeypatch, ZeroDivisionError())


def test_ctrl_c_is_a_line(here, monkeypatch, capsys):
    status, message = ended(capsys, monkeypatch, KeyboardInterrupt())
    assert (status, message) == (130, "stopped. The same command continues where it was.\n")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("mts ", f"{MTS} ")],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


def test_outputs_that_take_no_more(here):
    """Who reads has seen enough, the disk behind the output is full, files must not grow."""
    done = shell("mts check --help | true")
    assert done.stderr == ""
    done = shell("mts check --help > /dev/full")
    assert done.returncode == 2 and done.stderr.startswith("error: No space left on device")
    assert done.stderr.count("\n") == 1
    done = shell("ulimit -f 0; mts keys new 2>&1 | cat")
    assert done.returncode == 2 and "File too large" in done.stdout and not Path("new").exists()


def test_a_name_with_brackets_is_shown_whole(here, monkeypatch, capsys):
    message = refused(capsys, monkeypatch, "resonance", "a[b]/[/c] :bomb:.xyz")
    assert "'a[b]/[/c] :bomb:.xyz'" in message


def test_the_command_that_a_message_offers_can_be_pasted(here, monkeypatch, capsys):
    words = ["prepare", "water.xyz", "-o", "a [b] 'c'", "--student", "none", "--outer-fs", "1"]
    words += ["--teacher", TEACHER, "--equilibrate-ps", "0", "--no-minimise"]
    monkeypatch.setattr(sys, "argv", ["mts", *words])
    monkeypatch.syspath_prepend(str(HERE))
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    command = capsys.readouterr().err.partition("Run it with: ")[2]
    assert shlex.split(command) == ["mts", "run", "a [b] 'c'/input.xml"]
