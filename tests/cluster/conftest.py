"""A real SLURM of one machine, for as long as a test module wants it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import free_port

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "runuser")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={port}
SlurmdPort={port_of_node}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def end(pid_file: Path) -> None:
    """End the daemon whose process id is in a file, unless it has ended already, and wait until it has."""
    try:
        daemon = os.pidfd_open(int(pid_file.read_text()))
    except (FileNotFoundError, ProcessLookupError):
        return
    try:
        signal.pidfd_send_signal(daemon, signal.SIGTERM)
        if not select.select([daemon], [], [], 10)[0]:
            signal.pidfd_send_signal(daemon, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ends by itself meanwhile
    finally:
        os.close(daemon)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    """The configuration of a SLURM on this machine. Begun for the tests of a module, and stopped after them."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"there is no {missing[0]}: apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("SLURM's daemons need root")
    host = socket.gethostname()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    for path in (folder / "munge", key):
        shutil.chown(path, "munge", "munge")
    (folder / "munge").chmod(0o755)
    configuration = folder / "slurm.conf"
    ports = {"port": free_port(), "port_of_node": free_port()}
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, **ports))
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    files = {name: folder / "munge" / name for name in ("key", "socket", "pid", "log", "seed")}
    options = ("key-file", "socket", "pid-file", "log-file", "seed-file")
    munge = [f"--{option}={path}" for option, path in zip(options, files.values(), strict=True)]
    subprocess.run(["runuser", "-u", "munge", "--", "munged", *munge], check=True)
    try:
        subprocess.run(["slurmctld"], env=environment, check=True)
        subprocess.run(["slurmd"], env=environment, check=True)
        begun = time.monotonic()
        while (
            b"idle"
            not in subprocess.run(["sinfo", "-h"], env=environment, capture_output=True, check=False).stdout
        ):
            assert time.monotonic() - begun < 30, (folder / "slurmctld.log").read_text()
            time.sleep(0.2)
        yield configuration
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=environment, check=False)
        for file in (folder / "slurmd.pid", folder / "slurmctld.pid", files["pid"]):
            end(file)
        shutil.rmtree(folder, ignore_errors=True)
