"""Memory that a card's service takes, waiting for a round and training: the real client, broker and coordinator.

    python -m benchmarks.service_memory                     # this tree
    python -m benchmarks.service_memory --tree ../before    # the client of another tree, built
    pip install --target P --python-version 3.13 --only-binary :all: numpy paho-mqtt pynacl dnslib
    python -m benchmarks.service_memory --python python3.13 --packages P --name 3.13

The client is started as `hidenseek flash` has a card start it: by the system's Python with the options of the
launcher, from a folder with what a card has, over TLS to mosquitto. It trains har-cnn on 300 samples of 6 x 128 and
tries each round's network on 100. A card's first start also compiles all
that it imports; what is loaded seldom is compiled later.
Figures are of /proc/PID/status and smaps_rollup (proc(5)), in 1e6 bytes. `client` is what is resident of the service's
main process, `trainer` of the one that it has for its work, 0 while there is none. `service` is what both take, pages
that they share counted once: all of the trainer, and what only the client has. Earlier clients trained in their one
process; of those all three say the same. `training, at most` is the largest of the samples taken every 20 ms, or what
the kernel says the trainer had at most with the client's part of that moment, whichever is more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import machine
from tests.integration.deployed import Deployed, deployed
from tests.integration.fleet import Processes, wait_until, write_person
from tests.integration.updating import closed

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/service-memory.json"
NEEDED = ("numpy", "paho", "nacl", "cffi", "_cffi_backend", "dnslib")
SYSTEM_PYTHON = Path("/usr/bin/python3")
SAMPLES, ROUNDS, SETTLE_S, SAMPLE_S = 400, 10, 3.0, 0.02
LINGER_S = 30.0 + SETTLE_S  # of the process that trains, `edge_client.apart.LINGER_S`
CONFIG = """\
federation: {name: t, rounds: 9000, per_round: 2, quorum: 2, start_devices: 2, deadline_s: 60, training: {epochs: 2}}
devices: {pi-1: {}, pi-2: {}}
"""


def main() -> int:
    """Measure, print, and keep under a name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="whose client (default: this one)")
    parser.add_argument("--name", default="now", help="of the figures in the results (default now)")
    parser.add_argument("--python", type=Path, default=_python(), help="which interpreter runs the client")
    parser.add_argument("--packages", type=Path, help="the client's, for that one (default: those of this environment)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.tree.resolve(), arguments.python, arguments.packages)
    print(json.dumps(found, indent=1))
    known: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[arguments.name] = found
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    return 0


def measure(home: Path, tree: Path, python: Path, packages: Path | None = None) -> dict[str, Any]:
    """Start broker, coordinator and two devices, one of them as a card does; what that one takes.

    Args:
        home: an empty folder.
        tree: whose client.
        python: which interpreter.
        packages: a folder of the client's; None: those of this environment.
    """
    launcher, flags = _as_on_a_card(home / "client", tree, packages)
    for device, seed in (("pi-1", 1), ("pi-2", 2)):
        write_person(home / "data" / device, seed=seed, samples=SAMPLES)
    processes = Processes(home)
    with deployed(home, "mosquitto") as made:
        url = ["--broker", made.url("coordinator"), "--ca", str(made.folder / "ca.crt")]
        processes.serve(CONFIG, *url, password=made.password("coordinator"))
        command = [str(python), *flags, str(launcher), "card", str(_card(home, made))]
        environment = _unit(tree) | {"PATH": os.environ["PATH"], "STATE_DIRECTORY": str(home / "state")}
        try:
            found: dict[str, dict[str, float]] = {}
            with _started(command, environment, home / "pi-1.log") as pid:
                found["first start, joined"] = _memory(pid)  # it compiles all that it imports
            with _started(command, environment, home / "pi-1.log") as pid:
                time.sleep(SETTLE_S)
                found["later start, joined"] = _memory(pid)
                time.sleep(LINGER_S)
                found["waiting for the first round"] = _memory(pid)
                more = ["--broker", made.url("pi-2"), "--ca", str(made.folder / "ca.crt")]
                processes.edge("pi-2", "", *more, password=made.password("pi-2"))
                found[f"training, at most in {ROUNDS} rounds"] = _while_training(pid, processes)
                processes.kill("pi-2")  # so that the round that is open now stays so
                time.sleep(LINGER_S)
                found["waiting again"] = _memory(pid)
        finally:
            processes.stop()
    described = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    git = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "machine": machine.describe(),
        "commit": commit,
        "python": f"{described} {' '.join(flags)}",
        "made_by": "python -m benchmarks.service_memory",
        "MB": found,
    }


def _python() -> Path:
    """The system's, if packages of this environment fit it."""
    if SYSTEM_PYTHON.exists():
        ask = [str(SYSTEM_PYTHON), "-c", "import sys; print(*sys.version_info[:2])"]
        found = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split()
        if found == [str(one) for one in sys.version_info[:2]]:
            return SYSTEM_PYTHON
    return Path(sys.executable)


def _unit(tree: Path) -> dict[str, str]:
    """The environment that a card's service sets."""
    return dict(re.findall(r"^Environment=(\w+)=(.*)$", _text("service.UNIT_TEXT", tree), re.MULTILINE))


def _text(name: str, tree: Path) -> str:
    """A text that a tree writes on cards."""
    code = f"import sys; from export.image import client, service; sys.stdout.write({name})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tree).stdout


def _as_on_a_card(folder: Path, tree: Path, packages: Path | None) -> tuple[Path, list[str]]:
    """A launcher, as a card has it, of a folder with all that the client needs; and its interpreter's options."""
    text = _text("client.LAUNCHER", tree)
    library = folder / "lib"
    library.mkdir(parents=True)
    for one in [] if packages is None else packages.resolve().iterdir():
        (library / one.name).symlink_to(one)
    for name in NEEDED if packages is None else ():
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (library / origin.name).symlink_to(origin)
        if (beside := origin.with_name(f"{name}.libs")).exists():
            (library / beside.name).symlink_to(beside)
    for name in ("wire", "edge_client"):
        shutil.copytree(tree / name, library / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    launcher = folder / "hidenseek-edge"
    compiled = str(folder / "pycache")
    text = text.format(release=str(folder), pycache=compiled)
    launcher.write_text(text.replace("/var/cache/hidenseek/pycache", compiled))  # of earlier trees
    return launcher, text.splitlines()[0].split()[1:]


def _card(home: Path, made: Deployed) -> Path:
    """The card's settings, and its password as after enrolment."""
    state = home / "state"
    state.mkdir(mode=0o700)
    (state / "broker.password").write_text(made.password("pi-1") + "\n")
    path = home / "card.json"
    card = {"device": "pi-1", "federation": "t", "broker": made.settings.broker_nodes()[0].url, "trust": ""}
    card |= {"ca": str(made.folder / "ca.crt"), "data": str(home / "data/pi-1")}
    path.write_text(json.dumps(card))
    return path


@contextmanager
def _started(command: list[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    """Start the client, and end it after the block; its process id once it has joined."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    def joined() -> bool:
        assert process.poll() is None, log.read_text()
        return "joined; waiting for a round" in log.read_text()

    try:
        wait_until(joined, 60, "the device to join")
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def _while_training(pid: int, processes: Processes) -> dict[str, float]:
    """The largest of each figure until some rounds are closed."""
    most, before, deadline_s = _memory(pid), closed(processes), time.monotonic() + 120
    while closed(processes) < before + ROUNDS:
        assert time.monotonic() < deadline_s, processes.log("coordinator")
        most = {name: max(value, most[name]) for name, value in _memory(pid, most=True).items()}
        time.sleep(SAMPLE_S)
    return most


def _memory(pid: int, *, most: bool = False) -> dict[str, float]:
    """Of a service, 1e6 bytes; or the most that its trainer ever had."""
    client = _fields(pid)
    children = [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    resident = "VmHWM" if most else "VmRSS"
    found = {"client": client[resident], "trainer": 0, "service": client[resident]}
    for child in children:
        with suppress(OSError, KeyError):  # it has just ended
            trainer = _fields(int(child))[resident]
            found |= {"trainer": trainer, "service": trainer + client["Private_Clean"] + client["Private_Dirty"]}
    return {name: round(value * 1024 / 1e6, 1) for name, value in found.items()}


def _fields(pid: int) -> dict[str, int]:
    """What the kernel says of a process's memory, KiB."""
    found: dict[str, int] = {}
    for file in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            words = line.split()
            if len(words) == 3 and words[2] == "kB":
                found[words[0].rstrip(":")] = int(words[1])
    return found


if __name__ == "__main__":
    raise SystemExit(main())
