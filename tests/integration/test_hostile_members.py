"""A device that a person has revoked, restored or forgotten, while the federation goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator import presence
from coordinator.cli import main as workstation
from tests.integration.stage import HONEST, Stage
from wire.federation_messages import Refusal, Round, State, Welcome

ROUNDS = 5
LOST = "pi-3"


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Stage, dict[int, tuple[str, ...]]]:
    """Five rounds: in each a person does something, by the program that people use."""
    monkeypatch.setattr(presence, "REVOCATIONS_S", 0.0)
    selected: dict[int, tuple[str, ...]] = {}

    def fleet(action: str, device: str) -> None:
        assert workstation(["fleet", action, device, "--state", str(tmp_path)]) == 0

    def revoke(stage: Stage) -> None:
        fleet("revoke", LOST)

    def still_there(stage: Stage) -> None:
        stage.say(LOST, "mask", stage.mask(LOST, 2))
        stage.say(LOST, "hello", stage.hello(LOST, greetings=2))

    def restore(stage: Stage) -> None:
        fleet("restore", LOST)

    def back(stage: Stage) -> None:
        stage.say(LOST, "hello", stage.hello(LOST, greetings=3))

    def replace_card(stage: Stage) -> None:
        fleet("forget", "pi-2")
        stage.keys["pi-2"] = b"of the new card, made on first start"[:32]
        stage.say("pi-2", "hello", stage.hello("pi-2", greetings=1))

    def act(do: Callable[[Stage], None]) -> Callable[[Stage, Round], None]:
        def acted(stage: Stage, opened: Round) -> None:
            selected[opened.number] = opened.selected
            do(stage)

        return acted

    acts = {number: act(do) for number, do in enumerate((revoke, still_there, restore, back, replace_card), 1)}
    stage = Stage(tmp_path, acts=acts, rounds=ROUNDS, deadline_s=1.0)
    stage.play()
    return stage, selected


@pytest.mark.slow
def test_revoked_restored_and_forgotten(played: tuple[Stage, dict[int, tuple[str, ...]]]) -> None:
    """Not selected and not believed from the next round on; back when restored; a new key when forgotten."""
    stage, selected = played
    assert selected[1] == HONEST
    assert selected[2] == selected[3] == ("pi-1", "pi-2")
    assert stage.counted(2) == stage.counted(3) == ["pi-1", "pi-2"]
    assert any("hns/t/up/pi-3/mask: 'pi-3' takes part no more" in remark for remark in stage.watcher.remarks)
    refusals = [message for topic, message in stage.told if isinstance(message, Refusal)]
    assert {one.code for one in refusals} == {"revoked"}
    assert all(one.instance == stage.hello(LOST).instance for one in refusals)
    assert selected[5] == HONEST
    assert stage.counted(5) == sorted(HONEST), "with the key of the new card"
    welcomed = [topic for topic, message in stage.told if isinstance(message, Welcome)]
    assert welcomed.count("hns/t/down/pi-2") == 2
    assert welcomed.count("hns/t/down/pi-3") == 2


def test_a_broker_that_repeats_what_devices_said_of_their_presence(tmp_path: Path) -> None:
    """Nobody looks asleep who is awake: all are selected in every round."""
    selected: list[tuple[str, ...]] = []
    said: list[tuple[str, bytes]] = []

    def reconnected(stage: Stage, opened: Round) -> None:
        selected.append(opened.selected)
        for device in HONEST:
            instance = stage.hello(device).instance
            gone = State(instance=instance, online=False, connection=opened.number)
            said.append((f"hns/t/up/{device}/state", stage.say(device, "state", gone)))
            more = {"greetings": 1 + opened.number, "connection": 1 + opened.number}
            stage.say(device, "hello", stage.hello(device, **more))
        for topic, packet in said:
            stage.put(topic, packet)

    rounds = 3
    stage = Stage(tmp_path, acts=dict.fromkeys(range(1, 1 + rounds), reconnected), rounds=rounds, deadline_s=5.0)
    stage.play()
    assert selected == [HONEST] * rounds
    assert [stage.counted(number) for number in range(1, 1 + rounds)] == [sorted(HONEST)] * rounds
