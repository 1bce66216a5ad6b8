"""CBOR from strangers: decode to plain data or raise `WireError`, nothing else."""

from __future__ import annotations

from io import BytesIO

import cbor2

from wire.errors import WireError


def load_cbor(data: bytes) -> object:
    """Decode one CBOR item that fills `data` exactly.

    Raises:
        WireError: if it does not decode, is nested too deep, or leaves bytes over.
    """
    stream = BytesIO(data)
    try:
        value: object = cbor2.CBORDecoder(stream).decode()
    except Exception as error:  # tags run constructors of many kinds; whatever they raise, the input is bad
        raise WireError(f"not CBOR ({type(error).__name__}: {error})") from error
    if stream.tell() != len(data):
        raise WireError(f"{len(data) - stream.tell()} bytes left over after the CBOR item")
    return value
