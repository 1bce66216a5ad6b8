"""Signatures, the federation's key, and exports that are signed by it."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nacl import bindings

from coordinator import cli, keys
from export import manifest
from tests.helpers import TINY_TICKET
from wire import signing
from wire.errors import ConfigError, DataError, StateError, WireError

# RFC 8032, section 7.1, test 1: the private key and the public one that belongs to it.
RFC_KEY = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for a key of this test's own."""
    monkeypatch.setenv(keys.VARIABLE, str(tmp_path / "own" / "federation.key"))
    return tmp_path / "own" / "federation.key"


@pytest.fixture
def folder(own: Path, tmp_path: Path) -> Path:
    """An export signed by that key."""
    (tmp_path / "t.hns").write_bytes(TINY_TICKET.encoded)
    assert run("export", tmp_path / "t.hns", "--target", "onnx", "-o", tmp_path / "out") == 0
    return tmp_path / "out"


def run(*arguments: object) -> int:
    """A command of `hidenseek`; its exit code."""
    return cli.main([*map(str, arguments)])


def test_keys_are_those_of_the_standard() -> None:
    """Others can check what we sign: the pair of RFC 8032, and a fixed signature for a fixed purpose."""
    assert signing.public_key(RFC_KEY) == RFC_PUBLIC
    signature = signing.sign(RFC_KEY, "export", b"data")
    assert signature == signing.sign(RFC_KEY, "export", b"data")
    signing.check(RFC_PUBLIC, "export", b"data", signature)


def test_a_signature_is_that_of_the_standard() -> None:
    """RFC 8032, section 7.1, test 3, through the bytes that a purpose puts before the data."""
    key = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    signature = bytes.fromhex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    assert bindings.crypto_sign_open(signature + bytes.fromhex("af82"), signing.public_key(key)) == b"\xaf\x82"
    ours = signing.sign(key, "export", b"data")
    assert bindings.crypto_sign_open(ours + b"hidenseek export\0data", signing.public_key(key))


@pytest.mark.parametrize(
    ("public", "purpose", "data", "cut"),
    [
        (RFC_PUBLIC, "export", b"date", 64),
        (RFC_PUBLIC, "round", b"data", 64),
        (bytes(32), "export", b"data", 64),
        (RFC_PUBLIC[:31], "export", b"data", 64),
        (RFC_PUBLIC, "export", b"data", 63),
    ],
)
def test_anything_else_is_refused(public: bytes, purpose: str, data: bytes, cut: int) -> None:
    """Other bytes, another purpose, another key, a short key, a short signature."""
    signature = signing.sign(RFC_KEY, "export", b"data")
    with pytest.raises(WireError):
        signing.check(public, purpose, data, signature[:cut])


def test_one_flipped_bit_is_noticed() -> None:
    """Wherever it is in the signature."""
    signature = signing.sign(RFC_KEY, "export", b"data")
    for i in range(0, 512, 7):
        flipped = bytearray(signature)
        flipped[i // 8] ^= 1 << i % 8
        with pytest.raises(WireError, match="altered"):
            signing.check(RFC_PUBLIC, "export", b"data", bytes(flipped))


def test_the_key_is_made_once_and_for_its_owner_only(own: Path) -> None:
    """Many at once get the same one; the file is 0600 and nothing else is left."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: keys.federation_key(), range(8)))
    assert len(found) == 1
    assert own.stat().st_mode & 0o777 == 0o600
    assert list(own.parent.iterdir()) == [own]


def test_a_key_that_others_can_read_is_refused(own: Path) -> None:
    """With the command that mends it."""
    keys.federation_key()
    own.chmod(0o640)
    with pytest.raises(StateError, match=r"mode 640, 600 expected.*chmod 600"):
        keys.federation_key()


@pytest.mark.parametrize("content", ["", "not base64!", base64.b64encode(b"short").decode()])
def test_a_damaged_key_is_refused(own: Path, content: str) -> None:
    """Not replaced: who trusts the old one would trust nothing any more."""
    own.parent.mkdir()
    own.write_text(content)
    own.chmod(0o600)
    with pytest.raises(StateError, match="no key") as caught:
        keys.federation_key()
    assert caught.value.where == str(own)
    assert own.read_text() == content


def test_the_command_shows_the_public_key_alone(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The private one is named by its file and not printed."""
    assert run("key") == 0
    said = capsys.readouterr().out
    public = signing.public_key(keys.federation_key())
    assert signing.as_text(public) in said
    assert signing.fingerprint(public) in said
    assert str(own) in said
    assert own.read_text().strip() not in said


def test_signers_are_recognised(folder: Path, own: Path) -> None:
    """Our federation, or somebody that --trust names, or somebody nobody vouches for."""
    public = manifest.read(folder).signed_by
    assert public == signing.public_key(keys.federation_key())
    name = signing.fingerprint(public)
    assert keys.recognise(public, trusted=None, where="out") == f"signed by {name}, this federation"
    assert keys.recognise(public, trusted=signing.as_text(public), where="out") == f"signed by {name}, which you trust"
    own.unlink()
    assert "nobody here vouches for" in keys.recognise(public, trusted=None, where="out")
    assert not own.exists(), "asking makes no key"


def test_verify_takes_nobody_elses(folder: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is run; and a key that is none is told from one that is another's."""
    own.unlink()
    other = signing.as_text(signing.public_key(keys.federation_key()))
    assert run("verify", folder, "--trust", other) == DataError.exit_code
    assert "not by the key to trust" in capsys.readouterr().err
    assert run("verify", folder, "--trust", "abc") == ConfigError.exit_code


@pytest.mark.slow
def test_verify_says_who_signed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the line above its table."""
    public = manifest.read(folder).signed_by
    assert run("verify", folder, "--trust", signing.as_text(public)) == 0
    assert f"signed by {signing.fingerprint(public)}, which you trust" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "was", "now"),
    [("manifest.json", '"software": "hidenseek', '"software": "hideneeek'), ("manifest.sig", ":", "-")],
)
def test_an_altered_manifest_is_refused(folder: Path, name: str, was: str, now: str) -> None:
    """Even where all hashes are right, or the signature is no signature."""
    path = folder / name
    path.write_text(path.read_text().replace(was, now, 1))
    with pytest.raises(DataError) as caught:
        manifest.read(folder)
    assert caught.value.where == str(folder / "manifest.sig")


def test_a_missing_signature_is_refused(folder: Path) -> None:
    """An export is signed or it is none."""
    (folder / "manifest.sig").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        manifest.read(folder)
