"""What happens to a fleet and when: drawn in advance from a seed, then carried out."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace

from tests.chaos.fleet import BROKER, COORDINATOR, Fleet
from tests.chaos.network import FAIR, Weather

# Kinds of step and how often each is drawn.
SHARES = {"device": 44, "coordinator": 14, "broker": 9, "site": 7, "weather": 8, "cut": 8, "stall": 6, "clock": 5}
LONG_CUT_S = 95.0  # longer than an MQTT keepalive of 60 s and a half: the broker gives the device up
BAD_S = (1.0, 5.0)  # how long weather and cuts last
USUAL = Weather(loss=0.01, twice=0.01, delay_s=0.002, jitter_s=0.005)  # of every host, all the time
WEATHERS = (
    Weather(loss=0.05, delay_s=0.02, jitter_s=0.03),
    Weather(loss=0.3),
    Weather(delay_s=0.15, jitter_s=0.2),
    Weather(twice=0.3, jitter_s=0.05),
    Weather(loss=0.1, twice=0.1, delay_s=0.05, jitter_s=0.1),
)
CUTS = (Weather(deaf=True, mute=True), Weather(deaf=True), Weather(mute=True))
CLOCKS = (-86_400, -3_600, -30, 30, 3_600, 86_400, 400 * 86_400, -1_700_000_000)  # the last is about 1972


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that happens.

    Attributes:
        pause_s: after the step before.
        aim: "now", or what to wait for, two seconds at most, so that it hits a moment that matters: "mask",
            another one is stored; "round", another is announced.
        after_s: from then.
        kind: one of `SHARES`.
        victims: hosts.
        seconds: until it is made good: started again, let go on, usual weather.
        weather: of `weather` and `cut`.
        clock: of `clock`, seconds from the true time.
    """

    pause_s: float
    aim: str
    after_s: float
    kind: str
    victims: tuple[str, ...]
    seconds: float
    weather: Weather = FAIR
    clock: int = 0

    @property
    def kills(self) -> int:
        """Processes it kills."""
        return len(self.victims) if self.kind in ("device", "coordinator", "broker", "site") else 0


def plan(seed: int, devices: list[str], kills: int, pause_s: float) -> list[Step]:
    """Draw steps until they hold as many kills, and one cut that outlasts every keepalive."""
    rng = random.Random(seed)
    steps = [_draw(rng, devices, pause_s)]
    while sum(step.kills for step in steps) < kills:
        steps.append(_draw(rng, devices, pause_s))
    early = rng.randrange(max(len(steps) // 4, 1))
    steps.insert(early, replace(_cut(rng, devices[:1], pause_s), victims=(rng.choice(devices),), seconds=LONG_CUT_S))
    return steps


def _draw(rng: random.Random, devices: list[str], pause_s: float) -> Step:
    kind = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
    hosts = [*devices, COORDINATOR, BROKER]
    if kind == "cut":
        return _cut(rng, hosts, pause_s)
    step = Step(
        pause_s=rng.uniform(0, 2 * pause_s),
        aim=rng.choice(("now", "mask", "mask", "mask", "round")),
        after_s=rng.choice((0.0, rng.uniform(0, 0.03), rng.uniform(0, 0.5))),
        kind=kind,
        victims=(rng.choice(hosts),),
        seconds=rng.uniform(0, 1.2),
    )
    match kind:
        case "device":
            return replace(step, victims=tuple(rng.sample(devices, rng.choice((1, 1, 2, 3)))))
        case "coordinator" | "broker":
            return replace(step, victims=(kind,))
        case "site":
            return replace(step, victims=tuple(rng.sample(devices, 3)) + rng.choice(((BROKER,), (COORDINATOR,))))
        case "weather":
            where = rng.choice((COORDINATOR, BROKER, rng.choice(devices)))  # on the first two it meets everybody
            return replace(step, victims=(where,), weather=rng.choice(WEATHERS), seconds=rng.uniform(*BAD_S))
        case "clock":
            return replace(step, clock=rng.choice(CLOCKS))
        case _:
            return replace(step, seconds=rng.uniform(0.2, 4.0))


def _cut(rng: random.Random, hosts: list[str], pause_s: float) -> Step:
    return Step(
        pause_s=rng.uniform(0, 2 * pause_s),
        aim=rng.choice(("now", "mask", "round")),
        after_s=rng.uniform(0, 0.05),
        kind="cut",
        victims=(rng.choice(hosts),),
        seconds=rng.uniform(*BAD_S),
        weather=rng.choice(CUTS),
    )


@dataclass
class Storm:
    """Steps on their way over a fleet."""

    fleet: Fleet
    steps: list[Step]

    def __post_init__(self) -> None:
        self._usual_s: dict[str, float] = {}

    def blow(self) -> None:
        """Carry out all steps, in weather that is never quite fair; then let it be fair."""
        for host in self.fleet.network.hosts:
            self.fleet.network.set(host, USUAL)
        for step in self.steps:
            self._sleep(step.pause_s)
            self._take_aim(step.aim)
            self._sleep(step.after_s)
            assert not self.fleet.announced_end, "the run was over before the storm: more rounds are needed"
            self._do(step)
        for host in self.fleet.network.hosts:
            self.fleet.network.set(host, FAIR)
        self.fleet.timeline.note(f"the storm is over, in round {self.fleet.round}")

    def _do(self, step: Step) -> None:
        for victim in step.victims:
            if step.kills:
                self.fleet.kill(victim, step.seconds)
            elif step.kind == "stall":
                self.fleet.stall(victim, step.seconds)
            elif step.kind == "clock":
                self.fleet.set_clock(self.fleet.host(victim), step.clock)
            else:
                host = self.fleet.host(victim)
                self.fleet.network.set(host, step.weather)
                self._usual_s[host] = time.monotonic() + step.seconds
                self.fleet.timeline.note(f"{_describe(step.weather)} at {host} for {step.seconds:.2f} s")

    def _take_aim(self, aim: str) -> None:
        if aim == "now":
            return
        before, deadline = self._count(aim), time.monotonic() + 2.0
        while self._count(aim) == before and time.monotonic() < deadline:
            self._sleep(0.002)

    def _count(self, aim: str) -> int:
        return self.fleet.masks if aim == "mask" else self.fleet.round

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            self.fleet.tend()
            for host, due_s in list(self._usual_s.items()):
                if time.monotonic() >= due_s:
                    self._calm(host)
            if (left_s := until - time.monotonic()) <= 0:
                return
            time.sleep(min(left_s, 0.01))

    def _calm(self, host: str) -> None:
        self.fleet.network.set(host, USUAL)
        del self._usual_s[host]
        self.fleet.timeline.note(f"usual weather at {host}")


def _describe(weather: Weather) -> str:
    words = {"loss": f"{weather.loss:.0%} lost", "twice": f"{weather.twice:.0%} doubled"}
    words |= {"delay_s": f"{weather.delay_s:g} s late", "jitter_s": f"up to {weather.jitter_s:g} s later"}
    words |= {"deaf": "nothing arrives", "mute": "nothing leaves"}
    return ", ".join(words[name] for name in words if getattr(weather, name))
