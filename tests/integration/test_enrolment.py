"""A device's first boot against real brokers: it claims its account, and a copy of its card does not."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from coordinator import cli
from coordinator.brokers import enroller
from edge_client import card, enrol
from edge_client.store import PASSWORD, Store
from tests.integration.deployed import Deployed, deployed
from tests.integration.fleet import Processes, wait_until
from wire import claim
from wire.broker import parse_url
from wire.errors import JoinRefused
from wire.topics import Topics


def flashed(made: Deployed, state: Path, *, certified: bool = False) -> str:
    """A card for pi-1, as far as a device sees it: its state folder, with the token in it; the token."""
    now_s, settings = time.time(), made.settings
    _, token = enroller.open_card(made.folder, settings, "pi-1", now_s, certificate=certified)
    state.mkdir()
    (state / claim.TOKEN_FILE).write_text(token)
    return token


def boot(
    made: Deployed, state: Path, user: str = claim.USER, secret: str | None = None, *, certified: bool = False
) -> None:
    """What `hidenseek-edge card` does first."""
    secret = secret or card.token_of(state)
    assert secret is not None
    url = made.settings.broker_nodes()[0].url
    broker = parse_url(card.with_user(url, f"{user}pi-1"), password=secret, ca=made.folder / "ca.crt")
    with closing(Store(state)) as store:
        enrol.Enrolment("pi-1", Topics("t"), store, "a board", certified=certified).run(broker, 10.0)


@pytest.mark.parametrize(
    "kind", [pytest.param("mosquitto", marks=pytest.mark.broker), pytest.param("nats", marks=pytest.mark.slow)]
)
def test_a_card_is_good_for_one_device(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """While the broker runs: a card, its first boot, a copy of it that is refused and told of, and approval."""
    state, copy = tmp_path / "state", tmp_path / "copy"
    with deployed(tmp_path, kind) as made:
        before = made.password("pi-1")
        token = flashed(made, state)
        assert made.password("pi-1") != before
        shutil.copytree(state, copy)
        boot(made, state)
        assert not (state / claim.TOKEN_FILE).exists()
        password = (state / PASSWORD).read_text().strip()
        made.probe("pi-1", password).close()
        wait_until(lambda: "'pi-1' has enrolled" in made.log, 10, "the enrolment to be told")

        with pytest.raises(JoinRefused, match="used before"):
            boot(made, copy)
        assert not (copy / PASSWORD).exists()
        assert made.password("pi-1") == password
        wait_until(lambda: "refused" in made.log, 10, "the refusal to be told")
        assert cli.main(["fleet", "list", "--state", str(tmp_path), "--deploy", str(made.folder)]) == 0
        said = capsys.readouterr().out
        assert "used twice" in said
        assert "its card was used once more" in said

        assert cli.main(["fleet", "approve", "pi-1", "--deploy", str(made.folder)]) == 0
        boot(made, copy)
        made.probe("pi-1", (copy / PASSWORD).read_text().strip()).close()
        assert made.password("pi-1") != password

        # Another card: the token of the first one opens nothing any more, not even the claim.
        (copy / claim.TOKEN_FILE).write_text(token)
        flashed(made, tmp_path / "new")
        with pytest.raises(JoinRefused, match="does not know the token"):
            boot(made, copy)


CONFIG = """\
federation: {{name: t, rounds: 2, per_round: 1, quorum: 1, start_devices: 1, deadline_s: 60}}
devices: {{{name}: {{}}}}
"""


@pytest.mark.broker
@pytest.mark.slow
def test_an_account_is_good_with_the_key_that_enrolled_only(tmp_path: Path) -> None:
    """Stolen before the device was ever seen: it opens nothing. Renamed, it is the same device."""
    state = tmp_path / "state" / "pi-1"
    state.parent.mkdir()
    processes = Processes(tmp_path)
    with deployed(tmp_path, "mosquitto") as made:
        flashed(made, state)
        boot(made, state)
        password = (state / PASSWORD).read_text().strip()
        ca = ["--ca", str(made.folder / "ca.crt")]
        serve = ["--broker", made.url("coordinator"), *ca, "--deploy", str(made.folder)]
        serving = made.password("coordinator")
        try:
            processes.serve(CONFIG.format(name="pi-1"), *serve, password=serving)
            thief = ["--state", str(tmp_path / "thief"), *ca]
            processes.edge("pi-1", made.url("pi-1"), *thief, password=password)
            assert processes.wait("pi-1", 60) == 17
            assert "is known by the key" in processes.log("pi-1")
            processes.running["coordinator"].terminate()
            processes.wait("coordinator", 20)

            rename = ["--config", str(tmp_path / "devices.yaml"), "--state", str(tmp_path / "serve")]
            assert cli.main(["fleet", "rename", "pi-1", "hall", *rename, "--deploy", str(made.folder)]) == 0
            processes.serve(CONFIG.format(name="hall"), *serve, password=serving)
            processes.edge("pi-1", made.url("pi-1"), *ca, password=password)
            assert processes.wait("pi-1", 60) == 16
            processes.edge("hall", made.url("hall"), *ca, "--state", str(state), password=password)
            assert processes.wait("hall", 120) == 0
            assert processes.wait("coordinator", 60) == 0
        finally:
            processes.stop()
