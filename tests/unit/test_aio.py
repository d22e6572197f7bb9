"""The async primitives: what they promise when they are cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from osimager.aio import finish, first_cause, in_thread, poll, supervised


async def test_finish_gives_the_works_result() -> None:
    async def work() -> int:
        return 3

    assert await finish(work(), 1) == 3


async def test_two_cancels_do_not_cut_the_clean_up_and_are_raised_last() -> None:
    started, go_on, log = asyncio.Event(), asyncio.Event(), []

    async def clean_up() -> None:
        started.set()
        await go_on.wait()
        log.append("cleaned")

    async def worker() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await finish(clean_up(), 60)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker())
        await asyncio.sleep(0)
        task.cancel()
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
    assert task.cancelled()
    assert log == ["cleaned"]


async def test_work_that_does_not_end_is_forced_and_cancelled() -> None:
    forced = []

    async def work() -> bool:
        return await asyncio.Event().wait()

    assert await finish(work(), 0.01, force=lambda: forced.append(True)) is None
    assert forced == [True]


async def test_an_error_of_the_work_is_raised_unless_a_cancel_is_due() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await finish(work(), 1)
    task = asyncio.ensure_future(finish(work(), 1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("closing_fails", [False, True])
async def test_a_cancel_reaches_a_thread_and_waits_for_its_end(closing_fails: bool) -> None:
    running, closed, log = threading.Event(), threading.Event(), []

    def work() -> None:
        running.set()
        closed.wait()
        log.append("thread ended")
        raise OSError("its transport was closed")

    def close() -> None:
        closed.set()
        if closing_fails:
            raise OSError("closed already")

    task = asyncio.ensure_future(in_thread(work, on_cancel=close))
    await asyncio.to_thread(running.wait)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["thread ended"]


async def test_a_watcher_that_fails_ends_the_block_with_its_own_error() -> None:
    async def watch() -> None:
        raise LookupError("the guest is gone")

    with pytest.raises(LookupError, match="gone"):
        async with supervised(watch()):
            await asyncio.Event().wait()


async def test_watchers_end_with_the_block_and_its_error_comes_unwrapped() -> None:
    async def watch() -> None:
        await asyncio.Event().wait()

    async with supervised(watch(), watch()):
        pass
    with pytest.raises(ValueError, match="mine"):
        async with supervised(watch()):
            raise ValueError("mine")


def test_the_first_cause_is_never_a_cancellation_where_there_is_another() -> None:
    cancelled = BaseExceptionGroup("inner", [asyncio.CancelledError()])
    cause = ValueError()
    assert first_cause(BaseExceptionGroup("outer", [cancelled, ExceptionGroup("other", [cause])])) is cause
    assert isinstance(first_cause(cancelled), asyncio.CancelledError)
    assert first_cause(cause) is cause


async def test_poll_goes_on_until_there_is_something() -> None:
    answers = iter([None, None, 0])

    async def attempt() -> int | None:
        return next(answers)

    assert await poll(attempt, first_s=0) == 0
