"""Timing that a busy machine disturbs little: on one core, and rivals by turns."""

import os
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Clock = Callable[[], float]
Result = TypeVar("Result")


def use_threads(threads: int) -> Clock:
    """Holds TensorFlow and PyTorch to that many threads each; to be called before they are imported.

    Returns: the clock to measure with, in seconds: for one thread the process's own time, which others on the machine
      hardly change, for more the wall's.
    """
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[variable] = str(threads)
    return time.process_time if threads == 1 else time.perf_counter


def duration(step: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Seconds of one call."""
    start = clock()
    step()
    return clock() - start


def timed(part: Callable[[], Result]) -> tuple[float, float, Result]:
    """Wall seconds, CPU seconds, which others on the machine hardly change, and what the part returns."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = part()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def fastest(rivals: Mapping[str, Callable[[], object]], *, seconds: float, clock: Clock) -> dict[str, float]:
    """Seconds of the fastest call of each rival, in rounds that go on for `seconds` a rival; at least one round."""
    times = {name: [] for name in rivals}
    end = time.perf_counter() + seconds * len(rivals)
    while True:
        for name, step in rivals.items():
            times[name].append(duration(step, clock))
        if time.perf_counter() > end:
            return {name: min(own) for name, own in times.items()}
