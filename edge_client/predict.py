"""`hidenseek-edge predict`: a device's own network applied to samples, file by file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_client import data
from edge_client.data_files import list_files
from edge_client.runtimes.base import Floats, Inference, Labels
from edge_client.runtimes.registry import open_inference
from edge_client.trainer import EVALUATION_BATCH
from wire.errors import ConfigError
from wire.mask import as_multipliers
from wire.state_folder import Learned

COLUMNS = ("source", "index", "class", "probability")
FORMATS = (".csv", ".npz")
CLASSES_SHOWN = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What the network says of one file's samples.

    Attributes:
        source: name of the file.
        classes: the class with the largest logit, int64 (n,).
        probabilities: softmax of the logits, float32 (n, network's classes).
        labels: the right classes, int64 (n,), or None if the file has none.
    """

    source: str
    classes: Labels
    probabilities: Floats
    labels: Labels | None

    @property
    def probability(self) -> Floats:
        """Probability of the predicted class, float32 (n,)."""
        return self.probabilities[np.arange(self.classes.size), self.classes]

    @property
    def correct(self) -> int | None:
        """Samples whose class is their label, or None without labels."""
        return None if self.labels is None else int(np.count_nonzero(self.classes == self.labels))


def predict(learned: Learned, path: Path) -> list[Predictions]:
    """Classify every sample of a `.npz` file, or of every such file in a folder.

    Raises:
        DataError: if there is no such file, or its arrays do not fit the network.
        RuntimeMissing, TicketError, UnknownName: if the bundle's runtime does not load here.
    """
    plan = learned.bundle.ticket.plan
    files = list_files(path)
    runtime = open_inference(learned.bundle)
    runtime.set_multipliers(as_multipliers(learned.personal.signs))
    found = []
    for file in files:  # one at a time: together they may be more than a small board's memory
        x, labels = data.read(file)
        data.check(plan, x, labels, str(file))
        logits = _logits(runtime, x) + learned.personal.log_prior
        found.append(
            Predictions(source=file.name, classes=logits.argmax(axis=1), probabilities=_softmax(logits), labels=labels)
        )
    return found


def _logits(runtime: Inference, x: Floats) -> Floats:
    """Logits (n, classes) of samples (n, *input_shape), a batch at a time."""
    batches = range(0, len(x), EVALUATION_BATCH)
    return np.concatenate([runtime.logits(x[at : at + EVALUATION_BATCH]) for at in batches])


def _softmax(logits: Floats) -> Floats:
    """Probabilities (n, classes), each row's sum 1; a logit of any size is safe."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def summary(learned: Learned, found: Sequence[Predictions]) -> Iterator[str]:
    """Lines for a person: which network this is, and how it did on every file."""
    ticket, own = learned.bundle.ticket, learned.personal
    yield f"{ticket.plan.name}, ticket {own.ticket.hex()[:16]}…: own signs of round {own.number}, run {own.run.hex()}"
    width = max(len(one.source) for one in found)
    for one in found:
        samples = one.classes.size
        right = "" if one.correct is None else f"  {one.correct:,} right, {one.correct / samples:.1%}"
        yield f"  {one.source:{width}}  {samples:,} samples{right}"
    classes, counts = np.unique(np.concatenate([one.classes for one in found]), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CLASSES_SHOWN]
    shown = [f"{classes[i]} ({counts[i]:,})" for i in order] + (["…"] if classes.size > CLASSES_SHOWN else [])
    yield f"  classes found: {', '.join(shown)}"


def check_format(path: Path) -> None:
    """Refuse an output file of another kind, before any work is done.

    Raises:
        ConfigError: naming the kinds there are.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"'{path}' ends in none of {', '.join(FORMATS)}", where="--output", hint="Name it so")


def table(found: Sequence[Predictions], suffix: str) -> bytes:
    """All predictions as a file: `.csv` with `COLUMNS`, or `.npz` with arrays of these names and `probabilities`."""
    if suffix == ".csv":
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        for one in found:
            pairs = zip(one.classes.tolist(), one.probability.tolist(), strict=True)
            rows.writerows((one.source, index, chosen, f"{p:.4f}") for index, (chosen, p) in enumerate(pairs))
        return text.getvalue().encode()
    archive = io.BytesIO()
    columns = {
        "source": np.repeat([one.source for one in found], [one.classes.size for one in found]),
        "index": np.concatenate([np.arange(one.classes.size) for one in found]),
        "class": np.concatenate([one.classes for one in found]),
        "probability": np.concatenate([one.probability for one in found]),
        "probabilities": np.concatenate([one.probabilities for one in found]),
    }
    np.savez(archive, **columns)  # type: ignore[arg-type]  # numpy's stub takes every name for allow_pickle
    return archive.getvalue()
