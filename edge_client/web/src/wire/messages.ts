/** What a device says and hears (docs/wire-format.md): "HN", version 2, the kind, a CBOR map of field numbers to values. */
import { concat, startsWith, type Bytes } from "./bytes";
import { bytes, decode as decodeCbor, encode as encodeCbor, finite, Float, list, text, whole, type Value } from "./cbor";
import { WireError } from "./errors";

const VERSION = 2;
const HEADER_BYTES = 4;
const MAX_INT = 2 ** 53;
const MAX_COUNT = 2 ** 31 - 1;
const MAX_TEXT = 512;
export const EVERYONE = "*"; // in the place of the ids of a round's devices; none of them can be this

/** Local training, as the federation announces it. `privacyEpsilon` 0: no signs are turned; `dither` 0: signs are sent. */
export interface Training {
  optimiser: "adam" | "sgd";
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  clip: number;
  start: number;
  epochs: number;
  batch: number;
  privacyEpsilon: number;
  dither: number;
}

/**
 * On every connect; `instance` is of this process, `started` counted on disk, `greetings` in this process, and
 * `connection` says on which of its connections; `dithers`: it can send dithered scores.
 */
export interface Hello {
  type: "hello";
  instance: Bytes;
  software: string;
  runtime: string;
  profile: string;
  trainSamples: number;
  testSamples: number;
  key: Bytes;
  started: number;
  greetings: number;
  connection: number;
  dithers: boolean;
}
/** Retained, and the last will. */
export interface State {
  type: "state";
  instance: Bytes;
  online: boolean;
  connection: number;
}
export interface Welcome {
  type: "welcome";
  instance: Bytes;
}
/** `number` is the round whose mask is meant, 0 if none is. */
export interface Refusal {
  type: "refusal";
  instance: Bytes;
  code: string;
  reason: string;
  number: number;
}
/** `bundles`: SHA-256 of the bundle for every runtime; `issued`: when the run began, milliseconds since 1970. */
export interface Federation {
  type: "federation";
  run: Bytes;
  name: string;
  rounds: number;
  ticket: Bytes;
  bundles: ReadonlyMap<string, Bytes>;
  training: Training;
  seed: number;
  key: Bytes;
  issued: number;
}
export interface BundleBytes {
  type: "bundle-bytes";
  data: Bytes;
}
/**
 * `votes` are coded in the context of those announced with round `base`, 0: of unanimous ones. This client does not say
 * that it draws lots, so the ids in `selected` name it where a round is drawn.
 */
export interface Round {
  type: "round";
  run: Bytes;
  number: number;
  selected: readonly string[];
  evaluate: boolean;
  final: boolean;
  votes: Bytes;
  base: number;
  digest: Bytes;
}
/** Figures are rounded to single precision, which takes four bytes less. */
export interface MaskUpdate {
  type: "mask-update";
  run: Bytes;
  number: number;
  signs: Bytes;
  trainSamples: number;
  loss: number;
  correct: number;
  testSamples: number;
  trainS: number;
  stepMs: number;
  peakMemoryKb: number;
}
export interface Evaluation {
  type: "evaluation";
  run: Bytes;
  number: number;
  correct: number;
  testSamples: number;
}
export interface Receipt {
  type: "receipt";
  run: Bytes;
  number: number;
}
export interface Missed {
  type: "missed";
  run: Bytes;
  number: number;
  have: number;
}
export interface CatchUp {
  type: "catch-up";
  run: Bytes;
  number: number;
  votes: Bytes;
  base: number;
  digest: Bytes;
}
/** For the account that an invitation is for, with its token (`wire/claim`). */
export interface Claim {
  type: "claim";
  key: Bytes;
  proof: Bytes;
  hardware: string;
  nonce: Bytes;
}
/** The answer: the password, sealed for the claim's key, or why there is none. */
export interface Grant {
  type: "grant";
  key: Bytes;
  proof: Bytes;
  sealed: Bytes;
  refused: string;
}
/** What others say to each other. */
export interface Other {
  type: "other";
}
export type Upward = Hello | State | MaskUpdate | Evaluation | Missed | Claim;
export type Message =
  | Upward | Welcome | Refusal | Federation | BundleBytes | Round | Receipt | CatchUp | Grant | Other;

/** Encode what a device says. */
export function encode(message: Upward): Bytes {
  const m = message;
  switch (m.type) {
    case "hello":
      return pack(1, m.instance, m.software, m.runtime, m.profile, m.trainSamples, m.testSamples, m.key, m.started, m.greetings,
        undefined, m.connection || undefined, undefined, m.dithers || undefined);
    case "state":
      return pack(2, m.instance, m.online, m.connection || undefined);
    case "mask-update":
      return pack(8, m.run, m.number, m.signs, m.trainSamples, new Float(m.loss), m.correct, m.testSamples,
        new Float(m.trainS), new Float(m.stepMs), m.peakMemoryKb);
    case "evaluation":
      return pack(9, m.run, m.number, m.correct, m.testSamples);
    case "missed":
      return pack(11, m.run, m.number, m.have);
    case "claim":
      return pack(21, m.key, m.proof, m.hardware, m.nonce);
  }
}

/**
 * Decode what a device hears, and masks that it has written down.
 *
 * @throws WireError if it is no message of this version with every field in range.
 */
export function decode(data: Uint8Array): Message {
  if (data.length < HEADER_BYTES || !startsWith(data, "HN")) throw new WireError("no message");
  if (data[2] !== VERSION) throw new WireError(`message version ${data[2]}, this page speaks version ${VERSION}`);
  const fields = decodeCbor(data.subarray(HEADER_BYTES));
  if (!(fields instanceof Map)) throw new WireError("a map of fields expected");
  return read(data[3], fields);
}

function read(kind: number, fields: Map<Value, Value>): Message {
  const field = (number: number) => fields.get(number);
  const run = () => bytes(field(1), 8);
  const long = (number: number) => whole(field(number), MAX_INT);
  const count = (number: number) => whole(field(number), MAX_COUNT);
  const flag = (number: number) => {
    const found = field(number);
    if (typeof found !== "boolean") throw new WireError(`field ${number}: true or false expected`);
    return found;
  };
  switch (kind) {
    case 3:
      return { type: "welcome", instance: run() };
    case 4:
      return { type: "refusal", instance: run(), code: text(field(2), MAX_TEXT), reason: text(field(3), MAX_TEXT), number: long(4) };
    case 5:
      return {
        type: "federation", run: run(), name: text(field(2), MAX_TEXT), rounds: long(3), ticket: bytes(field(4), 32),
        bundles: hashes(field(5)), training: training(field(6)), seed: long(7), key: bytes(field(8), 32), issued: long(9),
      };
    case 6:
      return { type: "bundle-bytes", data: bytes(field(1)) };
    case 7:
      return {
        type: "round", run: run(), number: long(2), selected: list(field(3)).map((id) => text(id, MAX_TEXT)),
        evaluate: flag(4), final: flag(5), votes: bytes(field(6)), base: long(7), digest: bytes(field(8), 8),
      };
    case 8:
      return {
        type: "mask-update", run: run(), number: long(2), signs: bytes(field(3)), trainSamples: count(4),
        loss: finite(field(5)), correct: count(6), testSamples: count(7), trainS: finite(field(8)),
        stepMs: finite(field(9)), peakMemoryKb: long(10),
      };
    case 10:
      return { type: "receipt", run: run(), number: long(2) };
    case 12:
      return { type: "catch-up", run: run(), number: long(2), votes: bytes(field(3)), base: long(4), digest: bytes(field(5), 8) };
    case 22:
      return { type: "grant", key: bytes(field(1), 32), proof: bytes(field(2), 32), sealed: bytes(field(3)), refused: text(field(4), MAX_TEXT) };
    default:
      if (kind < 1 || kind > 22) throw new WireError(`message of unknown kind ${kind}`);
      return { type: "other" };
  }
}

function hashes(value: Value | undefined): Map<string, Bytes> {
  if (!(value instanceof Map)) throw new WireError("hashes by name expected");
  return new Map([...value].map(([name, hash]) => [text(name, MAX_TEXT), bytes(hash, 32)]));
}

function training(value: Value | undefined): Training {
  const [optimiser, ...rest] = list(value);
  if (rest.length !== 9 && rest.length !== 10) throw new WireError(`${rest.length + 1} training settings, 10 or 11 expected`);
  const [learningRate, beta1, beta2, epsilon, clip, start, epochs, batch, privacyEpsilon, dither = 0] = rest.map(finite);
  const positive = [learningRate, epsilon, clip, start].every((number) => number >= 1e-12 && number <= 1e6);
  const decays = [beta1, beta2].every((number) => number >= 0 && number < 1);
  const counts = Number.isInteger(epochs) && epochs >= 1 && epochs <= 1000 && Number.isInteger(batch) && batch >= 1 && batch <= 4096;
  const isPrivate = privacyEpsilon === 0 || (privacyEpsilon >= 0.1 && privacyEpsilon <= 20);
  const dithered = dither === 0 || (dither >= 1e-12 && dither <= clip && privacyEpsilon === 0);
  if ((optimiser !== "adam" && optimiser !== "sgd") || !positive || !decays || !counts || !isPrivate || !dithered) {
    throw new WireError("training settings out of range");
  }
  return { optimiser, learningRate, beta1, beta2, epsilon, clip, start, epochs, batch, privacyEpsilon, dither };
}

/** Values of the fields 1, 2, ...; undefined: one that is left out. */
function pack(kind: number, ...values: (Value | undefined)[]): Bytes {
  const head = Uint8Array.of("H".charCodeAt(0), "N".charCodeAt(0), VERSION, kind);
  return concat(head, encodeCbor(new Map(values.flatMap((value, i) => (value === undefined ? [] : [[i + 1, value]])))));
}
