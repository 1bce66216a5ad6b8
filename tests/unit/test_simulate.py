"""Simulating a federation: what a run writes, that it can be taken up, and that it is the real one."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coordinator import baselines, simulate
from coordinator.baselines.hidenseek_signs import Network
from coordinator.baselines.method import Method, Samples, State, Task, Update, make_settings
from coordinator.datasets.dataset import DeviceData, FederatedData, Scale
from coordinator.federation import Federation, prepare
from coordinator.journal import Row
from coordinator.prune import prune
from coordinator.rounds import Schedule
from coordinator.store import Store
from edge_client.data import load
from edge_client.runtimes import registry
from tests.helpers import federation_channel
from tests.integration.fleet import write_person
from tests.integration.test_memory_federation import Watcher, start_device
from wire import mask
from wire.errors import ConfigError, StateError
from wire.layers import Conv, Flatten, Linear, MaxPool, Relu
from wire.plan import Plan
from wire.prng import mix
from wire.settings import Training
from wire.transport import MemoryBus

PLAN = Plan(
    name="tiny",
    input_shape=(2, 8),
    layers=(
        Conv(out_channels=8, kernel=(3,), stride=(1,), padding=(1,)),
        Relu(),
        MaxPool(kernel=(2,), stride=(2,)),
        Flatten(),
        Linear(out_features=3),
    ),
)
DEVICES = ("pi-1", "pi-2", "pi-3")
SETTINGS: dict[str, dict[str, Any]] = {  # with which five rounds on 144 weights show that they learn
    "hidenseek": {"density": 0.5, "block": 1, "passes": 5, "learning_rate": 0.06, "epochs": 2},
    "hidenseek-signs": {"density": 0.5, "block": 1, "passes": 5, "learning_rate": 0.03},
    "hidenseek-paper": {"density": 0.5, "learning_rate": 0.03},
    "local-only": {},
    "fedavg": {},
    "fedmask": {"density": 0.5, "learning_rate": 0.03},
    "lotteryfl": {"density": 0.5, "learning_rate": 0.03},
    "fedpm": {"learning_rate": 0.3, "epochs": 4},
    "signsgd-mv": {"step": 0.02},
    "topk": {"share": 0.2},
    "fedmrn": {"noise": 0.05},
}
MEASURED = {"wall_s", "cpu_s", "peak_kb"}  # all that may differ between two runs
every_method = pytest.mark.parametrize("name", baselines.names())


class Killed(Exception):
    """The power is cut."""


@pytest.fixture(autouse=True)
def arithmetic() -> Iterator[None]:
    """A simulation in this process sets torch's threads and what becomes of the smallest numbers: set them back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


def toy(*, unseen: bool = True) -> FederatedData:
    """Three devices and one unseen person with noisy copies of three patterns."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(3, 2, 8))

    def some(count: int) -> tuple[Any, Any]:
        y = np.arange(count) % 3
        return (patterns[y] + 0.5 * rng.normal(size=(count, 2, 8))).astype(np.float32), y

    devices = {}
    for name in DEVICES:
        (x_train, y_train), (x_test, y_test) = some(24), some(9)
        devices[name] = DeviceData(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return FederatedData(
        name="toy",
        how="toy",
        class_names=("a", "b", "c"),
        input_shape=(2, 8),
        scale=Scale(mean=(0.0, 0.0), deviation=(1.0, 1.0)),
        devices=devices,
        unseen=some(12) if unseen else None,
    )


def maker(name: str, cls: type[Method[Any]] | None = None, **settings: Any) -> Callable[[], Any]:
    """What makes a method on the tiny network."""
    made = cls or baselines.get(name)
    task = Task(plan=PLAN, devices=DEVICES, seed=1)
    return lambda: made(task, make_settings(made.Config, SETTINGS[name] | settings))


def plan(rounds: int, per_round: int, *, seed: int = 4, evaluate_every: int = 2, workers: int = 1) -> simulate.Plan:
    """So many rounds with so many of the three devices."""
    schedule = Schedule(
        rounds=rounds, per_round=per_round, quorum=per_round, deadline_s=1.0, start_devices=3, seed=seed
    )
    return simulate.Plan(schedule=schedule, evaluate_every=evaluate_every, workers=workers)


def simulated(
    make: Callable[[], Method[Any]],
    folder: Path,
    how: simulate.Plan,
    report: Callable[[Row], None] = lambda row: None,
    data: FederatedData | None = None,
    **about: Any,
) -> list[Row]:
    """Run it on the toy data."""
    return simulate.run(make, data or toy(), how, folder=folder, about=about, report=report)


def lasting(rows: list[Row]) -> list[Row]:
    """Rows without what was measured by a clock or counted by the kernel."""
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


# Every method.


@every_method
def test_a_method_learns_and_its_bytes_are_counted(name: str, tmp_path: Path) -> None:
    """The loss falls; messages take their payloads and less than 130 bytes each, signature included, and a receipt."""
    sent: list[bytes] = []

    def announce(self: Method[Any], state: State, device: str | None) -> bytes:
        down: bytes = baselines.get(name).announce(self, state, device)
        if device is not None:
            sent.append(down)
        return down

    recording = type("Recording", (baselines.get(name),), {"announce": announce})
    reported: list[Row] = []
    rows = simulated(maker(name, recording), tmp_path, plan(5, 3), reported.append)
    assert reported == rows
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[-1]["personalised"] > 0.7
    assert len(sent) == 15
    for row in rows:
        assert row["selected"] == 3
        if name == "local-only":
            assert (row["up_bytes"], row["down_bytes"], row["payload_bytes"], row["seen"]) == (0, 0, 0, None)
            continue
        announced = sum(map(len, sent[3 * row["round"] - 3 : 3 * row["round"]]))
        assert 3 * 100 < row["up_bytes"] - row["payload_bytes"] < 3 * 130
        assert 3 * 180 < row["down_bytes"] - announced < 3 * 220
    if name != "local-only":
        assert rows[-1]["seen"] > 0.7


def same(first: Any, second: Any) -> bool:
    """The same network: an array, or the fields of a `Network`."""
    if isinstance(first, Network):
        return bool(
            np.array_equal(first.multipliers, second.multipliers) and np.all(first.log_prior == second.log_prior)
        )
    return bool(np.array_equal(first, second))


@every_method
def test_the_same_seed_makes_the_same_bytes(name: str) -> None:
    """Whatever other random numbers were drawn before; another seed makes another network."""
    data = toy().devices["pi-1"]
    samples = Samples(x=data.x_train, y=data.y_train)
    trained = []
    for disturbance, seed in ((1, 7), (2, 7), (3, 8)):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)  # what must not matter
        method = maker(name)()
        down = method.announce(method.start(), "pi-1")
        trained.append((down, method.train(down, samples, {}, seed)))
    (down, first), (again, second), (_, third) = trained
    assert down == again
    assert first.up == second.up
    assert first.loss == second.loss
    assert same(first.model, second.model)
    assert first.memory.keys() == second.memory.keys()
    assert all(np.array_equal(first.memory[key], second.memory[key]) for key in first.memory)
    assert not same(first.model, third.model)


@every_method
def test_a_method_can_be_pickled_after_it_has_worked(name: str) -> None:
    """Worker processes get a copy that trains to the same bytes and reads the same global network."""
    data = toy().devices["pi-1"]
    samples = Samples(x=data.x_train, y=data.y_train)
    method = maker(name)()
    down = method.announce(method.start(), "pi-1")
    local = method.train(down, samples, {}, 7)
    copy = pickle.Unpickler(BytesIO(pickle.dumps(method))).load()
    assert copy is not method
    assert copy.train(down, samples, {}, 7).up == local.up
    assert np.array_equal(copy.logits(local.model, samples.x), method.logits(local.model, samples.x))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "hidenseek")) for name in baselines.names()]
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(name: str, tmp_path: Path) -> None:
    """Killed after round 2 and started again: the rows of an uninterrupted run, devices' memory included."""
    whole = simulated(maker(name), tmp_path / "whole", plan(4, 2))

    def kill(row: Row) -> None:
        if row["round"] == 2:
            raise Killed

    with pytest.raises(Killed):
        simulated(maker(name), tmp_path / "cut", plan(4, 2), kill)
    later: list[Row] = []
    rows = simulated(maker(name), tmp_path / "cut", plan(4, 2), later.append)
    assert [row["round"] for row in later] == [3, 4]
    assert rows[2:] == later
    assert lasting(rows) == lasting(whole)
    written = (tmp_path / "cut" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == rows


@every_method
def test_no_samples_have_no_logits(name: str) -> None:
    """A device without test samples takes part all the same."""
    method = maker(name)()
    data = toy().devices["pi-1"]
    local = method.train(method.announce(method.start(), "pi-1"), Samples(x=data.x_train, y=data.y_train), {}, 7)
    assert method.logits(local.model, data.x_test[:0]).shape == (0, 3)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["local-only", "fedavg", "lotteryfl", "signsgd-mv", "topk", "fedmrn"])
def test_a_run_that_diverges_comes_to_its_end(name: str, tmp_path: Path) -> None:
    """With an absurd learning rate the rows say so in finite numbers."""
    rows = simulated(maker(name, learning_rate=1e10), tmp_path, plan(3, 3))
    assert len(rows) == 3
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert max(row["loss"] for row in rows) >= 1e6


# Taking up a run.


def test_a_half_written_row_is_dropped(tmp_path: Path) -> None:
    """Killed while the row of round 3 is written, its files being there already: round 3 is played again."""
    killed = tmp_path / "killed"

    def snapshot(row: Row) -> None:
        if row["round"] in (2, 3):  # what is there after round 2 stays when that of round 3 comes
            shutil.copytree(tmp_path / "whole", killed, dirs_exist_ok=True)

    whole = simulated(maker("topk"), tmp_path / "whole", plan(5, 2), snapshot)
    journal = killed / "rounds.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 3
    journal.write_text("".join([*lines[:2], lines[2][:40]]))
    later: list[Row] = []
    rows = simulated(maker("topk"), killed, plan(5, 2), later.append)
    assert [row["round"] for row in later] == [3, 4, 5]
    assert lasting(rows) == lasting(whole)
    assert len(journal.read_text().splitlines()) == 5


def test_a_finished_run_is_read_and_not_played(tmp_path: Path) -> None:
    """Not even its method is made."""
    rows = simulated(maker("fedavg"), tmp_path, plan(2, 2))

    def never() -> Any:
        raise AssertionError("made")

    assert simulated(never, tmp_path, plan(2, 2)) == rows


def test_two_at_one_run_are_refused(tmp_path: Path) -> None:
    """The second is told, and can have it once the first has ended."""

    def meanwhile(row: Row) -> None:
        with pytest.raises(StateError, match=r"another process is simulating this very run.*--out"):
            simulated(maker("fedavg"), tmp_path, plan(2, 2))

    first = simulated(maker("fedavg"), tmp_path, plan(2, 2), report=meanwhile)
    assert len(first) == 2
    assert simulated(maker("fedavg"), tmp_path, plan(2, 2)) == first


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    """The error names what differs, and nothing is overwritten."""
    simulated(maker("fedavg"), tmp_path, plan(1, 2), method="fedavg", settings={"epochs": 2})
    before = (tmp_path / "rounds.jsonl").read_bytes()
    with pytest.raises(StateError, match=r"holds another run: method, settings differ.*--out"):
        simulated(maker("topk"), tmp_path, plan(1, 2), method="topk", settings={"epochs": 3})
    with pytest.raises(StateError, match="holds another run: schedule differ"):
        simulated(maker("fedavg"), tmp_path, plan(1, 2, seed=5), method="fedavg", settings={"epochs": 2})
    how = plan(1, 2, evaluate_every=1)
    with pytest.raises(StateError, match="holds another run: evaluate_every differ"):
        simulated(maker("fedavg"), tmp_path, how, method="fedavg", settings={"epochs": 2})
    assert (tmp_path / "rounds.jsonl").read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "half"])
def test_a_damaged_state_is_named(damage: str, tmp_path: Path) -> None:
    """The file that cannot be read is in the error."""

    def kill(row: Row) -> None:
        raise Killed

    with pytest.raises(Killed):
        simulated(maker("fedavg"), tmp_path, plan(2, 2), kill)
    path = tmp_path / "state.00001.npz"
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "text": b"not an archive", "half": whole[: len(whole) // 2]}[damage])
    with pytest.raises(StateError, match=r"state\.00001\.npz: cannot be read"):
        simulated(maker("fedavg"), tmp_path, plan(2, 2))


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    """A run.json cut short is a StateError."""
    (tmp_path / "run.json").write_text('{"schedule": ')
    with pytest.raises(StateError, match=r"run\.json: not JSON"):
        simulated(maker("fedavg"), tmp_path, plan(1, 2))


# Rounds.


def test_the_global_network_is_tried_every_so_often_and_after_each_of_the_last_five(tmp_path: Path) -> None:
    """Of twelve rounds after 3, 6, 8, 9, 10, 11 and 12, if every third is asked for."""
    rows = simulated(maker("fedavg"), tmp_path / "a", plan(12, 1, evaluate_every=3))
    assert [row["round"] for row in rows if row["seen"] is not None] == [3, 6, 8, 9, 10, 11, 12]
    assert [row["round"] for row in rows if row["unseen"] is not None] == [3, 6, 8, 9, 10, 11, 12]
    alone = simulated(maker("fedavg"), tmp_path / "b", plan(1, 1), data=toy(unseen=False))
    assert alone[0]["seen"] is not None
    assert alone[0]["unseen"] is None


def test_accuracies_are_counted_on_the_right_samples(tmp_path: Path) -> None:
    """seen: all test samples with the global network; unseen: the others'; personalised: one's own with one's own."""
    method, data = maker("fedavg")(), toy()
    (row,) = simulated(maker("fedavg"), tmp_path, plan(1, 3, seed=9))
    down = method.announce(method.start(), None)
    updates, personalised = [], []
    for name, one in data.devices.items():
        local = method.train(down, Samples(x=one.x_train, y=one.y_train), {}, mix(9, 1, name))
        personalised.append(method.logits(local.model, one.x_test).argmax(axis=1) == one.y_test)
        updates.append(Update(device=name, samples=24, payload=local.up))
    weights = method.aggregate(method.start(), updates)["weights"]
    seen = [method.logits(weights, one.x_test).argmax(axis=1) == one.y_test for one in data.devices.values()]
    assert data.unseen is not None
    unseen = method.logits(weights, data.unseen[0]).argmax(axis=1) == data.unseen[1]
    assert row["personalised"] == np.mean(personalised)
    assert row["seen"] == np.mean(seen)
    assert row["unseen"] == np.mean(unseen)
    assert len({row["personalised"], row["seen"], row["unseen"]}) == 3, "or a confusion would not be noticed"


def test_per_round_devices_are_drawn_by_the_seed(tmp_path: Path) -> None:
    """Two of three devices in a round; all three within ten; another seed draws others."""
    drawn: dict[int, list[tuple[str, ...]]] = {}

    class Noting(baselines.get("local-only")):  # type: ignore[misc]
        def announce(self, state: State, device: str | None) -> bytes:
            names.append(device)
            return b""

    for seed in (4, 5):
        names: list[str | None] = []
        simulated(maker("local-only", Noting, epochs=1), tmp_path / str(seed), plan(10, 2, seed=seed))
        drawn[seed] = [tuple(map(str, names[at : at + 2])) for at in range(0, 20, 2)]
    assert all(pair == tuple(sorted(set(pair))) for pairs in drawn.values() for pair in pairs)
    assert {name for pair in drawn[4] for name in pair} == set(DEVICES)
    assert drawn[4] != drawn[5]


def test_more_devices_a_round_than_there_are_is_refused(tmp_path: Path) -> None:
    """Four of three: a ConfigError that names the option, and no folder that another run then meets."""
    with pytest.raises(ConfigError, match=r"--per-round: 4 .* 3"):
        simulated(maker("local-only"), tmp_path / "run", plan(1, 4))
    assert not (tmp_path / "run").exists()


def without_tests(*names: str) -> FederatedData:
    """The toy data, these devices and nobody unseen without test samples."""
    data = toy(unseen=False)
    for name in names:
        one = data.devices[name]
        none = {"x_test": one.x_test[:0], "y_test": one.y_test[:0]}
        data.devices[name] = DeviceData(x_train=one.x_train, y_train=one.y_train, **none)
    return data


def test_devices_without_test_samples_do_not_count(tmp_path: Path) -> None:
    """Accuracy is over the test samples there are: 18 if one of three devices has none, unknown if all."""
    (row,) = simulated(maker("fedavg"), tmp_path / "one", plan(1, 3), data=without_tests("pi-2"))
    assert row["personalised"] * 18 == pytest.approx(round(row["personalised"] * 18))
    assert row["seen"] * 18 == pytest.approx(round(row["seen"] * 18))
    (row,) = simulated(maker("fedavg"), tmp_path / "all", plan(1, 3), data=without_tests(*DEVICES))
    assert (row["personalised"], row["seen"], row["unseen"]) == (None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hidenseek", "topk"])
def test_processes_change_nothing(name: str, tmp_path: Path) -> None:
    """Two workers come to the rows of one."""
    alone = simulated(maker(name), tmp_path / "one", plan(4, 3))
    assert lasting(simulated(maker(name), tmp_path / "two", plan(4, 3, workers=2))) == lasting(alone)


# The real one.


@pytest.mark.parametrize("dithered", [0.0, 0.3])
def test_a_simulation_comes_to_the_signs_of_the_real_federation(dithered: float, tmp_path: Path) -> None:
    """Round by round, sign by sign and vote by vote, over real messages, clients and a database; and in coded bytes."""
    network = Plan(
        name="small",
        input_shape=(6, 128),
        layers=(
            Conv(out_channels=8, kernel=(9,), stride=(4,), padding=(4,)),
            Relu(),
            MaxPool(kernel=(4,), stride=(4,)),
            Flatten(),
            Linear(out_features=6),
        ),
    )
    schedule = Schedule(rounds=4, per_round=2, quorum=2, deadline_s=60.0, start_devices=3, seed=11)
    training = Training(epochs=2, learning_rate=0.03, dither=dithered)
    runtime = registry.available()[0]
    ticket = prune(network, density=0.3, seed=5, passes=10)

    store, bus = Store(tmp_path / "db"), MemoryBus()
    watcher = Watcher()
    federation = Federation(name="t", ticket=ticket, training=training, schedule=schedule, runtimes=(runtime,))
    coordinator = prepare(federation, store=store, channel=federation_channel(bus), observer=watcher)
    threads = [start_device(bus, name, tmp_path, runtime) for name in DEVICES]
    final = coordinator.serve()
    for thread in threads:
        thread.join(timeout=20)
    assert watcher.remarks == []
    run = store.newest_run()
    assert run is not None
    announced = [(one.selected, mask.decode_votes(one.votes, ticket.ends)) for one in store.rounds(run.id)]
    assert len(announced) == 5

    people = {name: load(write_person(tmp_path / "data" / name, seed=sum(name.encode()))) for name in DEVICES}
    data = FederatedData(
        name="made up",
        how="",
        class_names=tuple("abcdef"),
        input_shape=(6, 128),
        scale=Scale(mean=(0.0,) * 6, deviation=(1.0,) * 6),
        devices={
            name: DeviceData(x_train=one.x_train, y_train=one.y_train, x_test=one.x_test, y_test=one.y_test)
            for name, one in people.items()
        },
        unseen=None,
    )
    played: list[tuple[tuple[str, ...], State]] = []

    class Noting(baselines.get("hidenseek-signs")):  # type: ignore[misc]
        def aggregate(self, state: State, updates: list[Update]) -> State:
            after: State = super().aggregate(state, updates)
            played.append((tuple(one.device for one in updates), after))
            coded = store.masks(run.id, len(played))
            assert {one.device: one.payload for one in updates} == coded
            return after

    chosen = {"density": 0.3, "passes": 10, "epochs": 2, "learning_rate": 0.03, "dither": dithered}
    settings = make_settings(Noting.Config, chosen)
    rows = simulate.run(
        lambda: Noting(Task(plan=network, devices=DEVICES, seed=5), settings),
        data,
        simulate.Plan(schedule=schedule),
        folder=tmp_path / "simulated",
        about={},
        report=lambda row: None,
    )
    for number, (selected, after) in enumerate(played):
        votes = announced[number + 1][1]
        assert selected == announced[number][0]
        assert np.array_equal(after["signs"], votes.signs), f"signs after round {number + 1}"
        assert np.array_equal(after["dissent"], votes.dissent), f"dissent after round {number + 1}"
        assert after["voters"] == votes.voters
    assert np.array_equal(played[-1][1]["signs"], final.signs)
    assert not final.signs.all(), "some signs have flipped"
    assert len({selected for selected, _ in played}) > 1, "not always the same two"
    for row in rows:
        real = sum(size for _, number, size in watcher.masks if number == row["round"])
        assert abs(row["up_bytes"] - real) <= 2 * 20, "but for durations and memory, whose numbers vary in length"
