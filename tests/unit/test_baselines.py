"""What makes each method the one of its paper, in small cases that can be counted by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from coordinator import baselines
from coordinator.aggregate import next_votes
from coordinator.baselines.blobs import cut, floats, join, read_floats, read_sparse, sparse
from coordinator.baselines.dense import Dense
from coordinator.baselines.hidenseek_signs import Network
from coordinator.baselines.method import Floats, Method, Samples, Settings, Task, Update, make_settings
from coordinator.baselines.replica import Replica
from coordinator.prune import prune
from edge_client.runtimes import registry
from edge_client.trainer import log_prior, train
from export.bundle import make_bundle
from wire import bits, mask
from wire.errors import ConfigError, UnknownName
from wire.layers import Conv, Flatten, Linear, MaxPool, Relu
from wire.plan import Plan
from wire.settings import Training

PLAN = Plan(
    name="tiny",
    input_shape=(2, 8),
    layers=(
        Conv(out_channels=8, kernel=(3,), stride=(1,), padding=(1,)),  # weights 0 .. 47
        Relu(),
        MaxPool(kernel=(2,), stride=(2,)),
        Flatten(),
        Linear(out_features=3),  # weights 48 .. 143
    ),
)
CONV, LINEAR = slice(0, 48), slice(48, 144)
N = 144
STILL = 1e-30  # a learning rate that moves no float32 weight or score
REPLICAS: list[tuple[str, dict[str, Any]]] = [
    ("signsgd-mv", {"step": 0.02}),
    ("signsgd-mv", {"error_feedback": True}),
    ("topk", {"share": 0.1}),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads cost networks this small more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name: str, **settings: Any) -> Any:
    """A method on the tiny network with seed 1."""
    cls = baselines.get(name)
    return cls(Task(plan=PLAN, devices=("a", "b", "c"), seed=1), make_settings(cls.Config, settings))


def samples(seed: int = 0, count: int = 25) -> Samples:
    """Noisy copies of three patterns; the label says which."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    patterns = np.random.default_rng(99).normal(size=(3, 2, 8))
    x = patterns[y] + 0.5 * rng.normal(size=(count, 2, 8))
    return Samples(x=x.astype(np.float32), y=y)


def weights(seed: int = 0) -> Floats:
    """Any weights."""
    return np.random.default_rng(seed).normal(size=N).astype(np.float32)


def chosen(*positions: int, of: int = N) -> np.ndarray:
    """Bits with these positions set."""
    found = np.zeros(of, dtype=np.bool_)
    found[list(positions)] = True
    return found


def update(device: str, payload: bytes, count: int = 24) -> Update:
    """What came up from a device with `count` samples."""
    return Update(device=device, samples=count, payload=payload)


# Names and settings.


def test_every_name_is_a_method() -> None:
    """Each listed method can be imported, and again after the first time."""
    assert len(baselines.names()) == 11
    for name in [*baselines.names(), *baselines.names()]:
        found = baselines.get(name)
        assert issubclass(found, Method)
        assert issubclass(found.Config, Settings)


def test_unknown_method_is_named() -> None:
    """A misspelt name comes back with the nearest known one."""
    with pytest.raises(UnknownName, match=r"no method is called 'fedavgg'\. Did you mean 'fedavg'\?"):
        baselines.get("fedavgg")


@pytest.mark.parametrize("name", ["no_such_module:Thing", "coordinator.baselines.fedavg:Missing", ":Thing"])
def test_methods_elsewhere_must_exist(name: str) -> None:
    """A module or class that is not there is a ConfigError that says how to write it."""
    with pytest.raises(ConfigError, match=f"method '{name}' cannot be imported.*Write MODULE:CLASS"):
        baselines.get(name)


def test_methods_elsewhere_must_be_methods() -> None:
    """A class of another kind is refused; a method is found by its module and class."""
    with pytest.raises(ConfigError, match=r"'wire\.plan:Plan' is not a subclass"):
        baselines.get("wire.plan:Plan")
    assert baselines.get("coordinator.baselines.fedavg:FedAvg") is baselines.get("fedavg")


def test_settings_are_read_from_text() -> None:
    """Whole numbers, numbers and true or false, as --set gives them."""
    given = {"epochs": "3", "step": "0.5", "error_feedback": "True"}
    made: Any = make_settings(baselines.get("signsgd-mv").Config, given)
    assert (made.epochs, made.step, made.error_feedback, made.batch) == (3, 0.5, True, 16)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epoch", "3", r"--set epoch: there is no setting 'epoch' here\. Did you mean 'epochs'\?"),
        ("epochs", "3.5", "--set epochs: '3.5' found, a whole number expected"),
        ("epochs", 3.5, "--set epochs: '3.5' found, a whole number expected"),
        ("step", "large", "--set step: 'large' found, a number expected"),
        ("error_feedback", "yes", "--set error_feedback: 'yes' found, true or false expected"),
        ("epochs", "0", "--set epochs: 0 found, a positive number expected"),
        ("learning_rate", "nan", "--set learning_rate: nan found, a positive number expected"),
    ],
)
def test_wrong_settings_are_named(name: str, value: str | float, said: str) -> None:
    """The error says which setting, what was found, and what was expected."""
    with pytest.raises(ConfigError, match=said):
        make_settings(baselines.get("signsgd-mv").Config, {name: value})


@pytest.mark.parametrize(
    ("method", "name", "wrong"),
    [
        ("topk", "share", [0, 1.01, -0.1, "nan"]),
        ("lotteryfl", "density", [0, 1.01]),
        ("lotteryfl", "prune", [0, 1.01]),
        ("fedmask", "density", [0, 1.01]),
        ("fedmrn", "noise", [0, -1]),
        *((method, "batch", [0]) for method in ("topk", "lotteryfl", "fedmask", "fedmrn", "hidenseek")),
    ],
)
def test_settings_out_of_range_are_refused(method: str, name: str, wrong: list[Any]) -> None:
    """Each by its name, before anything is trained with it; 1 is in every range."""
    for value in wrong:
        with pytest.raises(ConfigError, match=f"--set {name}: .* found, a .*number.* expected"):
            make_settings(baselines.get(method).Config, {name: value})
    assert getattr(make_settings(baselines.get(method).Config, {name: "1"}), name) == 1


# FedAvg and local-only.


def test_fedavg_is_the_mean_weighted_by_samples() -> None:
    """One sample of 1.0 and three of 5.0 make 4.0."""
    one, three = update("a", floats(np.full(N, 1.0, np.float32)), 1), update("b", floats(np.full(N, 5.0)), 3)
    after = make("fedavg").aggregate({"weights": weights()}, [one, three])
    assert after["weights"].tolist() == [4.0] * N


def test_fedavg_of_identical_devices_is_what_they_have() -> None:
    """Devices that agree are a fixed point, bit for bit, whatever their numbers of samples."""
    same = [update(name, floats(weights()), count) for name, count in (("a", 7), ("b", 3), ("c", 11))]
    assert np.array_equal(make("fedavg").aggregate({}, same)["weights"], weights())


def test_fedavg_sends_four_bytes_a_weight_both_ways() -> None:
    """And trains on from the weights that came down."""
    method = make("fedavg", learning_rate=STILL)
    down = method.announce({"weights": weights()}, "a")
    local = method.train(down, samples(), {}, 5)
    assert len(down) == len(local.up) == 4 * N
    assert down == local.up
    assert make("fedavg").train(down, samples(), {}, 5).up != down


def test_local_only_exchanges_nothing_and_goes_on_where_it_stopped() -> None:
    """A device's second training starts from its own first, the first from everybody's random weights."""
    method, still = make("local-only"), make("local-only", learning_rate=STILL)
    assert not method.has_global
    assert method.announce(method.start(), "a") == b""
    assert np.array_equal(still.train(b"", samples(), {}, 5).model, Dense(PLAN).initial(1))
    first = method.train(b"", samples(), {}, 5)
    assert first.up == b""
    assert not np.array_equal(first.model, Dense(PLAN).initial(1))
    assert np.array_equal(still.train(b"", samples(), first.memory, 6).model, first.model)


# LotteryFL.


def test_lotteryfl_prunes_each_layers_smallest_down_to_the_density() -> None:
    """A quarter of the live weights of every layer at a time, and then no further than half."""
    method = make("lotteryfl", prune=0.25, density=0.5)
    ascending = np.arange(1, N + 1, dtype=np.float32) * np.where(np.arange(N) % 2, 1, -1)
    kept = np.ones(N, dtype=np.bool_)
    for gone in ((12, 24), (21, 42), (24, 48), (24, 48)):  # of 48 and of 96
        kept = method.pruned(ascending, kept)
        assert np.flatnonzero(~kept).tolist() == [*range(gone[0]), *range(48, 48 + gone[1])]


def test_lotteryfl_rewinds_when_it_prunes() -> None:
    """What is kept goes back to its initial value; what is pruned is 0."""
    method = make("lotteryfl", gate=0.0, prune=0.25, density=0.5, learning_rate=STILL)
    local = method.train(floats(weights()), samples(), {}, 5)
    kept = method.pruned(weights(), np.ones(N, dtype=np.bool_))
    assert np.array_equal(local.memory["mask"], kept)
    assert np.array_equal(local.model, method.net.initial(1) * kept)


def test_lotteryfl_neither_prunes_nor_rewinds_below_the_gate() -> None:
    """A device that does not reach the validation accuracy trains on from what came down."""
    method = make("lotteryfl", gate=1.01, learning_rate=STILL)
    local = method.train(floats(weights()), samples(), {}, 5)
    assert local.memory["mask"].all()
    assert np.array_equal(local.model, weights())


def test_lotteryfl_does_not_rewind_when_nothing_is_left_to_prune() -> None:
    """Layers at their floors stop the pruning, even where their share is a little above the density."""
    method = make("lotteryfl", gate=0.0, density=0.49, learning_rate=STILL)  # floors 24 of 48 and 47 of 96: 0.493
    at_floor = chosen(*range(24), *range(48, 95))
    local = method.train(floats(weights()[at_floor]), samples(), {"mask": at_floor}, 5)
    assert np.array_equal(local.memory["mask"], at_floor)
    assert np.array_equal(local.model, weights() * at_floor)


def test_lotteryfl_validates_on_samples_it_does_not_train_on() -> None:
    """Labels of every fifth sample decide the gate and nothing else."""
    data, other = samples(), samples()
    other.y[4::5] = (other.y[4::5] + 1) % 3
    method = make("lotteryfl", gate=1.01)
    first = method.train(floats(weights()), data, {}, 5)
    assert method.train(floats(weights()), other, {}, 5).up == first.up
    data.y[4::5] = method.logits(weights(), data.x[4::5]).argmax(axis=1)  # all right: accuracy 1
    assert not make("lotteryfl", gate=1.0).train(floats(weights()), data, {}, 5).memory["mask"].all()
    data.y[4] = (data.y[4] + 1) % 3
    assert make("lotteryfl", gate=1.0).train(floats(weights()), data, {}, 5).memory["mask"].all()


def test_lotteryfl_with_nothing_to_validate_on_does_not_prune() -> None:
    """Of four samples none is the fifth: the device trains on them all."""
    local = make("lotteryfl", gate=0.0).train(floats(weights()), samples(count=4), {}, 5)
    assert local.memory["mask"].all()
    assert not np.array_equal(local.model, weights())


def test_lotteryfl_averages_over_the_keepers_alone() -> None:
    """Weight 0 is kept by b, weight 1 by nobody and stays; the others are kept by both."""
    method = make("lotteryfl")
    a = update("a", join([bits.encode(chosen(0, 1)), floats(np.full(N - 2, 1.0))]), 1)
    b = update("b", join([bits.encode(chosen(1)), floats(np.full(N - 1, 2.0))]), 9)
    after = method.aggregate({"weights": np.full(N, 7.0, np.float32)}, [a, b])
    assert after["weights"].tolist() == [2.0, 7.0, *[1.5] * (N - 2)]
    assert read_floats(method.announce(after, "a"), N - 2).tolist() == [1.5] * (N - 2)
    assert read_floats(method.announce(after, "b"), N - 1).tolist() == [2.0, *[1.5] * (N - 2)]
    assert len(method.announce(after, "c")) == len(method.announce(after, None)) == 4 * N


def test_lotteryfl_sends_less_with_every_pruning_and_revives_nothing() -> None:
    """Both ways four bytes a kept weight; what was pruned stays 0 through training with momentum."""
    method = make("lotteryfl", gate=0.0, prune=0.25, density=0.5, learning_rate=0.1)
    state, memory, sizes = method.start(), {}, []
    pruned = np.zeros(N, dtype=np.bool_)
    for number in range(4):
        down = method.announce(state, "a")
        local = method.train(down, samples(), memory, number)
        assert not local.model[pruned].any()
        pruned |= ~local.memory["mask"]
        assert not local.model[pruned].any()
        assert local.model[~pruned].all()
        sizes.append((len(down) // 4, len(cut(local.up)[1]) // 4))
        state, memory = method.aggregate(state, [update("a", local.up)]), local.memory
    assert sizes == [(144, 108), (108, 81), (81, 72), (72, 72)]


# FedMask.


def test_fedmask_prunes_its_structure_once() -> None:
    """A quarter of every layer, sent with the first update only, and the same for good."""
    method = make("fedmask", density=0.25)
    first = method.train(b"", samples(), {}, 5)
    structure = first.memory["structure"]
    assert (np.count_nonzero(structure[CONV]), np.count_nonzero(structure[LINEAR])) == (12, 24)
    _, sent = cut(first.up)
    assert np.array_equal(bits.decode(sent, N), structure)
    state = method.aggregate(method.start(), [update("a", first.up)])
    second = method.train(method.announce(state, "a"), samples(), first.memory, 6)
    assert np.array_equal(second.memory["structure"], structure)
    (mask_bits,) = cut(second.up)
    assert len(mask_bits) <= 1 + 5  # 36 bits
    other = method.train(b"", samples(7), {}, 5).memory["structure"]
    assert not np.array_equal(other, structure), "another device finds another"


def test_fedmask_never_changes_a_weight() -> None:
    """A device's network is the frozen weights where its scores are positive, and 0 elsewhere."""
    method = make("fedmask", density=0.25, learning_rate=0.1)
    memory: dict[str, Any] = {}
    down = b""
    for number in range(2):
        local = method.train(down, samples(), memory, number)
        structure, scores = local.memory["structure"], local.memory["scores"]
        on = np.zeros(N, dtype=np.bool_)
        on[structure] = scores > 0
        assert 0 < np.count_nonzero(on) < 36
        assert np.array_equal(local.model, np.where(on, method.net.initial(1) * np.float32(2), 0))  # 1 / sqrt(0.25)
        assert np.array_equal(bits.decode(cut(local.up)[0], 36), scores > 0)
        memory, down = local.memory, join([bits.encode(np.zeros(36, np.bool_)), bits.encode(np.zeros(0, np.bool_))])


def test_fedmask_averages_what_two_devices_have() -> None:
    """Of positions 0, 1, 2 two devices have 1 and 2 together; both are for 2, a tie about 1 switches it off."""
    method = make("fedmask")
    a = update("a", join([bits.encode(np.array([1, 1, 1], bool)), bits.encode(chosen(0, 1, 2))]))
    b = update("b", join([bits.encode(np.array([0, 1, 1], bool)), bits.encode(chosen(1, 2, 3))]))
    state = method.aggregate(method.start(), [a, b])
    assert np.flatnonzero(state["shared"]).tolist() == [1, 2]
    assert np.flatnonzero(state["on"]).tolist() == [2]
    shared, on = cut(method.announce(state, "b"))
    assert bits.decode(shared, 3).tolist() == [True, True, False]
    assert bits.decode(on, 2).tolist() == [False, True]
    assert np.flatnonzero(method.model(method.announce(state, None))).tolist() == [2]
    assert method.announce(state, "c") == b"", "who has no structure yet is told nothing"

    later = method.aggregate(state, [update("b", join([bits.encode(np.array([1, 0, 0], bool))]))])
    assert np.array_equal(later["on"], state["on"]), "one device alone shares nothing"


def test_fedmask_leaves_personal_scores_alone() -> None:
    """What is shared starts from the agreed bit, every other score is the device's own."""
    method = make("fedmask", learning_rate=STILL, start=0.5)
    memory = {"structure": chosen(3, 5, 50, 60), "scores": np.array([0.2, -0.3, 0.4, -0.6], np.float32)}
    down = join([bits.encode(np.array([0, 1, 1, 0], bool)), bits.encode(np.array([1, 0], bool))])
    local = method.train(down, samples(), memory, 5)
    assert local.memory["scores"].tolist() == np.array([0.2, 0.5, -0.5, -0.6], np.float32).tolist()
    assert bits.decode(cut(local.up)[0], 4).tolist() == [True, True, False, False]


# FedPM.


def test_fedpm_makes_the_mean_of_masks_the_next_probability() -> None:
    """Two of four devices say 1 about weight 0, all about weight 1, nobody about the rest; samples do not count."""
    sent = [chosen(0, 1), chosen(0, 1), chosen(1), chosen(1)]
    updates = [update(name, bits.encode(one), 1 + 9 * (name == "a")) for name, one in zip("abcd", sent, strict=True)]
    after = make("fedpm").aggregate(make("fedpm").start(), updates)
    assert after["probability"].tolist() == [0.5, 1.0, *[0.0] * (N - 2)]


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0.01), (0.3, 0.3), (1.0, 0.99)])
def test_fedpm_draws_masks_with_the_probability_it_was_told(probability: float, expected: float) -> None:
    """Without training the share of ones is the probability's, clipped to 0.01 .. 0.99; never over a bit a weight."""
    method = make("fedpm", learning_rate=STILL, epochs=1)
    down = floats(np.full(N, probability, np.float32))
    sent = [method.train(down, samples(count=4), {}, seed).up for seed in range(25)]
    assert max(map(len, sent)) <= 1 + N // 8
    drawn = [bits.decode(one, N) for one in sent]
    deviation = (expected * (1 - expected) / (25 * N)) ** 0.5
    assert abs(np.mean(drawn) - expected) < 3 * deviation
    assert np.unique(drawn, axis=0).shape[0] > 10, "seeds differ"


def test_fedpm_weights_are_the_frozen_ones_or_nothing() -> None:
    """Signed constants, sqrt(2 / (fan-in / 2)) a layer, where the mask is 1; training moves the probabilities."""
    method = make("fedpm", learning_rate=0.3)
    local = method.train(method.announce(method.start(), "a"), samples(), {}, 5)
    kept = bits.decode(local.up, N)
    assert np.array_equal(local.model, np.where(kept, method.frozen(), 0))
    assert np.unique(np.abs(local.model[CONV])).tolist() == [0, pytest.approx((2 / 3) ** 0.5)]
    assert np.unique(np.abs(local.model[LINEAR])).tolist() == [0, pytest.approx((2 / 16) ** 0.5)]
    assert np.array_equal(np.sign(method.frozen()), np.sign(method.net.initial(1)))
    assert np.array_equal(method.model(floats(np.ones(N))), method.frozen())
    assert not method.model(floats(np.zeros(N))).any()
    untrained = make("fedpm", learning_rate=STILL).train(method.announce(method.start(), "a"), samples(), {}, 5)
    assert not np.array_equal(bits.decode(untrained.up, N), kept)


# signSGD and top-k.


def test_signsgd_moves_every_weight_by_a_step_along_the_majority() -> None:
    """Two of three for +1, one of three, and one of two: a tie goes up."""
    method = make("signsgd-mv", step=0.25)
    up, down = [update("abc"[i], join([bits.pack(chosen(*set_)), b""]), 1 + 9 * i) for i, set_ in enumerate([(0,), ()])]
    state = method.replica.start(np.zeros(N, dtype=np.float32))
    after = method.aggregate(state, [up, up, down])
    assert after["weights"].tolist() == [0.25, *[-0.25] * (N - 1)]
    assert method.aggregate(state, [up, down, down])["weights"].tolist() == [-0.25] * N
    assert method.aggregate(state, [up, down])["weights"].tolist() == [0.25, *[-0.25] * (N - 1)]


def test_signsgd_sends_the_signs_of_its_update_a_bit_each() -> None:
    """144 bits in 18 bytes and two lengths; down a byte of kind, a length and 18 bytes a round missed."""
    method = make("signsgd-mv")
    state = method.start()
    assert method.announce(state, "a") == b"\x01"
    local = method.train(b"\x01", samples(), {}, 5)
    assert len(local.up) == 18 + 8
    moved = local.model - method.net.initial(1)
    assert np.array_equal(bits.unpack(cut(local.up)[0], N), moved >= 0)
    state = method.aggregate(state, [update("a", local.up)])
    assert len(method.announce(state, "a")) == len(method.announce(state, "b")) == 1 + 4 + 18


@pytest.mark.parametrize(("name", "settings"), REPLICAS)
def test_a_device_that_missed_rounds_has_the_coordinators_weights(name: str, settings: dict[str, Any]) -> None:
    """To the last bit, whether it was there in every round, joined late, or came back after a while."""
    method, few = make(name, epochs=1, **settings), samples(count=3)
    state, memories = method.start(), {name: {} for name in "abc"}
    for number, devices in enumerate(("ac", "ab", "b", "ab", "b")):
        trained = {name: method.train(method.announce(state, name), few, memories[name], number) for name in devices}
        state = method.aggregate(state, [update(name, one.up) for name, one in trained.items()])
        memories |= {name: one.memory for name, one in trained.items()}
        for device, memory in memories.items():
            own = method.train(method.announce(state, device), few, memory, 99).memory["weights"]
            assert np.array_equal(own, state["weights"]), f"{device} after round {number}"
            assert np.array_equal(own, method.model(method.announce(state, None)))
    assert not np.array_equal(state["weights"], method.net.initial(1))


def test_a_device_is_never_sent_more_than_all_weights() -> None:
    """Five updates of 40 bytes are shorter than 100 weights and are kept; of 4 updates of 150 bytes only two are."""
    for size, rounds, expected in ((40, 5, 1 + 5 * 44), (150, 2, 1 + 2 * 154), (150, 3, 1 + 400), (150, 9, 1 + 400)):
        replica = Replica(size=100, apply=lambda w, u: w + np.float32(u[0]))
        state = replica.start(np.zeros(100, dtype=np.float32))
        for number in range(rounds):
            state = replica.advance(state, bytes([number + 1]) * size, told=["there"])
        down = replica.announce(state, "missed-all")
        assert len(down) == expected
        assert replica.receive(down, np.zeros(100, np.float32)).tolist() == [rounds * (rounds + 1) / 2] * 100
        assert len(replica.announce(state, "there")) == 1 + 4 + size, "who was there misses the last round only"
        assert sum(value.size for key, value in state.items() if key.startswith("update/")) <= 400


@pytest.mark.parametrize(("name", "settings"), REPLICAS[1:])
def test_what_is_not_sent_is_kept_for_the_next_round(name: str, settings: dict[str, Any]) -> None:
    """Sent + residual = update + residual before."""
    method = make(name, **settings)
    before = 0.01 * weights(4)
    memory = {"weights": weights(), "residual": before}
    local = method.train(b"\x01", samples(), memory, 5)
    wanted = local.model - weights() + before
    sent = np.zeros(N, dtype=np.float32)
    if name == "topk":
        kept, values = read_sparse(local.up, N)
        sent[kept] = values
    else:
        signs, scale = cut(local.up)
        assert read_floats(scale, 1)[0] == pytest.approx(np.abs(wanted).mean())
        assert np.array_equal(bits.unpack(signs, N), wanted >= 0)
        sent += read_floats(scale, 1) * np.where(bits.unpack(signs, N), 1, -1)
    np.testing.assert_allclose(sent + local.memory["residual"], wanted, rtol=0, atol=1e-6)
    assert np.abs(local.memory["residual"]).max() > 1e-3


def test_error_feedback_moves_by_the_mean_of_scaled_signs() -> None:
    """+3 and -1 make +1, -3 and -1 make -2."""
    method = make("signsgd-mv", error_feedback=True)
    state = method.replica.start(np.full(N, 10.0, dtype=np.float32))
    a = update("a", join([bits.pack(chosen(0)), floats(np.array([3.0]))]))
    b = update("b", join([bits.pack(chosen()), floats(np.array([1.0]))]))
    assert method.aggregate(state, [a, b])["weights"].tolist() == [11.0, *[8.0] * (N - 1)]


def test_topk_sends_the_largest_share() -> None:
    """A tenth of 144 are 14, by magnitude; equal ones from the first on; one at the least."""
    method = make("topk", share=0.1, learning_rate=STILL)
    residual = np.zeros(N, dtype=np.float32)
    residual[[7, 70, 143]] = [-9.0, 1.0, 5.0]
    local = method.train(b"\x01", samples(), {"weights": weights(), "residual": residual}, 5)
    kept, values = read_sparse(local.up, N)
    assert np.flatnonzero(kept).tolist() == [*range(12), 70, 143]
    assert values[values != 0].tolist() == [-9.0, 1.0, 5.0]
    assert not local.memory["residual"].any()
    one = make("topk", share=1e-6, learning_rate=STILL)
    local = one.train(b"\x01", samples(), {"weights": weights(), "residual": residual}, 5)
    assert np.flatnonzero(read_sparse(local.up, N)[0]).tolist() == [7]
    assert np.flatnonzero(local.memory["residual"]).tolist() == [70, 143]


def test_topk_moves_by_the_mean_of_what_was_sent() -> None:
    """A position that one of two devices sent moves by half of it; the rest stays."""
    method = make("topk")
    state = method.replica.start(np.full(N, 10.0, dtype=np.float32))
    a = update("a", sparse(np.full(N, 2.0, np.float32), chosen(0, 1)), 1)
    b = update("b", sparse(np.full(N, 4.0, np.float32), chosen(1)), 9)
    after = method.aggregate(state, [a, b])
    assert after["weights"].tolist() == [11.0, 13.0, *[10.0] * (N - 2)]


# FedMRN.


def test_fedmrn_sends_a_seed_and_a_mask_that_both_sides_read_alike() -> None:
    """What the coordinator makes of 8 + 18 bytes and their headers is what the device has, in every element."""
    method = make("fedmrn", noise=0.05, learning_rate=0.1)
    down = method.announce(method.start(), "a")
    assert len(down) == 4 * N
    local = method.train(down, samples(), {}, 5)
    assert len(local.up) <= 8 + 4 + 1 + 18 + 4
    move = make("fedmrn", noise=0.05).masked_noise(local.up)
    assert np.array_equal(method.net.initial(1) + move, local.model)
    noise = method.noise(5)
    assert np.array_equal(move, np.where(move != 0, noise, 0))
    assert 0 < np.count_nonzero(move) < N
    assert 0.045 < np.abs(noise).max() <= 0.05
    assert noise.all()
    assert abs(noise.mean()) < 0.01
    assert not np.array_equal(noise, method.noise(6))


def test_fedmrn_moves_by_the_mean_of_masked_noises() -> None:
    """Weighted by samples: one of a's noise, three of b's."""
    method = make("fedmrn")
    state = {"weights": weights()}
    a, b = (join([(7 + i).to_bytes(8, "little"), bits.encode(chosen(0, 1 + i))]) for i in range(2))
    after = method.aggregate(state, [update("a", a, 1), update("b", b, 3)])
    moved = after["weights"] - weights()
    expected = np.zeros(N)
    expected[:3] = (
        method.noise(7)[0] / 4 + 3 * method.noise(8)[0] / 4,
        method.noise(7)[1] / 4,
        0.75 * method.noise(8)[2],
    )
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-6)


def test_fedmrn_is_the_learned_update_on_average() -> None:
    """Between 0 and the noise in expectation the update itself, beyond it the noise, on the other side nothing."""
    data = samples(count=16)
    one_step = {"epochs": 1, "batch": 16, "learning_rate": 0.02}
    fedavg, fedmrn = make("fedavg", **one_step), make("fedmrn", noise=0.05, **one_step)
    down = fedavg.announce(fedavg.start(), "a")
    learned = fedavg.train(down, data, {}, 0).model - fedavg.model(down)  # a first step meets the same gradient
    differing, variance = 0.0, 0.0
    for seed in range(60):
        noise = fedmrn.noise(seed)
        kept = bits.decode(cut(fedmrn.train(down, data, {}, seed).up)[1], N)
        inside = (learned / noise).clip(0, 1)
        certain = (inside == 0) | (inside == 1)
        assert np.array_equal(kept[certain], inside[certain] == 1)
        size = np.abs(noise)
        differing += float((size * kept - size * inside).sum())
        variance += float((size**2 * inside * (1 - inside)).sum())
        assert np.count_nonzero(~certain) > 20
    assert abs(differing) < 3 * variance**0.5


# HideNseek.


def test_hidenseek_is_what_devices_and_the_coordinator_do() -> None:
    """Ticket, training and votes are those of prune, edge_client.trainer and coordinator.aggregate, bit for bit."""
    method = make("hidenseek-signs", density=0.5, block=2, passes=3, learning_rate=0.03, memory=0.25, epochs=2)
    ticket = prune(PLAN, density=0.5, seed=1, block=2, passes=3)
    assert method.ticket.id == ticket.id
    training = Training(learning_rate=0.03, epochs=2)
    runtime = registry.open_runtime(make_bundle(ticket, registry.available()[0], training), training)
    state, votes, ends = method.start(), mask.unanimous(ticket.kept), ticket.ends
    before = votes
    for number in range(3):
        sent = method.announce(state, "a")
        assert sent == mask.encode_votes(votes, ends, before), "devices have heard the votes before"
        down = method.hear(state, "a", sent)
        assert down == method.announce(state, None) == mask.encode_votes(votes, ends)
        assert np.array_equal(method.model(down).multipliers, votes.mean), (
            "the global network: every weight by its mean vote"
        )
        updates, signs = [], []
        for device in "ab":
            data, start = samples(ord(device)), votes.start_scores(0.1)
            prior = log_prior(data.y, PLAN.classes)
            *_, trained = train(runtime, data.x, data.y, prior=prior, training=training, start=start, seed=number)
            assert trained is not None
            local = method.train(down, data, {}, number)
            assert np.array_equal(local.model.multipliers, np.where(trained.signs, 1, -1)), "a device's own network"
            assert np.array_equal(local.model.log_prior, prior)
            assert local.loss == trained.loss
            assert local.up == mask.encode_signs(trained.signs, votes, ends)
            updates.append(update(device, local.up))
            signs.append(trained.signs)
        state, votes, before = method.aggregate(state, updates), next_votes(votes, signs, 0.25), votes
    nothing = Network(multipliers=np.zeros(ticket.kept, dtype=np.float32))
    assert not method.logits(nothing, samples().x).any(), "not their signs alone"
    assert not votes.signs.all()
    assert np.array_equal(state["signs"], votes.signs)
    assert np.array_equal(state["dissent"], votes.dissent)


def test_hidenseek_paper_starts_from_the_untouched_random_network() -> None:
    """With nothing pruned its first announcement is the network that FedAvg starts from."""
    paper, fedavg = make("hidenseek-paper", density=1.0), make("fedavg")
    ours = paper.logits(paper.model(paper.announce(paper.start(), None)), samples().x)
    theirs = fedavg.logits(fedavg.start()["weights"], samples().x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_hidenseek_paper_sends_a_bit_a_weight_down() -> None:
    """72 of 144 weights are kept: 9 bytes and a header at the most."""
    method = make("hidenseek-paper", density=0.5)
    signs = np.random.default_rng(0).random(72) < 0.5
    down = method.announce({"signs": signs}, "a")
    assert len(down) == 1 + 9
    assert np.array_equal(method.model(down).multipliers, np.where(signs, 1, -1))
    assert len(method.announce(method.start(), "a")) == 5, "all +1 takes no more than the header"


def test_hidenseek_paper_takes_the_majority_of_samples_and_keeps_a_ties_sign() -> None:
    """5 samples outvote 2 + 2; 2 + 3 against 5 is a tie about weights 2 and 3, which stay as they were."""
    method = make("hidenseek-paper", density=0.5)
    before = chosen(*range(3), of=72)
    said = {"a": (5, chosen(0, 2, of=72)), "b": (2, chosen(1, 3, of=72)), "c": (2, chosen(1, 3, of=72))}
    updates = [
        update(name, mask.encode_signs(one, mask.certain(before), method.ticket.ends), count)
        for name, (count, one) in said.items()
    ]
    assert np.flatnonzero(method.aggregate({"signs": before}, updates)["signs"]).tolist() == [0, 2]
    tied = [*updates[:2], update("c", updates[2].payload, 3)]
    assert np.flatnonzero(method.aggregate({"signs": before}, tied)["signs"]).tolist() == [0, 1, 2]


def test_hidenseek_paper_trains_from_the_global_signs() -> None:
    """Scores start at +-start: one step of Adam, as long as the learning rate, flips none below it and some above."""
    signs = np.random.default_rng(0).random(72) < 0.5
    flips = []
    for learning_rate in (0.2, 0.3):
        method = make("hidenseek-paper", density=0.5, start=0.25, epochs=1, batch=32, learning_rate=learning_rate)
        local = method.train(method.announce({"signs": signs}, "a"), samples(), {}, 5)
        after = mask.decode_signs(local.up, mask.certain(signs), method.ticket.ends)
        assert np.array_equal(local.model.multipliers, np.where(after, 1, -1))
        flips.append(np.count_nonzero(after != signs))
    assert flips[0] == 0
    assert 10 < flips[1] < 62
