"""Files that are offered to devices, wheels or bundles: cut into parts, retained at the broker, and announced."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path

from coordinator.brokers.process import write_whole
from coordinator.datasets.fetch import open_url, shown
from coordinator.rollout import share_of
from wire.channel import Channel
from wire.errors import ConfigError, FetchError, StateError
from wire.topics import Topics
from wire.update import PART_BYTES, SEED_BYTES, FilePart, Offered, Staged, Update, files_of, part_count, url_of

# In the coordinator's state folder: what is retained at the broker.
LEDGERS: dict[type[Offered], str] = {Update: "client-update.json", Staged: "bundle-update.json"}


def issued_now() -> int:
    """When an announcement is made, as it says it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def share_from(percent: float) -> int:
    """A share of the devices as it is announced.

    Raises:
        ConfigError: if it is none.
    """
    if not 0 <= percent <= 100:
        raise ConfigError(f"{percent:g} found, 0 to 100 expected", where="--percent")
    return share_of(percent)


def seed_of(key: bytes, what: str) -> bytes:
    """What decides which devices a share is, always the same for what is offered, and nobody else can work out.

    Args:
        key: the federation's private key.
        what: is offered.
    """
    return hmac.digest(key, what.encode(), "sha256")[:SEED_BYTES]


def check_served(files: Mapping[str, bytes], update: Update) -> None:
    """See that what lies on the web is what is offered, and that parts of it can be had, as devices ask for them.

    Args:
        files: the wheels, by kind of machine.
        update: what is to be announced.

    Raises:
        FetchError: if it cannot be had, or is something else.
    """
    for machine, digest in update.wheels.items():
        url, size = url_of(update, machine), len(files[machine])
        data = b""
        try:
            for first in range(0, size, PART_BYTES):
                last = min(first + PART_BYTES, size) - 1
                with open_url(url, {"Range": f"bytes={first}-{last}"}) as answer:
                    data += answer.read(size + 1)
        except (OSError, HTTPException) as error:
            raise FetchError(f"cannot be fetched ({error})", where=shown(url)) from error
        if sha256(data).digest() != digest:
            hint = "Put the files of --wheels there, on a server that serves ranges of bytes"
            raise FetchError("it is not the wheel that is offered", where=shown(url), hint=hint)


def publish(
    channel: Channel,
    topics: Topics,
    state: Path,
    files: Mapping[str, bytes],
    offered: Offered,
    progress: Callable[[int, int], None],
) -> None:
    """Have a broker retain files, then what says so; and no longer those of an earlier offer of the kind.

    Args:
        channel: a connected one, of the coordinator's account.
        topics: of the federation.
        state: the coordinator's state folder.
        files: by kind of machine, or by runtime.
        offered: what is announced.
        progress: told how many bytes of all have been handed over.

    Raises:
        StateError: if it cannot be written down what is retained.
    """
    ledger = state / LEDGERS[type(offered)]
    before = _retained(ledger)
    at_broker = {} if isinstance(offered, Update) and offered.urls else files_of(offered)
    now = {digest.hex(): part_count(len(files[name])) for name, digest in at_broker.items()}
    _keep(ledger, before | now)  # before anything is sent: what is retained shall be known
    done, total = 0, sum(offered.sizes)
    for name, digest in at_broker.items():
        for number in range(part_count(len(files[name]))):
            data = files[name][number * PART_BYTES : (number + 1) * PART_BYTES]
            channel.send(topics.file_part(digest, number), FilePart(file=digest, number=number, data=data), retain=True)
            done += len(data)
            progress(done, total)
    announce(channel, topics, offered)
    for old, parts in before.items():
        if old not in now:
            for number in range(parts):
                channel.transport.publish(topics.file_part(bytes.fromhex(old), number), b"", retain=True)
    _keep(ledger, now)


def announce(channel: Channel, topics: Topics, offered: Offered) -> None:
    """Say what is offered, or to whom it is now."""
    channel.send(topics.update if isinstance(offered, Update) else topics.staged, offered, retain=True)


def _retained(ledger: Path) -> dict[str, int]:
    """Parts by SHA-256 of the files that a broker retains for us."""
    try:
        found = json.loads(ledger.read_text())
        return {str(bytes.fromhex(digest).hex()): int(parts) for digest, parts in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StateError(f"damaged ({error})", where=str(ledger), hint="Delete it: old files stay retained") from error


def _keep(ledger: Path, retained: dict[str, int]) -> None:
    ledger.parent.mkdir(parents=True, exist_ok=True)
    write_whole(ledger, (json.dumps(retained, indent=1) + "\n").encode(), 0o644)
