"""One device's round in numbers and bytes, for clients in other languages: `vectors-v2.json`.

    python -m tests.golden.vectors      writes it again; a test holds it to torch autograd and to our runtimes

Bytes are hexadecimal. Numbers are what torch gives in float64, rounded to nine digits; with float32 a client should
come within 1e-5 of a layer's largest gradient. Signs and bytes must be equal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch

from edge_client.trainer import log_prior
from export.torch_net import TorchReference
from tests.golden import make as golden
from tests.golden.make import FOLDER, RUN, seeded_ticket
from wire import adaptive, bits, dither, mask, messages, prng, selection, signing
from wire.channel import seal
from wire.federation_messages import MaskUpdate, Telemetry
from wire.fields import body
from wire.mask import Votes
from wire.messages import Message
from wire.plan import plan_to_data
from wire.settings import Training
from wire.ticket import Ticket

PATH = FOLDER / "vectors-v2.json"
TRAINING = Training(epochs=2, batch=4, learning_rate=0.02, dither=0.0)
DEVICE, FEDERATION_SEED, ROUND = "phone-1", 7, 3
LOTS_KEY = bytes(range(16))
PHONES_SAY_NONE = {
    *golden.SECURE,
    "state-counted",
    "claim",
    "claim-certified",
    "grant",
    "grant-certified",
    "update",
    "staged",
    "wheel-part",
    *golden.WORKERS,
}


def make() -> dict[str, Any]:
    """All of it: ticket, votes, samples, every step of the training, mask and message."""
    ticket = seeded_ticket()
    rng = np.random.default_rng(1)
    signs = rng.random(ticket.kept) < 0.8
    votes = Votes(signs=signs, dissent=rng.integers(0, 3, ticket.kept, dtype=np.uint16), voters=5)
    later = Votes(
        signs=signs ^ (rng.random(ticket.kept) < 0.1),
        dissent=rng.integers(0, 3, ticket.kept, dtype=np.uint16),
        voters=5,
    )
    x = rng.standard_normal((6, *ticket.plan.input_shape)).round(3).astype(np.float32)
    y = np.array([0, 1, 1, 0, 1, 0])
    prior = log_prior(y, ticket.plan.classes)
    reference = TorchReference(ticket, TRAINING, dtype=torch.float64)
    reference.set_log_prior(prior)
    start = votes.start_scores(TRAINING.start)
    reference.set_scores(start)
    seed = prng.mix(FEDERATION_SEED, ROUND, DEVICE)
    steps = []
    for epoch in range(TRAINING.epochs):
        order = prng.permutation(seed, epoch, y.size)
        for at in range(0, y.size, TRAINING.batch):
            chosen = order[at : at + TRAINING.batch]
            loss, correct, gradient = reference.gradient(x[chosen], y[chosen], np.ones(chosen.size, np.float32))
            reference.apply(gradient)
            steps.append(
                {
                    "samples": chosen.tolist(),
                    "loss": _rounded(loss),
                    "correct": correct,
                    "gradient": _rounded(gradient),
                    "scores": _rounded(reference.scores()),
                }
            )
    trained = reference.scores() >= 0
    coded = mask.encode_signs(trained, votes, ticket.ends)
    update = MaskUpdate(
        run=RUN,
        number=ROUND,
        signs=coded,
        train_samples=y.size,
        loss=0.5,
        correct=2,
        test_samples=3,
        train_s=0.25,
        step_ms=1.5,
        peak_memory_kb=40_000,
    )
    return {
        "version": 2,
        "ticket": ticket.encoded.hex(),
        "ticket_sha256": ticket.id.hex(),
        "plan": plan_to_data(ticket.plan),
        "layers": _layers(ticket),
        "training": asdict(TRAINING),
        "votes": mask.encode_votes(votes, ticket.ends).hex(),
        "votes_digest": votes.digest.hex(),
        "votes_levels": votes.levels.tolist(),
        "later_votes": mask.encode_votes(later, ticket.ends, votes).hex(),
        "later_votes_signs": later.signs.astype(int).tolist(),
        "later_votes_dissent": later.dissent.tolist(),
        "votes_signs": votes.signs.astype(int).tolist(),
        "votes_mean": _rounded(votes.mean),
        "start_scores": _rounded(start),
        "x": _rounded(x),
        "y": y.tolist(),
        "log_prior": _rounded(prior),
        "order": {"federation_seed": FEDERATION_SEED, "round": ROUND, "device": DEVICE},
        "steps": steps,
        "signs": trained.astype(int).tolist(),
        "mask": coded.hex(),
        "message": messages.encode(update).hex(),
        "signing": {
            "private_key": golden.KEY.hex(),
            "public_key": signing.public_key(golden.KEY).hex(),
            "topic": golden.TOPIC,
            "sealed": seal(golden.KEY, golden.TOPIC, update).hex(),
        },
        **_formats(),
    }


def _formats() -> dict[str, Any]:
    """What the round above does not show: the other kind of ticket, every form of coded bits, every message, parts."""
    explicit = golden.explicit_ticket()
    few = golden.few_flips() ^ golden.reference_signs()
    arrays = [golden.few_flips(), golden.reference_signs(), few, ~few]
    topic = golden.parts()[0][0].rpartition("/")[0]
    whole = seal(golden.KEY, topic, golden.MESSAGES["bundle-bytes"])
    return {
        "explicit_ticket": {"ticket": explicit.encoded.hex(), "layers": _layers(explicit)},
        "codes": [{"bits": _bits(one), "coded": bits.encode(one).hex()} for one in arrays],
        "adaptive": [_adaptive(seed) for seed in range(16)],
        "masks": [
            {
                "votes": _votes(votes),
                "ends": golden.ENDS.tolist(),
                "signs": _bits(signs),
                "coded": mask.encode_signs(signs, votes, golden.ENDS).hex(),
            }
            for votes in (golden.votes(), golden.crowd())
            for signs in (golden.few_flips(), golden.many_flips())
        ],
        "votes_codes": [
            {
                "votes": _votes(votes),
                "known": _votes(known) if known else None,
                "ends": golden.ENDS.tolist(),
                "digest": votes.digest.hex(),
                "coded": mask.encode_votes(votes, golden.ENDS, known).hex(),
            }
            for votes, known in (
                (golden.votes(), None),
                (golden.later_votes(), golden.votes()),
                (golden.crowd(), None),
                (golden.votes(), golden.crowd()),
            )
        ],
        "messages": {
            name: {"fields": _plain(_sent(message)), "bytes": messages.encode(message).hex()}
            for name, message in golden.MESSAGES.items()
            if not isinstance(message, Telemetry) and name not in PHONES_SAY_NONE
        },
        "dithered": _dithered(),
        "lots": {
            "key": LOTS_KEY.hex(),
            "devices": {name: selection.lot(LOTS_KEY, name) for name in ("phone-1", "pi_2", "A")},
        },
        "parts": {
            "topic": topic,
            "packet_bytes": 100,
            "whole": whole.hex(),
            "packets": [[topic, payload.hex()] for topic, payload in golden.parts()],
        },
    }


def _dithered() -> dict[str, Any]:
    """Scores that training has moved, and what is sent of them (`wire.dither`).

    Every third score lies so near to its threshold that only who rounds as we do sends the same of it.
    """
    training, seed = golden.DITHERED, prng.mix(FEDERATION_SEED, ROUND, DEVICE)
    votes = dither.announce((np.arange(golden.KEPT) % 16).astype(np.uint8))
    start = dither.start_scores(votes, training)
    places = np.arange(golden.KEPT)
    moved = start + (places % 7 - 3).astype(np.float32) / 64
    edges = training.dither * ((dither.thresholds(seed, golden.KEPT) + 0.5) * 2 / 255 - 1)
    scores = np.where(places % 3, moved, edges.astype(np.float32))
    bits_sent, known = dither.signs_of(scores, training, seed), dither.context(votes, training, seed)
    return {
        "federation": messages.encode(golden.MESSAGES["federation-dithered"]).hex(),
        "dither": training.dither,
        "seed": str(seed),
        "votes": _votes(votes),
        "start_scores": _rounded(start),
        "thresholds": dither.thresholds(seed, golden.KEPT).tolist(),
        "expected": _bits(known.signs),
        "levels": known.levels.tolist(),
        "scores": _rounded(scores),
        "bits": _bits(bits_sent),
        "ends": golden.ENDS.tolist(),
        "coded": mask.encode_signs(bits_sent, known, golden.ENDS).hex(),
    }


def _sent(message: Message) -> dict[str, Any]:
    """The fields that are in the bytes."""
    numbers = body(message)
    return {one.name: getattr(message, one.name) for one in fields(message) if one.metadata["number"] in numbers}


def _adaptive(seed: int) -> dict[str, Any]:
    """Symbols of 1 or 4 bits, rare or not, in contexts, and their code (`wire.adaptive`)."""
    rng = np.random.default_rng(seed)
    bits_each = (1, 4)[seed % 2]
    n = int(rng.integers(0, 120))
    symbols = (rng.random(n) < rng.random() ** 2) * rng.integers(1, 1 << bits_each, n)
    contexts = rng.integers(0, 16, n)
    ends = np.array([n // 3, n])
    coded = adaptive.encode(symbols.astype(np.uint8), contexts.astype(np.uint8), ends, bits_each, room=8 * n + 8)
    assert coded is not None
    return {
        "bits": bits_each,
        "symbols": symbols.tolist(),
        "contexts": contexts.tolist(),
        "ends": ends.tolist(),
        "coded": coded.hex(),
    }


def _votes(votes: Votes) -> dict[str, Any]:
    return {"signs": _bits(votes.signs), "dissent": votes.dissent.tolist(), "voters": votes.voters}


def _bits(array: np.ndarray) -> str:
    return "".join("01"[int(bit)] for bit in array)


def _layers(ticket: Ticket) -> list[dict[str, Any]]:
    """A ticket's layers, unpacked."""
    return [
        {
            "weight_shape": layer.shape.weight_shape,
            "indices": layer.indices.tolist(),
            "initial_weights": _rounded(layer.weights),
        }
        for layer in ticket.kept_layers
    ]


def _plain(value: Any) -> Any:
    """A message's field for JSON: bytes as hexadecimal, settings as a map."""
    match value:
        case bytes():
            return value.hex()
        case Training():
            return asdict(value)
        case Mapping():
            return {name: _plain(one) for name, one in value.items()}
        case tuple():
            return [_plain(one) for one in value]
    return value


def _rounded(values: Any) -> Any:
    """Nested lists of numbers with nine digits."""
    if isinstance(values, np.ndarray):
        return _rounded(values.tolist())
    return [_rounded(one) for one in values] if isinstance(values, list) else float(f"{values:.9g}")


def main() -> int:
    """Write the file."""
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in make().items())
    PATH.write_text(f"{{\n{lines}\n}}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
