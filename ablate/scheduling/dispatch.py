"""Slots × runs → outcomes: which run goes to which slot, with which others, and what happens when an attempt fails.

Knows no study. What has runs to train is a `Client`: it makes their tasks, and is told their events and outcomes. The
dispatcher decides about attempts, retries, timeouts, runs that need a machine for themselves, and runs that share a slot.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from ablate.errors import AblateError, TrainingError
from ablate.events import Bundle, Event, Failed, Finished, Started, Task, is_last
from ablate.executors import Executor, Slot

RETRIES = 1
"""Attempts that a run may have after the first."""

RETRIED = frozenset({"error", "memory", "crash"})
"""Kinds of failure after which a run is tried again."""

TICK = 0.25
"""Seconds after which a waiting dispatcher looks around: for an interruption, a timeout, a claim that was given back."""

GRACE = 10.0
"""Seconds at most that a run has to end by itself once it has taken too long, before its process is killed."""

GRACE_SHARE = 0.1
"""The same as a share of the timeout: what may take a minute is not given ten seconds more."""

STARTING = 600.0
"""Seconds more than its timeout that an attempt has until its first event: a machine may have to load packages and prepare data before
the first run that it trains, which is not that run's time. What hangs there is ended all the same.
"""

PRUNED = "broken off: others were better by then"


class Work(Protocol):
    """A run to be trained. key: names it."""

    @property
    def key(self) -> str: ...


W = TypeVar("W", bound=Work)


@dataclass(eq=False)
class Flight(Generic[W]):
    """A run on its way from waiting to its outcome, over all its attempts.

    failures: attempts that failed and count against the retries. alone: it ran out of memory, so nothing else may run beside
    it. resumed: it crashed in a bundle, and the bundle was resumed from its checkpoint; that is done once.

    Of the attempt under way: its number, its slot, when it was handed to it and when the slot sent its first event (monotonic seconds;
    None: not yet), members: how many runs share the slot, itself included, the events so far, and whether it was broken off (expired: by the timeout; killed: it did not end by itself
    then; pruned: by the client).
    """

    work: W
    failures: int = 0
    alone: bool = False
    resumed: bool = False
    attempt: int = 0
    slot: Slot | None = None
    began: float = 0.0
    started: float | None = None
    members: int = 1
    events: list[Event] = field(default_factory=list)
    expired: bool = False
    killed: bool = False
    pruned: bool = False

    @property
    def key(self) -> str:
        return self.work.key

    @property
    def seconds(self) -> float:
        """Seconds of the attempt so far, its share of them where it shares its slot."""
        return (time.monotonic() - self.began) / self.members

    @property
    def training_seconds(self) -> float:
        """The same without what came before the slot's first event; until then negative, up to what that may take."""
        since = self.began + STARTING if self.started is None else self.started
        return (time.monotonic() - since) / self.members

    def begin(self, attempt: int, slot: Slot, members: int) -> None:
        """Begin an attempt: what was known of the one before is forgotten."""
        self.attempt, self.slot, self.members = attempt, slot, members
        self.began, self.started, self.events = time.monotonic(), None, []
        self.expired = self.killed = self.pruned = False


Claim = Literal["taken", "elsewhere", "done"]
"""`taken`: the run is this process's to train. `elsewhere`: another process trains it. `done`: its result is known."""


class Client(ABC, Generic[W]):
    """What has runs to train. Only `task` has no default; the defaults suit runs that no other process may want to train."""

    @abstractmethod
    def task(self, work: W, attempt: int, slot: Slot, *, fuse: bool) -> Task:
        """Return what an executor is given. fuse: whether the run is to be trained in one with the others of its bundle."""
        ...

    def attempts(self, work: W) -> int:  # noqa: ARG002 — of the protocol
        """Return how many attempts of the run were begun before, by whatever process."""
        return 0

    def more(self, room: int) -> Iterable[W]:  # noqa: ARG002 — of the protocol
        """Return runs to add to those that wait. room: for how many a slot is free; it may be less than one."""
        return ()

    def claim(self, work: W) -> Claim:  # noqa: ARG002 — of the protocol
        """Ask whether the run may be trained here now. Asked again for a run that is `elsewhere`."""
        return "taken"

    def release(self, work: W) -> None:
        """Give up a claim that was taken: the run is not begun yet."""

    def elsewhere(self, work: W) -> None:
        """Hear that a run is trained by another process, and is waited for; called for the first of them only."""

    def may_start(self, work: W, waiting: Iterator[W]) -> bool:  # noqa: ARG002 — of the protocol
        """Return whether the budget allows a run. waiting: all that wait, `work` first."""
        return True

    def spent(self) -> bool:
        """Return whether nothing new is to be begun; what another process trains is not waited for then."""
        return False

    def starting(self, work: W, attempt: int, slot: Slot) -> None:
        """Hear that an attempt is about to be handed to a slot."""

    def verified(self, flight: Flight[W], event: Event) -> Event:  # noqa: ARG002 — of the protocol
        """Return the event, or a Failed in place of a Finished that is of no use; such a run is not tried again.

        flight: with the events before this one.
        """
        return event

    def event(self, flight: Flight[W], event: Event) -> bool:  # noqa: ARG002 — of the protocol
        """Hear of an event, the last of `flight.events`. Returns whether the run is to be broken off as hopeless."""
        return False

    def outcome(self, flight: Flight[W], event: Finished | Failed) -> None:
        """Hear that the run has had its last attempt, which ended with `event`."""

    def interrupted(self, flight: Flight[W], event: Failed) -> None:
        """Hear that the dispatcher was interrupted while the run was in training; `event` is its end."""

    def poll(self) -> None:
        """Called between batches of events; what it raises ends the dispatcher's work."""


@dataclass(frozen=True)
class Companions(Generic[W]):
    """Waiting runs that are to share a slot with another. resumed: all of them were broken off together, and have a checkpoint
    that is good for exactly these.
    """

    runs: Sequence[W] = ()
    resumed: bool = False


class Company(Protocol[W]):
    """Decides which runs share a slot."""

    def choose(self, first: W, waiting: Sequence[W], left: float, slot: Slot) -> Companions[W]:
        """Return those of `waiting` that go with `first`. left: runs to be done yet, parts of runs included."""
        ...

    def remaining(self, work: W, events: int) -> float:
        """Return what is left of a run in training after so many events beyond its start, in runs: 0 to 1."""
        ...

    def unfusable(self, work: W) -> None:
        """Learn that a run was handed out in a bundle, and was trained by itself all the same."""
        ...

    def resumable(self, work: W) -> bool:
        """Return whether a run that crashed can be resumed with the others of its bundle, from what was saved of them."""
        ...


class Dispatcher(Generic[W]):
    """Hands runs to the slots of an executor until each has its outcome. timeout: seconds that a run may take.

    company: None keeps every run by itself.
    """

    def __init__(
        self,
        executor: Executor,
        client: Client[W],
        *,
        company: Company[W] | None = None,
        timeout: float | None = None,
        retries: int = RETRIES,
    ) -> None:
        self._executor = executor
        self._client = client
        self._company = company
        self._timeout = timeout
        self._retries = retries
        self._waiting: deque[Flight[W]] = deque()
        self._elsewhere: list[Flight[W]] = []
        self._training: dict[str, Flight[W]] = {}

    def run(self, work: Iterable[W]) -> None:
        """Train runs, in this order, and whatever the client adds. Returns when all have an outcome, or the client is spent.

        What the client's `poll` raises ends it, and the runs in training are told to the client as interrupted.
        """
        self._waiting = deque(Flight(each) for each in work)
        self._elsewhere, self._training = [], {}
        try:
            while self._refill() or self._training or self._elsewhere:
                self._client.poll()
                self._look_elsewhere()
                self._start()
                if not self._training:
                    if self._client.spent() or not (self._waiting or self._elsewhere):
                        return
                    time.sleep(TICK)
                    continue
                # All that arrived is passed on before anything may end the loop: a result that was received is not lost.
                for event in self._executor.wait(TICK):
                    self._receive(event)
                self._client.poll()
                self._expire()
        except (KeyboardInterrupt, AblateError):
            for flight in self._training.values():
                event = Failed(
                    flight.key, flight.attempt, len(flight.events), time.time(), "cancelled", "interrupted"
                )
                self._client.interrupted(flight, event)
            raise

    # --- what is begun ---

    def _refill(self) -> bool:
        """Let the client add runs where slots are free. Returns whether any run waits."""
        room = len(self._free()) - len(self._waiting)
        self._waiting.extend(Flight(each) for each in self._client.more(room))
        return bool(self._waiting)

    def _free(self) -> list[Slot]:
        taken = {flight.slot.name for flight in self._training.values() if flight.slot is not None}
        return [slot for slot in self._executor.slots if slot.name not in taken]

    def _look_elsewhere(self) -> None:
        """Put runs that another process has let go of back among those that wait, first of all."""
        still: list[Flight[W]] = []
        for flight in self._elsewhere:
            claim = self._client.claim(flight.work)
            if claim == "elsewhere":
                still.append(flight)
            elif claim == "taken":
                # Nobody else is kept from it while it waits for a slot, or for a budget that may not allow it.
                self._client.release(flight.work)
                self._waiting.appendleft(flight)
        self._elsewhere = still

    def _start(self) -> None:
        """Hand runs that wait to free slots, as long as there are both and the budget allows it."""
        free = deque(self._free())
        while free and self._waiting:
            flight = self._waiting[0]
            if not self._client.may_start(flight.work, (each.work for each in self._waiting)):
                return
            if self._training and (flight.alone or any(each.alone for each in self._training.values())):
                return
            self._waiting.popleft()
            # A run that is tried again is this process's already.
            if not flight.failures and (claim := self._client.claim(flight.work)) != "taken":
                if claim == "elsewhere":
                    if not self._elsewhere:
                        self._client.elsewhere(flight.work)
                    self._elsewhere.append(flight)
                continue
            self._submit(flight, free.popleft())

    def _submit(self, flight: Flight[W], slot: Slot) -> None:
        others, resumed = self._companions(flight, slot)
        members = [flight, *others]
        tasks = []
        for member in members:
            attempt = 1 + (member.attempt or self._client.attempts(member.work))
            self._client.starting(member.work, attempt, slot)
            tasks.append(self._client.task(member.work, attempt, slot, fuse=resumed or len(members) > 1))
            member.begin(attempt, slot, len(members))
            self._training[member.key] = member
        self._executor.submit(Bundle(tuple(tasks)), slot)

    def _companions(self, flight: Flight[W], slot: Slot) -> tuple[list[Flight[W]], bool]:
        """Take from those that wait the runs that share a slot with `flight`.

        Returns them, and whether they are, with it, exactly those that a checkpoint of them all is good for. A run that has
        failed goes by itself: the others may have been to blame.
        """
        if self._company is None or flight.failures:
            return [], False
        fresh = {each.key: each for each in self._waiting if not each.failures}
        in_training = sum(
            self._company.remaining(each.work, max(len(each.events) - 1, 0))
            for each in self._training.values()
        )
        chosen = self._company.choose(
            flight.work,
            [each.work for each in fresh.values()],
            in_training + 1 + len(self._waiting),
            slot,
        )
        taken = []
        for work in chosen.runs:
            claim = self._client.claim(work)
            if claim == "elsewhere":  # it is seen to when it is next
                continue
            self._waiting.remove(fresh[work.key])
            if claim == "taken":
                taken.append(fresh[work.key])
        return taken, chosen.resumed and len(taken) == len(chosen.runs)

    # --- what comes back ---

    def _receive(self, event: Event) -> None:
        flight = self._training[event.run]
        if flight.started is None:
            for each in self._training.values():
                if each.slot == flight.slot:
                    each.started = time.monotonic()
        if isinstance(event, Failed):
            event = self._with_cause(flight, event)
        verified = self._client.verified(flight, event)
        useless = verified is not event
        event = verified
        flight.events.append(event)
        if (
            self._company is not None
            and flight.members > 1
            and isinstance(event, Started)
            and "fused" not in event.facts
        ):
            self._company.unfusable(flight.work)
        if is_last(event):
            del self._training[flight.key]
        if self._client.event(flight, event) and not flight.pruned and not is_last(event):
            flight.pruned = True
            self._executor.cancel(flight.key)
        if isinstance(event, Failed) and not useless and self._is_retried(flight, event):
            flight.alone |= event.kind == "memory"
            if not (event.kind == "crash" and self._is_resumed(flight)):
                flight.failures += 1
            self._waiting.appendleft(flight)
        elif isinstance(event, Finished | Failed):
            self._client.outcome(flight, event)

    def _with_cause(self, flight: Flight[W], event: Failed) -> Failed:
        """Return the failure with why the run was broken off, where the dispatcher broke it off itself."""
        if flight.expired:
            return replace(event, kind="timeout", reason=f"took longer than {self._timeout:g} s")
        if flight.pruned and event.kind == "cancelled":
            return replace(event, kind="pruned", reason=PRUNED)
        return event

    def _is_retried(self, flight: Flight[W], event: Failed) -> bool:
        # Which member of a bundle it was that took too long cannot be told: each is tried by itself.
        retried = RETRIED if flight.members == 1 else RETRIED | {"timeout"}
        return event.kind in retried and flight.failures < self._retries

    def _is_resumed(self, flight: Flight[W]) -> bool:
        """Return whether a run that crashed goes on with the others of its bundle, from their checkpoint.

        Once: where they crash again, one of them may be to blame, and each is tried by itself.
        """
        if self._company is None or flight.resumed or not self._company.resumable(flight.work):
            return False
        flight.resumed = True
        return True

    def _expire(self) -> None:
        """Break off runs that take longer than they may, and kill the slots of those that do not end then.

        Their time counts from the first event, wherever they are trained. A bundle may take as long as its runs one after another.
        """
        if self._timeout is None:
            return
        grace = min(GRACE, GRACE_SHARE * self._timeout)
        for flight in self._training.values():
            over = flight.training_seconds - self._timeout
            if over > 0 and not flight.expired:
                flight.expired = True
                self._executor.cancel(flight.key)
            elif over * flight.members > grace and not flight.killed:
                flight.killed = True
                assert flight.slot is not None
                self._executor.kill(flight.slot)


# --- runs without a study ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """Something to be run once, in whatever slot is free. payload: from that slot, what the executor's training is given."""

    key: str
    payload: Callable[[Slot], Any]


def run_jobs(
    executor: Executor,
    jobs: Iterable[Job],
    told: Callable[[Event], None] = lambda _: None,
    *,
    timeout: float | None = None,
) -> Mapping[str, Finished]:
    """Run each job once → its result, by key. told: called with every event as it comes. timeout: seconds that a job may take.

    Raises TrainingError as soon as one fails.
    """
    client = _Jobs(told)
    Dispatcher(executor, client, retries=0, timeout=timeout).run(jobs)
    return client.results


class _Jobs(Client[Job]):
    def __init__(self, told: Callable[[Event], None]) -> None:
        self._told = told
        self.results: dict[str, Finished] = {}

    def task(self, work: Job, attempt: int, slot: Slot, *, fuse: bool) -> Task:  # noqa: ARG002 — of the protocol
        return Task(work.key, attempt, work.payload(slot))

    def event(self, flight: Flight[Job], event: Event) -> bool:  # noqa: ARG002 — of the protocol
        self._told(event)
        return False

    def outcome(self, flight: Flight[Job], event: Finished | Failed) -> None:
        if isinstance(event, Failed):
            raise TrainingError(event.reason)
        self.results[flight.key] = event
