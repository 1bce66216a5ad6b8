"""`trainer.pte`: ExecuTorch's own trainer finds autograd's gradients and takes its own optimiser's steps."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from coordinator import cli
from export.bundle import APP_TARGETS, OPTIONAL_RUNTIMES, RUNTIMES, make_bundle
from export.torch_net import TorchReference
from export.verify import check
from tests.helpers import BRANCHES, TINY_TICKET, random_ticket, tiny_batch
from wire.errors import ConfigError
from wire.settings import Training
from wire.ticket import Ticket

MISSING = next((name for name in ("executorch", "tabulate", "flatbuffers") if find_spec(name) is None), None)
needs_executorch = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=f"{MISSING} is not installed, so no program can be made"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
TRAINING = Training(batch=4)


class TestTrainer:
    """With the official modules, which need torch."""

    pytestmark = needs_executorch

    @pytest.mark.parametrize(
        "ticket", [TINY_TICKET, random_ticket(BRANCHES, 0.5, seed=2, magnitudes="normal")], ids=["tiny", "branching"]
    )
    def test_numbers_are_autograds(self, ticket: Ticket) -> None:
        """Gradients twice in a row, padding, priors, inference, training."""
        from export.executorch_app import ExecutorchApp

        app = ExecutorchApp(make_bundle(ticket, "executorch-trainer", TRAINING), TRAINING)
        rows = check(make_bundle(ticket, "sparse", TRAINING), TRAINING, app)
        assert all(row.ok for row in rows), [row for row in rows if not row.ok]

    def test_its_own_optimiser_moves_the_scores(self) -> None:
        """SGD from ExecuTorch, as an app would use it: three steps are torch's."""
        from executorch.extension.training import get_sgd_optimizer

        from export.executorch_app import ExecutorchApp

        app = ExecutorchApp(make_bundle(TINY_TICKET, "executorch-trainer", TRAINING), TRAINING)
        reference = TorchReference(TINY_TICKET, Training(batch=4, optimiser="sgd", learning_rate=0.05, beta1=0.9))
        scores = np.random.default_rng(0).uniform(-0.1, 0.1, TINY_TICKET.kept).astype(np.float32)
        app.set_scores(scores)
        reference.set_scores(scores)
        optimiser = get_sgd_optimizer(app._module.named_parameters(), 0.05, 0.9)
        for n in (4, 3, 2):
            batch = tiny_batch(n)
            app.gradient(*batch)
            optimiser.step(app._module.named_gradients())
            reference.step(*batch)
        assert np.abs(reference.scores() - scores).max() > 0.01
        np.testing.assert_allclose(app.scores(), reference.scores(), atol=1e-6)

    def test_one_file_for_every_seed(self) -> None:
        """Nothing of a ticket but its capacity is in the program."""
        files = [
            make_bundle(random_ticket(TINY_TICKET.plan, 0.5, seed=seed), "executorch-trainer", TRAINING).files
            for seed in (1, 2)
        ]
        assert files[0] == files[1]

    def test_export_and_verify_take_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """As a target that has to be asked for."""
        (tmp_path / "t.hns").write_bytes(TINY_TICKET.encoded)
        command = ["export", tmp_path / "t.hns", "--target", "executorch-trainer", "--batch", 4, "-o", tmp_path / "out"]
        assert cli.main([*map(str, command)]) == 0
        assert (tmp_path / "out/executorch-trainer/trainer.pte").exists()
        assert cli.main(["verify", str(tmp_path / "out")]) == 0
        assert "agrees" in capsys.readouterr().out


def test_no_federation_sends_it_to_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is for apps: as a runtime it is unknown."""
    assert not set(APP_TARGETS) & {*RUNTIMES, *OPTIONAL_RUNTIMES}
    config = tmp_path / "devices.yaml"
    config.write_text("federation:\n  model: lenet\n  runtimes: [executorch-trainer]\ndevices:\n  - id: a\n")
    assert cli.main(["serve", "--config", str(config)]) == ConfigError.exit_code
    assert "executorch-trainer" in capsys.readouterr().err


def test_the_trick_is_exact() -> None:
    """The loss is unchanged and its derivative is the given gradient, bit for bit."""
    scores = torch.randn(100, requires_grad=True)
    gradient = torch.randn(100)
    loss = torch.tensor(1.25)
    total = loss + ((scores - scores.detach()) * gradient).sum()
    total.backward()
    assert total.item() == loss.item()
    assert scores.grad is not None
    assert torch.equal(scores.grad, gradient)
