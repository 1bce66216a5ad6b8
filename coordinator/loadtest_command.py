"""The options of `hidenseek loadtest`, and what it prints."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire import command
from wire.errors import ConfigError

if TYPE_CHECKING:
    from coordinator.loadtest.stand import Stand
    from coordinator.loadtest.worker import Share
    from wire.broker import Broker

Subparsers = argparse._SubParsersAction
FAULTY = 1  # exit code: it ran, and something was not as it should be

EXAMPLES = """
examples:
  hidenseek loadtest --self mosquitto --devices 1000                      # broker and coordinator of its own
  hidenseek loadtest --self nats --devices 10000 --per-round 1000 --rounds 5 --json result.json
  hidenseek loadtest --self mosquitto --devices 5000 --per-round 5000 --workers 2
  hidenseek loadtest --self mosquitto --devices 500 --churn 0.2 --train 1,10  # a fifth vanishes every minute
  hidenseek loadtest --self mosquitto --devices 5000 --rounds 1 --for 300     # idle traffic, too
  # a broker and a hidenseek serve that run already; give them a federation of their own for this:
  hidenseek loadtest --broker mqtt://192.168.1.10 --federation lab --devices 2000
  hidenseek loadtest --broker mqtts://hub.example.org --ca ca.crt --accounts secrets/passwords.json --federation lab

Devices are real connections that say what hidenseek-edge says, signed; only training is made up. Their names are
load-00000 and so on, or those of --accounts. Anyone can forge them: their keys are made from their names.
Ctrl-C ends it and writes the result of what was.
exit codes: 0 all is as it should be, 1 something is not (it says what), 130 stopped, others in docs/errors.md
"""


def add_loadtest(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek loadtest`."""
    parser = subparsers.add_parser(
        "loadtest",
        help="thousands of scripted devices, to find out what a broker and a coordinator bear",
        description="Connect thousands of devices to a broker, have them take part in a federation until its run is "
        "over, and say how long everything took and what was lost.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    command.add_broker_arguments(parser, required=False)
    parser.add_argument("--devices", type=int, default=1000, metavar="N", help="how many connect")
    parser.add_argument("--federation", default="loadtest", metavar="NAME", help="which federation they join")
    parser.add_argument("--accounts", type=Path, metavar="FILE", help="JSON: password by device, as broker init makes")
    parser.add_argument("--trust", metavar="KEY", help="the federation's public key (default: of the first met)")
    parser.add_argument("--runtime", default="sparse", metavar="NAME", help="which bundle they download")
    parser.add_argument(
        "--train", default="0", metavar="S[,S]", help="seconds that training takes, or shortest and longest"
    )
    parser.add_argument("--churn", type=float, default=0.0, metavar="R", help="share of devices that vanish a minute")
    parser.add_argument("--connect-rate", type=float, default=1000.0, metavar="N", help="connections made a second")
    parser.add_argument("--keepalive", type=int, metavar="S", help="of the connections (default: as hidenseek-edge)")
    parser.add_argument("--for", dest="for_s", type=float, metavar="S", help="end S seconds after all are connected")
    parser.add_argument("--stay", action="store_true", help="stay for another run when one is over")
    parser.add_argument("--processes", type=int, metavar="N", help="that hold the devices (default: 2, or as needed)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of keys, masks and chance")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    group = parser.add_argument_group("a broker and a coordinator of its own")
    group.add_argument("--self", dest="own", choices=("mosquitto", "nats"), help="start them here, on the loopback")
    group.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds to run")
    group.add_argument("--per-round", type=int, metavar="N", help="devices selected (default: a tenth, at most 1000)")
    group.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that take the masks and hand on sums (default 0)"
    )
    group.add_argument("--evaluate", action="store_true", help="every device reports accuracy every round")
    group.add_argument("--model", default="har-cnn", metavar="NAME", help="the network")
    group.add_argument("--density", type=float, default=0.10, metavar="D", help="share of its weights kept")
    group.add_argument("--state", type=Path, metavar="DIR", help="keep their files (default: thrown away)")
    parser.set_defaults(run=_loadtest)


def _loadtest(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator.loadtest import room, run
    from coordinator.loadtest.result import Idle, Result
    from coordinator.loadtest.view import View

    names, passwords = _names(arguments)
    _check(arguments, len(names))
    processes = room.processes(len(names), arguments.processes)
    console = Console()
    with _broker(arguments, names) as (broker, own):
        run.reach(broker, arguments.connect_timeout)
        share = _share(arguments, broker, own.passwords if own else passwords)
        result = Result(settings=_settings(arguments, names, broker), idle=Idle(share.keepalive_s))
        result.watched += own.watched if own else []
        view = View(console, f"load test: {len(names):,} devices on {arguments.own or broker}", result)
        with view:
            shares = run.share_out(share, names, processes)
            run.run(shares, result, view, for_s=arguments.for_s, check=own.check if own else lambda: None)
            if own and not result.interrupted:
                view.phase = "waiting for the coordinator's report"
                if arguments.for_s is None:
                    own.wait()
                result.stored = own.masks_stored()
    view.conclude()
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        command.write_whole(arguments.json, (json.dumps(result.to_json(), indent=1) + "\n").encode())
    if result.interrupted:
        raise KeyboardInterrupt
    return FAULTY if result.faults() else 0


def _names(arguments: argparse.Namespace) -> tuple[tuple[str, ...], dict[str, str]]:
    """Ids of the devices, and their passwords where each has an account."""
    if arguments.accounts is None:
        width = max(5, len(str(arguments.devices - 1)))
        return tuple(f"load-{number:0{width}}" for number in range(arguments.devices)), {}
    from coordinator.loadtest.accounts import read_accounts

    passwords = read_accounts(arguments.accounts)
    return tuple(sorted(passwords)), passwords


def _check(arguments: argparse.Namespace, devices: int) -> None:
    """Complain of what makes no sense, before anything starts.

    Raises:
        ConfigError: naming the option.
    """
    from coordinator.loadtest import room

    for name in ("devices", "rounds", "per_round", "connect_rate", "keepalive", "for_s"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            option = "--" + name.removesuffix("_s").replace("_", "-")
            raise ConfigError(f"{value:g} found, at least 1 expected", where=option)
    if arguments.workers < 0:
        raise ConfigError(f"{arguments.workers} found, 0 or more expected", where="--workers")
    if arguments.workers and arguments.broker:
        raise ConfigError(
            "workers are those of a coordinator that runs", where="--workers", hint="Start them with hidenseek worker"
        )
    if not 0 <= arguments.churn <= 60:
        raise ConfigError(f"{arguments.churn:g} found, 0..60 expected", where="--churn")
    if bool(arguments.own) == bool(arguments.broker):
        raise ConfigError(
            "both --broker and --self given" if arguments.own else "no broker named",
            where="hidenseek loadtest",
            hint="Name one that runs with --broker URL, or have one started here: --self mosquitto",
        )
    if arguments.broker and arguments.broker.startswith(("ws:", "wss:")):
        raise ConfigError("devices connect without websockets here", where="--broker", hint="Use mqtt:// or mqtts://")
    if arguments.own:
        room.check_broker(devices)
        if arguments.accounts:
            raise ConfigError("accounts are those of a broker that runs", where="--accounts", hint="Use --broker URL")
        if (arguments.per_round or 1) > devices:
            raise ConfigError(f"{arguments.per_round} found, there are {devices} devices", where="--per-round")


def _training(text: str) -> tuple[float, float]:
    try:
        values = [float(part) for part in text.split(",")]
        shortest, longest = values[0], values[-1]
        if len(values) > 2 or not 0 <= shortest <= longest <= 86_400:
            raise ValueError
    except ValueError:
        raise ConfigError(f"'{text}' found, seconds expected, as 5 or 2,10", where="--train") from None
    return shortest, longest


@contextmanager
def _broker(arguments: argparse.Namespace, names: tuple[str, ...]) -> Iterator[tuple[Broker, Stand | None]]:
    """The broker that was named, or one with a coordinator that run as long as this is open."""
    if arguments.broker:
        yield command.read_broker(arguments), None
        return
    from coordinator.aggregate import DEFEND
    from coordinator.loadtest.stand import Federation, standing

    per_round = arguments.per_round or max(1, min(1000, len(names) // 10))
    federation = Federation(
        name=arguments.federation,
        rounds=arguments.rounds,
        per_round=per_round,
        quorum=max(1, per_round * 8 // 10),
        deadline_s=_training(arguments.train)[1] + 60,
        start_devices=len(names) if not arguments.churn else max(per_round, len(names) * 9 // 10),
        evaluate=arguments.evaluate,
        model=arguments.model,
        density=arguments.density,
        defend=DEFEND and not arguments.workers,
    )
    with (
        tempfile.TemporaryDirectory(prefix="hidenseek-loadtest-") as temporary,
        standing(arguments.own, arguments.state or Path(temporary), federation, names, arguments.workers) as own,
    ):
        yield own.broker, own


def _share(arguments: argparse.Namespace, broker: Broker, passwords: dict[str, str]) -> Share:
    """What all devices are to do."""
    from coordinator.loadtest.script import Script
    from coordinator.loadtest.worker import Share
    from wire import signing
    from wire.mqtt import KEEPALIVE_S
    from wire.topics import Topics

    return Share(
        script=Script(
            topics=Topics(arguments.federation),
            runtime=arguments.runtime,
            train_s=_training(arguments.train),
            stay=arguments.stay,
            seed=arguments.seed,
        ),
        broker=broker,
        names=(),
        passwords=passwords,
        per_s=arguments.connect_rate,
        churn=arguments.churn,
        keepalive_s=arguments.keepalive or KEEPALIVE_S,
        trust=signing.from_text(arguments.trust, where="--trust") if arguments.trust else None,
        discard=not arguments.own,
    )


def _settings(arguments: argparse.Namespace, names: tuple[str, ...], broker: Broker) -> dict[str, Any]:
    """What was asked for, for the results."""
    found = {
        "devices": len(names),
        "broker": arguments.own or str(broker),
        "train_s": _training(arguments.train),
        "churn": arguments.churn,
        "connect_rate": arguments.connect_rate,
    }
    if arguments.own:
        found |= {name: getattr(arguments, name) for name in ("model", "density", "evaluate", "workers")}
    return found
