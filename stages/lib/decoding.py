"""Work on many things at once, such as opening images: in order, on all cores, with a bounded number in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 8  # items in flight per worker: enough to ride out a large picture, few enough to stay small


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int = 0, at_once: int = 0) -> Iterator[Result]:
    """Yield `work(item)` for every item, in the order of `items`; `workers` 0 means one per core.

    Up to `at_once` items, AHEAD per worker if that is 0, are worked on or done before they are asked for. Items are
    taken from `items` by the thread that asks for results.

    Threads, not processes: Pillow lets go of the interpreter's lock while it decodes and resizes, as PyTorch and ONNX
    Runtime do while they compute, nothing is copied between processes, and there is no fork after PyTorch has started threads.
    """
    workers = workers or cores()
    source = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(source, at_once or AHEAD * workers))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(work, item) for item in islice(source, 1))
            yield result
