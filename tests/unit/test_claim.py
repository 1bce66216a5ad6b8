"""Cards that are claimed: proofs, sealed passwords, who gets an account, and who does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.brokers import access, claims
from coordinator.brokers.claims import Card, Certificate, Claims
from edge_client import card
from edge_client.store import Store
from wire import claim, signing
from wire.claim import Claim, Grant
from wire.errors import ConfigError, StateError, WireError
from wire.topics import Topics
from wire.transport import matches

FIRST, SECOND = signing.new_key(), signing.new_key()
A, B = signing.public_key(FIRST), signing.public_key(SECOND)
NOW = 1_700_000_000.0


def test_a_proof_holds_for_what_it_was_made_of_and_nothing_else() -> None:
    """Another token, device, key, hardware or nonce: another proof; parts that run together are other parts."""
    said = Claim(key=A, proof=bytes(32), hardware="Pi", nonce=bytes(16))
    proof = claim.prove("token", "pi-01", said)
    claim.check_proof(claim.prove("token", "pi-01", replace(said, proof=proof)), proof)
    others = [replace(said, key=B), replace(said, hardware="P"), replace(said, nonce=b"x" * 16)]
    for other in (("tokem", "pi-01", said), ("token", "pi-02", said), *(("token", "pi-01", one) for one in others)):
        with pytest.raises(WireError):
            claim.check_proof(claim.prove(*other), proof)
    grant = Grant(key=A, proof=bytes(32), sealed=b"ab", refused="c")
    answer = claim.prove_grant("t", "pi", said, grant)
    assert claim.prove_grant("t", "pi", said, replace(grant, sealed=b"a", refused="bc")) != answer
    assert claim.prove_grant("t", "pi", said, replace(grant, proof=b"x" * 32)) == answer
    for one in (others[0], others[2]):
        assert claim.prove_grant("t", "pi", one, grant) != answer


def test_only_the_key_that_claimed_opens_the_password() -> None:
    """Not another, and not if a bit is another; no bytes make it fail in another way."""
    sealed = claim.seal_password("secret", A)
    assert claim.open_password(sealed, FIRST) == "secret"
    for wrong, key in ((sealed, SECOND), (sealed[:-1], FIRST), (b"", FIRST), (bytes(200), FIRST)):
        with pytest.raises(WireError):
            claim.open_password(wrong, key)
    for point in (bytes(32), b"\xff" * 32):
        with pytest.raises(WireError, match="no public key"):
            claim.seal_password("secret", point)


def test_a_card_is_bound_to_the_first_who_claims() -> None:
    """As often as it asks; another is refused each time, written down once, and told how it may be let in."""
    known = Claims(cards={"pi-01": Card(made_s=NOW)})
    assert known.cards["pi-01"].in_words(NOW) == "flashed, waiting"
    assert known.decide("pi-01", A, "Pi 4", NOW + 5) == ""
    assert known.decide("pi-01", A, "Pi 4", NOW + 1e9) == ""  # its state was never lost: it may ask for ever
    for at in (6, 7):
        assert "used before" in known.decide("pi-01", B, "Pi Zero", NOW + at)
    card = known.cards["pi-01"]
    assert (card.key, card.hardware, card.claimed_s) == (signing.as_text(A), "Pi 4", NOW + 5)
    assert [(one.key, one.hardware, one.at_s) for one in card.refused] == [(signing.as_text(B), "Pi Zero", NOW + 7)]
    assert card.in_words(NOW) == "used twice"
    for number in range(100):
        known.decide("pi-01", signing.public_key(bytes([number] * 32)), "", NOW)
    assert len(known.cards["pi-01"].refused) == claims.KEPT


def test_a_card_that_is_too_old_or_none_is_refused() -> None:
    """A month in a drawer; a device that none was made for."""
    known = Claims(cards={"pi-01": Card(made_s=NOW)})
    late = NOW + claims.GOOD_FOR_S + 1
    assert "more than 30 days ago" in known.decide("pi-01", A, "", late)
    assert known.cards["pi-01"].key is None
    assert known.cards["pi-01"].in_words(late) == "flashed, expired"
    assert "no card was flashed" in known.decide("pi-02", A, "", NOW)
    assert set(known.cards) == {"pi-01"}


def test_what_became_of_cards_is_kept(tmp_path: Path) -> None:
    """By its owner alone; a damaged file is an error, and is not written over."""
    with claims.changing(tmp_path) as known:
        known.cards["pi-01"] = Card(made_s=NOW)
    assert claims.load(tmp_path).cards == {"pi-01": Card(made_s=NOW)}
    assert (tmp_path / claims.FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / claims.FILE).write_text("{")
    with pytest.raises(StateError, match="damaged"), claims.changing(tmp_path):
        pass
    assert (tmp_path / claims.FILE).read_text() == "{"


def test_keys_of_who_has_enrolled_are_read_again_when_they_change(tmp_path: Path) -> None:
    """A file that is damaged later changes nothing; one that is damaged at first is an error."""
    enrolled = claims.Enrolled(tmp_path)
    assert enrolled() == {}
    with claims.changing(tmp_path) as known:
        known.cards["pi-01"] = Card(made_s=NOW)
        known.decide("pi-01", A, "Pi", NOW)
        known.cards["pi-02"] = Card(made_s=NOW)
    assert enrolled() == {"pi-01": A}
    assert enrolled() is enrolled()
    (tmp_path / claims.FILE).write_text("{")
    assert enrolled() == {"pi-01": A}
    with pytest.raises(StateError, match="damaged"):
        claims.Enrolled(tmp_path)


def test_certificates_are_written_down_and_taken_back() -> None:
    """With another card, another name, or while a device is revoked; those that have ended are not on the list."""
    known = Claims(cards={"pi-01": Card(made_s=NOW), "pi-02": Card(made_s=NOW)})
    known.decide("pi-01", A, "", NOW)
    year = NOW + 365 * 86400
    for serial, ends_s in (("a1", NOW + 5), ("a2", year)):
        assert known.certify("pi-01", Certificate(serial=serial, ends_s=ends_s), NOW) == ""
    assert known.certify("pi-02", Certificate(serial="b1", ends_s=year), NOW) == ""
    card = known.cards["pi-01"]
    assert card.certificate_in_words(NOW) == "until 2024-11-13"
    assert card.certificate_in_words(year).startswith("ended 2024-11-1")
    assert known.taken_back(NOW) == {}
    known.cards["pi-01"] = card.model_copy(update={"barred_s": NOW + 1})
    assert known.taken_back(NOW) == {"a1": NOW + 1, "a2": NOW + 1}
    assert known.taken_back(NOW + 6) == {"a2": NOW + 1}
    assert known.cards["pi-01"].certificate_in_words(NOW) == "revoked"
    assert "is revoked" in known.decide("pi-01", A, "", NOW)
    waiting = Claims(cards={"pi-03": Card(made_s=NOW, barred_s=NOW)})
    assert "is revoked" in waiting.decide("pi-03", A, "", NOW)
    assert waiting.cards["pi-03"].key is None
    known.cards["pi-01"] = card
    known.rename("pi-01", "hall")
    known.end_certificates("hall", NOW + 2)
    assert known.decide("hall", A, "", NOW) == ""
    assert known.taken_back(NOW) == {"a1": NOW + 2, "a2": NOW + 2}
    known.await_card("pi-02", NOW + 10)
    assert known.taken_back(NOW + 10) == {"a2": NOW + 2, "b1": NOW + 10}
    assert [one.serial for one in known.ended] == ["a2", "b1"]
    assert known.taken_back(year) == {}
    known.decide("pi-02", A, "", NOW)
    for number in range(claims.KEPT):
        assert known.certify("pi-02", Certificate(serial=f"{number}", ends_s=year), NOW) == ""
    assert "10 certificates that are still good" in known.certify("pi-02", Certificate(serial="c", ends_s=year), NOW)


def test_a_claiming_account_may_do_nothing_else() -> None:
    """Neither read nor write what is anybody else's; its name can be no device's."""
    rights, topics = access.claimant("har", "pi-01"), Topics("har")
    assert any(matches(one, topics.claim("pi-01")) for one in rights.write)
    assert any(matches(one, topics.claim_answer("pi-01")) for one in rights.read)
    others = [topics.claim("pi-02"), topics.claim_answer("pi-01"), topics.up("pi-01", "hello"), topics.round]
    assert not any(matches(one, topic) for one in rights.write for topic in others)
    others = [topics.claim_answer("pi-02"), topics.claim("pi-01"), topics.down("pi-01"), topics.round]
    assert not any(matches(one, topic) for one in rights.read for topic in others)
    with pytest.raises(ConfigError):
        topics.down(claim.USER + "pi-01")


@pytest.mark.parametrize(
    "topic", ["hns/har/claim/pi-01/answer", "hns/x/claim/pi-01/request", "hns/har/claim/a.b/request", ""]
)
def test_other_topics_are_no_claims(topic: str) -> None:
    """Of another federation, of no device, or what we have said ourselves."""
    assert Topics("har").claimant("hns/har/claim/pi-01/request") == "pi-01"
    with pytest.raises(WireError):
        Topics("har").claimant(topic)


def test_the_token_goes_when_the_password_is_there(tmp_path: Path) -> None:
    """Not before; then the device logs in by its own name."""
    settings: dict[str, str | float] = {
        "device": "pi-01", "federation": "har", "broker": "mqtts://a:1,mqtts://b", "data": "/d", "ca": "/ca",
        "trust": "", "profile": "", "threads": 2, "peak_mb": 80.5,
    }  # fmt: skip
    assert card.token_of(tmp_path) is None
    (tmp_path / claim.TOKEN_FILE).write_text("token\n")
    assert card.token_of(tmp_path) == "token"
    before = card.join_options(settings, tmp_path)
    assert before[before.index("--peak-mb") + 1] == "80.5"
    assert before[before.index("--broker") + 1] == "mqtts://a:1,mqtts://b"
    store = Store(tmp_path)
    store.keep_account("secret")
    store.close()
    assert card.token_of(tmp_path) is None
    after = card.join_options(settings, tmp_path)
    assert after[after.index("--broker") + 1] == "mqtts://pi-01@a:1,mqtts://pi-01@b"
    password = Path(after[after.index("--password-file") + 1])
    assert (password.read_text(), password.stat().st_mode & 0o777) == ("secret\n", 0o600)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("[]", "no settings"),
        ("{}", "device: ''"),
        ('{"device": 1}', "device: 1 found, text expected"),
        (
            '{"device": "a", "federation": "b", "broker": "c", "data": "d", "peak_mb": "9"}',
            "peak_mb: '9' found, 0 or more expected",
        ),
    ],
)
def test_a_damaged_card_is_told(tmp_path: Path, text: str, words: str) -> None:
    """With its file, and what to do."""
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        card.read(tmp_path / "card.json")
    assert error.value.hint == card.AGAIN_HINT
