"""`hidenseek`: the workstation's commands. Each imports what it needs when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from coordinator import (
    backup_command,
    broker_command,
    commands,
    devices_command,
    export_command,
    flash_command,
    fleet_command,
    freeze_command,
    key_command,
    loadtest_command,
    plan_command,
    profile_command,
    prune_command,
    report_command,
    runs_command,
    serve_command,
    simulate_command,
    worker_command,
)
from coordinator.datasets import command as data_command
from wire import __version__, command

EPILOG = """
examples:
  hidenseek demo                                        a whole federation on this machine, about a minute
  hidenseek prune --model har-cnn --density 0.1 -o har.hns
  hidenseek inspect har.hns
  hidenseek plan har.hns --fleet devices.yaml           which boards can train it, with which runtime, at what cost
  hidenseek profile har.hns --ssh pi@10.0.0.7           what it really costs on a board, installing nothing there
  hidenseek export har.hns -o har-export               graphs that train on devices; then: hidenseek verify har-export
  hidenseek serve --config devices.yaml --broker mqtt://192.168.1.10
  hidenseek broker init --kind mosquitto --hosts hub.example.org -o deploy
  hidenseek devices show pi-5-8gb                       what we know of a kind of board, and from where
  hidenseek flash pi-01 --image raspios-lite-arm64.img.xz --to /dev/sdX
  hidenseek fleet revoke pi-07
  hidenseek runs set rounds=40                          of the run that goes on; stop it, start another
  hidenseek freeze --run hidenseek-default -o global.onnx
  hidenseek simulate --method fedavg --rounds 20       HideNseek's rivals, on the same data
  hidenseek loadtest --self mosquitto --devices 1000   what a broker and the coordinator bear
  hidenseek data list

On the devices: hidenseek-edge join --help
exit codes: 0 done, 2 usage, 130 stopped, others in docs/errors.md
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `hidenseek`; return the exit code."""
    return command.run("hidenseek", build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    """All of `hidenseek`'s commands and options."""
    parser = argparse.ArgumentParser(
        prog="hidenseek",
        description="Federated learning for Raspberry Pis, ARM boards and phones: "
        "one sign bit per kept weight, over MQTT.",
        epilog=EPILOG,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hidenseek {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_demo(subparsers)
    prune_command.add_prune(subparsers)
    prune_command.add_inspect(subparsers)
    plan_command.add_plan(subparsers)
    profile_command.add_profile(subparsers)
    export_command.add_export(subparsers)
    export_command.add_verify(subparsers)
    key_command.add_key(subparsers)
    broker_command.add_broker(subparsers)
    serve_command.add_serve(subparsers)
    worker_command.add_worker(subparsers)
    devices_command.add_devices(subparsers)
    flash_command.add_flash(subparsers)
    fleet_command.add_fleet(subparsers)
    backup_command.add_backup(subparsers)
    backup_command.add_restore(subparsers)
    report_command.add_report(subparsers)
    runs_command.add_runs(subparsers)
    freeze_command.add_freeze(subparsers)
    simulate_command.add_simulate(subparsers)
    loadtest_command.add_loadtest(subparsers)
    data_command.add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
