"""Where bundles run. An executor runs a generator function on bundles and passes its events on; it decides nothing.

`inline` runs in this process, `local` in a process per device slot. Every executor keeps the same contract, and one test
suite holds them to it:

- the events of an attempt arrive in order, and the last is Finished or Failed, whatever happens to the process or its
  machine; an event out of order, or of no run of the bundle, is not passed on but ends the training as failed (`stream`
  sees to it);
- `submit` takes a free slot only; a slot is free again once every run of its bundle has had its last event;
- `cancel` breaks a run off at its next event, which becomes Failed("cancelled");
- `kill` ends what a slot is doing without asking it, and its runs fail as crashed at the next `wait`;
- no bundle is run again unless it is submitted again: retries are the dispatcher's;
- where a training says that its process is spent, `local` trains the next bundle of the slot in a fresh one;
- what a training prints goes to stderr: stdout is for results;
- leaving the context ends what still runs, with all that it started, and yields nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ablate.events import Bundle, Event, Training


@dataclass(frozen=True)
class Slot:
    """A place for one bundle at a time. name: unique, for people. device: as training knows it, `cpu` or `cuda:0`.

    environment: what must be set in the process before anything asks for the device.
    """

    name: str
    device: str = "cpu"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What a command asks of an executor. devices: `auto`, `cpu` or names. workers: slots at most; None: as many as there are.
    per_device: slots of a GPU. address: of a cluster; None: this machine, or what the environment says. each: devices of a run.

    store: the folder under which runs leave checkpoints and networks. apart: the training for a machine that does not share it, which
    leaves them below the folder that it works in.
    """

    devices: str = "auto"
    workers: int | None = None
    per_device: int = 1
    address: str | None = None
    each: int = 1
    store: Path | None = None
    apart: Training | None = None


class Executor(Protocol):
    @property
    def slots(self) -> tuple[Slot, ...]:
        """Slots that bundles may be submitted to. Where machines come and go, a slot that is lost is left out from then on."""
        ...

    def warm_up(self) -> None:
        """Begin what takes long and will be needed, while the caller does something else. Need not be called."""
        ...

    def submit(self, bundle: Bundle, slot: Slot) -> None:
        """Hand a bundle to a free slot. Returns at once; it may begin later."""
        ...

    def cancel(self, run: str) -> None:
        """Break a run off at its next event. A run that is not in training is ignored."""
        ...

    def kill(self, slot: Slot) -> None:
        """End what a slot is doing, for a training that hangs. A free slot stays as it is; either can be used again."""
        ...

    def wait(self, timeout: float | None = None) -> list[Event]:
        """Events that have arrived, at least one unless `timeout` seconds pass or nothing is in training."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
