"""The batch script with which a study runs on the nodes of a SLURM job: Ray under srun, and `ablate run --executor ray` on it.

Before the job's time is up SLURM signals the script, which stops the study (what is finished is kept) and puts the job back
into the queue; its next allocation goes on where the study was. Only the batch script is written here: it needs SLURM and bash
on the cluster, and the folder of the study on a file system that all nodes share.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablate.errors import StudyError
from ablate.text import visible

NOTICE = 120
"""Seconds before the end of an allocation in which a study stops: SLURM may signal up to a minute too early, and stopping waits for
the records to be written."""

_PASSWORD = re.compile(r"://[^\s/'\"]*:[^\s/'\"]*@")
"""The password of an address; a user alone is none."""

_TIME = re.compile(r"([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}")

_SCRIPT = """\
#!/bin/bash
# Written by `ablate slurm`: {study} on the nodes of this job. Submit it with `sbatch {file}`.
{directives}

cd {folder} || exit 2
{before}
# Ray's nodes and the study know each other by a token of this job alone.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN="$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')"
export PYTHONUNBUFFERED=1

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
ip=$(getent ahostsv4 "$head" | awk '{{print $1; exit}}')
port=$((20000 + SLURM_JOB_ID % 20000))
while (exec 3<>"/dev/tcp/$ip/$port") 2>/dev/null; do port=$((port + 1)); done  # somebody else's
resources="--num-cpus=$SLURM_CPUS_PER_TASK --num-gpus={gpus} --disable-usage-stats --block"

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \\
  {ray} start --head --node-ip-address="$ip" --port="$port" --include-dashboard=false $resources &
for _ in $(seq {patience}); do
  (exec 3<>"/dev/tcp/$ip/$port") 2>/dev/null && break
  sleep 1
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  others=$((SLURM_JOB_NUM_NODES - 1))
  srun --overlap --nodes="$others" --ntasks="$others" --exclude="$head" \\
    {ray} start --address="$ip:$port" $resources &
fi

{command} --executor ray --address "$ip:$port" &
study=$!
stopping=
# SLURM's notice that the time is nearly up: the study stops as it does on Ctrl-C.
trap 'stopping=yes; kill -TERM "$study" 2>/dev/null' USR1
while kill -0 "$study" 2>/dev/null; do
  wait "$study"
  code=$?
done
kill $(jobs -p) 2>/dev/null

# 130, or 143 where it had not begun: stopped by the notice, with runs left to train.
if [ -n "$stopping" ] && [ "$code" -ge 128 ]; then
  echo "the time is up; the job goes back into the queue, and on from there"
  # SLURM kills this script then. If it ended by itself first, of the TERM before the KILL too, the job might count as failed and stay
  # out of the queue.
  trap '' TERM
  scontrol requeue "$SLURM_JOB_ID" && sleep {ending}
fi
exit "$code"
"""


@dataclass(frozen=True)
class BatchJob:
    """What a job asks of SLURM. time: as sbatch takes it, `4:00:00` or minutes. notice: seconds before its end in which it stops.

    options: of sbatch, as `--partition=gpu`. before: lines of bash that prepare a node, as `module load cuda`. devices: that a run of the
    study takes.
    """

    nodes: int = 1
    gpus_per_node: int = 0
    cpus_per_node: int | None = None
    time: str = "1:00:00"
    notice: int = NOTICE
    options: Sequence[str] = ()
    before: Sequence[str] = ()
    devices: int = 1

    def directives(self, name: str) -> list[str]:
        """Return the options of sbatch."""
        cpus = self.cpus_per_node or (4 * self.gpus_per_node or self.devices)
        gpus = [f"--gpus-per-node={self.gpus_per_node}"] if self.gpus_per_node else []
        return [
            f"--job-name=ablate-{name}",
            f"--nodes={self.nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={cpus}",
            *gpus,
            f"--time={self.time}",
            f"--signal=B:USR1@{self.notice}",
            "--requeue",
            "--open-mode=append",
            f"--output=slurm-{name}-%j.log",
            *self.options,
        ]


def seconds(time: str) -> int:
    """Return the seconds of a time limit: `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes:seconds`.

    Raises StudyError.
    """
    if not _TIME.fullmatch(time):
        raise StudyError(
            f"{time!r} is not a time", place="--time", hint="as sbatch takes it: 90, 4:00:00 or 1-12"
        )
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minutes, rest_seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, rest_seconds = parts
    else:
        hours, (minutes, rest_seconds) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest_seconds


def script(study: Path, name: str, job: BatchJob, arguments: Sequence[str], file: Path) -> str:
    """Return the batch script of a study.

    study: its file, which is found from the working folder; name: its name; arguments: of `ablate run`; file: what messages in the
    script call it. Raises StudyError where the job's time is shorter than what stopping takes, where no node has the devices of a run, and
    where a password would stand in it.
    """
    # The script is a file that others may read, and srun shows command lines to everyone on a node.
    if any(_PASSWORD.search(text) for text in (*arguments, *job.options, *job.before)):
        raise StudyError(
            "a password would stand in the script",
            place="-- OPTIONS",
            hint="leave it out of the address (postgresql+psycopg://USER@HOST/NAME): PostgreSQL's library reads ~/.pgpass and PGPASSWORD",
        )
    if 0 < job.gpus_per_node < job.devices:
        raise StudyError(
            f"a run takes {job.devices} GPUs of one machine",
            place="--gpus-per-node",
            hint=f"ask for {job.devices} or more; 0 trains on processors",
        )
    if seconds(job.time) <= job.notice + 60:
        raise StudyError(
            f"{job.time} leaves no time for training: the study stops {job.notice} s before its end, or up to a minute earlier",
            place="--time",
            hint="ask for more, or for less notice: `--notice 30`",
        )
    python = Path(sys.executable)
    command = [str(python), "-P", "-m", "ablate", "run", str(study), *arguments]
    return _SCRIPT.format(
        study=visible(str(study)),  # in a comment, which a break of the line would end
        file=visible(str(file)),
        directives="\n".join(f"#SBATCH {option}" for option in job.directives(name)),
        folder=shlex.quote(str(Path.cwd())),
        before="\n".join(job.before),
        gpus=job.gpus_per_node,
        ray=shlex.quote(str(python.with_name("ray"))),
        patience=60,
        ending=300,
        command=shlex.join(command),
    )


def submit(file: Path) -> str:
    """Hand a batch script to SLURM and return the number of its job. Raises StudyError where SLURM is not there or refuses it."""
    if shutil.which("sbatch") is None:
        raise StudyError(
            "there is no sbatch on this machine", place="--submit", hint=f"on the cluster: `sbatch {file}`"
        )
    # What this shell is told about a job that it runs in itself is not for the next one.
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))
    }
    environment |= {key: os.environ[key] for key in ("SLURM_CONF",) if key in os.environ}
    result = subprocess.run(
        ["sbatch", "--parsable", str(file)], capture_output=True, text=True, check=False, env=environment
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise StudyError(f"SLURM does not take the job ({reason})", place=str(file))
    return result.stdout.strip().partition(";")[0]
