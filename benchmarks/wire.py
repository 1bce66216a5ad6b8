"""`make bench-wire`: bytes and speed of the mask coder, against the ideal code length and other coders.

Masks and votes are those of a simulated run (HAPT by default; the run is played first), and of independent flips
at fixed rates. Every coder takes its turns in one process on the same masks, so that a neighbour's load hits all
alike; times are CPU times, the best of a few turns. Ratios are to the ideal adaptive code that knows every
weight's layer and level (`coordinator.baselines.hidenseek_signs.adaptive_bits`), one byte of a coded mask's header not
counted away.

    make bench-wire
    make bench-wire ARGS="--rounds 10 --output out/wire"
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import commit, describe
from coordinator.baselines.hidenseek_signs import HideNseekSigns, adaptive_bits, votes_of
from coordinator.baselines.method import State, Update
from coordinator.experiment import DataSettings, Experiment
from wire import adaptive_python, bits, mask
from wire.mask import Ends, Signs, Votes

RATES = (0.005, 0.02, 0.05, 0.1, 0.3)
LARGE = 1_000_000
VOTERS = 1_000
TURNS = 5
SLOW = "hidenseek, in Python"  # on two masks only
SAMPLE = 24  # masks of a run that are timed; all are measured


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """A mask and what both sides know."""

    signs: Signs
    votes: Votes
    ends: Ends

    @property
    def flips(self) -> Signs:
        """What travels."""
        return self.signs ^ self.votes.signs

    @property
    def ideal_bytes(self) -> float:
        """In the ideal adaptive code."""
        layers = np.repeat(np.arange(self.ends.size), np.diff(self.ends, prepend=0))
        return adaptive_bits(self.flips, layers * mask.LEVELS + self.votes.levels) / 8


@dataclass(frozen=True, kw_only=True)
class Row:
    """One coder on the masks of one case."""

    case: str
    coder: str
    masks: int
    kept: int
    flip_rate: float
    bytes: float
    bits_per_kept: float
    ratio_to_ideal: float
    encode_ms: float
    decode_mb_s: float  # 1e6 bytes of raw mask a second


class Recorded(HideNseekSigns):
    """HideNseek that remembers every round's votes and masks."""

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Note what came."""
        votes, ends = votes_of(state), self.ticket.ends
        RUN.append((votes, [mask.decode_signs(update.payload, votes, ends) for update in updates], ends))
        return super().aggregate(state, updates)


RUN: list[tuple[Votes, list[Signs], Ends]] = []  # the class is found by name, in this process

Encode = Callable[[Mask], bytes]
Decode = Callable[[bytes, Mask], object]


def coders() -> dict[str, tuple[Encode, Decode]]:
    """By name; those of packages that are not installed are left out."""
    found: dict[str, tuple[Encode, Decode]] = {
        "hidenseek": (
            lambda one: mask.encode_signs(one.signs, one.votes, one.ends),
            lambda data, one: mask.decode_signs(data, one.votes, one.ends),
        ),
        SLOW: (
            lambda one: adaptive_python.encode(one.flips.view(np.uint8), one.votes.levels, one.ends, 1, 1 << 30) or b"",
            lambda data, one: adaptive_python.decode(data, one.votes.levels, one.ends, 1),
        ),
        "raw bits": (lambda one: bits.pack(one.flips), lambda data, one: bits.unpack(data, one.flips.size)),
        "Rice": (lambda one: bits.encode(one.flips), lambda data, one: bits.decode(data, one.flips.size)),
        "zlib": (
            lambda one: zlib.compress(bits.pack(one.flips), 9),
            lambda data, one: bits.unpack(zlib.decompress(data), one.flips.size),
        ),
    }
    try:
        import zstandard

        found["zstd"] = (
            lambda one: zstandard.ZstdCompressor(19).compress(bits.pack(one.flips)),
            lambda data, one: bits.unpack(zstandard.ZstdDecompressor().decompress(data), one.flips.size),
        )
    except ImportError:
        sys.stderr.write("zstandard is not installed: left out\n")
    try:
        import constriction  # noqa: F401

        found["constriction"] = (_constriction_encode, _constriction_decode)
    except ImportError:
        sys.stderr.write("constriction is not installed: left out\n")
    return found


def _constriction_encode(one: Mask) -> bytes:
    """Its range coder with a probability for every level, sent before the code in a byte each."""
    import constriction

    cs = constriction.stream

    levels, flips = one.votes.levels, one.flips
    counts, ones = np.bincount(levels, minlength=16), np.bincount(levels, weights=flips, minlength=16)
    shares = np.clip(np.rint(256 * (ones + 0.5) / (counts + 1)), 1, 255).astype(np.uint8)
    encoder = cs.queue.RangeEncoder()
    encoder.encode(flips.astype(np.int32), cs.model.Bernoulli(perfect=False), shares[levels].astype(np.float32) / 256)
    return shares.tobytes() + encoder.get_compressed().tobytes()


def _constriction_decode(data: bytes, one: Mask) -> object:
    import constriction

    cs = constriction.stream

    shares = np.frombuffer(data[:16], np.uint8)
    decoder = cs.queue.RangeDecoder(np.frombuffer(data[16:], np.uint32))
    return decoder.decode(cs.model.Bernoulli(perfect=False), shares[one.votes.levels].astype(np.float32) / 256)


def measure(case: str, masks: list[Mask]) -> Iterator[Row]:
    """Every coder on these masks."""
    ideal = fmean(one.ideal_bytes for one in masks)
    kept, size = masks[0].signs.size, 0.0
    for name, (encode, decode) in coders().items():
        slow = name == SLOW
        timed = masks[:2] if slow else masks[:: max(len(masks) // SAMPLE, 1)]
        coded = [encode(one) for one in timed]
        if slow:  # the same bytes as in C, so their number is known
            assert all(
                mask.encode_signs(one.signs, one.votes, one.ends)[1:] in (data, bits.pack(one.flips))
                for one, data in zip(timed, coded, strict=True)
            )
        else:
            size = fmean(len(encode(one)) for one in masks)
        for one, data in zip(timed, coded, strict=True):
            found = np.asarray(decode(data, one), dtype=np.bool_)
            assert np.array_equal(found, one.signs if name == "hidenseek" else one.flips), name
        turns = 1 if slow else TURNS
        encode_s = _best(turns, _each(encode, timed))
        decode_s = _best(turns, _each(decode, coded, timed))
        yield Row(
            case=case,
            coder=name,
            masks=len(masks),
            kept=kept,
            flip_rate=round(fmean(float(one.flips.mean()) for one in masks), 5),
            bytes=round(size, 1),
            bits_per_kept=round(8 * size / kept, 4),
            ratio_to_ideal=round(size / ideal, 4),
            encode_ms=round(1e3 * encode_s / len(timed), 3),
            decode_mb_s=round(kept / 8 * len(timed) / decode_s / 1e6, 2),
        )


def independent(kept: int, rate: float) -> list[Mask]:
    """Masks with independent flips, more where voters disagreed."""
    rng = np.random.default_rng(0)
    dissent = rng.choice(8, kept, p=(0.72, 0.1, 0.06, 0.04, 0.03, 0.02, 0.02, 0.01)).astype(np.uint16)
    votes = Votes(signs=rng.random(kept) < 0.5, dissent=dissent, voters=15)
    chance = 1 + 6.0 * dissent
    chance *= rate / chance.mean()
    count = max(1, 300_000 // kept)
    ends = np.array([kept // 4, kept])
    return [Mask(signs=votes.signs ^ (rng.random(kept) < chance), votes=votes, ends=ends) for _ in range(count)]


def votes_sizes(rounds: Sequence[tuple[Votes, list[Signs], Ends]]) -> dict[str, float]:
    """Bytes of the announced votes: alone, and in the context of those before; means over the run."""
    later = list(zip(rounds[1:], rounds[:-1], strict=True))
    return {
        "kept": rounds[0][0].signs.size,
        "alone": round(fmean(len(mask.encode_votes(now[0], now[2])) for now, _ in later), 1),
        "difference": round(fmean(len(mask.encode_votes(now[0], now[2], before[0])) for now, before in later), 1),
    }


def counting() -> dict[str, float]:
    """A thousand masks of a million bits: positional population counts against copying the same bytes."""
    from wire.native.library import native

    library = native()
    if library is None:
        return {}
    packed = np.random.default_rng(0).integers(0, 1 << 63, (VOTERS, LARGE // 64), dtype=np.uint64)
    target = np.empty_like(packed)
    np.copyto(target, packed)
    count_s = _best(TURNS, lambda: library.count_votes(packed))
    copy_s = _best(TURNS, lambda: np.copyto(target, packed))
    return {"masks": VOTERS, "bits": LARGE, "seconds": round(count_s, 4), "of_memcpy": round(copy_s / count_s, 3)}


def _each(work: Callable[..., object], *arguments: list[Any]) -> Callable[[], object]:
    return lambda: list(map(work, *arguments))


def _best(turns: int, work: Callable[[], object]) -> float:
    """CPU seconds of the fastest of a few turns."""
    seconds = []
    for _ in range(turns):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wire", description="Bytes and speed of the coder.")
    parser.add_argument("--data", default="har", help="har or fashion-mnist, whose run is played")
    parser.add_argument("--rounds", type=int, default=60, help="of the run")
    parser.add_argument("--output", type=Path, help="where the .json goes (default benchmarks/results/wire-DATE-DATA)")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("votes are compared with those before: at least 2 rounds")
    console, rows = Console(width=110), []
    how = "natural" if options.data == "har" else "shards"
    data = DataSettings(name=options.data, how=how, limit=None if how == "natural" else (100, 25))
    experiment = Experiment(method="benchmarks.wire:Recorded", data=data, rounds=options.rounds)
    import benchmarks.wire as here  # the class the experiment finds is that one's, not __main__'s

    with tempfile.TemporaryDirectory() as out, console.status("playing the run") as status:
        played = experiment.run(
            0, out=Path(out), workers=1, report=lambda row: status.update(f"playing round {row['round']}")
        )
    run = here.RUN
    cases = {f"{data.title}, all rounds": [Mask(signs=s, votes=v, ends=e) for v, every, e in run for s in every]}
    cases[f"{data.title}, last 10 rounds"] = [
        Mask(signs=s, votes=v, ends=e) for v, every, e in run[-10:] for s in every
    ]
    kept = run[0][0].signs.size
    cases |= {f"independent flips, {size:,} weights": independent(size, 0.05) for size in (kept, LARGE)}
    cases |= {f"independent flips, rate {rate:g}": independent(kept, rate) for rate in RATES}
    for case, masks in cases.items():
        with console.status(case):
            rows += list(measure(case, masks))
    messages = {
        "up": round(fmean(row["up_bytes"] / row["selected"] for row in played), 1),
        "down": round(fmean(row["down_bytes"] / row["selected"] for row in played), 1),
    }
    result = {
        "machine": describe(),
        "commit": commit(),
        "versions": {name: metadata.version(name) for name in ("numpy", "hidenseek")},
        "messages": messages,
        "votes": votes_sizes(run),
        "counting": counting(),
        "rows": [asdict(row) for row in rows],
    }
    target = options.output or Path("benchmarks/results") / f"wire-{time.strftime('%Y%m%d')}-{options.data}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    _show(console, rows, result)
    console.print(f"wrote {target.with_suffix('.json')}")
    return 0


def _show(console: Console, rows: list[Row], result: dict[str, object]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("case", no_wrap=True)
    table.add_column("coder", no_wrap=True)
    for name in ("flips %", "bytes", "bits/kept", "of ideal", "encode ms", "decode MB/s"):
        table.add_column(name, justify="right", no_wrap=True)
    case = ""
    for row in rows:
        figures = (f"{100 * row.flip_rate:.2f}", f"{row.bytes:,.0f}", f"{row.bits_per_kept:.3f}")
        figures += (f"{row.ratio_to_ideal:.3f}", f"{row.encode_ms:.2f}", f"{row.decode_mb_s:.1f}")
        table.add_row(row.case if row.case != case else "", row.coder, *figures)
        case = row.case
    console.print(table)
    for name in ("messages", "votes", "counting"):
        console.print(f"{name}: {result[name]}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
