/** Checks this client against tests/golden/vectors-v2.json: `node vectors.js FILE`. Exit code 1 if anything differs. */
import { readFileSync } from "node:fs";

import { logPrior, Trainer } from "../src/agent/trainer";
import { Coder } from "../src/kernels/module";
import { SparseRuntime } from "../src/kernels/runtime";
import { checkGrant, prove } from "../src/wire/claim";
import * as bits from "../src/wire/bits";
import { fromHex, same, toHex, type Bytes } from "../src/wire/bytes";
import { known, signsOf, startScores } from "../src/wire/dither";
import { Joiner, split } from "../src/wire/envelope";
import { WireError } from "../src/wire/errors";
import { decodeInvite } from "../src/wire/invite";
import { decode, encode, type Claim, type Federation, type Grant, type MaskUpdate, type Message, type Training, type Upward } from "../src/wire/messages";
import { mix, permutation, thresholds } from "../src/wire/prng";
import { importSecret, newKeys, seal, unseal } from "../src/wire/signing";
import { decodeTicket, initialWeights, type Ticket } from "../src/wire/ticket";
import { decodeSigns, decodeVotes, encodeSigns, Votes } from "../src/wire/votes";
import { loadKernels } from "./files";

type Json = any; // eslint-disable-line -- whatever the file holds; every use is a check of it

const all: Json = JSON.parse(readFileSync(process.argv[2], "utf8"));
const module = loadKernels();
const coder = new Coder(module);
let passed = 0;
const failed: string[] = [];

/** Note whether it is so; what cannot be decoded is not. */
function check(name: string, ok: boolean | (() => boolean)): void {
  try {
    if (typeof ok === "boolean" ? ok : ok()) passed++;
    else failed.push(name);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    failed.push(name);
  }
}

function near(found: ArrayLike<number>, expected: number[], tolerance: number): boolean {
  const largest = Math.max(...expected.map(Math.abs));
  return found.length === expected.length && expected.every((value, i) => Math.abs(found[i] - value) <= tolerance * largest);
}

const equal = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);
const array = (text: string) => Uint8Array.from(text, Number);
const votesOf = (node: Json) => new Votes(array(node.signs), Uint16Array.from(node.dissent), node.voters);
const camel = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());

async function tickets(): Promise<Ticket> {
  const main = await decodeTicket(fromHex(all.ticket));
  check("ticket_sha256", toHex(main.id) === all.ticket_sha256);
  for (const [name, node] of [["ticket", all], ["explicit_ticket", all.explicit_ticket]] as const) {
    const ticket = await decodeTicket(fromHex(node.ticket));
    node.layers.forEach((layer: Json, i: number) => {
      const found = ticket.layers[i];
      check(`${name} layer ${i} shape`, equal(found.shape.weightShape, layer.weight_shape));
      check(`${name} layer ${i} indices`, equal([...found.indices], layer.indices));
      check(`${name} layer ${i} initial_weights`, near(initialWeights(found), layer.initial_weights, 1e-6));
    });
  }
  return main;
}

async function votes(ticket: Ticket): Promise<Votes> {
  const found = decodeVotes(coder, fromHex(all.votes), ticket.ends, null);
  check("votes_signs", equal([...found.signs], all.votes_signs));
  check("votes_digest", toHex(await found.digest()) === all.votes_digest);
  check("votes_levels", equal([...found.levels], all.votes_levels));
  const later = decodeVotes(coder, fromHex(all.later_votes), ticket.ends, found);
  check("later_votes_signs", equal([...later.signs], all.later_votes_signs));
  check("later_votes_dissent", equal([...later.dissent], all.later_votes_dissent));
  check("votes_mean", near(found.mean(), all.votes_mean, 1e-7));
  check("start_scores", near(found.startScores(all.training.start), all.start_scores, 1e-7));
  check("log_prior", near(logPrior(Int32Array.from(all.y), ticket.plan.classes), all.log_prior, 0));
  return found;
}

/** The order of the samples; loss, hits, gradient and scores of the kernels for the vectors' ticket; the whole round. */
async function steps(ticket: Ticket, began: Votes): Promise<void> {
  const training = trainingOf(all.training);
  const { federation_seed, round, device } = all.order;
  const seed = await mix(federation_seed, round, device);
  const samples = { x: Float32Array.from(all.x.flat(Infinity)), y: Int32Array.from(all.y) };
  const orders: number[][] = [];
  for (let epoch = 0; epoch < training.epochs; epoch++) {
    const order = [...permutation(seed, epoch, samples.y.length)];
    for (let at = 0; at < order.length; at += training.batch) orders.push(order.slice(at, at + training.batch));
  }
  check("steps' samples", equal(orders, all.steps.map((step: Json) => step.samples)));
  const runtime = new SparseRuntime(module, ticket, training);
  runtime.setLogPrior(Float32Array.from(all.log_prior));
  runtime.setScores(Float32Array.from(all.start_scores));
  all.steps.forEach((step: Json, i: number) => {
    const chosen = Int32Array.from(step.samples);
    const { loss, correct, gradient } = runtime.gradient(samples, chosen);
    check(`step ${i} loss`, near([loss], [step.loss], 1e-6));
    check(`step ${i} correct`, correct === step.correct);
    ticket.layers.forEach(({ start }, layer) => {
      const [from, to] = [start, ticket.ends[layer]];
      check(`step ${i} gradient ${layer}`, near(gradient.slice(from, to), step.gradient.slice(from, to), 1e-5));
    });
    runtime.step(samples, chosen);
    check(`step ${i} scores`, near(runtime.scores(), step.scores, 1e-5));
  });
  check("signs", equal([...runtime.signs()], all.signs));
  const trainer = new Trainer(runtime, samples, began.startScores(training.start), seed);
  let trained = null;
  while (!trained) trained = trainer.step();
  check("signs of a whole round", equal([...trained.signs], all.signs));
}

function mask(ticket: Ticket, began: Votes): MaskUpdate {
  const signs = Uint8Array.from(all.signs as number[]);
  check("mask", toHex(encodeSigns(coder, signs, began, ticket.ends)) === all.mask);
  check("mask decoded", () => equal([...decodeSigns(coder, fromHex(all.mask), began, ticket.ends)], all.signs));
  const update = decode(fromHex(all.message)) as MaskUpdate;
  check("message carries the mask", toHex(update.signs) === all.mask);
  check("message", toHex(encode(update)) === all.message);
  return update;
}

function dithered(node: Json): void {
  const { training } = decode(fromHex(node.federation)) as Federation;
  check("dither", training.dither === node.dither);
  const [votes, seed] = [votesOf(node.votes), BigInt(node.seed)];
  check("dithered start_scores", near(startScores(votes, training), node.start_scores, 1e-7));
  check("thresholds", equal([...thresholds(seed, node.thresholds.length)], node.thresholds));
  const expected = known(votes, training, seed);
  check("expected bits", same(expected.signs, array(node.expected)));
  check("expected levels", equal([...expected.levels], node.levels));
  const sent = signsOf(Float32Array.from(node.scores), training, seed);
  check("dithered bits", same(sent, array(node.bits)));
  check("dithered mask", toHex(encodeSigns(coder, sent, expected, node.ends)) === node.coded);
}

async function codes(): Promise<void> {
  for (const code of all.codes) {
    const coded = fromHex(code.coded);
    check(`code ${coded[0]}`, same(bits.encode(array(code.bits)), coded));
    check(`code ${coded[0]} decoded`, () => same(bits.decode(coded, code.bits.length), array(code.bits)));
  }
  all.adaptive.forEach((node: Json, i: number) => {
    const [symbols, contexts] = [Uint8Array.from(node.symbols), Uint8Array.from(node.contexts)];
    const coded = fromHex(node.coded);
    check(`adaptive ${i}`, same(coder.encode(symbols, contexts, node.ends, node.bits), coded));
    check(`adaptive ${i} decoded`, same(coder.decode(coded, contexts, node.ends, node.bits) ?? new Uint8Array(), symbols));
  });
  dithered(all.dithered);
  all.masks.forEach((node: Json, i: number) => {
    const known = votesOf(node.votes);
    const coded = fromHex(node.coded);
    check(`mask ${i}`, same(encodeSigns(coder, array(node.signs), known, node.ends), coded));
    check(`mask ${i} decoded`, () => same(decodeSigns(coder, coded, known, node.ends), array(node.signs)));
  });
  for (const [i, node] of all.votes_codes.entries()) {
    const expected = votesOf(node.votes);
    const found = decodeVotes(coder, fromHex(node.coded), node.ends, node.known ? votesOf(node.known) : null);
    const alike = same(found.signs, expected.signs) && equal([...found.dissent], [...expected.dissent]);
    check(`votes code ${i}`, alike && found.voters === expected.voters);
    check(`votes code ${i} digest`, toHex(await found.digest()) === node.digest);
  }
}

async function refused(read: () => Promise<unknown>): Promise<boolean> {
  try {
    await read();
    return false;
  } catch (error) {
    return error instanceof WireError;
  }
}

async function signing(update: MaskUpdate): Promise<void> {
  const { private_key, public_key, topic } = all.signing;
  const sealed = fromHex(all.signing.sealed);
  const key = fromHex(public_key);
  check("sealed", same(await seal(await importSecret(fromHex(private_key)), topic, update), sealed));
  check("unsealed", equal(await unseal(topic, sealed, () => key), update));
  check("sealed for another topic", await refused(() => unseal(`${topic}/0`, sealed, () => key)));
  const altered = sealed.slice();
  altered[20]++;
  check("sealed and altered", await refused(() => unseal(topic, altered, () => key)));
  const fresh = await newKeys();
  check("sealed by another", await refused(() => unseal(topic, sealed, () => fresh.public)));
  check("fresh keys", equal(await unseal(topic, await seal(fresh.secret, topic, update), () => fresh.public), update));
}

function messages(): void {
  const upward = ["hello", "hello-dithers", "state", "mask-update", "evaluation", "missed"];
  const drawn = ["hello-draws", "round-drawn"]; // lots, which this client does not draw: it reads past their fields
  const downward = [
    "welcome", "refusal", "federation", "federation-dithered", "bundle-bytes", "round", "mask-update", "receipt", "catch-up",
  ];
  for (const [name, node] of Object.entries<Json>(all.messages)) {
    if (name === "hello-draws") continue;
    const { draw: _draw, below: _below, ...fields } = node.fields;
    const expected = messageOf(name.replace(/-(drawn|dithers|dithered)$/, ""), fields);
    if (name === "round-drawn") check("message round-drawn decoded", describe(decode(fromHex(node.bytes))) === describe(expected));
    if (upward.includes(name)) check(`message ${name} encoded`, toHex(encode(expected as Upward)) === node.bytes);
    if (downward.includes(name)) check(`message ${name} decoded`, describe(decode(fromHex(node.bytes))) === describe(expected));
  }
  check("every kind of message", equal(Object.keys(all.messages).sort(), [...new Set([...upward, ...downward, ...drawn])].sort()));
}

const BYTES = ["instance", "run", "key", "signs", "ticket", "votes", "digest", "data"];

function messageOf(type: string, fields: Json): Message {
  const found: Json = { type };
  for (const [name, value] of Object.entries<Json>(fields)) {
    if (name === "bundles") found.bundles = new Map(Object.entries<string>(value).map(([k, v]) => [k, fromHex(v)]));
    else if (name === "training") found.training = trainingOf(value);
    else found[camel(name)] = BYTES.includes(name) ? fromHex(value) : value;
  }
  return found;
}

function trainingOf(node: Json): Training {
  return Object.fromEntries(Object.entries(node).map(([name, value]) => [camel(name), value])) as unknown as Training;
}

/** A message as one text, whatever the order of its fields. */
function describe(message: Message): string {
  const plain = (value: unknown): unknown => {
    if (value instanceof Uint8Array) return toHex(value as Bytes);
    if (value instanceof Map) return [...value].map(([k, v]) => [k, plain(v)]).sort();
    if (value && typeof value === "object" && !Array.isArray(value)) return Object.entries(value).map(([k, v]) => [k, plain(v)]).sort();
    return value;
  };
  return JSON.stringify(plain(message));
}

async function parts(): Promise<void> {
  const { topic, whole, packet_bytes, packets } = all.parts;
  const found = await split(topic, fromHex(whole), packet_bytes);
  check("parts", equal(found.map((packet) => [packet.topic, toHex(packet.payload)]), packets));
  const joiner = new Joiner(10_000);
  const joined = [];
  for (const [part, payload] of [...packets].reverse()) joined.push(await joiner.add(part, fromHex(payload)));
  const last = joined.pop();
  check("parts joined", joined.every((one) => one === null) && last?.topic === topic && toHex(last!.payload) === whole);
}

/** Bytes that tests/golden/make.py wrote; the first line says how. */
function golden(name: string): Bytes {
  const text = readFileSync(new URL(`../../../../tests/golden/${name}.hex`, import.meta.url), "utf8");
  return fromHex(text.replace(/^#.*$/gm, "").replace(/\s/g, ""));
}

/** An invitation, a claim with the token of tests/golden/make.py, and its answer. */
async function claims(): Promise<void> {
  const invite = new TextDecoder().decode(golden("invite-v1"));
  const count = Uint8Array.from({ length: 32 }, (_, i) => i);
  check("invite decoded", () => {
    const { key, ...found } = decodeInvite(invite);
    const expected = {
      federation: "demo", broker: "wss://broker.example:8084/mqtt", device: "phone-01",
      secret: "a-token-that-is-good-for-one", claim: true,
    };
    return equal(found, expected) && key !== null && same(key, count);
  });
  check("invite cut off refused", () => refuses(() => decodeInvite(invite.slice(0, -4))));

  const [token, device, hardware] = ["token-of-a-card", "pi-01", "Raspberry Pi 4 Model B Rev 1.4 10000000abcdef01"];
  const utf8 = (text: string) => new TextEncoder().encode(text);
  const key = golden("message-v2-claim").slice(8, 40); // how the golden claim names its maker
  const nonce = count.slice(0, 16);
  const proof = await prove(token, "claim", utf8(device), key, utf8(hardware), nonce);
  const claim: Claim = { type: "claim", key, proof, hardware, nonce };
  check("claim encoded", toHex(encode(claim)) === toHex(golden("message-v2-claim")));
  const grant = decode(golden("message-v2-grant")) as Grant;
  check("grant decoded", grant.type === "grant" && same(grant.key, count) && grant.sealed.length === 72 && grant.refused === "");
  check("grant believed", await checkGrant(token, device, claim, grant).then(() => true, () => false));
  const certified = decode(golden("message-v2-grant-certified")) as Grant; // a browser cannot show certificates
  check("grant with a certificate decoded", equal(certified, grant));
  check("grant of another token refused", await checkGrant("another", device, claim, grant).then(() => false, () => true));
}

/** Whether it raises what bytes from elsewhere raise. */
function refuses(action: () => unknown): boolean {
  try {
    action();
  } catch (error) {
    return error instanceof WireError;
  }
  return false;
}

const ticket = await tickets();
const began = await votes(ticket);
await steps(ticket, began);
await codes();
await signing(mask(ticket, began));
messages();
await parts();
await claims();
for (const name of failed) console.log(`differs: ${name}`);
console.log(`${passed} passed, ${failed.length} failed`);
process.exit(failed.length ? 1 : 0);
