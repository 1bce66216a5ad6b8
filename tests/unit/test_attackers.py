"""Hostile devices send what they are said to send, everyone else what they would have sent anyway."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from benchmarks.attackers import ATTACKS, HOSTILE, HostileFedAvg, HostileHideNseek, hostile_devices
from benchmarks.attacks import ROOT, accuracy_table, cases, found_table, survived
from coordinator.baselines.blobs import read_floats
from coordinator.baselines.fedavg import FedAvg
from coordinator.baselines.hidenseek import HideNseek
from coordinator.baselines.hidenseek_signs import votes_of
from coordinator.baselines.method import Samples, Task, Update, make_settings
from wire import dither, mask
from wire.errors import ConfigError
from wire.layers import Flatten, Linear, Relu
from wire.plan import Plan

PLAN = Plan(
    name="tiny", input_shape=(2, 4), layers=(Flatten(), Linear(out_features=64), Relu(), Linear(out_features=3))
)
DEVICES = ("pi-1", "pi-2", "pi-3", "pi-4", "pi-5")
TASK = Task(plan=PLAN, devices=DEVICES, seed=1)
SMALL = {"density": 1.0, "passes": 1, "epochs": 20}


def samples() -> Samples:
    """A few of three classes."""
    rng = np.random.default_rng(0)
    return Samples(x=rng.normal(size=(24, 2, 4)).astype(np.float32), y=np.arange(24) % 3)


def first_round(method: HideNseek) -> list[Update]:
    """What all devices send."""
    state, sent = method.start(), []
    for number, device in enumerate(DEVICES):
        down = method.hear(state, device, method.announce(state, device))
        up = method.train(down, samples(), {}, number).up
        sent.append(Update(device=device, samples=24, payload=up, seed=number))
    return sent


def masks(method: HideNseek) -> dict[str, mask.Signs]:
    """What all devices have changed of what was announced, in the first round."""
    state, found = method.start(), {}
    for update in first_round(method):
        known = dither.context(votes_of(state), method.training, update.seed)
        found[update.device] = mask.decode_signs(update.payload, known, method.ticket.ends) ^ known.signs
    return found


def hostile(attack: str, **settings: Any) -> HostileHideNseek:
    """Two of five are."""
    given = SMALL | {"attack": attack, "attackers": 2} | settings
    return HostileHideNseek(TASK, make_settings(HostileHideNseek.Config, given))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def honest() -> dict[str, mask.Signs]:
    """What the devices would change."""
    return masks(HideNseek(TASK, make_settings(HideNseek.Config, SMALL)))  # type: ignore[arg-type]


def test_more_attackers_include_the_fewer() -> None:
    """So that a row of numbers is a row of the same devices and more."""
    chosen = [hostile_devices(TASK, count) for count in range(len(DEVICES) + 1)]
    assert [len(one) for one in chosen] == [0, 1, 2, 3, 4, 5]
    assert all(fewer < more for fewer, more in pairwise(chosen))


@pytest.mark.parametrize("attack", ATTACKS)
def test_masks_of_every_attack(attack: str, honest: dict[str, mask.Signs]) -> None:
    """Hostile masks are what `ATTACKS` says; the others are untouched."""
    method = hostile(attack)
    sent = masks(method)
    bad = sorted(method.hostile)
    for device in set(DEVICES) - method.hostile:
        assert np.array_equal(sent[device], honest[device])
    first, second = (sent[device] for device in bad)
    kept = first.size
    match attack:
        case "flip":
            assert all(np.array_equal(sent[device], ~honest[device]) for device in bad)
        case "invert":
            assert first.all()
        case "collude":  # the same bits: changes differ only where other thresholds have other bits expected
            assert np.mean(first ^ second) < 0.3
        case "random":
            assert abs(int((first ^ second).sum()) - kept / 2) < 4 * np.sqrt(kept) / 2
        case "hide":
            assert np.mean(first) == pytest.approx(method.hidden, abs=0.08)
            assert not np.array_equal(first, second)
        case "plot":
            assert np.mean(first) == pytest.approx(method.hidden, abs=0.08)
            assert np.mean(first & second) > 0.5 * method.hidden
        case _:
            assert any(not np.array_equal(sent[device], honest[device]) for device in bad)


def test_who_is_found_is_counted() -> None:
    """The state says how often every device was judged, and what was found."""
    method = hostile("flip")
    state, updates = method.start(), first_round(method)
    assert {d for d in DEVICES if method.announce(state, d)[:1] == HOSTILE} == method.hostile
    after = method.aggregate(state, updates)
    assert after["judged"].tolist() == [1] * 5
    assert {d for d, n in zip(DEVICES, after["turned"], strict=True) if n} == method.hostile
    assert after["extremes"].shape == (1, 4)
    defended = hostile("flip", defend="true")
    remarks = defended.remarks(state, updates)
    assert len(remarks) == 2
    good = [update for update in updates if update.device not in method.hostile]
    assert np.array_equal(defended.aggregate(state, updates)["dissent"], method.aggregate(state, good)["dissent"])


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_weights_of_every_attack(attack: str) -> None:
    """What FedAvg's hostile devices send, against the step they would have made."""
    given = {"epochs": 1, "attack": attack, "attackers": 2, "scale": 5.0}
    method = HostileFedAvg(TASK, make_settings(HostileFedAvg.Config, given))  # type: ignore[arg-type]
    plain = FedAvg(TASK, make_settings(FedAvg.Config, {"epochs": 1}))  # type: ignore[arg-type]
    state = method.start()
    start, size = state["weights"], method.net.size

    def sent(device: str) -> Any:
        return read_floats(method.train(method.announce(state, device), samples(), {}, 3).up, size)

    trained = read_floats(plain.train(plain.announce(state, None), samples(), {}, 3).up, size)
    good = next(device for device in DEVICES if device not in method.hostile)
    assert np.array_equal(sent(good), trained)
    bad = [sent(device) for device in sorted(method.hostile)]
    step, length = trained - start, float(np.linalg.norm(trained - start))
    match attack:
        case "flip":
            assert np.allclose(bad[0], start - 5 * step, atol=1e-5)
        case "hide":
            assert np.allclose(bad[0], start - step, atol=1e-5)
        case "invert":
            assert np.array_equal(bad[0], -start)
        case "poison":
            assert not np.allclose(bad[0], trained)
        case _:
            times = 1 if attack == "plot" else 5
            assert np.linalg.norm(bad[0] - start) == pytest.approx(times * length, rel=1e-3)
    if attack in ("collude", "plot"):
        assert np.array_equal(bad[0], bad[1])


def test_unknown_attacks_are_refused() -> None:
    """With the names there are."""
    with pytest.raises(
        ConfigError, match="charm found, one of flip, random, collude, invert, hide, plot, poison expected"
    ):
        hostile("charm")


def row(contestant: str, attackers: int, unseen: float, **given: Any) -> dict[str, Any]:
    """A row of results."""
    known = {"task": "har", "contestant": contestant, "attack": "flip", "attackers": attackers, "seed": 0, "seen": 0.8}
    return known | {"unseen": unseen} | given


def test_lost_is_against_the_same_contestant_unattacked() -> None:
    """Five points are forgiven; FedAvg is not measured by HideNseek's accuracy."""
    rows = [
        row("hidenseek", 0, 0.92),
        row("fedavg", 0, 0.50),
        row("hidenseek", 10, 0.88),
        row("fedavg", 10, 0.46),
        row("hidenseek", 12, 0.86),
        row("hidenseek", 12, 0.10, seed=1),
    ]
    assert [survived(one, rows) for one in rows[2:]] == [True, True, False, None]
    table = accuracy_table(rows)
    assert table[2] == "| none | 0 | 0 | 80.0 / 92.0 |  |  |  | 80.0 / 50.0 |"
    assert table[3] == "| flip | 10 | 0 | 80.0 / 88.0 |  |  |  | 80.0 / 46.0 |"
    assert table[4] == "| flip | 12 | 0 | 80.0 / 86.0 **lost** |  |  |  |  |"


def test_no_run_is_made_twice() -> None:
    """Every case has a name of its own, settings that are taken, and is compared with one that is not attacked."""
    every = list(cases())
    assert len({case.name for case in every}) == len(every)
    clean = {(case.task, case.contestant, case.seed) for case in every if not case.attackers}
    for case in every:
        assert case.experiment.about()["settings"]["attackers"] == case.attackers
        assert (case.task, case.contestant, case.seed) in clean or "epsilon" in case.task


def test_the_page_shows_what_was_measured() -> None:
    """docs/robustness.md holds the tables that the benchmark wrote."""
    results = ROOT / "benchmarks" / "results"
    assert (results / "attacks.md").read_text().strip() in (ROOT / "docs" / "robustness.md").read_text()
    kept = json.loads((results / "attacks.json").read_text())["rows"]
    assert "\n".join([*accuracy_table(kept), "", *found_table(kept)]) in (ROOT / "docs" / "robustness.md").read_text()
