/**
 * Answers a line for every line, so that another program can compare: the questions of the phone examples' Echo.kt.
 *
 *     code 0110            the coded bits
 *     bits N HEX           the bits coded so
 *     votes ENDS HEX [HEX]      signs, dissent and digest; in the context of the second's votes
 *     mask ENDS HEX BITS        a mask, coded in the context of these votes
 *     start ENDS HEX HEX        scores (f32) that a round with these votes starts with, in a federation (its message)
 *     send ENDS HEX HEX SEED HEX     a mask of such a round's scores (f32), coded
 *     randomise EPSILON BITS HEX     the signs sent, with these bytes as random ones
 *     unseal TOPIC KEY HEX      "read"
 *     ticket HEX           kept count, SHA-256 of the indices (i32) and of the initial weights (f32)
 *     message HEX          "read"
 *     device NAME INSTANCE RUNTIME STAY [RUN NUMBER]     a new device; the newest round whose mask it knows confirmed
 *     event SECONDS KIND [HEX [NUMBER]]     what that device does
 *
 * Bytes that are refused get the answer "refused".
 */
import { handle, newDevice, type Action, type Device, type Event, type Key } from "../src/agent/agent";
import { Coder } from "../src/kernels/module";
import * as bits from "../src/wire/bits";
import { fromHex, sha256, toHex, view } from "../src/wire/bytes";
import { known, signsOf, startScores } from "../src/wire/dither";
import { WireError } from "../src/wire/errors";
import { decode, type Federation, type Hello, type MaskUpdate, type Training } from "../src/wire/messages";
import { randomise } from "../src/wire/privacy";
import { unseal } from "../src/wire/signing";
import { decodeTicket, initialWeights, type Ticket } from "../src/wire/ticket";
import { decodeVotes, encodeSigns, type Votes } from "../src/wire/votes";
import { answerLines, loadKernels } from "./files";

const coder = new Coder(loadKernels());
let device: Device | null = null;

const array = (text: string) => Uint8Array.from(text, Number);
const shown = (signs: Uint8Array) => signs.join("");
const bytes = (hex = "") => fromHex(hex.replaceAll("-", ""));
const ends = (text: string) => text.split(",").map(Number);

async function answer(line: string): Promise<string> {
  const words = line.split(" ");
  try {
    switch (words[0]) {
      case "code":
        return toHex(bits.encode(array(words[1])));
      case "bits":
        return shown(bits.decode(bytes(words[2]), Number(words[1])));
      case "votes": {
        const found = votes(words);
        return `${shown(found.signs)} ${found.dissent.join(",")} ${toHex(await found.digest())}`;
      }
      case "mask":
        return toHex(encodeSigns(coder, array(words[3]), votes(words.slice(0, 3)), ends(words[1])));
      case "start":
        return toHex(new Uint8Array(startScores(votes(words.slice(0, 3)), training(words[3])).buffer));
      case "send":
        return sent(votes(words.slice(0, 3)), training(words[3]), BigInt(words[4]), bytes(words[5]), ends(words[1]));
      case "randomise": {
        const drawn = view(bytes(words[3]));
        const count = words[2].length;
        const numbers = Uint32Array.from({ length: count }, (_, i) => drawn.getUint32(4 * i, true));
        return shown(randomise(array(words[2]), Number(words[1]), numbers));
      }
      case "unseal":
        await unseal(words[1], bytes(words[3]), () => bytes(words[2]));
        return "read";
      case "ticket":
        return await described(await decodeTicket(bytes(words[1])));
      case "message":
        // What no device is sent, an example may refuse at once; this client reads the kind and lets it be.
        return decode(bytes(words[1])).type === "other" ? "refused" : "read";
      case "device":
        device = made(words);
        return "ready";
      case "event":
        return happened(Number(words[1]), event(words[2], words[3], words[words.length - 1]));
      default:
        throw new Error(line);
    }
  } catch (error) {
    if (error instanceof WireError) return "refused";
    throw error;
  }
}

function made(words: string[]): Device {
  const hello: Hello = {
    type: "hello", instance: bytes(words[2]), software: "check", runtime: words[3], profile: "", trainSamples: 1,
    testSamples: 1, key: new Uint8Array(32), started: 1, greetings: 0, connection: 0, dithers: false,
  };
  const confirmed = words[5] ? { run: bytes(words[5]), number: Number(words[6]) } : null;
  return { ...newDevice(words[1], hello, words[4] === "true"), confirmed };
}

function votes(words: string[]): Votes {
  const known = words[3] ? decodeVotes(coder, bytes(words[3]), ends(words[1]), null) : null;
  return decodeVotes(coder, bytes(words[2]), ends(words[1]), known);
}

const training = (hex: string) => (decode(bytes(hex)) as Federation).training;

function sent(votes: Votes, training: Training, seed: bigint, data: Uint8Array, ends: number[]): string {
  const scores = new Float32Array(data.slice().buffer); // little-endian, as WebAssembly is
  return toHex(encodeSigns(coder, signsOf(scores, training, seed), known(votes, training, seed), ends));
}

function event(kind: string, hex: string, last: string): Event {
  switch (kind) {
    case "online":
    case "tick":
      return { type: kind };
    case "opened":
      return { type: "bundle-opened", digest: bytes(hex) };
    case "needed":
      return { type: "bundle-needed", digest: bytes(hex) };
    case "taken":
      return { type: "votes-taken", run: bytes(hex), number: Number(last) };
    case "unusable":
      return { type: "votes-unusable", base: Number(last) };
    case "trained":
      return { type: "training-done", update: decode(bytes(hex)) as MaskUpdate };
    case "heard":
      return { type: "heard", message: decode(bytes(hex)) };
    default:
      throw new Error(kind);
  }
}

function happened(nowS: number, event: Event): string {
  const [next, actions] = handle(device!, event, nowS);
  device = next;
  return actions.filter(({ type }) => type !== "log").map(named).join(" ");
}

function named(action: Action): string {
  const name = camel(action.type);
  const key = ({ run, number }: Key) => `${toHex(run)}:${number}`;
  switch (action.type) {
    case "open-bundle":
      return `${name}:${toHex(action.federation.run)}`;
    case "keep-bundle":
      return `${name}:${toHex(action.digest)}:${toHex(action.data)}`;
    case "take-votes":
      return `${name}:${camel(action.announced.type)}:${key(action.announced)}:${action.announced.base}`;
    case "ask-votes":
      return `${name}:${key(action.missed)}:${action.missed.have}`;
    case "evaluate":
    case "train":
      return `${name}:${key(action.announced)}`;
    case "send-mask":
      return `${name}:${key(action.update)}:${action.isNew}`;
    case "drop-pending":
      return action.confirmed ? `${name}:${key(action.confirmed)}` : name;
    case "stop":
      return `${name}:${action.error === null ? "over" : "error"}`;
    default:
      return name;
  }
}

function camel(name: string): string {
  return name.replace(/(^|-)(.)/g, (_all, _dash, letter: string) => letter.toUpperCase());
}

async function described(ticket: Ticket): Promise<string> {
  const indices = new Int32Array(ticket.kept);
  const weights = new Float32Array(ticket.kept);
  for (const layer of ticket.layers) {
    indices.set(layer.indices, layer.start);
    weights.set(initialWeights(layer), layer.start);
  }
  const hash = async (values: Int32Array | Float32Array) => toHex(await sha256(new Uint8Array(values.buffer)));
  return `${ticket.kept} ${await hash(indices)} ${await hash(weights)}`;
}

await answerLines(answer);
