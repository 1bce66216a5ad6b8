"""The kernels take no memory while they train: every call of malloc in a process is counted, by a library preloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNTER = """
#define _GNU_SOURCE
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static volatile long calls;
long count(void) { return calls; }
void *malloc(size_t n) { __sync_fetch_and_add(&calls, 1); return __libc_malloc(n); }
void *calloc(size_t k, size_t n) { __sync_fetch_and_add(&calls, 1); return __libc_calloc(k, n); }
void *realloc(void *p, size_t n) { __sync_fetch_and_add(&calls, 1); return __libc_realloc(p, n); }
"""
PROGRAM = """
import ctypes, numpy as np
from coordinator.models import build_plan
from edge_client.kernels import library
from edge_client.kernels.assembly import address
from edge_client.runtimes.sparse import SparseRuntime
from tests.helpers import random_ticket
from wire.bundle import Bundle
from wire.settings import Training

count = ctypes.CDLL(None).count
count.restype = ctypes.c_long
assert count() > 10_000, "the counter counts"
for name, threads in (("har-cnn", 1), ("har-cnn", 2), ("ds-cnn", 1)):
    plan = build_plan(name)
    ticket = random_ticket(plan, density=0.1, seed=1)
    runtime = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), Training(), threads=threads)
    x, y = np.ones((16, *plan.input_shape), np.float32), np.zeros(16, np.int64)
    weights, result = np.ones(16, np.float32), library.Result()
    step = runtime._library.hs_step
    arguments = (runtime._network, address(x), address(y), address(weights), 16, result)
    def steps(number):
        before = count()
        for _ in range(number):
            step(*arguments)
        return count() - before
    steps(3)
    few, many = steps(2), steps(22)  # what Python's own call takes is in both
    print(name, threads, (many - few) / 20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs gcc and Linux's preloading")
def test_a_step_of_the_kernels_calls_no_allocator(tmp_path: Path) -> None:
    """Of steps after warm-up, with one thread and two, with normalisation and shortcuts: none."""
    source, counter = tmp_path / "counter.c", tmp_path / "counter.so"
    source.write_text(COUNTER)
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", counter, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "LD_PRELOAD": str(counter)},
    )  # fmt: skip
    if "undefined symbol" in done.stderr:
        pytest.skip("another C library than glibc")
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert len(found) == 3
    assert [float(line[2]) for line in found] == [0, 0, 0], done.stdout
