"""The device's state machine: every unlucky order of events it must survive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_client import agent, events
from edge_client.agent import Device
from tests.helpers import introduce
from wire import mask
from wire.errors import DuplicateDevice, JoinRefused, UnknownName
from wire.federation_messages import (
    BundleBytes,
    CatchUp,
    Federation,
    MaskUpdate,
    Missed,
    Receipt,
    Refusal,
    Round,
    Welcome,
)
from wire.settings import Training

RUN, OTHER = b"run-0001", b"run-0002"
HELLO = introduce("instance")
FEDERATION = Federation(
    run=RUN, name="f", rounds=3, ticket=bytes(32), bundles={"onnx": b"\x01" * 32}, training=Training(), seed=0,
    key=bytes(32), issued=1,
)  # fmt: skip
ENDS = np.array([16])
SIGNS = mask.encode_signs(np.ones(16, bool), mask.unanimous(16), ENDS)
VOTES = mask.encode_votes(mask.unanimous(16), ENDS)


def handle(device: Device, event: agent.Event, now_s: float) -> agent.Outcome:
    """As the agent does, with a client that can decode all votes."""
    device, actions = agent.handle(device, event, now_s)
    found: list[agent.Action] = []
    for action in actions:
        if isinstance(action, agent.TakeVotes):
            taken = agent.VotesTaken(run=action.announced.run, number=action.announced.number)
            device, more = agent.handle(device, taken, now_s)
            found += more
        else:
            found.append(action)
    return device, found


def announce(number: int, *selected: str, run: bytes = RUN, final: bool = False, base: int = 0) -> Round:
    """A round announcement."""
    return Round(run=run, number=number, selected=selected, evaluate=True, final=final, votes=VOTES, base=base,
                 digest=bytes(8))  # fmt: skip


def update(number: int, run: bytes = RUN) -> MaskUpdate:
    """A finished mask."""
    return MaskUpdate(
        run=run, number=number, signs=SIGNS,
        train_samples=10, loss=1.0, correct=3, test_samples=5, train_s=0.1, step_ms=1.0, peak_memory_kb=1,
    )  # fmt: skip


def ready() -> Device:
    """A device whose runtime is loaded."""
    device, _ = handle(Device(name="pi", hello=HELLO), FEDERATION, 0.0)
    device, _ = handle(device, agent.BundleOpened(digest=b"\x01" * 32), 0.0)
    assert device.ready
    return device


def kinds(actions: list[agent.Action]) -> list[type[agent.Action]]:
    """The actions' classes, without what is only logged."""
    return [type(action) for action in actions if not isinstance(action, agent.Log)]


def test_going_online_subscribes_before_anything_else() -> None:
    """A fresh device only subscribes: it introduces itself when it can train."""
    _, actions = handle(Device(name="pi", hello=HELLO), agent.Online(), 0.0)
    assert kinds(actions) == [agent.Subscribe]


def test_coming_back_online_introduces_itself_and_sends_the_unconfirmed_mask() -> None:
    """After a reconnect nothing that lacks a receipt is forgotten."""
    device = replace(ready(), pending=update(1))
    _, actions = handle(device, agent.Online(), 5.0)
    assert kinds(actions) == [agent.Subscribe, agent.SayHello, agent.SendMask]
    assert actions[-1] == agent.SendMask(update=update(1), new=False)


def test_federation_opens_its_bundle_once() -> None:
    """The retained announcement may come any number of times."""
    device, actions = handle(Device(name="pi", hello=HELLO), FEDERATION, 0.0)
    assert kinds(actions) == [agent.OpenBundle]
    assert handle(device, FEDERATION, 1.0) == (device, [])


def test_missing_bundle_is_downloaded_kept_and_opened() -> None:
    """Download, check, open, in this order."""
    device, _ = handle(Device(name="pi", hello=HELLO), FEDERATION, 0.0)
    device, actions = handle(device, agent.BundleNeeded(digest=b"\x01" * 32), 0.0)
    assert kinds(actions) == [agent.Download]
    _, actions = handle(device, BundleBytes(data=b"bytes"), 0.0)
    assert kinds(actions) == [agent.KeepBundle, agent.OpenBundle]
    assert actions[0] == agent.KeepBundle(digest=b"\x01" * 32, data=b"bytes")


def test_runtime_that_is_not_offered_stops_with_the_ones_that_are() -> None:
    """A device whose runtime has no bundle says which have."""
    _, actions = handle(Device(name="pi", hello=replace(HELLO, runtime="executorch")), FEDERATION, 0.0)
    (stop,) = actions
    assert isinstance(stop, agent.Stop)
    assert isinstance(stop.error, UnknownName)
    assert "onnx" in str(stop.error)


@pytest.mark.parametrize("round_first", [True, False])
def test_round_and_federation_may_come_in_any_order(round_first: bool) -> None:
    """Retained messages arrive as the broker likes; training starts when both are there."""
    device = Device(name="pi", hello=HELLO)
    events: list[agent.Event] = [announce(1, "pi"), FEDERATION] if round_first else [FEDERATION, announce(1, "pi")]
    for event in events:
        device, actions = handle(device, event, 0.0)
        assert agent.Train not in kinds(actions)
    device, actions = handle(device, agent.BundleOpened(digest=b"\x01" * 32), 0.0)
    assert kinds(actions) == [agent.SayHello, agent.Evaluate, agent.Train]
    assert device.training == (RUN, 1)


def test_unselected_device_evaluates_only() -> None:
    """Every device tries the global signs, only selected ones train."""
    _, actions = handle(ready(), announce(1, "other"), 0.0)
    assert kinds(actions) == [agent.Evaluate]


def test_repeated_announcement_neither_trains_nor_evaluates_again() -> None:
    """The same retained round, delivered twice, is acted on once."""
    device, _ = handle(ready(), announce(1, "pi"), 0.0)
    again, actions = handle(device, announce(1, "pi"), 1.0)
    assert actions == []
    assert again.training == (RUN, 1)


def test_extended_round_selects_a_device_that_waited() -> None:
    """A round announced again with more devices starts training on the new ones, without a second evaluation."""
    device, _ = handle(ready(), announce(1, "other"), 0.0)
    _, actions = handle(device, announce(1, "other", "pi"), 9.0)
    assert kinds(actions) == [agent.Train]


def test_newer_round_stops_training_for_the_old_one() -> None:
    """Nobody waits for the mask of a round that closed."""
    device, _ = handle(ready(), announce(1, "pi"), 0.0)
    device, actions = handle(device, announce(2, "pi"), 1.0)
    assert kinds(actions) == [agent.StopTraining, agent.Evaluate, agent.Train]
    assert device.training == (RUN, 2)


def test_older_round_is_ignored() -> None:
    """A late copy of an old announcement changes nothing."""
    device, _ = handle(ready(), announce(2, "pi"), 0.0)
    assert handle(device, announce(1, "pi"), 1.0) == (device, [])


def test_leftover_round_of_an_earlier_run_does_not_hide_the_present_one() -> None:
    """A stale retained round of another run never replaces the newest of this one."""
    device, _ = handle(ready(), announce(1, "other"), 0.0)
    same, actions = handle(device, announce(7, "pi", run=OTHER), 1.0)
    assert (same, actions) == (device, [])


def test_finished_training_is_written_down_and_sent() -> None:
    """The mask becomes pending until its receipt."""
    device, _ = handle(ready(), announce(1, "pi"), 0.0)
    device, actions = handle(device, agent.TrainingDone(update=update(1)), 2.0)
    assert actions == [agent.SendMask(update=update(1), new=True)]
    assert device.pending == update(1)
    assert device.training is None


def test_training_that_was_superseded_sends_nothing() -> None:
    """A result for another round than the one being trained is dropped."""
    device, _ = handle(ready(), announce(2, "pi"), 0.0)
    assert handle(device, agent.TrainingDone(update=update(1)), 2.0) == (device, [])


def test_mask_is_sent_again_until_its_receipt_with_growing_pauses() -> None:
    """20 s, then 40 s, ...: a lost mask or receipt heals itself, without flooding."""
    device = replace(ready(), pending=update(1), sent_s=0.0, tries=1)
    assert handle(device, agent.Tick(), 19.9)[1] == []
    device, actions = handle(device, agent.Tick(), 20.0)
    assert kinds(actions) == [agent.SendMask]
    assert handle(device, agent.Tick(), 59.9)[1] == []
    assert kinds(handle(device, agent.Tick(), 60.0)[1]) == [agent.SendMask]


def test_receipt_ends_it_and_the_round_is_not_trained_again() -> None:
    """After the receipt the same announcement, e.g. of an extended round, starts nothing."""
    device, _ = handle(ready(), announce(1, "pi"), 0.0)
    device, _ = handle(device, agent.TrainingDone(update=update(1)), 2.0)
    device, actions = handle(device, Receipt(run=RUN, number=1), 3.0)
    assert kinds(actions) == [agent.DropPending]
    assert handle(device, announce(1, "pi", "other"), 4.0)[1] == []


def test_receipt_for_another_round_changes_nothing() -> None:
    """Only the receipt of the pending mask counts."""
    device = replace(ready(), pending=update(2))
    assert handle(device, Receipt(run=RUN, number=1), 3.0) == (device, [])


def test_pending_mask_of_a_closed_round_is_dropped() -> None:
    """When a newer round is announced the old mask is worthless."""
    device = replace(ready(), pending=update(1))
    device, actions = handle(device, announce(2), 3.0)
    assert agent.DropPending in kinds(actions)
    assert device.pending is None


def test_pending_mask_of_the_open_round_is_kept_instead_of_training_again() -> None:
    """After a power cut the stored mask is sent, not computed anew."""
    device = replace(ready(), pending=update(1))
    device, actions = handle(device, announce(1, "pi"), 3.0)
    assert kinds(actions) == [agent.Evaluate]
    assert device.pending == update(1)


def test_new_run_replaces_the_old_one() -> None:
    """Another run stops training, forgets the old mask, and opens its own bundle."""
    device, _ = handle(ready(), announce(1, "pi"), 0.0)
    device = replace(device, pending=update(1))
    device, actions = handle(device, replace(FEDERATION, run=OTHER), 1.0)
    assert kinds(actions) == [agent.StopTraining, agent.DropPending, agent.OpenBundle]
    assert (device.ready, device.training, device.pending) == (False, None, None)


@pytest.mark.parametrize("stay", [True, False])
def test_final_round_is_evaluated_and_ends_a_device_that_does_not_stay(stay: bool) -> None:
    """--once leaves after the last evaluation, a service waits for the next run."""
    _, actions = handle(replace(ready(), stay=stay), announce(4, final=True), 0.0)
    assert kinds(actions) == [agent.Evaluate] + ([] if stay else [agent.Stop])


def test_refusals_for_this_instance_stop_it() -> None:
    """A duplicate and an unknown device leave with errors of their own."""
    for code, error in (("duplicate", DuplicateDevice), ("unknown-device", JoinRefused)):
        _, actions = handle(ready(), Refusal(instance=b"instance", code=code, reason="because"), 0.0)
        (stop,) = actions
        assert isinstance(stop, agent.Stop)
        assert isinstance(stop.error, error)
        assert "because" in str(stop.error)


def test_refusal_for_another_instance_is_ignored() -> None:
    """Two processes share a topic; each heeds only what names it."""
    device = ready()
    assert handle(device, Refusal(instance=b"somebody", code="duplicate", reason="x"), 0.0) == (device, [])


def test_refused_mask_is_dropped_and_the_device_stays() -> None:
    """A bad or late mask costs its round, not the device."""
    device = replace(ready(), pending=update(1))
    device, actions = handle(device, Refusal(instance=b"instance", code="mask", reason="late", number=1), 0.0)
    assert kinds(actions) == [agent.DropPending]
    assert device.pending is None


def test_welcome_is_said_once() -> None:
    """The first welcome is logged, repetitions are silent."""
    device, actions = handle(ready(), Welcome(instance=b"instance"), 0.0)
    assert isinstance(actions[0], agent.Log)
    assert handle(device, Welcome(instance=b"instance"), 1.0) == (device, [])


def test_votes_that_build_on_what_it_has_are_taken() -> None:
    """A round whose base this device has, or that has none, needs nobody's help."""
    device, actions = agent.handle(ready(), announce(1, "pi"), 0.0)
    assert kinds(actions) == [agent.TakeVotes]
    device, actions = agent.handle(device, agent.VotesTaken(run=RUN, number=1), 0.0)
    assert kinds(actions) == [agent.Evaluate, agent.Train]
    _, actions = agent.handle(device, announce(2, "pi", base=1), 1.0)
    assert kinds(actions) == [agent.StopTraining, agent.TakeVotes]


def test_missed_votes_are_asked_for_until_they_come() -> None:
    """With what it has named; again after a while; and then the round is gone about as usual."""
    device, _ = handle(ready(), announce(1), 0.0)
    device, actions = agent.handle(device, announce(4, "pi", base=3), 5.0)
    assert actions == [agent.AskVotes(missed=Missed(run=RUN, number=4, have=1))]
    device, actions = agent.handle(device, agent.Tick(), 5.0 + agent.ASK_AGAIN_AFTER_S - 1)
    assert actions == []
    device, actions = agent.handle(device, agent.Tick(), 5.0 + agent.ASK_AGAIN_AFTER_S)
    assert kinds(actions) == [agent.AskVotes]
    other = CatchUp(run=RUN, number=3, votes=VOTES, base=1, digest=bytes(8))
    for useless in (other, replace(other, number=4, base=2), replace(other, number=4, run=OTHER)):
        assert agent.handle(device, useless, 30.0)[1] == []
    answer = replace(other, number=4)
    device, actions = agent.handle(device, answer, 30.0)
    assert actions == [agent.TakeVotes(announced=answer)]
    device, actions = agent.handle(device, agent.VotesTaken(run=RUN, number=4), 30.0)
    assert kinds(actions) == [agent.Evaluate, agent.Train]
    assert agent.handle(device, answer, 31.0)[1] == [], "nobody waits for it any more"


def test_votes_that_come_out_wrong_are_asked_for_whole() -> None:
    """What the device had is forgotten; votes that build on nothing and are wrong still are not asked for at once."""
    device, _ = handle(ready(), announce(1), 0.0)
    device, actions = agent.handle(device, announce(2, "pi", base=1), 1.0)
    assert kinds(actions) == [agent.TakeVotes]
    device, actions = agent.handle(device, agent.VotesUnusable(base=1), 1.0)
    assert actions == [agent.AskVotes(missed=Missed(run=RUN, number=2, have=0))]
    device, actions = agent.handle(device, agent.VotesUnusable(base=0), 2.0)
    assert actions == []
    _, actions = agent.handle(device, agent.Tick(), 2.0 + agent.ASK_AGAIN_AFTER_S)
    assert kinds(actions) == [agent.AskVotes]


def test_a_device_that_does_not_stay_does_not_wait_for_the_last_votes_for_ever() -> None:
    """It asks once; if nobody answers, the coordinator has left."""
    device = replace(ready(), stay=False)
    device, actions = agent.handle(device, announce(4, final=True, base=3), 0.0)
    assert kinds(actions) == [agent.AskVotes]
    _, actions = agent.handle(device, agent.Tick(), agent.ASK_AGAIN_AFTER_S)
    assert kinds(actions) == [agent.Stop]


def test_a_device_that_hears_of_no_federation_asks_again_ever_more_seldom() -> None:
    """A retained announcement or bundle may be lost; once both are there it is content."""
    device, actions = agent.handle(Device(name="d", hello=HELLO), events.Online(), 0.0)
    assert actions == [events.Subscribe()]
    asked = []
    for second in range(1, 500):
        device, actions = agent.handle(device, events.Tick(), float(second))
        if actions:
            assert actions == [events.Subscribe()]
            asked.append(second)
    assert asked == [60, 180, 420]
    device, _ = agent.handle(device, FEDERATION, 500.0)
    _, actions = agent.handle(device, events.Tick(), 1000.0)
    assert actions == [events.Subscribe(), events.Download()]
    device, _ = agent.handle(device, events.BundleOpened(digest=b"\x01" * 32), 1001.0)
    assert agent.handle(device, events.Tick(), 10_000.0) == (device, [])
