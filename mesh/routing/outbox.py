"""What waits in a node: for the radio, by priority; for a way up; or to be said at once.

In      `put` and its kin, `ask` for what the tree wants said, `wait` for a packet that has no way
        up, `answer` for what cannot wait
Out     `take` the next job, `take_answer`; `deadline` and `handle_timer` for what waits for a way
Raises  TableFull from `put` at a queue's bound
Limit   `queue_count_max` packets of each priority; WAITING_COUNT_MAX more while there is no way up,
        for WAITING_TIME; ANSWER_COUNT_MAX acknowledgements and proofs; ACT_COUNT_MAX acts, each
        once for a neighbour, so that packets of others never keep us from saying where we are
"""

from __future__ import annotations

from collections import deque
from typing import Final

from amistack.errors import TableFull
from amistack.framing.queues import PriorityQueues
from amistack.identifiers import Eui64
from mesh.packet import PacketKind
from mesh.routing.acts import Act, State
from mesh.routing.core import Core
from mesh.routing.events import Outgoing
from mesh.routing.jobs import Job, Way
from mesh.routing.trickle import NEVER

ANSWER_COUNT_MAX: Final = 16
"""Acknowledgements and proofs that wait for the radio; a frame more is not taken."""
ACT_COUNT_MAX: Final = 64
"""What the tree wants said and was not yet; one more is as one that was not acknowledged."""
ACT_LIFE: Final = 30.0
"""Seconds after which an act that found no free channel is given up."""
WAITING_COUNT_MAX: Final = 32
WAITING_RETRY: Final = 3.0
"""Seconds after which it is tried again with the same parents."""
WAITING_TIME: Final = 120.0
"""Seconds for which a packet waits for a way up."""
JOB_LIFE: Final = 120.0
"""Seconds after which a packet that waits in a queue is of no use."""


class Outbox:
    """All that one node has to send but is not sending."""

    __slots__ = ("_acts", "_core", "_queues", "_release_at", "_waiting", "answers", "deadline")

    def __init__(self, core: Core) -> None:
        count_max = core.profile.links.queue_count_max
        self._core = core
        self._queues = PriorityQueues[Job](count_max=count_max, size_max=count_max * 1536)
        self._waiting: deque[Job] = deque()
        self._release_at = NEVER
        self.deadline = NEVER
        """When `handle_timer` has something to do."""
        self.answers: deque[Outgoing] = deque()
        """What goes before everything else; `take_answer` takes the next."""
        self._acts: dict[tuple[Act, Eui64 | None], Job] = {}

    def __len__(self) -> int:
        return self._queues.count + len(self._waiting) + len(self._acts)

    # For the radio

    def put(self, job: Job) -> None:
        """Let a job wait for its turn. Raises TableFull."""
        self._queues.put(job.priority, job.size, job)

    def put_or_count(self, job: Job) -> bool:
        """Whether there was room for it."""
        try:
            self.put(job)
        except TableFull:
            self._core.counters["queue full"] += 1
            return False
        return True

    def pass_on(self, job: Job, kind: int) -> bool:
        """Whether a packet of others is dealt with: with False its last hop keeps it.

        Control of the mesh is repeated by its source, ever later. Where there is no room it is
        dropped: without an acknowledgement it would come five times more, and to its last hop we
        would look dead.
        """
        return self.put_or_count(job) or kind != PacketKind.COAP

    def ask(self, act: Act, neighbour: Eui64 | None, now: float) -> None:
        """The tree wants that said; it is said once, as things are when its turn comes."""
        if (act, neighbour) not in self._acts:
            way = Way.EVERYBODY if neighbour is None else Way.NEIGHBOUR
            self._put_act(Job(way, None, now, act=act, neighbour=neighbour), now)

    def requeue(self, job: Job, now: float) -> None:
        """A job that was taken and not done waits again; where there is no room it is lost."""
        if job.act is not None:
            self._put_act(job, now)
        elif not self.put_or_count(job):
            self._core.lose(job, "queue full")

    @property
    def has_jobs(self) -> bool:
        """Whether `take` may give one."""
        return self._queues.count > 0 or bool(self._acts)

    def take(self, now: float) -> Job | None:
        """The next job, None if nothing waits for the radio."""
        if self._acts:
            return self._acts.pop(next(iter(self._acts)))
        while (taken := self._queues.take()) is not None:
            job = taken[1]
            if now - job.born > JOB_LIFE:
                self._core.lose(job, "too old")
                continue
            return job
        return None

    def _put_act(self, job: Job, now: float) -> None:
        assert job.act is not None
        if len(self._acts) >= ACT_COUNT_MAX or now - job.born > ACT_LIFE:
            self._core.counters["act given up"] += 1
            self._core.tell_outcome(job, 0, now, is_acknowledged=False)
        else:
            self._acts[job.act, job.neighbour] = job

    # For a way up

    def wait(self, job: Job, now: float) -> None:
        """There is no way up: later, perhaps."""
        if len(self._waiting) >= WAITING_COUNT_MAX:
            self._core.lose(self._waiting.popleft(), "no way up")
        job.forget_tries()
        self._waiting.append(job)
        if self._core.dodag.state is State.JOINED:
            self._release_at = min(self._release_at, now + WAITING_RETRY)
        self._schedule()

    def handle_timer(self, now: float) -> None:
        """Give up what waited too long; try the rest again when it is time."""
        while self._waiting and self._waiting[0].born + WAITING_TIME <= now:
            self._core.lose(self._waiting.popleft(), "no way up")
        if self._release_at <= now:
            self.release(now)
        self._schedule()

    def release(self, now: float) -> None:
        """What waited for a way up goes on."""
        self._release_at = NEVER
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            self.requeue(job, now)
        self._schedule()

    def _schedule(self) -> None:
        self.deadline = NEVER
        if self._waiting:
            self.deadline = min(self._waiting[0].born + WAITING_TIME, self._release_at)

    # At once

    @property
    def can_answer(self) -> bool:
        """Whether there is room for one more acknowledgement or proof."""
        return len(self.answers) < ANSWER_COUNT_MAX

    def answer(self, frame: Outgoing) -> None:
        """Let it go before everything else; without room it is left out."""
        if self.can_answer:
            self.answers.append(frame)

    def take_answer(self) -> Outgoing | None:
        """The next one of these."""
        return self.answers.popleft() if self.answers else None
