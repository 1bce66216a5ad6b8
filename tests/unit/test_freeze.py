"""`hidenseek freeze`: a plain ONNX file of what was learned, checked against torch, from a device or from a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from coordinator import cli
from coordinator.freeze_command import from_database
from coordinator.store import Store
from export import frozen
from tests.helpers import random_signs, random_ticket, write_state
from tests.unit.test_onnx_graph import ODD_PLANS, model_ticket, odd_ticket
from tests.unit.test_predict import CLASSES, SIGNS, SPARSE, TICKET, X
from wire import __version__, mask
from wire.errors import ExportError, StateError
from wire.layers import Linear
from wire.mask import as_multipliers
from wire.plan import Plan as NetworkPlan

RUN = b"run-of-3"
OWN = as_multipliers(SIGNS)


def votes(signs: np.ndarray) -> bytes:
    """What a round is announced with."""
    return mask.encode_votes(mask.certain(signs), np.array([signs.size]))


def database(path: Path, *outcomes: np.ndarray, ticket: bytes = TICKET.encoded) -> Path:
    """A coordinator's database with one run, and a round announced with each of these signs."""
    store = Store(path / "coordinator.db")
    store.start_run(run=RUN, name="t", ticket=ticket, settings="{}", bundle_bytes=1)
    for number, signs in enumerate(outcomes, 1):
        store.close_round(RUN, number - 1)
        store.open_round(RUN, number, ("pi-01",), votes(signs))
    store.close()
    return path / "coordinator.db"


def run(*arguments: object) -> int:
    """`hidenseek freeze` with these arguments; its exit code."""
    return cli.main(["freeze", *map(str, arguments)])


@pytest.mark.parametrize("name", ODD_PLANS)
def test_frozen_graphs_agree_with_torch(name: str) -> None:
    """Every layer, stride and padding gives torch's logits, for a batch and for one sample."""
    ticket = odd_ticket(name)
    mean = np.random.default_rng(1).uniform(-1, 1, ticket.kept).astype(np.float32)
    checked = frozen.check(frozen.freeze(ticket, mean, {}), ticket, mean, samples=5)
    assert checked.samples == 5
    assert checked.difference <= frozen.TOLERANCE * checked.largest


@pytest.mark.parametrize("name", ["lenet", "har-cnn"])
def test_frozen_models_agree_with_torch(name: str) -> None:
    """Named models too, with weights +c and -c."""
    ticket = model_ticket(name)
    own = as_multipliers(random_signs(ticket, seed=1))
    frozen.check(frozen.freeze(ticket, own, {}), ticket, own, samples=8)


def test_a_prior_is_part_of_the_logits() -> None:
    """A device's own class frequencies are added, one for every class."""
    prior = np.log(np.arange(1, 6, dtype=np.float32) / 15)
    data = frozen.freeze(TICKET, OWN, {}, log_prior=prior)
    frozen.check(data, TICKET, OWN, log_prior=prior)
    with pytest.raises(ExportError, match="differs from torch"):
        frozen.check(data, TICKET, OWN)
    with pytest.raises(ExportError, match=r"log prior of shape \(3,\), the network has 5 classes"):
        frozen.freeze(TICKET, OWN, {}, log_prior=prior[:3])


def test_the_file_is_plain_and_says_what_it_is() -> None:
    """Dense named weights, standard operators of old opsets, any batch, notes in the metadata, the same bytes again."""
    data = frozen.freeze(TICKET, OWN, {"round": "3"})
    assert data == frozen.freeze(TICKET, OWN, {"round": "3"})
    model = onnx.load_from_string(data)
    assert {one.domain for one in model.opset_import} | {node.domain for node in model.graph.node} == {""}
    assert (model.opset_import[0].version, model.ir_version) == (13, 7)
    assert {node.op_type for node in model.graph.node} == {"Conv", "Relu", "MaxPool", "Flatten", "Gemm", "Identity"}
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    assert {name: (w.shape, w.dtype) for name, w in weights.items()} == {
        f"{shape.name}.weight": (shape.weight_shape, np.float32) for shape in TICKET.plan.weight_layers()
    }
    assert sum(np.count_nonzero(w) for w in weights.values()) == TICKET.kept
    (x,), (logits,) = model.graph.input, model.graph.output
    assert (x.name, logits.name) == ("x", "logits")
    assert [side.dim_param or side.dim_value for side in x.type.tensor_type.shape.dim] == ["n", 2, 16]
    assert {one.key: one.value for one in model.metadata_props} == {
        "ticket": TICKET.id.hex(),
        "density": "0.5",
        "kept_weights": str(TICKET.kept),
        "round": "3",
    }


def test_plus_one_everywhere_is_the_random_network() -> None:
    """A +1 leaves an initial weight as it is, a -1 turns it."""
    for sign in (True, False):
        model = onnx.load_from_string(frozen.freeze(TICKET, as_multipliers(np.full(TICKET.kept, sign)), {}))
        weight = onnx.numpy_helper.to_array(model.graph.initializer[-1]).reshape(-1)
        layer = TICKET.kept_layers[-1]
        assert np.array_equal(weight[layer.indices], layer.weights if sign else -layer.weights)


def test_a_layer_without_kept_weights_is_zeros() -> None:
    """A dead network is frozen as what it is: all logits are 0, and that agrees with torch."""
    ticket = random_ticket(NetworkPlan(name="dead", input_shape=(4,), layers=(Linear(out_features=4),)), 0.5, seed=1)
    layers = (type(ticket.layers[0])(block=4, mask=0, scale=1.0),)
    dead = type(ticket)(plan=ticket.plan, seed=1, magnitudes="constant", layers=layers)
    none = np.zeros(0, dtype=np.float32)
    assert frozen.check(frozen.freeze(dead, none, {}), dead, none).largest == 0


def test_a_wrong_graph_is_noticed() -> None:
    """One sign of a hundred turned, signs of another ticket, or no graph at all: ExportError."""
    data = frozen.freeze(TICKET, OWN, {})
    turned = OWN.copy()
    turned[-1] *= -1
    with pytest.raises(ExportError, match="differs from torch"):
        frozen.check(data, TICKET, turned)
    with pytest.raises(ExportError, match=rf"multipliers of shape \(3,\), the ticket keeps {TICKET.kept} weights"):
        frozen.freeze(TICKET, OWN[:3], {})
    with pytest.raises(ExportError, match="refuses the frozen graph"):
        frozen.check(b"no graph", TICKET, OWN)


def test_a_personal_network_is_frozen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file's classes are the device's, and the command says what it is, how large, and that it was checked."""
    write_state(tmp_path / "state", SPARSE, SIGNS)
    assert run("--state", tmp_path / "state", "-o", tmp_path / "m.onnx") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"small: personal network of round 3, run {RUN.hex()}"
    assert "x float32 (n, 2, 16) -> logits float32 (n, 5), ONNX opset 13" in said
    assert f"onnxruntime {ort.__version__} agrees with torch on 64 random samples" in said[3]
    assert said[-1] == f"wrote {tmp_path / 'm.onnx'}: {(tmp_path / 'm.onnx').stat().st_size:,} bytes"
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"x": X})[0].argmax(1), CLASSES)
    notes = session.get_modelmeta().custom_metadata_map
    assert (notes["network"], notes["round"], notes["run"]) == ("personal network", "3", RUN.hex())
    assert (notes["ticket"], notes["software"]) == (TICKET.id.hex(), f"hidenseek {__version__}")


def test_the_global_signs_are_those_last_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By folder or file, during a run or after it: the outcome of the last round that was counted."""
    path = database(tmp_path, np.ones(TICKET.kept, bool), ~SIGNS, SIGNS)
    assert run("--run", tmp_path, "-o", tmp_path / "m.onnx") == 0
    assert capsys.readouterr().out.startswith(f"small: global network of round 2, run {RUN.hex()}\n")
    assert (tmp_path / "m.onnx").read_bytes() == frozen.freeze(
        TICKET,
        OWN,
        {"network": "global network", "run": RUN.hex(), "round": "2", "software": f"hidenseek {__version__}"},
    )
    found = from_database(path)
    assert (found.ticket, found.number) == (TICKET, 2)
    assert np.array_equal(found.multipliers, OWN)


def test_a_run_without_an_outcome_is_refused(tmp_path: Path) -> None:
    """A first round under way has the random network only; so has a database without any run."""
    with pytest.raises(StateError, match="no round has been counted yet") as caught:
        from_database(database(tmp_path, np.ones(TICKET.kept, bool)))
    assert caught.value.where == str(tmp_path / "coordinator.db")
    Store(tmp_path / "empty" / "coordinator.db").close()
    with pytest.raises(StateError, match="no round"):
        from_database(tmp_path / "empty")


def test_what_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No database, no state folder, a damaged ticket, no place to write: one line, its exit code, and no file."""
    database(tmp_path / "run", SIGNS, SIGNS)
    database(tmp_path / "cut", SIGNS, SIGNS, ticket=TICKET.encoded[:-1])
    out = tmp_path / "m.onnx"
    for arguments, code, line in (
        (["--run", tmp_path / "none.db", "-o", out], 11, "no none.db in this folder. Name the folder of"),
        (["--run", tmp_path, "-o", out], 11, "no coordinator.db in this folder"),
        (["--state", tmp_path / "none", "-o", out], 25, "none: no such state folder. Name the folder"),
        (["--state", tmp_path / "run", "-o", out], 25, "run: no personal network here yet"),
        (["--run", tmp_path / "cut", "-o", out], 13, f"ticket of run {RUN.hex()}: corrupt or truncated"),
        (["--run", tmp_path / "run", "-o", tmp_path / "no" / "m.onnx"], 10, "m.onnx: cannot be written"),
    ):
        assert run(*arguments) == code
        assert line in capsys.readouterr().err
    assert not out.exists()
