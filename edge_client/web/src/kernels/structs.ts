/** The kernels' structs (network.h) as wasm32 lays them out; `hs_struct_bytes` says whether these mirror them. */

const SIZES = { i32: 4, i64: 8, f32: 4, f64: 8, ptr: 4, table: 4 } as const;
const TABLE_FLOATS = 64;
type Type = keyof typeof SIZES;

export interface Layout {
  offsets: Map<string, number>;
  types: Map<string, Type>;
  nbytes: number;
}

function layout(...groups: [Type, string][]): Layout {
  const offsets = new Map<string, number>();
  const types = new Map<string, Type>();
  let at = 0;
  let widest = 1;
  for (const [type, names] of groups) {
    for (const name of names.split(" ")) {
      const size = SIZES[type];
      at = Math.ceil(at / size) * size;
      offsets.set(name, at);
      types.set(name, type);
      at += type === "table" ? TABLE_FLOATS * size : size;
      widest = Math.max(widest, size);
    }
  }
  return { offsets, types, nbytes: Math.ceil(at / widest) * widest };
}

export const TENSOR = layout(["i64", "value gradient plane pitch interior channels height width cut"]);
export const OPERATION = layout(
  ["i32", "kind input second output relu function groups block constant placeSize"],
  ["i64", "rows start kept runs run runIn runOut runChunk"],
  ["ptr", "rowStart code initial magnitudes weights"],
  ["f32", "scale"],
  ["table", "table"],
  ["i32", "kernelH kernelW strideH strideW paddingH paddingW"],
  ["i64", "extra"],
);
export const NETWORK = layout(
  ["i64", "lanes classes kept steps operations tensors logits"],
  ["ptr", "ops tensor workspace"],
  ["i64", "workspaceFloats"],
  ["ptr", "classOffset logPrior scores gradient first second seconds team"],
  ["i32", "optimiser inputRelu"],
  ["f64", "learningRate beta1 beta2 epsilon clip"],
);
export const RESULT = layout(["f64", "loss correct"]);

/** Write fields of a struct; those that are not named stay as they are. */
export function write(
  view: DataView, at: number, { offsets, types }: Layout, fields: Record<string, number | readonly number[]>,
): void {
  for (const [name, value] of Object.entries(fields)) {
    const to = at + offsets.get(name)!;
    const type = types.get(name)!;
    if (type === "table") (value as readonly number[]).forEach((one, i) => view.setFloat32(to + 4 * i, one, true));
    else if (type === "i64") view.setBigInt64(to, BigInt(value as number), true);
    else if (type === "f32") view.setFloat32(to, value as number, true);
    else if (type === "f64") view.setFloat64(to, value as number, true);
    else view.setUint32(to, value as number, true); // two's complement, so -1 too
  }
}
