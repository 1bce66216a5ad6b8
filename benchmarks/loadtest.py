"""Load tests whose figures docs/scale.md quotes: `python -m benchmarks.loadtest NAME ...`; all by default.

Each starts a broker and `hidenseek serve` of its own on the loopback; they share the machine with the devices.
Results: benchmarks/results/loadtest-NAME.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks import machine
from coordinator.brokers.process import mosquitto_binary, nats_binary

RESULTS = Path(__file__).parent / "results"
SMALL = ["--per-round", "100", "--rounds", "3", "--train", "2,4"]
IDLE = ["--per-round", "100", "--rounds", "1000", "--train", "600"]
TRAINED = ["--per-round", "1000", "--rounds", "3", "--train", "2,4"]
CASES = {
    "mosquitto-1000": ["--self", "mosquitto", "--devices", "1000", *SMALL],
    "nats-1000": ["--self", "nats", "--devices", "1000", *SMALL],
    "mosquitto-10000": ["--self", "mosquitto", "--devices", "10000", *TRAINED],
    "nats-10000": ["--self", "nats", "--devices", "10000", *TRAINED],
    "mosquitto-burst": ["--self", "mosquitto", "--devices", "10000", "--per-round", "1000", "--rounds", "3"],
    # Idle for longer than two keepalives: nobody is done training before it ends.
    "mosquitto-idle": ["--self", "mosquitto", "--devices", "1000", *IDLE, "--for", "150"],
    # As many as a process may have open files here.
    "mosquitto-most": ["--self", "mosquitto", "--devices", "19900", *IDLE, "--for", "60"],
}  # fmt: skip


def measure(name: str) -> int:
    """Run one and write its result; the load test's exit code."""
    path = RESULTS / f"loadtest-{name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "coordinator.cli", "loadtest", *CASES[name], "--json", str(path)]
    about = {"machine": machine.describe(), "commit": machine.commit()}
    code = subprocess.run(command, check=False).returncode
    if path.exists():
        found = {"what": f"hidenseek loadtest {' '.join(CASES[name])}", **about, "versions": versions()}
        path.write_text(json.dumps(found | json.loads(path.read_text()), indent=1) + "\n")
    return code


def versions() -> dict[str, str]:
    """Of what took part."""
    mosquitto = subprocess.run([mosquitto_binary(), "-h"], capture_output=True, text=True, check=False).stdout
    nats = subprocess.run([nats_binary(), "--version"], capture_output=True, text=True, check=False).stdout
    return {
        "python": sys.version.split()[0],
        "mosquitto": mosquitto.split("\n")[0].removeprefix("mosquitto version "),
        "nats-server": nats.strip().removeprefix("nats-server: v"),
        "paho-mqtt": metadata.version("paho-mqtt"),
    }


def main() -> int:
    """Run those that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(CASES)}")
    return max(measure(name) for name in parser.parse_args().names or CASES)


if __name__ == "__main__":
    sys.exit(main())
