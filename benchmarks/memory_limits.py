"""Training under limits on memory: `hidenseek-edge profile` trains inside or refuses, and what it takes of a limit.

    python -m benchmarks.memory_limits --bundles DIR   # of benchmarks.planner; as root: it makes control groups
    python -m benchmarks.memory_limits                 # the table of docs/profiling.md, from the results

A control group counts what a process touches first: libraries that others have in memory already are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.planner import DENSITY
from wire.errors import NotEnoughMemory

RESULTS = Path(__file__).parent / "results" / "memory-limits.json"
GROUPS_MIB = (64, 128)
CASES = (("har-cnn", "sparse"), ("conv4", "sparse"), ("har-cnn", "executorch"), ("har-cnn", "onnx"), ("conv4", "onnx"))
ADDRESSES_MIB = range(80, 193, 16)  # of ulimit -v, for the first of CASES
SECONDS = "1"
TIMEOUT_S = 300
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
REFUSED = NotEnoughMemory.exit_code


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, help="measure, with these bundles")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.bundles is None:
        print(table())
        print(addresses())
        return
    groups = [_in_group(arguments.bundles, net, runtime, mib) for mib in GROUPS_MIB for net, runtime in CASES]
    limited = [_in_addresses(arguments.bundles, *CASES[0], mib) for mib in ADDRESSES_MIB]
    result = {
        "machine": machine.describe(),
        "commit": machine.commit(),
        "versions": {name: version(name) for name in ("numpy", "onnxruntime", "executorch")},
        "python": sys.version.split()[0],
        "density": DENSITY,
        "control_groups": "version 1" if V1.is_dir() else "version 2",
        "groups": groups,
        "addresses": limited,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def table() -> str:
    """What happened in each control group, as Markdown."""
    rows = json.loads(RESULTS.read_text())["groups"]
    cases = [f"`{net}` {runtime}" for net, runtime in CASES]
    lines = [f"| limit | {' | '.join(cases)} |", f"|---|{'---|' * len(cases)}"]
    for mib in GROUPS_MIB:
        found = {(row["net"], row["runtime"]): _said(row) for row in rows if row["mib"] == mib}
        lines.append(f"| group of {mib} MiB | {' | '.join(found[case] for case in CASES)} |")
    return "\n".join(lines)


def addresses() -> str:
    """From how much address space on it trains, and how it ends below."""
    rows = json.loads(RESULTS.read_text())["addresses"]
    enough = min(row["mib"] for row in rows if row["code"] == 0)
    below = {row["code"] for row in rows if row["mib"] < enough}
    assert below <= {REFUSED}, below
    return f"{enough} MiB"


def _said(row: dict[str, Any]) -> str:
    if row["code"] == 0:
        return f"trains, {row['peak_mb']:.0f} MB"
    return f"refused: needs {row['needs_mb']:.0f}, {row['left_mb']:.0f} left"


def _in_group(bundles: Path, net: str, runtime: str, mib: int) -> dict[str, Any]:
    with _group(mib) as group:
        row = _trained(bundles, net, runtime, f"echo $$ > {group}/cgroup.procs") | {"mib": mib}
        peak = group / ("memory.max_usage_in_bytes" if V1.is_dir() else "memory.peak")
        row["peak_mb"] = round(int(peak.read_text()) / 1e6, 1)
    print(row, flush=True)
    return row


def _in_addresses(bundles: Path, net: str, runtime: str, mib: int) -> dict[str, Any]:
    row = _trained(bundles, net, runtime, f"ulimit -v {mib * 1024}") | {"mib": mib}
    print(row, flush=True)
    return row


def _trained(bundles: Path, net: str, runtime: str, limited: str) -> dict[str, Any]:
    """How training under a limit ended; an end that is neither training nor a refusal stops the benchmark."""
    program = [sys.executable, "-P", "-m", "edge_client.cli", "profile", "--seconds", SECONDS, "--runtime", runtime]
    command = ["sh", "-c", f'{limited} && exec "$@"', "sh", *program, f"{bundles}/{net}-{DENSITY}-{runtime}.hnsb"]
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    row: dict[str, Any] = {"net": net, "runtime": runtime, "code": done.returncode}
    if done.returncode == 0:
        return row
    said = re.search(r"needs ([\d.,]+) MB of memory, and ([\d.,]+) MB are left", " ".join(done.stderr.split()))
    if done.returncode != REFUSED or said is None:
        raise SystemExit(f"{row}: {done.stderr[-1000:]}")
    needs, left = (float(one.replace(",", "")) for one in said.groups())
    return row | {"needs_mb": needs, "left_mb": left}


@contextmanager
def _group(mib: int) -> Iterator[Path]:
    """A control group with a limit on its memory."""
    group = (V1 if V1.is_dir() else V2) / f"hidenseek-limits-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if V1.is_dir() else "memory.max")).write_text(str(mib << 20))
        yield group
    finally:
        group.rmdir()


if __name__ == "__main__":
    main()
