"""The few async primitives that everything else is made of (style.md, "Async, as tried").

No task lives outside a TaskGroup, no wait outside a deadline; clean-up goes on whatever cancels come; blocking
libraries run in threads that a cancel reaches.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T], grace_s: float, *, force: Callable[[], None] | None = None) -> T | None:
    """Await `work` to its end though this task is cancelled meanwhile; re-raise the cancel last.

    After `grace_s` seconds `force` is called and the work is cancelled: None is given back. Errors of `work` are
    raised, unless a cancel is due, which goes first. Meant as the last statement of a `finally`.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    deadline = asyncio.get_running_loop().time() + grace_s
    while not task.done():
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            if force is not None:
                force()
            task.cancel()
            deadline = asyncio.get_running_loop().time() + grace_s
            remaining = grace_s
        try:
            await asyncio.wait({task}, timeout=remaining)
        except asyncio.CancelledError as exc:
            cancelled = exc
    error = None if task.cancelled() else task.exception()
    if cancelled is not None:
        raise cancelled
    if error is not None:
        raise error
    return None if task.cancelled() else task.result()


async def in_thread(function: Callable[[], T], *, on_cancel: Callable[[], object] | None = None) -> T:
    """Run a blocking `function` in a thread. A cancel calls `on_cancel` (say, closing its socket) and waits for the
    thread's end: no thread outlives its owner. Without `on_cancel` the function must end by itself soon.
    """
    task = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if on_cancel is not None:
            with contextlib.suppress(Exception):  # closing what is broken already; the thread is waited for anyway
                on_cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain about it
        raise


def first_cause(error: BaseException) -> BaseException:
    """Unwrap exception groups to the first error that is not a cancellation: the one place where that is done."""
    leaves = list(_leaves_of(error))
    return next((leaf for leaf in leaves if not isinstance(leaf, asyncio.CancelledError)), leaves[0])


def _leaves_of(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves_of(inner)
    else:
        yield error


@contextlib.asynccontextmanager
async def supervised(*watchers: Coroutine[Any, Any, object]) -> AsyncIterator[asyncio.TaskGroup]:
    """Run `watchers` beside the block: the first that raises ends the block at once with its error.

    The watchers are cancelled when the block ends. Errors come out unwrapped.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(watcher) for watcher in watchers]
            try:
                yield group
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as group_error:
        raise first_cause(group_error) from group_error


ServeClient = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(
    serve: ServeClient, listen: Callable[[ServeClient], Awaitable[asyncio.Server]]
) -> AsyncIterator[asyncio.Server]:
    """Let `serve` talk to each client of the server that `listen` starts; with the block they are all gone."""
    clients: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        clients.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # asyncio's own callback would complain of a cancelled client
        finally:
            clients.discard(task)
            writer.close()

    server = await listen(take)
    try:
        yield server
    finally:
        server.close()
        for client in clients:
            client.cancel()
        while clients:
            await asyncio.wait(set(clients))


async def poll(attempt: Callable[[], Awaitable[T | None]], *, first_s: float = 0.1, most_s: float = 1.0) -> T:
    """Call `attempt` until it gives something, with back-off. For where no event exists; the caller has a deadline."""
    pause_s = first_s
    while (result := await attempt()) is None:
        await asyncio.sleep(pause_s)
        pause_s = min(most_s, pause_s * 1.5)
    return result
