"""The device's state machine where rounds are open to all: sleep, late masks, one training a step."""

from __future__ import annotations

from dataclasses import replace

from edge_client import agent
from edge_client.agent import Device
from edge_client.events import (
    AskVotes,
    DropPending,
    Evaluate,
    SendMask,
    Stop,
    StopTraining,
    TakeVotes,
    Tick,
    Train,
    TrainingDone,
)
from tests.unit.test_agent import FEDERATION, OTHER, RUN, announce, handle, kinds, ready, update
from wire.federation_messages import EVERYONE, Receipt, Refusal

REFUSAL = Refusal(instance=b"instance", code="mask", reason="too old", number=1)


def heard(device: Device, *numbers: int, now_s: float = 0.0) -> agent.Outcome:
    """Steps are announced one after the other, and then nothing more comes."""
    found: list[agent.Action] = []
    for number in numbers:
        device, actions = handle(device, announce(number, EVERYONE), now_s)
        found += actions
    device, actions = handle(device, Tick(), now_s)
    return device, found + actions


def training(number: int = 1) -> Device:
    """A device that trains for a step."""
    device, actions = heard(ready(), number)
    assert kinds(actions) == [Evaluate, Train]
    return device


def test_everyone_trains_once_things_are_quiet() -> None:
    """Of the many steps that a device hears of when it wakes, it trains and evaluates for the newest alone."""
    device, actions = heard(ready(), 3, 4, 5)
    assert actions == [
        Evaluate(announced=announce(5, EVERYONE)),
        Train(announced=announce(5, EVERYONE)),
    ]
    assert device.training == (RUN, 5)


def test_training_goes_on_when_a_newer_step_is_announced() -> None:
    """Its votes are taken, so that none are missed; everything else waits."""
    device, actions = agent.handle(training(), announce(2, EVERYONE, base=1), 1.0)
    assert kinds(actions) == [TakeVotes]
    device, actions = handle(device, agent.VotesTaken(run=RUN, number=2), 1.0)
    assert actions == []
    assert (device.training, device.votes) == ((RUN, 1), (RUN, 2))


def test_late_mask_is_sent_and_after_its_receipt_the_newest_step_trained() -> None:
    """It is of the step it began with; nothing is trained for before it is safe."""
    device, actions = heard(training(), 2, 3)
    assert actions == []
    device, actions = handle(device, TrainingDone(update=update(1)), 9.0)
    assert actions == [SendMask(update=update(1), new=True)]
    device, actions = handle(device, Tick(), 9.0)
    assert kinds(actions) == [Evaluate]
    device, actions = handle(device, Receipt(run=RUN, number=1), 9.0)
    assert actions[0] == DropPending(confirmed=(RUN, 1))
    device, actions = handle(device, Tick(), 9.0)
    assert actions == [Train(announced=announce(3, EVERYONE))]


def test_a_step_is_trained_for_once() -> None:
    """Not again after its receipt, nor after a restart that remembers it, however often it is announced."""
    device, _ = handle(training(), TrainingDone(update=update(1)), 1.0)
    device, _ = handle(device, Receipt(run=RUN, number=1), 1.0)
    assert heard(device, 1, 1)[1] == []
    restarted = replace(ready(), confirmed=(RUN, 1))
    assert kinds(heard(restarted, 1)[1]) == [Evaluate]
    assert Train in kinds(heard(restarted, 2)[1])


def test_pending_mask_of_an_earlier_step_survives_sleep() -> None:
    """It is sent on connecting, and kept although a newer step is open; training waits for the answer."""
    device = replace(ready(), pending=update(1))
    device, actions = handle(device, agent.Online(), 5.0)
    assert SendMask in kinds(actions)
    device, actions = heard(device, 3, now_s=5.0)
    assert kinds(actions) == [Evaluate]
    assert device.pending == update(1)


def test_refused_late_mask_makes_way_for_the_newest_step() -> None:
    """It was too old; the device does not sulk."""
    device, _ = heard(replace(ready(), pending=update(1)), 6)
    device, actions = handle(device, REFUSAL, 6.0)
    assert kinds(actions) == [DropPending]
    assert actions[0] == DropPending(confirmed=None)
    assert kinds(handle(device, Tick(), 6.0)[1]) == [Train]


def test_refused_mask_of_the_newest_step_is_not_made_again() -> None:
    """Or device and coordinator would go on like that for ever."""
    device, _ = handle(training(), TrainingDone(update=update(1)), 1.0)
    device, actions = handle(device, REFUSAL, 1.0)
    assert kinds(actions) == [DropPending]
    assert handle(device, Tick(), 1.0)[1] == []
    assert Train in kinds(heard(device, 2)[1])


def test_final_announcement_stops_training_and_drops_what_is_pending() -> None:
    """Nobody wants late masks when the run is over; it is acted upon at once."""
    _, actions = handle(replace(training(), stay=False), announce(4, final=True), 1.0)
    assert kinds(actions) == [StopTraining, Evaluate, Stop]
    _, actions = handle(replace(ready(), pending=update(1)), announce(4, final=True), 1.0)
    assert kinds(actions) == [DropPending, Evaluate]


def test_new_run_ends_what_was_due() -> None:
    """A step of the old run is not trained for in the new one."""
    device, _ = handle(ready(), announce(1, EVERYONE), 0.0)
    assert device.due
    device, _ = handle(device, replace(FEDERATION, run=OTHER), 1.0)
    assert handle(device, Tick(), 1.0)[1] == []


def test_votes_that_are_missing_are_asked_for_once_at_a_time() -> None:
    """Being quiet is no reason to ask again."""
    device, actions = agent.handle(ready(), announce(5, EVERYONE, base=4), 0.0)
    assert kinds(actions) == [AskVotes]
    assert agent.handle(device, Tick(), 1.0) == (device, [])
    device, actions = agent.handle(device, agent.VotesTaken(run=RUN, number=5), 2.0)
    assert actions == []
    assert kinds(agent.handle(device, Tick(), 2.0)[1]) == [Evaluate, Train]
