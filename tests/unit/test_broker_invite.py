"""`hidenseek broker invite`: the code in the terminal and as a picture says what the link says."""

from __future__ import annotations

import io
import re
import stat
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from coordinator import cli
from coordinator.brokers import accounts, claims
from coordinator.keys import federation_key
from coordinator.store import Store
from tests.helpers import introduce
from tests.page import deployment
from wire import claim, signing
from wire.invite import decode

PAGE = "https://hub.example.org:8090/"
HALVES = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A broker's folder; no key of a federation, and no devices.yaml where the command runs."""
    folder = deployment(tmp_path, "pi-000")
    (tmp_path / "devices.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIDENSEEK_KEY", str(tmp_path / "federation.key"))
    return folder


def invite(*words: str) -> int:
    """`hidenseek broker invite`; its exit code."""
    return cli.main(["broker", "invite", *words])


def test_the_code_is_drawn_in_the_terminal(deploy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A camera reads from it what stands below it; the broker waits for the phone; a second one ends the first."""
    import zxingcpp

    capsys.readouterr()
    federation_key()
    for _ in range(2):
        assert invite("phone-1", "--page", PAGE) == 0
        said = capsys.readouterr()
        drawn = [line for line in said.out.splitlines() if line and set(line) <= set(HALVES)]
        light = np.array([[HALVES[one] for one in line] for line in drawn]).transpose(0, 2, 1)
        pixels = np.kron(light.reshape(-1, light.shape[-1]), np.full((6, 6), 255)).astype(np.uint8)
        (code,) = zxingcpp.read_barcodes(pixels)
        (link,) = re.findall(rf"^{PAGE}#\S+$", said.out, re.MULTILINE)
        assert code.text == link
    found = decode(link)
    assert (found.device, found.claim, found.federation) == ("phone-1", True, "made-up")
    assert found.broker == "wss://127.0.0.1:8084/mqtt"
    assert found.key == signing.public_key(federation_key())
    assert found.secret == accounts.load(deploy)[claim.USER + "phone-1"]
    assert claims.load(deploy).cards["phone-1"].key is None
    assert said.err == ""


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_code_is_a_picture(deploy: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str) -> None:
    """That only its owner can read, of whoever can take part with it; and doubts are told."""
    import zxingcpp
    from PIL import Image

    capsys.readouterr()
    path = tmp_path / f"code.{kind}"
    assert invite("phone-1", "--page", "http://10.0.0.5:8090/", "-o", str(path)) == 0
    said = capsys.readouterr()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (link,) = re.findall(r"^http://10\S+#\S+$", said.out, re.MULTILINE)
    assert "█" not in said.out
    assert "has no key of it" in said.out
    assert "only pages over HTTPS" in said.err
    if kind == "png":
        (code,) = zxingcpp.read_barcodes(np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("L")))
        assert code.text == link
    else:
        assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["phone-1", "--page", "ftp://x"], "'ftp://x' is no address of a page"),
        (["a b", "--page", PAGE], "device id 'a b' is not"),
        (["phone-1", "--page", PAGE, "-o", "code.gif"], "'code.gif' is no name of a picture. End it in .png or .svg"),
        (["phone-1", "--page", PAGE, "--state", "nowhere"], "nowhere"),
        (["phone-1", "--page", PAGE, "--deploy", "nowhere"], "nowhere"),
        (["pi-007", "--page", PAGE], "'pi-007' is taken: a device has joined by this id"),
        (["phone-1", "--page", PAGE, "--config", "listed.yaml"], "'phone-1' is not among the 1 devices that may join"),
        (["phone-1", "--page", PAGE, "--config", "other.yaml"], "federation 'made-up', this is 'other'"),
    ],
)
def test_whom_nobody_can_invite(
    deploy: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], why: str
) -> None:
    """It is said why, and no account is made."""
    (tmp_path / "listed.yaml").write_text("federation: {name: made-up}\ndevices: {pi-001: {}}\n")
    (tmp_path / "other.yaml").write_text("federation: {name: other}\n")
    with closing(Store(tmp_path / "hidenseek-made-up" / "coordinator.db")) as store:
        store.save_device("pi-007", introduce("pi-007", "sparse"))
    (tmp_path / "devices.yaml").write_text("federation: {name: made-up}\n")
    before = accounts.load(deploy)
    assert invite(*words) > 0
    assert why in capsys.readouterr().err
    assert accounts.load(deploy) == before
