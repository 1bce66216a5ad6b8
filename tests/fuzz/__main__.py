"""A million inputs for everything that reads bytes from elsewhere: `make fuzz`, or `python -m tests.fuzz --help`."""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tests.fuzz import native
from tests.fuzz.hunt import FoundError, Tally, corpus, found, give, hunt
from tests.fuzz.targets import targets

OUT = Path("out/fuzz")
SHOWN = 4000  # characters of an input; the file has it whole


def main() -> int:
    """Fuzz all readers, or replay one input; 1 if anything was found, or too little tried."""
    names = [native.NAME, *targets()]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for the native coder; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=7, help="for each reader in Python; default: %(default)s")
    parser.add_argument("--longest", type=float, default=240, help="seconds for the native coder's inputs")
    parser.add_argument("--seed", type=int, default=None, help="fixes what is tried; drawn and printed if not given")
    parser.add_argument("--only", choices=names, help="one reader")
    parser.add_argument("--replay", nargs=2, metavar=("READER", "INPUT"), help="an input in hex, or its file")
    options = parser.parse_args()
    if options.replay:
        return _replay(*options.replay)
    seed = secrets.randbits(31) if options.seed is None else options.seed
    _say(f"seed {seed}; the same again: make fuzz ARGS='--seed {seed}'")
    return _fuzz(options, seed)


def _fuzz(options: argparse.Namespace, seed: int) -> int:
    began_s = time.monotonic()
    report: dict[str, object] = {}
    tried = finds = 0
    with ThreadPoolExecutor(1) as pool:
        wanted = options.inputs if options.only in (None, native.NAME) else 0
        coder = pool.submit(native.run, OUT, wanted, options.longest, seed) if wanted else None
        for name in targets() if options.only is None else {options.only} - {native.NAME}:
            tally, error = _one(name, seed, options.seconds)
            tried += tally.tried
            finds += error is not None
            slowest_s = round(tally.slowest_s, 3)
            report[name] = [tally.tried, tally.accepted, len(tally.met), slowest_s]
            _say(
                f"{name:>12}: {tally.tried:>9,} inputs, {tally.accepted:,} accepted, {len(tally.met)} kinds of answer, "
                f"slowest {slowest_s:g} s"
            )
            if error is not None:
                _tell(name, error.data, error.what)
        if coder is not None:
            outcome = coder.result()
            tried += outcome.inputs
            report[native.NAME] = [outcome.inputs]
            _say(f"{native.NAME:>12}: {outcome.inputs:>9,} inputs, {outcome.explored:,} by libFuzzer")
            if outcome.crash is not None:
                finds += 1
                _tell(native.NAME, outcome.crash, outcome.said)
    few = coder is not None and tried < wanted
    if few:
        _say(f"only {tried:,} inputs of {wanted:,} in that time")
    seconds = round(time.monotonic() - began_s, 1)
    _say(json.dumps({"inputs": tried, "seconds": seconds, "found": finds, "seed": seed, "targets": report}))
    return int(finds > 0 or few)


def _one(name: str, seed: int, seconds: float) -> tuple[Tally, FoundError | None]:
    """Fuzz one reader; what is new ground is kept in `OUT`."""
    known = corpus(name) + found(OUT / name)
    tally = Tally()
    try:
        for so_far in hunt(targets()[name], known, random.Random(f"{seed} {name}"), seconds):
            tally = so_far
    except FoundError as error:
        return tally, error
    for data in tally.met.values():
        if data not in known and data not in targets()[name].seeds:
            _keep(OUT / name, data)
    return tally, None


def _keep(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / sha256(data).hexdigest()[:12]
    path.write_bytes(data)
    return path


def _tell(name: str, data: bytes, what: str) -> None:
    path = _keep(OUT / "found" / name, data)
    shown = data.hex() if len(data) * 2 <= SHOWN else str(path)
    _say(f"FOUND in {name}: {what}\ninput: {data.hex()[:SHOWN]}")
    _say(f"again: make fuzz ARGS='--replay {name} {shown}'")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _replay(name: str, text: str) -> int:
    data = Path(text).read_bytes() if Path(text[:200]).is_file() else bytes.fromhex(text)
    if name == native.NAME:
        outcome = native.replay(data)
        _say(outcome.said or "nothing wrong with it")
        return int(outcome.crash is not None)
    try:
        _say(give(targets()[name], data))
    except FoundError as error:
        _say(error.what)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
