"""A device's data, network and training, in this process: all that a client needs numpy for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edge_client import privacy, readings, trainer, trial
from edge_client.data import DeviceData
from edge_client.events import VotesTaken, VotesUnusable
from edge_client.runtimes.base import Floats, Runtime
from edge_client.runtimes.registry import open_runtime
from edge_client.sampler import Sampler
from edge_client.work import Finished
from wire import dither, mask, personal
from wire.bundle import Bundle, decode_bundle
from wire.errors import StateError, WireError
from wire.federation_messages import CatchUp, Evaluation, Federation, MaskUpdate, Round
from wire.fields import single
from wire.personal import Personal
from wire.prng import training_seed
from wire.settings import Training

log = logging.getLogger("hidenseek.edge")


@dataclass
class Workshop:
    """See `edge_client.work.Work`.

    Args:
        device: its name.
        load: reads its data; called once, when they are first needed.
        threads: for the runtime.
        telemetry: measure what training costs, where the federation wants to know.
        peak_mb: a new client or bundle must not take more memory to train, 1e6 bytes; None: whatever it takes.
    """

    device: str
    load: Callable[[], DeviceData]
    threads: int = 1
    telemetry: bool = True
    peak_mb: float | None = None
    _federation: Federation | None = None
    _bundle: Bundle | None = None
    _runtime: Runtime | None = None
    _sampler: Sampler | None = None
    _steps: Iterator[trainer.Trained | None] | None = None
    _round: Round | None = None
    _seed: int = 0  # of the training that runs
    _votes: mask.Votes | None = None  # the newest
    _began: mask.Votes | None = None  # those that training began with
    _cold_start_s: float | None = None  # opening the runtime; not told yet
    _evaluate_s: float = 0.0  # not told yet

    @cached_property
    def data(self) -> DeviceData:
        """What the device trains on."""
        return self.load()

    @property
    def training(self) -> bool:
        """See `Work.training`."""
        return self._steps is not None

    @property
    def pause_s(self) -> float:
        """See `Work.pause_s`: none, for nothing is trained meanwhile."""
        return 0.0

    def counts(self) -> tuple[int, int]:
        """See `Work.counts`."""
        return int(self.data.y_train.size), int(self.data.y_test.size)

    def open(self, path: Path, digest: bytes, federation: Federation) -> None:
        """See `Work.open`."""
        bundle = _read(path, digest)
        self.data.check(bundle.ticket.plan)
        began_s = time.perf_counter()
        self._load(bundle, federation)
        self._cold_start_s = time.perf_counter() - began_s

    def _load(self, bundle: Bundle, federation: Federation) -> None:
        self._steps = None
        self._runtime = open_runtime(bundle, federation.training, self.threads)
        self._bundle, self._federation = bundle, federation
        wanted = self.telemetry and federation.telemetry
        self._sampler = Sampler(self._runtime) if wanted else None

    def _opened(self) -> tuple[Federation, Bundle, Runtime]:
        assert self._federation is not None
        assert self._bundle is not None
        assert self._runtime is not None
        return self._federation, self._bundle, self._runtime

    def take_votes(self, announced: Round | CatchUp) -> VotesTaken | VotesUnusable:
        """See `Work.take_votes`."""
        ends = self._opened()[1].ticket.ends
        try:
            votes = mask.decode_votes(announced.votes, ends, self._votes if announced.base else None)
        except WireError as error:
            log.warning("round %d: its votes do not decode: %s", announced.number, error)
            return VotesUnusable(base=announced.base)
        if votes.digest != announced.digest:
            log.warning("round %d: its votes do not fit those that this device has", announced.number)
            return VotesUnusable(base=announced.base)
        self._votes = votes
        return VotesTaken(run=announced.run, number=announced.number)

    @property
    def votes(self) -> bytes | None:
        """Those taken last, in the context of none; None if there are none."""
        return None if self._votes is None else mask.encode_votes(self._votes, self._opened()[1].ticket.ends)

    @votes.setter
    def votes(self, coded: bytes | None) -> None:
        self._votes = None if coded is None else mask.decode_votes(coded, self._opened()[1].ticket.ends)

    def evaluate(self, announced: Round) -> Evaluation:
        """See `Work.evaluate`."""
        runtime = self._opened()[2]
        assert self._votes is not None
        runtime.set_multipliers(self._votes.mean)
        correct = self._count_correct(runtime)
        return Evaluation(
            run=announced.run, number=announced.number, correct=correct, test_samples=self.data.y_test.size
        )

    def start(self, announced: Round) -> None:
        """See `Work.start`."""
        federation, _, runtime = self._opened()
        assert self._votes is not None
        self._round, self._began = announced, self._votes
        self._seed = training_seed(federation.seed, announced.number, self.device)
        self._steps = trainer.train(
            runtime,
            self.data.x_train,
            self.data.y_train,
            prior=self._prior(),
            training=federation.training,
            start=dither.start_scores(self._votes, federation.training),
            seed=self._seed,
        )
        if self._sampler is not None:
            self._sampler.start()
        log.info("round %d: training on %d samples", announced.number, self.data.y_train.size)

    def stop(self) -> None:
        """See `Work.stop`."""
        self._steps = None

    def step(self) -> Finished | None:
        """See `Work.step`: one optimiser step."""
        assert self._steps is not None
        if self._sampler is not None:
            self._sampler.before_step()
        trained = next(self._steps)
        if trained is None:
            return None
        self._steps = None
        return self._finish(trained)

    def _finish(self, trained: trainer.Trained) -> Finished:
        federation, bundle, _ = self._opened()
        announced = self._round
        assert announced is not None
        assert self._began is not None
        spent = self._sampler.finish(announced.number, trained) if self._sampler else None
        learned = Personal(
            ticket=bundle.ticket.id,
            run=announced.run,
            number=announced.number,
            log_prior=self._prior(),
            signs=trained.signs,
        )
        sent = privacy.randomise(dither.signs_of(trained.scores, federation.training, self._seed), federation.training)
        known = dither.context(self._began, federation.training, self._seed)
        hidden = federation.secure_aggregation
        coded = mask.ballot(sent) if hidden else mask.encode_signs(sent, known, bundle.ticket.ends)
        update = self._update(announced, trained, coded, learned.log_prior)
        if spent is not None:
            cold_s = None if self._cold_start_s is None else self._cold_start_s + trained.steps_s[0]
            spent = replace(
                spent,
                evaluate_ms=round(self._evaluate_s * 1000),
                cold_start_ms=None if cold_s is None else round(cold_s * 1000),
            )
        self._cold_start_s, self._evaluate_s = None, 0.0
        return Finished(update=update, personal=personal.encode(learned), spent=spent)

    def _update(self, announced: Round, trained: trainer.Trained, coded: bytes, prior: Floats) -> MaskUpdate:
        correct = self._count_correct(self._opened()[2], prior)
        log.info(
            "round %d: loss %.3f, %d of %d test samples right, %.1f ms a step",
            announced.number,
            trained.loss,
            correct,
            self.data.y_test.size,
            trained.step_ms,
        )
        return MaskUpdate(
            run=announced.run,
            number=announced.number,
            signs=coded,
            train_samples=int(self.data.y_train.size),
            loss=single(trained.loss),
            correct=correct,
            test_samples=int(self.data.y_test.size),
            train_s=single(trained.train_s),
            step_ms=single(trained.step_ms),
            peak_memory_kb=readings.peak_memory_kb(),
        )

    def _count_correct(self, runtime: Runtime, prior: Floats | float = 0.0) -> int:
        """Test samples right with the runtime's weights; how long that took is added to what evaluation has cost."""
        began_s = time.perf_counter()
        correct = trainer.count_correct(runtime, self.data.x_test, self.data.y_test, prior)
        self._evaluate_s += time.perf_counter() - began_s
        return correct

    def _prior(self) -> Floats:
        return trainer.log_prior(self.data.y_train, self._opened()[1].ticket.plan.classes)

    def try_out(self) -> None:
        """See `Work.try_out`."""
        federation, _, runtime = self._opened()
        if self._steps is None:  # else a round has it train already
            trial.step(runtime, self.data, self._prior(), federation.training)
        trial.check_memory(self.peak_mb)

    def try_bundle(self, path: Path, digest: bytes, training: Training) -> None:
        """See `Work.try_bundle`; meanwhile this run's network is not in memory."""
        before, federation = self._bundle, self._federation
        self._runtime = self._sampler = None
        try:
            trial.bundle(
                _read(path, digest),
                self.data,
                training,
                threads=self.threads,
                peak_mb=self.peak_mb,
            )
        finally:
            if before is not None and federation is not None:
                self._load(before, federation)

    def rest(self, now_s: float) -> None:
        """See `Work.rest`; there is nothing that could go and come back."""

    def close(self) -> None:
        """See `Work.close`."""
        self._steps = self._runtime = self._sampler = None


def _read(path: Path, digest: bytes) -> Bundle:
    try:
        return decode_bundle(path.read_bytes(), expected_id=digest)
    except OSError as error:
        raise StateError(f"cannot be read ({error.strerror})", where=str(path)) from error
