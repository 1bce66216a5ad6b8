"""A device trains inside its memory limits, or says before it starts why it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator import here
from coordinator.models import build_plan
from coordinator.prune import prune
from edge_client import data, memory_limits
from edge_client.memory_limits import Limit, require
from edge_client.runtimes import registry
from export.bundle import make_bundle
from tests.helpers import root_with
from wire.errors import NotEnoughMemory
from wire.settings import Training

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
V1 = Path("/sys/fs/cgroup/memory")


def by_name(root: Path) -> dict[str, Limit]:
    """Limits read below a root folder, but for those of this process."""
    return {limit.name: limit for limit in memory_limits.limits(root) if "process" not in limit.name}


def test_every_control_group_around_the_process_counts(tmp_path: Path) -> None:
    """Version 2: a group without a limit is passed over; files that lie in memory unused are as good as free."""
    root = root_with(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/hidenseek.service\n",
            "sys/fs/cgroup/system.slice/hidenseek.service/memory.max": "67108864\n",
            "sys/fs/cgroup/system.slice/hidenseek.service/memory.current": "30000000\n",
            "sys/fs/cgroup/system.slice/hidenseek.service/memory.stat": "anon 1\ninactive_file 2000000\n",
            "sys/fs/cgroup/system.slice/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/memory.current": "90000000\n",
            "proc/meminfo": "MemTotal: 436380 kB\nMemAvailable: 200000 kB\nSwapFree: 1000 kB\n",
        },
    )
    found = by_name(root)
    assert {name: limit.left for name, limit in found.items()} == {
        "the control group cgroup/system.slice/hidenseek.service": 67_108_864 - 28_000_000,
        "this machine's memory": 201_000 * 1024,
    }
    with pytest.raises(NotEnoughMemory) as caught:
        require(40_000_000, "training", hint="prune it", root=root)
    text = str(caught.value)
    assert "training needs 42.0 MB of memory, and 39.1 MB are left of the control group" in text
    assert "(67.1 MB). Prune it, or raise the limit (MemoryMax of a service" in text
    require(30_000_000, "training", root=root)


def test_control_groups_of_version_1_count(tmp_path: Path) -> None:
    """Also where a container sees its own group as the root of all."""
    root = root_with(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/0123\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "34217728\n",
        },
    )
    assert [limit.left for limit in by_name(root).values()] == [100_000_000]


def test_a_machine_that_says_nothing_sets_no_limit(tmp_path: Path) -> None:
    """macOS, or a /proc that is not ours to read."""
    assert not by_name(tmp_path)
    require(1 << 50, "training", root=tmp_path)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if hardly any memory were left."""
    limit = Limit(name="a limit", nbytes=64 * MIB, left=100_000, virtual=False, mend="raise it")
    monkeypatch.setattr(memory_limits, "limits", lambda root: iter([limit]))


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("runtime", ["sparse", "onnx"])
def test_a_runtime_asks_before_it_takes(runtime: str) -> None:
    """The line names the network, what it takes and the limit."""
    bundle = make_bundle(prune(build_plan("har-cnn"), density=0.05, seed=0, method="uniform"), runtime, Training())
    with pytest.raises(NotEnoughMemory, match=r"training 'har-cnn' in batches of 16 .* 0\.1 MB are left of a limit"):
        registry.open_runtime(bundle, Training())


@pytest.mark.usefixtures("little")
def test_data_are_not_read_if_they_are_too_much(tmp_path: Path) -> None:
    """Their size is in the archive's directory, compressed or not."""
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((100, 1000), np.float32), y=np.zeros(100, np.int64))
    with pytest.raises(NotEnoughMemory, match=r"the data in .* needs 0\.4 MB"):
        data.load(tmp_path / "a.npz")


@pytest.fixture(scope="module")
def ticket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket's file."""
    path = tmp_path_factory.mktemp("ticket") / "har.hns"
    path.write_bytes(prune(build_plan("har-cnn"), density=0.1, seed=0, method="uniform").encoded)
    return path


def profiled(path: Path, before: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`hidenseek-edge profile` in a shell that was limited."""
    words = f"exec {sys.executable} -m edge_client.cli profile {path} --seconds 0.1 {' '.join(options)}"
    return subprocess.run(
        ["sh", "-c", f"{before}\n{words}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={name: value for name, value in os.environ.items() if name != memory_limits.THREADS_VARIABLE},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is Linux's")
def test_a_real_address_space_is_enough_or_refused(ticket: Path) -> None:
    """64 MiB: refused before numpy fails; 160 MiB: trains."""
    refused = profiled(ticket, f"ulimit -v {64 * 1024}")
    assert refused.returncode == 29, refused.stderr
    assert "left of the address space of this process (67.1 MB). Raise ulimit -v" in refused.stderr
    trained = profiled(ticket, f"ulimit -v {160 * 1024}")
    assert trained.returncode == 0, trained.stderr


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of our own, version 1 or 2."""
    folder = (V1 if V1.is_dir() else Path("/sys/fs/cgroup")) / f"hidenseek-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error})")
    yield folder
    folder.rmdir()


# A limit in MiB, a network, its runtime, and whether it trains inside. ExecuTorch's program is one that comes with us.
LIMITED = (
    (64, "har-cnn", "sparse", True),
    (64, "conv4", "sparse", True),
    (64, "wide", "executorch", True),
    (64, "har-cnn", "onnx", False),
    (64, "conv4", "onnx", False),
    (128, "conv4", "sparse", True),
    (128, "har-cnn", "onnx", True),
    (128, "conv2", "onnx", False),
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles of LIMITED."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, runtime in {(name, runtime) for _, name, runtime, _ in LIMITED}:
        path = folder / f"{name}-{runtime}.hnsb"
        if runtime == "executorch":
            path.write_bytes((here.PROGRAMS / path.name).read_bytes())
        else:
            network = prune(build_plan(name), density=0.1, seed=0, method="uniform")
            path.write_bytes(make_bundle(network, runtime, Training()).encoded)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("mib", "name", "runtime", "trains"), LIMITED)
def test_a_real_control_group_is_enough_or_refused(
    bundles: Path, group: Path, mib: int, name: str, runtime: str, trains: bool
) -> None:
    """It trains inside and says what it took, or is refused before it starts, with the reason; it is never killed."""
    if runtime not in registry.available():
        pytest.skip(f"{runtime} is not installed")
    limit = group / ("memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes")
    if not limit.exists():
        pytest.skip("control groups have no memory controller here")
    limit.write_text(str(mib * MIB))
    done = profiled(bundles / f"{name}-{runtime}.hnsb", f"echo $$ > {group}/cgroup.procs", "--runtime", runtime)
    assert done.returncode == (0 if trains else 29), done.stderr
    if trains:
        assert "steps after 3 to warm up" in done.stdout
    else:
        assert f"are left of the control group {group.parent.name}/{group.name} ({mib * MIB / 1e6:.1f} MB)" in said(
            done.stderr
        )
        assert "or raise the limit (MemoryMax of a service" in said(done.stderr)
        assert not done.stdout, "nothing had begun"


def said(stderr: str) -> str:
    """An error in one line, however wide the terminal."""
    return " ".join(stderr.split())
