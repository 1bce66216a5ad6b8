"""docs/wire-format.md against the code: kinds, fields, types, limits, topics, and every example in bytes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from tests.golden import make
from wire import (
    adaptive,
    adaptive_python,
    bits,
    bundle,
    channel,
    envelope,
    invite,
    layers,
    mask,
    messages,
    personal,
    plan,
    prng,
    safecbor,
    secure,
    selection,
    settings,
    signing,
    state_folder,
    telemetry,
    ticket,
)
from wire.errors import ConfigError, WireError
from wire.federation_messages import EVERYONE, Receipt
from wire.fields import MAX_INT, MAX_ITEMS, MAX_NUMBERS, MAX_RECORDS, MAX_TEXT, RUN_BYTES, kind_of
from wire.messages import KINDS
from wire.settings import Training
from wire.telemetry import RoundTelemetry
from wire.topics import UP_KINDS, Topics

DOCUMENT = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()
CDDL = re.findall(r"```cddl\n(.*?)```", DOCUMENT, re.DOTALL)[0]
EXAMPLES = dict(re.findall(r"```hex\n# (.*?)\n(.*?)```", DOCUMENT, re.DOTALL))
KIND_NUMBERS = sorted(KINDS)
TYPES = {
    int: "uint",
    float: "float",
    bool: "bool",
    str: "text",
    bytes: "bytes",
    tuple[str, ...]: "list of text",
    tuple[int, ...]: "list of uint",
    tuple[bytes, ...]: "list of bytes",
    tuple[RoundTelemetry, ...]: "list of round",
    Mapping[str, bytes]: "map text: bytes (32)",
    Training: "training",
}
CDDL_TYPES = {
    int: "uint53",
    float: "finite",
    bool: "bool",
    str: "text512",
    bytes: "bstr",
    tuple[str, ...]: "[* text512]",
    tuple[int, ...]: "[*256 uint53]",
    tuple[bytes, ...]: "[* bstr]",
    tuple[RoundTelemetry, ...]: "[*16 round-telemetry]",
    Mapping[str, bytes]: "{ * tstr => bstr .size 32 }",
    Training: "training",
}


def fields(cls: type[Any]) -> list[tuple[int, str, object, int | None, bool]]:
    """Number, name, type and size of every field of a record, and whether it may be left out."""
    hints = get_type_hints(cls)
    return [
        (
            item.metadata["number"],
            item.name,
            kind_of(hints[item.name]),
            item.metadata["size"],
            item.metadata["optional"],
        )
        for item in dataclasses.fields(cls)
    ]


def assert_in_table(cls: type[Any], title: str) -> None:
    """The table under a heading has a record's fields in order, with number, name, type and size, and no others."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| ([^|]+) \| [^|]{4,} \|$", section(title), re.M)
    assert rows == [
        (str(number), name, TYPES[hint] + (f" ({size})" if size else "") + (", optional" if optional else ""))
        for number, name, hint, size, optional in fields(cls)
    ]


def assert_in_schema(cls: type[Any], name: str, rest: str) -> None:
    """The CDDL rule of a record has its fields in order, with number, name, type and size."""
    rule = re.search(rf"^{name} = \{{{rest}\n(.*?)^\}}", CDDL, re.MULTILINE | re.DOTALL)
    assert rule, name
    lines = [
        f"  {'? ' if optional else ''}{number}: {CDDL_TYPES[hint]}{f' .size {size}' if size else ''}, ; {field}"
        for number, field, hint, size, optional in fields(cls)
    ]
    assert rule[1].splitlines() == [*lines, "  * unknown => any"]


def section(title: str) -> str:
    """The text under a heading, down to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^##|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def example(start: str) -> bytes:
    """The bytes of the example whose comment starts so."""
    (text,) = (text for comment, text in EXAMPLES.items() if comment.startswith(start))
    return bytes.fromhex(text)


@pytest.mark.parametrize("kind", KIND_NUMBERS)
def test_every_field_is_in_the_table_of_its_kind(kind: int) -> None:
    """The table of a kind has its fields in order, with number, name, type and size, and no others."""
    assert_in_table(KINDS[kind], f"{kind} `{KINDS[kind].__name__}`")


@pytest.mark.parametrize("kind", KIND_NUMBERS)
def test_every_field_is_in_the_schema(kind: int) -> None:
    """The CDDL rule of a kind has its fields in order, with number, name, type and size."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", KINDS[kind].__name__).lower()
    assert_in_schema(KINDS[kind], name, f" ; kind {kind}")


def test_a_round_s_telemetry_is_documented() -> None:
    """Table and schema of the records in a `Telemetry` message are those of the code, and so is the histogram."""
    assert_in_table(RoundTelemetry, "Telemetry of a round")
    assert_in_schema(RoundTelemetry, "round-telemetry", "")
    text = re.sub(r"\s+", " ", section("Telemetry of a round"))
    assert f"floor({telemetry.PER_OCTAVE} log2(" in text
    assert f"0 .. {telemetry.LARGEST_BUCKET}" in text
    assert f"at most {telemetry.MAX_BUCKETS} buckets" in text
    assert f"{len(messages.encode(make.MESSAGES['telemetry'])) + signing.SIGNATURE_BYTES} bytes" in text
    assert MAX_NUMBERS == plan.MAX_LAYERS


def test_an_invitation_is_documented() -> None:
    """Its fields and limits are those of the code, and the example is what it says."""
    assert_in_table(invite.Invite, "Invitation")
    assert_in_schema(invite.Invite, "invite", " ; an invitation")
    text = re.sub(r"\s+", " ", section("Invitation"))
    assert f"the version, {invite.VERSION}, and" in text
    assert f"At most {invite.MAX_CHARACTERS:,} characters" in text
    assert f"1 to {invite.MAX_SECRET} characters" in text
    found = re.search(r"^# invitation of phone-01 .*\n(\S+)\n", section("Invitation"), re.M)
    assert found
    assert invite.decode(found[1]) == make.INVITE


def test_secure_aggregation_s_constants_are_documented() -> None:
    """Sizes, purposes and bytes of its description are those of the code."""
    text = re.sub(r"\s+", " ", section("Secure aggregation"))
    assert f"over `hidenseek {secure.PURPOSE}`" in text
    assert f"of {secure.LEAST} .. {secure.MOST} members" in text
    assert f"byte {mask.MASKED}, u16 attempt" in text
    assert f"Byte {mask.BALLOT} before u32 kept" in text
    assert f"{secure.SEALED_BYTES} bytes for every other member" in section("17 `SealedShares`")
    assert f"{secure.MEMBER_BYTES} bytes for each" in section("16 `Roster`")
    assert [secure.threshold(n) for n in range(3, 256)] == [2 * n // 3 + 1 for n in range(3, 256)]


def test_who_may_train_in_a_round_that_is_open_to_all() -> None:
    """What stands for every device is documented, and can be none's id."""
    assert f"`{EVERYONE}`, which is no device id" in section("7 `Round`")
    with pytest.raises(ConfigError):
        Topics("f").down(EVERYONE)


def test_the_lot_example_is_what_it_says() -> None:
    """The same number in bytes and in words, and a device with it trains if the limit is above."""
    number = selection.lot(bytes(range(16)), "pi-07")
    assert example("lot of pi-07") == number.to_bytes(selection.LOT_BYTES, "big")
    assert f"draw 00 01 02 ... 0f: {number:,}" in DOCUMENT
    assert f"first {selection.LOT_BYTES} bytes" in section("7 `Round`")


def test_no_kind_is_documented_that_does_not_exist() -> None:
    """Headings and schema rules name exactly the kinds of the code."""
    assert re.findall(r"^#### (\d+) `(\w+)`$", DOCUMENT, re.M) == [(str(n), KINDS[n].__name__) for n in KIND_NUMBERS]
    assert [int(n) for n in re.findall(r"; kind (\d+)$", CDDL, re.M)] == KIND_NUMBERS


def test_every_rule_of_the_schema_is_defined() -> None:
    """The schema uses no name that it does not define."""
    defined = set(re.findall(r"^([a-z0-9-]+) = ", CDDL, re.M))
    bare = re.sub(r";.*|\"[^\"]*\"|\w+:(?= )|\.size", "", CDDL)
    used = set(re.findall(r"[a-z][a-z0-9-]*", bare))
    assert used - defined <= {"uint", "int", "float", "bool", "tstr", "bstr", "any"}


def test_training_settings_are_in_their_order() -> None:
    """The list that stands for the settings has the dataclass's fields in the dataclass's order."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (\w+) \| (.+) \|$", section("Training settings"), re.M)
    hints = get_type_hints(Training)
    assert [(int(place), name, kind) for place, name, kind, _ in rows] == [
        (place, name, TYPES[hints[name]]) for place, name in enumerate(hints)
    ]
    for name in ("learning_rate", "epsilon", "clip", "start"):
        limits = next(text for _, other, _, text in rows if other == name)
        assert [float(one) for one in limits.split(" .. ")] == [settings.SMALLEST, settings.LARGEST]
    in_schema = re.search(r"^training = \[\n(.*?)^\]", CDDL, re.MULTILINE | re.DOTALL)
    assert in_schema
    assert re.findall(r"^  (?:\? )?(\w+):", in_schema[1], re.M) == list(hints)


def test_every_topic_is_documented() -> None:
    """The list of topics is what `wire.topics` builds, with placeholders in the place of names."""
    topics = Topics("FEDERATION")
    built = [topics.announcement, topics.round, topics.bundle("RUNTIME")]
    built += [
        topics.update,
        topics.staged,
        topics.file_part(bytes(32), 0).replace("0" * 16 + "/0", "<digest>/<part>"),
        topics.down("DEVICE"),
    ]
    built += [topics.up("DEVICE", kind) for kind in UP_KINDS]
    built += [topics.work("WORKER", "up"), topics.work("WORKER", "down")]
    built += [topics.claim("DEVICE"), topics.claim_answer("DEVICE")]
    documented = re.findall(r"^hns/\S+", section("Topics"), re.M)
    assert documented == [re.sub(r"[A-Z]{3,}", lambda found: f"<{found[0].lower()}>", topic) for topic in built]
    for cls in KINDS.values():
        assert cls.__name__ in section("Topics")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("`HP`", envelope.MAGIC.decode().join("``")),
        ("parts, 2 .. {}", envelope.MAX_PARTS),
        ("At most {} layers", plan.MAX_LAYERS),
        ("{:,} weights", plan.MAX_WEIGHTS),
        ("a name of {} characters", plan.MAX_NAME),
        ("{} deep and", safecbor.MAX_DEPTH),
        ("{:,} values", safecbor.MAX_VALUES),
        ("| text | text | {} characters |", MAX_TEXT),
        ("| list | {:,} texts |", MAX_ITEMS),
        ("| list | {} numbers |", MAX_NUMBERS),
        ("| list of maps | {} maps |", MAX_RECORDS),
        ("k = 0 .. {} |", bits.MAX_K),
        ("at most {} unfinished messages", envelope.Joiner(1).max_pending),
        ("at most {}, each a text of", ticket.MAX_NOTES),
        ("a text of {} characters, a whole", ticket.MAX_NOTE),
    ],
)  # fmt: skip
def test_limits_are_those_of_the_code(text: str, value: object) -> None:
    """Every limit the document states is the constant that the code applies."""
    assert text.format(value) in re.sub(r"\s+", " ", DOCUMENT)


def test_other_limits_are_those_of_the_code() -> None:
    """Limits written as powers and units are right too."""
    assert MAX_INT == 2**53
    assert messages.MAX_MESSAGE_BYTES == 256 << 20
    assert envelope.DEFAULT_PACKET_BYTES == 256 << 10
    assert ticket.MAX_SCALE == 2.0**64
    assert plan.MAX_ACTIVATIONS == plan.MAX_WEIGHTS
    assert (prng.STREAM_SIGN, prng.STREAM_MAGNITUDE, prng.STREAM_KEEP) == (1, 2, 3)
    for module, magic, version in (
        (envelope, b"HP", 1),
        (messages, b"HN", 2),
        (ticket, b"HNST", 1),
        (bundle, b"HNSB", 1),
        (personal, b"HNSP", 2),
    ):
        assert (magic, version) == (module.MAGIC, module.VERSION)
        assert f"`{magic.decode()}`" in DOCUMENT


@pytest.mark.parametrize("kind", layers.LAYER_TYPES)
def test_every_layer_kind_is_documented_with_its_values(kind: str) -> None:
    """Table and schema name the values in order; one with a default is optional, and is in the table both ways."""
    items = dataclasses.fields(layers.LAYER_TYPES[kind])
    optional = [item.default is not dataclasses.MISSING for item in items]
    rows = re.findall(r"^\| `(\[.*?\])` \| ", section("Ticket"), re.M)
    forms = [items[: len(items) - left] for left in range(sum(optional), -1, -1)]
    written = ["[" + ", ".join([f'"{kind}"', *(item.name for item in form)]) + "]" for form in forms]
    assert [row for row in rows if row.startswith(f'["{kind}"')] == written
    rule = re.search(rf'^{kind} = \["{kind}"(.*)\]$', CDDL, re.M)
    assert rule, kind
    values = re.findall(r"(\? )?(\w+): ", rule[1])
    assert [(bool(mark), name) for mark, name in values] == [
        (may, item.name) for may, item in zip(optional, items, strict=True)
    ]


def test_no_layer_is_documented_that_does_not_exist() -> None:
    """The schema's choice of layers, and the table's rows, are exactly the kinds of the code."""
    kinds = list(layers.LAYER_TYPES)
    choice = re.search(r"^layer = (.*)$", CDDL, re.M)
    assert choice
    assert choice[1].split(" / ") == kinds
    rows = re.findall(r'^\| `\["(\w+)"', section("Ticket"), re.M)
    assert list(dict.fromkeys(rows)) == kinds


def test_an_unknown_layer_is_refused_as_documented() -> None:
    """The words of the compatibility rule are those of the error."""
    with pytest.raises(WireError) as caught:
        plan.plan_from_data(["p", [4], [["attention", 4]]])
    known = ", ".join(layers.LAYER_TYPES)
    assert str(caught.value) == f"a layer starts with one of {known}"
    compatibility = re.sub(r"\s+", " ", section("Compatibility"))
    assert "`a layer starts with one of conv, linear, ...`" in compatibility


def test_the_message_example_is_what_it_says() -> None:
    """The receipt in bytes decodes to the receipt in words, and encodes to the same bytes."""
    receipt = Receipt(run=bytes.fromhex("6465666768696a6b"), number=3)
    assert messages.decode(example("message Receipt")) == receipt
    assert messages.encode(receipt) == example("message Receipt")
    found = re.search(r"on the topic `(\S+)` with the private key 00 01 02 \.\. 1f", DOCUMENT)
    assert found
    assert channel.seal(bytes(range(32)), found[1], receipt) == example("message Receipt") + example("signature")


def test_the_coder_s_constants_are_documented() -> None:
    """Every number of the adaptive coder's description is that of the code."""
    text = re.sub(r"\s+", " ", section("The adaptive coder"))
    assert f"one of the last {adaptive_python.WINDOW} symbols" in text
    assert f"up to {adaptive_python.CERTAIN}." in text
    assert f"more than {adaptive_python.SETTLED} becomes {adaptive_python.SETTLED}" in text
    assert f"a context of 0 .. {adaptive.CONTEXTS - 1}" in re.sub("context of 0", "context of 0", text)
    assert f"symbols of *b* bits (1 or {mask.LEVEL_BITS})" in text
    assert channel.PURPOSE == "message"
    assert f"the first {mask.DIGEST_BYTES} bytes of the SHA-256" in section("Votes")


@pytest.mark.parametrize("comment", [comment for comment in EXAMPLES if comment.startswith("signs")])
def test_the_mask_examples_are_what_they_say(comment: str) -> None:
    """The masks in bytes decode to the flips in words, and are what the encoder writes."""
    kept, *flips = map(int, re.findall(r"\d+", comment))
    votes, ends = mask.unanimous(kept), np.array([kept])
    signs = mask.decode_signs(example(comment), votes, ends)
    assert np.flatnonzero(~signs).tolist() == flips
    assert mask.encode_signs(signs, votes, ends) == example(comment)


@pytest.mark.parametrize("comment", [comment for comment in EXAMPLES if comment.startswith("bits")])
def test_the_examples_of_bits_are_what_they_say(comment: str) -> None:
    """The bits in bytes decode to the positions in words, and are what the encoder writes."""
    n, *positions = map(int, re.findall(r"\d+", comment))
    array = bits.decode(example(comment), n)
    assert np.flatnonzero(array).tolist() == positions
    assert bits.encode(array) == example(comment)


def test_the_votes_example_is_what_it_says() -> None:
    """The votes in bytes decode to the signs and dissent in words."""
    ends = np.array([4])
    votes = mask.decode_votes(example("votes"), ends)
    assert votes.voters == 4
    assert votes.signs.tolist() == [True, False, True, True]
    assert votes.dissent.tolist() == [0, 1, 2, 0]
    assert mask.encode_votes(votes, ends) == example("votes")
    later = mask.decode_votes(example("later votes"), ends, votes)
    assert later.signs.tolist() == [True, False, False, True]
    assert later.dissent.tolist() == [0, 0, 1, 0]
    assert mask.encode_votes(later, ends, votes) == example("later votes")


def test_the_personal_network_is_laid_out_as_documented() -> None:
    """Offsets and sizes of the table are those of the header, the file's name is the code's."""
    text = section("Personal network")
    rows = [(int(at), int(size)) for at, size in re.findall(r"^\| (\d+) \| (\d+) \|", text, re.M)]
    assert rows == [(0, 4), (4, 1), (5, ticket.DIGEST_BYTES), (37, RUN_BYTES), (45, 8), (53, 2)]
    assert sum(rows[-1]) == personal.HEADER.size
    assert f"| {personal.HEADER.size} | 4 C |" in text
    assert f"| {personal.HEADER.size} + 4 C | rest |" in text
    assert f"| end - {ticket.DIGEST_BYTES} | {ticket.DIGEST_BYTES} |" in text
    assert f"`{state_folder.PERSONAL}`" in text


def test_every_example_is_checked() -> None:
    """No example in bytes stands in the document without a test."""
    assert [comment.split()[0] for comment in EXAMPLES] == [
        *("lot", "message", "signature", "bits,", "bits,", "signs", "signs", "votes", "later"),
    ]


def test_the_sizes_in_the_table_are_real() -> None:
    """The table of coded sizes is what the encoder gives on the arrays it names."""
    rows = re.findall(r"^\| (0\.\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", section("Masks"), re.M)
    assert len(rows) == 9
    for share, flips, coded, entropy, raw in rows:
        array = np.random.default_rng(0).random(30_323) < float(share)
        p = array.mean()
        bound = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) * array.size / 8
        flips_coded = mask.encode_signs(~array, mask.unanimous(array.size), np.array([array.size]))
        found = (int(array.sum()), len(flips_coded), round(bound), 1 + -(-array.size // 8))
        assert found == (int(flips), int(coded), int(entropy), int(raw))
