/** Samples from an .npz file as boards use them: arrays x (samples, ...shape) and y (samples,). */
import { unzipSync } from "fflate";

import type { DeviceData } from "../device/client";
import { DataError } from "./errors";
import { holdBack } from "./windows";

const MAX_BYTES = 256 << 20; // unpacked
const MAGIC = "\x93NUMPY";
const HINT = "numpy.savez(FILE, x=..., y=...) makes one: x float32 (samples, shape), y whole numbers";

interface Table {
  shape: number[];
  values: number[] | Float32Array;
}

/**
 * Read a file.
 *
 * @throws DataError if it is none, or its arrays do not fit together.
 */
export function readNpz(data: Uint8Array): DeviceData {
  let files: Record<string, Uint8Array>;
  let total = 0;
  try {
    files = unzipSync(data, { filter: ({ name, originalSize }) => /^[xy]\.npy$/.test(name) && (total += originalSize) <= MAX_BYTES });
  } catch (error) {
    throw new DataError(`no .npz file that can be read (${(error as Error).message}). ${HINT}`);
  }
  if (total > MAX_BYTES) throw new DataError(`${total >> 20} MB unpacked, at most ${MAX_BYTES >> 20} MB: give the phone fewer samples`);
  const missing = ["x", "y"].filter((name) => !files[`${name}.npy`]);
  if (missing.length) throw new DataError(`array ${missing.join(" and ")} is missing. ${HINT}`);
  const [x, y] = [readNpy(files["x.npy"]), readNpy(files["y.npy"])];
  if (x.shape.length < 2 || y.shape.length !== 1 || x.shape[0] !== y.shape[0]) {
    throw new DataError(`x has shape (${x.shape.join(", ")}) and y (${y.shape.join(", ")}), one label a sample expected`);
  }
  if (!Array.from(y.values).every((label) => Number.isInteger(label) && label >= 0)) throw new DataError("labels are whole numbers from 0");
  if (!x.values.every((value) => Number.isFinite(value))) throw new DataError("x holds a value that is no finite number");
  return holdBack(Float32Array.from(x.values), Int32Array.from(y.values), x.shape.slice(1));
}

const READERS: Record<string, [number, (view: DataView, at: number) => number]> = {
  "<f4": [4, (view, at) => view.getFloat32(at, true)],
  "<f8": [8, (view, at) => view.getFloat64(at, true)],
  "<i8": [8, (view, at) => Number(view.getBigInt64(at, true))],
  "<i4": [4, (view, at) => view.getInt32(at, true)],
  "<i2": [2, (view, at) => view.getInt16(at, true)],
  "|i1": [1, (view, at) => view.getInt8(at)],
  "<u4": [4, (view, at) => view.getUint32(at, true)],
  "<u2": [2, (view, at) => view.getUint16(at, true)],
  "|u1": [1, (view, at) => view.getUint8(at)],
};

/** One array; the .npy format is NumPy's NEP 1. */
function readNpy(data: Uint8Array): Table {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (data.length < 12 || ![...MAGIC].every((letter, i) => data[i] === letter.charCodeAt(0))) throw new DataError(`no array of numpy's. ${HINT}`);
  const [head, size] = data[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  if (head + size > data.length) throw new DataError("the file is cut off");
  const header = new TextDecoder("latin1").decode(data.subarray(head, head + size));
  const [type, order, sides] = [/'descr': '([^']*)'/, /'fortran_order': (\w+)/, /'shape': \(([^)]*)\)/].map((form) => form.exec(header)?.[1]);
  const reader = READERS[type ?? ""];
  if (!reader || order !== "False" || sides === undefined) throw new DataError(`an array of ${type ?? "no"} type and order ${order}: save it as float32 (C order). ${HINT}`);
  const shape = sides.split(",").filter((side) => side.trim()).map(Number);
  const count = shape.reduce((a, b) => a * b, 1);
  const [bytes, read] = reader;
  if (head + size + count * bytes !== data.length) throw new DataError("the file is cut off");
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = read(view, head + size + i * bytes);
  return { shape, values };
}
