"""What a simulation's processes do: devices train, the global network is tried on samples."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.baselines.method import Floats, Labels, Method, Samples, State
from coordinator.datasets.dataset import DeviceData
from coordinator.journal import load, save
from edge_client.readings import peak_memory_kb

DIVERGED = 1e30  # reported instead of a loss that is no finite number, which no message carries


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One device's part in a round."""

    device: str
    down: bytes
    data: DeviceData
    memory: Path | None
    keep: Path
    seed: int


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a `Job`."""

    up: bytes
    loss: float
    correct: int
    cpu_s: float
    peak_kb: int


_method: Method[Any] | None = None


def _install(method: Method[Any]) -> None:
    global _method  # one process, one method
    _method = method
    torch = sys.modules.get("torch")  # methods that train without it are measured without it
    if torch is not None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # momentum that dies away would make every step ten times slower


def _begin(method: Method[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _install(method)


def train(job: Job) -> Done:
    """One device's part in a round."""
    assert _method is not None
    memory: State = load(job.memory) if job.memory else {}
    began = time.process_time()
    samples = Samples(x=job.data.x_train, y=job.data.y_train)
    local = _method.train(job.down, samples, memory, job.seed)
    cpu_s = time.process_time() - began
    if local.memory:
        save(job.keep, local.memory)
    hits = _method.logits(local.model, job.data.x_test).argmax(axis=1) == job.data.y_test
    return Done(
        up=local.up,
        loss=min(local.loss, DIVERGED) if math.isfinite(local.loss) else DIVERGED,
        correct=int(np.count_nonzero(hits)),
        cpu_s=cpu_s,
        peak_kb=peak_memory_kb(),
    )


def count_correct(down: bytes, x: Floats, y: Labels) -> int:
    """Count the samples that the global network, as announced, has right."""
    assert _method is not None
    if not y.size:
        return 0
    return int(np.count_nonzero(_method.logits(_method.model(down), x).argmax(axis=1) == y))


class _Here(Executor):
    """Runs everything in this process, at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def worker_pool(method: Method[Any], workers: int) -> Iterator[Executor]:
    """Processes that know the method; with one worker, this process."""
    if workers == 1:
        torch = sys.modules.get("torch")
        threads = torch.get_num_threads() if torch else 1
        _install(method)
        try:
            yield _Here()
        finally:
            if torch:
                torch.set_num_threads(threads)
                torch.set_flush_denormal(False)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the libraries of processes started from here
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(method,))
    try:
        yield pool
    except BaseException:
        # An interrupted pool can wait for its workers for ever; they hold nothing that is not on disk.
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
