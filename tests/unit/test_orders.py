"""What a person wants of runs, in the database: checked, worded, and heeded by a coordinator at work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator import cli, orders
from coordinator.config import DevicesFile
from coordinator.federation import DATABASE
from coordinator.orders import Orders
from coordinator.rounds import CHANGEABLE
from coordinator.store import Store
from tests.integration.stage import Stage
from wire.errors import ConfigError, StateError
from wire.federation_messages import Federation, Round

LISTED = DevicesFile()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A run of five rounds."""
    stage = Stage(tmp_path, rounds=5)
    yield stage
    stage.store.close()


@pytest.fixture
def beside(stage: Stage) -> Iterator[Store]:
    """The database as a command or the page opens it."""
    with closing(Store(stage.store.place)) as store:
        yield store


def test_a_run_gets_more_rounds_while_it_goes_on(stage: Stage, beside: Store) -> None:
    """Devices are told, the run ends after as many, and what it began with is still known."""
    stage.acts[3] = lambda stage, opened: orders.change(beside, {"rounds": 7, "deadline_s": 90})
    votes = stage.play()
    rounds = stage.store.rounds(stage.run_id)
    assert [one.number for one in rounds] == list(range(1, 9))
    assert votes.digest == stage.expected().digest
    told = [message.rounds for _, message in stage.told if isinstance(message, Federation)]
    assert (told[0], told[-1]) == (5, 7)
    assert [message.number for _, message in stage.told if isinstance(message, Round) and message.final] == [8]
    assert stage.coordinator.schedule.deadline_s == 90
    assert '"rounds": 5' in stage.store.runs()[0].settings


def test_a_run_is_stopped_with_what_its_closed_rounds_came_to(stage: Stage, beside: Store) -> None:
    """Masks of the open round are not counted; devices hear the result, and the next start is another run."""
    stage.acts[3] = lambda stage, opened: orders.stop(beside)
    votes = stage.play()
    rounds = stage.store.rounds(stage.run_id)
    assert votes.digest == stage.votes[max(stage.votes)].digest
    final = [message for _, message in stage.told if isinstance(message, Round) and message.final]
    assert [message.number for message in final] == [rounds[-1].number]
    assert final[0].selected == ()
    assert len([one for one in rounds if one.closed_s is not None]) < 5
    assert stage.store.unfinished_run() is None
    assert orders.stop(beside) == "no run goes on"


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"quorum": 4}, "quorum", "quorum is 4, but only 3 devices are selected a round"),
        ({"rounds": 0}, "rounds", "federation.rounds: 0 found, should be greater than or equal to 1"),
        ({"deadline_s": "soon"}, "deadline_s", "federation.deadline_s: 'soon' found, should be a valid number"),
        (
            {"density": 0.5},
            "density",
            f"density cannot be changed while a run goes on. Known: {', '.join(sorted(CHANGEABLE))}",
        ),
        ({"round": 3}, "round", "round cannot be changed while a run goes on. Did you mean 'rounds'?"),
    ],
)
def test_what_cannot_be_is_said_of_its_setting(
    beside: Store, changes: dict[str, object], name: str, words: str
) -> None:
    """In the words of devices.yaml, and nothing is changed."""
    with pytest.raises(ConfigError) as caught:
        orders.change(beside, changes)
    assert (caught.value.setting, str(caught.value)) == (name, words)
    assert orders.changed(beside, beside.runs()[0].id) == {}


def test_rounds_that_have_been_are_not_taken_back(stage: Stage, beside: Store) -> None:
    """Nor is what counted before the first of them."""
    wrong: list[str] = []

    def act(stage: Stage, opened: Round) -> None:
        for changes in ({"rounds": 2}, {"start_devices": 1}):
            with pytest.raises(ConfigError) as caught:
                orders.change(beside, changes)
            wrong.append(str(caught.value))

    stage.acts[3] = act
    stage.play()
    assert wrong == [
        "rounds is 2, but round 3 is under way",
        "start_devices does not count any more: the first round has opened",
    ]
    with pytest.raises(StateError, match="no run goes on"):
        orders.change(beside, {"rounds": 9})


def test_fewer_rounds_than_have_opened_meanwhile_are_not_had(stage: Stage, beside: Store) -> None:
    """A round may open between the check and the coordinator's look."""
    begun = stage.coordinator.schedule
    assert orders.change(beside, {"rounds": 1}) == "changed: rounds 1"
    assert orders.change(beside, {"rounds": 1}) == "nothing is changed"
    stage.store.open_round(stage.run_id, 2, ("pi-1",), b"")
    assert Orders(beside, stage.run_id, begun).schedule().rounds == 2
    stage.store.close_round(stage.run_id, 2)
    assert Orders(beside, stage.run_id, begun).schedule().rounds == 3


def test_a_run_is_asked_for_once_the_one_before_is_over(beside: Store) -> None:
    """With checked settings, which are kept; a later wish takes the place of the first."""
    with pytest.raises(StateError, match=r"goes on\..*Stop it first: hidenseek runs stop"):
        orders.ask(beside, LISTED, {})
    orders.stop(beside)
    assert orders.asked(beside) is None
    for changes, words in (
        ({"per_round": 4}, "quorum is 8, but only 4 devices are selected a round"),
        ({"training.epochs": 0}, "federation.training.epochs: 0 found, should be greater than or equal to 1"),
        ({"training.epoch": 1}, "federation.training.epoch: no such setting. Did you mean 'epochs'?"),
        ({"rounds.x": 1}, "federation.rounds: {'x': 1} found"),
        ({"name": "other"}, "name is for devices.yaml to say"),
    ):
        with pytest.raises(ConfigError) as caught:
            orders.ask(beside, LISTED, changes)
        assert str(caught.value).startswith(words)
    orders.ask(beside, LISTED, {"rounds": 3})
    orders.ask(beside, LISTED, {"rounds": 4, "training.epochs": 2})
    assert orders.asked(beside) == {"rounds": 4, "training.epochs": 2}


def test_the_command_line_does_the_same(stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`hidenseek runs set`, `stop` and `start`."""
    (tmp_path / "devices.yaml").write_text("federation: {rounds: 9}\n")
    where = ["--state", str(tmp_path), "--config", str(tmp_path / "devices.yaml")]
    assert stage.store.place == tmp_path / DATABASE

    def run(*words: str) -> tuple[int, str]:
        code = cli.main(["runs", *words, *where])
        said = capsys.readouterr()
        return code, (said.out + said.err).strip()

    assert run("set", "rounds=8", "deadline_s=1.5") == (0, "changed: rounds 8, deadline_s 1.5")
    assert "quorum is 9, but only 3" in run("set", "quorum=9")[1]
    assert "'rounds' is no setting" in run("set", "rounds")[1]
    assert run("stop") == (0, f"run {stage.run_id.hex()} is stopped")
    code, said = run("start", "rounds=2", "training.epochs=3")
    assert code == 0
    assert said.startswith("a new run is to be started")
    assert orders.asked(stage.store) == {"rounds": 2, "training.epochs": 3}


def test_orders_are_kept_in_each_kind_of_database(store: Store) -> None:
    """A file, or a server."""
    schedule = dict.fromkeys((*CHANGEABLE, "attempts", "seed"), 3)
    settings = json.dumps({"schedule": schedule, "asynchrony": None, "defend": True, "memory": 0.0})
    store.start_run(run=b"12345678", name="t", ticket=b"", settings=settings, bundle_bytes=1)
    orders.begin(store, b"12345678", {"seed": 3})
    for rounds in (8, 9):
        assert orders.change(store, {"rounds": rounds}) == f"changed: rounds {rounds}"
    assert orders.changed(store, b"12345678") == {"rounds": 9}
    assert orders.begun_with(store, b"12345678") == {"seed": 3}
    orders.stop(store)
    orders.ask(store, LISTED, {"rounds": 2})
    orders.ask(store, LISTED, {"rounds": 3})
    assert orders.asked(store) == {"rounds": 3}
    orders.withdraw(store)
    assert orders.asked(store) is None
