/** CBOR (RFC 8949), as far as hidenseek uses it: whole numbers, floats, texts, bytes, lists, maps, booleans, null. */
import { decode as decodeItem, encode as encodeItem, Token, Type } from "cborg";

import type { Bytes } from "./bytes";
import { WireError } from "./errors";

/** A number that travels as a float even where it is whole; JavaScript does not tell 1 from 1.0. */
export class Float {
  constructor(readonly value: number) {}
}

export type Value = number | bigint | string | boolean | null | Uint8Array | Float | Value[] | Map<Value, Value>;

const OPTIONS = {
  allowIndefinite: false,
  allowUndefined: false,
  allowInfinity: false,
  allowNaN: false,
  rejectDuplicateMapKeys: true,
  useMaps: true,
  tags: [],
};

/**
 * Read one item that fills `data`.
 *
 * @throws WireError if it does not decode, or is nothing that hidenseek writes.
 */
export function decode(data: Uint8Array): Value {
  try {
    return decodeItem(data, OPTIONS) as Value;
  } catch (error) {
    // Whatever stops the decoder, a nesting deeper than the stack among it, the bytes are to blame.
    throw new WireError(`no CBOR: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The same bytes for the same value, every time: the shortest form of everything, keys in order. */
export function encode(value: Value): Bytes {
  return encodeItem(value, {
    typeEncoders: {
      Object: (found: unknown) => (found instanceof Float ? [new Token(Type.float, found.value)] : null),
    },
  }) as Bytes;
}

export function list(value: Value | undefined, size?: number): Value[] {
  if (!Array.isArray(value) || (size !== undefined && value.length !== size)) {
    throw new WireError(size === undefined ? "a list expected" : `a list of ${size} values expected`);
  }
  return value;
}

/** A whole number from 0 to `most`. */
export function whole(value: Value | undefined, most: number, least = 0): number {
  const number = typeof value === "bigint" && value <= most ? Number(value) : value; // 2^53 is a bigint, and exact
  if (typeof number !== "number" || !Number.isInteger(number) || number < least || number > most) {
    throw new WireError(`a whole number in ${least}..${most} expected`);
  }
  return number;
}

export function text(value: Value | undefined, most: number): string {
  if (typeof value !== "string" || value.length > 2 * most || [...value].length > most) {
    throw new WireError(`a text of at most ${most} characters expected`);
  }
  return value;
}

export function bytes(value: Value | undefined, size?: number): Bytes {
  if (!(value instanceof Uint8Array) || (size !== undefined && value.length !== size)) {
    throw new WireError(size === undefined ? "bytes expected" : `${size} bytes expected`);
  }
  return value.slice() as Bytes; // of its own memory, not a window of the message's
}

export function finite(value: Value | undefined): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new WireError("a finite number expected");
  return value;
}
