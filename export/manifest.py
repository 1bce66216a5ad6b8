"""An exported folder: one ticket with the artifacts of several runtimes, and a manifest that names every byte of it.

    manifest.json            what is here: hashes, shapes and dtypes, the plan, settings, estimates (marked as such)
    manifest.sig             who says so: an Ed25519 signature of manifest.json, and the key to check it with
    ticket.hns               the network; all that the sparse runtime needs
    onnx/train.onnx, ...     one folder for every runtime with artifacts of its own

The same ticket, options and key give the same bytes. A runtime's files and the ticket make the `wire.bundle.Bundle`
that a coordinator would send to a device.
"""

from __future__ import annotations

import shutil
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Base64Bytes, BaseModel, ConfigDict, ValidationError

from export.interface import Value, values_of, versions
from wire import __version__, signing
from wire.bundle import Bundle, is_file_name
from wire.errors import ConfigError, DataError, WireError
from wire.plan import plan_to_data
from wire.settings import Training
from wire.ticket import Ticket, decode_ticket

MANIFEST, SIGNATURE, TICKET = "manifest.json", "manifest.sig", "ticket.hns"
PURPOSE = "export"  # of the signature
MAX_FILE_BYTES = 1 << 30


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Parsed = TypeVar("Parsed", bound=_Strict)


class File(_Strict):
    """One file.

    Attributes:
        sha256: of its bytes, hexadecimal.
        bytes: its size.
        inputs: of its graph; none for a ticket.
        outputs: of its graph.
    """

    sha256: str
    bytes: int
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()


class Network(_Strict):
    """The ticket in words."""

    name: str
    input_shape: tuple[int, ...]
    classes: int
    plan: list[Any]
    weights: int
    kept: int
    kept_per_layer: tuple[int, ...]


class Settings(_Strict):
    """What is baked into the artifacts; all else a device is told with the federation."""

    batch: int
    optimiser: str


class Signature(_Strict):
    """The file `manifest.sig`: `wire.signing` over the bytes of the manifest; both values in base64."""

    public_key: Base64Bytes
    signature: Base64Bytes


class Target(_Strict):
    """One runtime.

    Attributes:
        files: of this runtime beside the ticket, by path in the folder.
        made_with: versions of the packages that made them.
        arena_bytes: of the memory that training is planned in, where that is known before it is loaded.
    """

    files: dict[str, File]
    made_with: dict[str, str]
    arena_bytes: int | None = None


class Estimate(_Strict):
    """A training step of the sparse runtime on a board, *estimated*, never measured.

    Attributes:
        step_ms: milliseconds of one step on one core; None if the profile lacks a figure.
        process_mb: 1e6 bytes of the whole process, without the device's recordings.
        source: what the time is estimated from.
    """

    profile: str
    title: str
    runtime: Literal["sparse"] = "sparse"
    step_ms: float | None
    process_mb: float
    source: str


class Manifest(_Strict):
    """The file `manifest.json`."""

    format: Literal["hidenseek export"] = "hidenseek export"
    version: Literal[1] = 1
    software: str
    ticket: File
    network: Network
    settings: Settings
    targets: dict[str, Target]
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A folder that was read and whose hashes are right.

    Attributes:
        manifest: what it says.
        signed_by: public key that signed it, 32 bytes; whether it is to be trusted is the caller's to say.
        ticket: the network.
        bundles: by runtime, what a device would download.
    """

    manifest: Manifest
    signed_by: bytes
    ticket: Ticket
    bundles: Mapping[str, Bundle]

    @property
    def training(self) -> Training:
        """Default settings with what is baked in."""
        return Training(batch=self.manifest.settings.batch, optimiser=self.manifest.settings.optimiser)


def describe(
    bundles: Sequence[Bundle], training: Training, arenas: Mapping[str, int], estimates: Sequence[Estimate]
) -> Manifest:
    """The manifest of bundles of one ticket.

    Args:
        bundles: one or more, of different runtimes.
        training: what they were made with.
        arenas: planned bytes of the runtimes that have them.
        estimates: for the boards of interest.
    """
    ticket, plan = bundles[0].ticket, bundles[0].ticket.plan
    return Manifest(
        software=f"hidenseek {__version__}",
        ticket=_file(ticket.encoded),
        network=Network(
            name=plan.name,
            input_shape=plan.input_shape,
            classes=plan.classes,
            plan=plan_to_data(plan),
            weights=plan.weights,
            kept=ticket.kept,
            kept_per_layer=tuple(layer.kept for layer in ticket.kept_layers),
        ),
        settings=Settings(batch=training.batch, optimiser=training.optimiser),
        targets={
            bundle.runtime: Target(
                files={
                    f"{bundle.runtime}/{name}": _file(data, *values_of(name, data))
                    for name, data in bundle.files.items()
                },
                made_with=versions(bundle.runtime),
                arena_bytes=arenas.get(bundle.runtime),
            )
            for bundle in bundles
        },
        estimates=tuple(estimates),
    )


def write(folder: Path, manifest: Manifest, bundles: Sequence[Bundle], *, key: bytes) -> None:
    """Write an exported folder, signed by a private key, all of it or nothing; one that is there is replaced.

    Raises:
        ConfigError: if it cannot be written, or holds something else than an export.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise ConfigError("is there and holds other files", where=str(folder), hint="Name an empty or new folder")
    fresh = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        (fresh / TICKET).write_bytes(bundles[0].ticket.encoded)
        for bundle in bundles:
            for name, data in bundle.files.items():
                (fresh / bundle.runtime).mkdir(exist_ok=True)
                (fresh / bundle.runtime / name).write_bytes(data)
        text = (manifest.model_dump_json(indent=1) + "\n").encode()
        (fresh / MANIFEST).write_bytes(text)
        (fresh / SIGNATURE).write_text(_signature(key, text).model_dump_json(indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(folder)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def read(folder: Path) -> Exported:
    """Read an exported folder and check its signature and every hash.

    Raises:
        DataError: naming the file, what was found and what was expected.
        TicketError: if the ticket is bad in spite of its hash.
    """
    path = folder / MANIFEST
    text = _bytes(path, "Name a folder that hidenseek export wrote")
    manifest = _parsed(Manifest, text, path)
    signed_by = _signer(folder / SIGNATURE, text)
    ticket = decode_ticket(_checked(folder / TICKET, manifest.ticket), where=str(folder / TICKET))
    bundles = {}
    for runtime, target in manifest.targets.items():
        files = {}
        for name, file in target.files.items():
            head, _, tail = name.rpartition("/")
            if head != runtime or not is_file_name(runtime) or not is_file_name(tail):
                raise DataError(f"'{name}' is not a file of '{runtime}/'", where=str(path), hint="Export it again")
            files[tail] = _checked(folder / runtime / tail, file)
        bundles[runtime] = Bundle(runtime=runtime, ticket=ticket, files=files)
    return Exported(manifest=manifest, signed_by=signed_by, ticket=ticket, bundles=bundles)


def _file(data: bytes, inputs: Sequence[Value] = (), outputs: Sequence[Value] = ()) -> File:
    return File(sha256=sha256(data).hexdigest(), bytes=len(data), inputs=tuple(inputs), outputs=tuple(outputs))


def _parsed(model: type[Parsed], text: bytes, path: Path) -> Parsed:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        # A key of the file may be as long as the file.
        place = ".".join(str(step)[:40] for step in first["loc"]) or "file"
        raise DataError(f"{place}: {first['msg']}", where=str(path), hint="Export it again") from error


def _signature(key: bytes, text: bytes) -> Signature:
    signature = signing.sign(key, PURPOSE, text)
    return Signature(public_key=b64encode(signing.public_key(key)), signature=b64encode(signature))


def _signer(path: Path, text: bytes) -> bytes:
    """The public key that signed the manifest."""
    signature = _parsed(Signature, _bytes(path, "Copy the folder again, or export it again"), path)
    try:
        signing.check(signature.public_key, PURPOSE, text, signature.signature)
    except WireError as error:
        raise DataError(f"{MANIFEST}: {error.what}", where=str(path), hint="Copy the folder again") from error
    return signature.public_key


def _checked(path: Path, file: File) -> bytes:
    data = _bytes(path, "Copy the folder again, or export it again")
    found = sha256(data).hexdigest()
    if found != file.sha256:
        raise DataError(
            f"{len(data):,} bytes, SHA-256 {found[:16]}…; the manifest says {file.bytes:,}, {file.sha256[:16]}…",
            where=str(path),
            hint="Copy the folder again, or export it again",
        )
    return data


def _bytes(path: Path, hint: str) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"larger than {MAX_FILE_BYTES:,} bytes", where=str(path), hint=hint)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path), hint=hint) from error
