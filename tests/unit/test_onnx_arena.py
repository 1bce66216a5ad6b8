"""onnxruntime's arena, simulated: against its own order and memory, and by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coordinator.models import build_plan
from coordinator.prune import prune
from export import onnx_arena, onnx_work
from export.bundle import make_bundle
from export.onnx_arena import Arena
from export.work import Step, Work
from wire.onnx_arena import region_bytes
from wire.settings import Training


def _step(operator: str, reads: str, makes: str, size: int = 256) -> Step:
    return Step(kind="a", work=Work(), reads=tuple(reads), makes=dict.fromkeys(makes, size), operator=operator)


def test_nodes_run_depth_first_from_the_last() -> None:
    """What a node reads runs before it, the latest of the file first; what nobody reads begins."""
    steps = [
        _step("A", "", "a"),
        _step("B", "", "b"),
        _step("C", "a", "c"),
        _step("D", "bc", "d"),
        _step("E", "a", "e"),
    ]
    assert [step.operator for step in onnx_arena.order(steps)] == ["A", "E", "C", "B", "D"]


def test_tensors_go_into_the_smallest_gap() -> None:
    """Of those that hold them; gaps side by side are one, and so are the last gap and what was never used."""
    arena = Arena()
    blocks = [arena.take(size) for size in (1000, 256, 400, 256)]
    assert blocks == [(0, 1024), (1024, 256), (1280, 512), (1792, 256)]
    arena.give_back(blocks[0])
    arena.give_back(blocks[2])
    assert arena.take(300) == (1280, 512)
    assert arena.take(1) == (0, 256)
    arena.give_back(blocks[1])
    assert arena.take(1024) == (256, 1024)
    arena.give_back(blocks[3])
    assert arena.take(512) == (1792, 512)
    assert arena.top == 2304


def test_what_is_written_in_place_takes_nothing() -> None:
    """Only if nobody reads its input later; another shape of the same bytes never does, and keeps them alive."""
    chain = [_step("A", "", "a"), _step("Relu", "a", "b"), _step("Reshape", "b", "c"), _step("B", "c", "d")]
    assert onnx_arena.filled(chain, ["d"]) == 512
    assert onnx_arena.filled([*chain[:3], _step("B", "ac", "d")], ["d"]) == 768
    assert onnx_arena.filled([*chain, _step("C", "bd", "e")], ["e"]) == 768


@pytest.mark.parametrize("name", ["lenet", "mobilenet-v2-tiny"])
def test_the_order_is_that_of_onnxruntime(name: str, tmp_path: Path) -> None:
    """Of its own profile of a step, but for nodes that it leaves out."""
    ort = pytest.importorskip("onnxruntime")
    training = Training(batch=2)
    ticket = prune(build_plan(name), density=0.1, seed=0, method="uniform")
    graph = make_bundle(ticket, "onnx", training).files["train.onnx"]
    steps, _ = onnx_work.graph_steps(graph, training.batch)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "p")
    session = ort.InferenceSession(graph, options)
    sizes = {"n": training.batch}
    feeds = {
        one.name: np.ones([sizes.get(size, size) for size in one.shape], np.int64 if one.name == "y" else np.float32)
        for one in session.get_inputs()
    }
    session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [one["args"]["op_name"] for one in events if one["name"].endswith("_kernel_time")]
    left = iter(ran)  # with nodes of constants alone, which an optimised graph does not have
    assert all(any(kind == step.operator for kind in left) for step in onnx_arena.order(steps))


@pytest.mark.slow
def test_memory_is_foretold(tmp_path: Path) -> None:
    """What a larger batch adds to a fresh process is what is simulated, within 8 %: the batch itself is in it too."""
    pytest.importorskip("onnxruntime")
    ticket = prune(build_plan("resnet8"), density=0.1, seed=0, method="uniform")
    peaks, planned = [], []
    for batch in (16, 64):
        bundle = make_bundle(ticket, "onnx", Training(batch=batch))
        path = tmp_path / f"{batch}.hnsb"
        path.write_bytes(bundle.encoded)
        Path(f"{path}.id").write_bytes(bundle.id)
        command = [sys.executable, "-m", "coordinator.device_worker", str(path), str(batch), "2", "64"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(json.loads(done.stdout)["peaks"]["tried"])
        counted = onnx_work.count(ticket, Training(batch=batch), 64)
        planned.append(max(counted.alive, counted.infer_alive) + counted.held)
    assert peaks[1] - peaks[0] == pytest.approx(planned[1] - planned[0], rel=0.08)


@pytest.mark.parametrize("name", ["mlp", "lenet", "har-resnet", "ds-cnn"])
def test_the_region_holds_a_network(name: str) -> None:
    """A step of 16 samples and an inference of 64, and no more than twice of it."""
    ticket = prune(build_plan(name), density=0.1, seed=0, method="uniform")
    counted = onnx_work.count(ticket, Training(batch=16), 64)
    assert 0.45 < max(counted.alive, counted.infer_alive) / region_bytes(ticket.plan, 16, 64) <= 1
