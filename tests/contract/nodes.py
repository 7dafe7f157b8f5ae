"""Nodes of a cluster on one machine: network namespaces with an address each, and an `srun`."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import MTS, environment

SRUN = """\
#!/bin/bash
# runs a command in the network namespaces of nodes, as srun does on nodes; refuses other options
nodes=() tasks=1 under=
while [[ $1 == -* ]]; do
    case $1 in
        --nodelist=*) nodes=(${1#*=}) ;;
        --ntasks=*) tasks=${1#*=} ;;
        --mpi=*) under=mpiexec ;;
        --het-group=*) list=SLURM_JOB_NODELIST_HET_GROUP_${1#*=}; nodes=(${!list//,/ }) ;;
        --nodes=* | --ntasks-per-node=1 | --overlap) ;;
        *) echo "srun of the tests: what is $1?" >&2; exit 2 ;;
    esac
    shift
done
[ ${#nodes[@]} = 0 ] && nodes=(${SLURM_JOB_NODELIST//,/ })
trap 'kill $(jobs -p) 2> /dev/null' TERM
for node in "${nodes[@]}"; do
    space=$(cat "$NODES/$node")
    if [ "$under" ]; then
        ip netns exec "$space" mpiexec -n "$tasks" "$@" &
    else
        for ((task = 0; task < tasks; task++)); do ip netns exec "$space" "$@" & done
    fi
done
wait
wait
"""
SCONTROL = """\
#!/bin/bash
[ "$1 $2" = "show hostnames" ] || exit 2
tr , '\\n' <<< "$3"
"""

QUEUE = "qdisc add dev eth0 root netem delay 0.2ms"
# `mts`, which takes a machine for gone after two seconds of silence
SILENT = (
    sys.executable,
    "-c",
    "from mts_driver.drivers.ipi_socket import transport; transport.SILENT_S = 2\n"
    "from mts_driver.cli.main import main; main()",
)


def said(file: Path) -> str:
    """What a file holds by now."""
    return file.read_text() if file.exists() else ""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Nodes:
    """Two machines, whose names are their addresses, with a network between them.

    Parameters
    ----------
    folder : Path
        Takes the commands of the batch system.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = ["10.77.0.1", "10.77.0.2"]
        self.spaces = [f"mts-{os.getpid()}-{k}" for k in range(2)]
        self.started: list[subprocess.Popen[str]] = []
        folder.mkdir()
        for file, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (folder / file).write_text(text)
            (folder / file).chmod(0o755)

    def open(self) -> None:
        for space in self.spaces:
            ip("netns", "add", space)
        a, b = self.spaces
        peer = ("type", "veth", "peer", "name", "eth0", "netns", b)
        ip("link", "add", "eth0", "netns", a, *peer)
        for space, name in zip(self.spaces, self.names, strict=True):
            ip("-n", space, "addr", "add", f"{name}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
            (self.folder / name).write_text(space)
            # as between nodes of a cluster, where the kernel has the module; nothing depends on it
            subprocess.run(
                [
                    "tc",
                    "-n",
                    space,
                    *QUEUE.split(),
                ],
                capture_output=True,
                check=False,
            )

    def cable(self, state: str) -> None:
        """Cut the network, or mend it: ``down`` or ``up``."""
        ip("-n", self.spaces[1], "link", "set", "eth0", state)

    def start(self, node: int, *command: object, cwd: Path, log: str, **variables: str):
        """Start a command on a node, in a session of its own."""
        with (cwd / log).open("a") as stream:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.spaces[node], *map(str, command)],
                cwd=cwd,
                stdout=stream,
                stderr=stream,
                text=True,
                env=self.environment() | variables,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def submit(self, script: Path, run: Path, *, job: int = 1, **variables: str):
        """Do what sbatch does: run a script on the first node, with what SLURM tells it."""
        told = {
            "SLURM_JOB_NODELIST": ",".join(self.names),
            "SLURM_JOB_NODELIST_HET_GROUP_0": self.names[0],
            "SLURM_JOB_NODELIST_HET_GROUP_1": self.names[1],
            "SLURM_JOB_ID": str(job),
            "SLURM_CPUS_PER_TASK": "1",
            "NODES": str(self.folder),
        }
        here = run.parent
        return self.start(0, "bash", script, run.name, cwd=here, log="job.out", **told | variables)

    def pids(self, node: int) -> list[int]:
        """Processes that run on a node."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.spaces[node]], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def environment(self) -> dict[str, str]:
        path = f"{self.folder}{os.pathsep}{MTS.parent}{os.pathsep}{os.environ['PATH']}"
        return environment() | {"PATH": path}

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for node, space in enumerate(self.spaces):
            for pid in self.pids(node):  # such as drivers whose srun was killed
                os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


@pytest.fixture
def nodes(tmp_path):
    """Two nodes, or a reason why there are none."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` to make network namespaces with")
    found = Nodes(tmp_path / "batch-system")
    try:
        try:
            found.open()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield found
    finally:
        found.close()
