"""Several targets: so many at a time as was asked for and as the host's memory allows; each ends on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from osimager.aio import first_cause
from osimager.build.building import Outcome, build_one
from osimager.build.failing import check_on_error
from osimager.build.request import BuildRequest
from osimager.build.session import Memory, Session, Terminal
from osimager.events import Sink
from osimager.machine.host import free_memory_mib, memory_mib
from osimager.paths import Places


def open_session(terminal: Terminal | None) -> Session:
    """Give what the builds of one command share."""
    return Session(memory=Memory(free_memory_mib() or memory_mib() * 3 // 4 or None), terminal=terminal)


async def build_all(
    requests: Sequence[BuildRequest],
    places: Places,
    session: Session,
    *,
    jobs: int,
    sinks: Sequence[Sink],
    on_end: Callable[[Outcome], None],
) -> list[Outcome]:
    """Build every target, `jobs` at a time, and give how each ended, in their order; one that fails stops no other.

    `on_end` hears of each as it ends. A cancellation ends all, and is raised when all have cleaned up.
    """
    turn = asyncio.Semaphore(jobs)

    async def build(asked: BuildRequest) -> Outcome:
        async with turn:
            outcome = await build_one(asked, places, session, sinks=sinks)
        on_end(outcome)
        return outcome

    for asked in requests:
        check_on_error(asked.on_error, session)
    try:
        with session.heeding_stop():
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(build(asked)) for asked in requests]
    except BaseExceptionGroup as error:
        raise first_cause(error) from error
    return [task.result() for task in tasks]
