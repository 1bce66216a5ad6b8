/** What a device does next: a pure function of what it knows, what happened and the time (docs/phones.md, "On the wire"). */
import { same, toHex, type Bytes } from "../wire/bytes";
import { EVERYONE, type CatchUp, type Federation, type Hello, type MaskUpdate, type Message, type Missed, type Round } from "../wire/messages";

const RESEND_AFTER_S = 20; // an unconfirmed mask is sent again after this, then after twice as long, ...
const RESEND_AT_MOST_S = 300;
const ASK_AGAIN_AFTER_S = 20; // votes that were asked for
// Who has not heard of a federation, or not got its bundle, subscribes again, after this, then after twice as long, ...
const JOIN_AGAIN_AFTER_S = 60;
const JOIN_AGAIN_AT_MOST_S = 3600;

/** A round of a run. */
export interface Key {
  run: Bytes;
  number: number;
}

/** What can happen. */
export type Event =
  | { type: "heard"; message: Message }
  | { type: "online" } // the connection stands (again)
  | { type: "bundle-opened"; digest: Bytes } // it is loaded and the data fits it
  | { type: "bundle-needed"; digest: Bytes } // not on this device yet, or damaged
  | { type: "votes-taken"; run: Bytes; number: number } // decoded, and as they should be
  | { type: "votes-unusable"; base: number } // what this device had is not what they build on
  | { type: "training-done"; update: MaskUpdate }
  | { type: "tick" }; // time has passed

/** What can be asked of the client. */
export type Action =
  | { type: "subscribe" }
  | { type: "say-hello" } // and mark the device online
  | { type: "open-bundle"; federation: Federation } // answers bundle-opened or bundle-needed
  | { type: "download" } // subscribe to the bundle topic
  | { type: "keep-bundle"; digest: Bytes; data: Bytes }
  | { type: "take-votes"; announced: Round | CatchUp } // answers votes-taken or votes-unusable
  | { type: "ask-votes"; missed: Missed }
  | { type: "evaluate"; announced: Round }
  | { type: "train"; announced: Round } // replaces any training under way
  | { type: "stop-training" }
  | { type: "send-mask"; update: MaskUpdate; isNew: boolean } // write it down first if it is new
  | { type: "drop-pending"; confirmed: Key | null } // remember that for good; null: unwanted
  | { type: "log"; text: string }
  | { type: "stop"; error: string | null }; // leave; without an error because the run is over

/**
 * All a device knows.
 *
 * `stay`: wait for another run when one is over. `ready`: the federation's ticket is loaded. `announced`: the newest
 * round heard of; `votes`: the round whose votes it has; `askedS`: when it asked for those that it needs. `handled`: the
 * newest round acted upon; `due`: one that is open to all waits until no more news of newer ones comes. `pending`: the
 * mask without receipt, sent `tries` times; `confirmed`: the newest round whose mask has one.
 */
export interface Device {
  name: string;
  hello: Hello;
  stay: boolean;
  federation: Federation | null;
  ready: boolean;
  announced: Round | null;
  votes: Key | null;
  askedS: number | null;
  handled: Key | null;
  due: boolean;
  training: Key | null;
  pending: MaskUpdate | null;
  sentS: number;
  tries: number;
  confirmed: Key | null;
  welcomed: boolean;
  soughtS: number | null; // when it last asked for all that is said to it
  seeks: number; // how often it did since it is connected
}

export type Outcome = [Device, Action[]];

export function newDevice(name: string, hello: Hello, stay: boolean): Device {
  return {
    name, hello, stay, federation: null, ready: false, announced: null, votes: null, askedS: null, handled: null,
    due: false, training: null, pending: null, sentS: 0, tries: 0, confirmed: null, welcomed: false,
    soughtS: null, seeks: 0,
  };
}

export function handle(device: Device, event: Event, nowS: number): Outcome {
  switch (event.type) {
    case "online":
      return sendAgain({ ...device, soughtS: nowS, seeks: 1 }, nowS, device.ready ? [{ type: "subscribe" }, { type: "say-hello" }] : [{ type: "subscribe" }]);
    case "bundle-needed":
      return [device, [{ type: "download" }, { type: "log", text: "downloading the network" }]];
    case "bundle-opened": {
      const wanted = device.federation?.bundles.get(device.hello.runtime);
      if (!wanted || !same(wanted, event.digest)) return [device, []];
      // Only now: who is online can be selected, and must be able to train.
      return actOnRound({ ...device, ready: true }, [{ type: "say-hello" }], nowS);
    }
    case "votes-taken":
      return actOnRound({ ...device, votes: keyOf(event), askedS: null }, [], nowS);
    case "votes-unusable":
      // Those that build on nothing would come again as they are, so asking at once does not help.
      if (event.base === 0) return [{ ...device, votes: null, askedS: nowS }, []];
      return askVotes({ ...device, votes: null }, [], nowS);
    case "training-done": {
      if (!sameKey(device.training, event.update)) return [device, []];
      const pending = { ...device, training: null, pending: event.update, sentS: nowS, tries: 1 };
      return actOnRound(pending, [{ type: "send-mask", update: event.update, isNew: true }], nowS);
    }
    case "tick":
      return onTick(device, nowS);
    case "heard":
      return onMessage(device, event.message, nowS);
  }
}

function onMessage(device: Device, message: Message, nowS: number): Outcome {
  switch (message.type) {
    case "federation":
      return onFederation(device, message);
    case "bundle-bytes": {
      const digest = device.federation?.bundles.get(device.hello.runtime);
      if (!device.federation || !digest || device.ready) return [device, []];
      const keep: Action = { type: "keep-bundle", digest, data: message.data };
      return [device, [keep, { type: "open-bundle", federation: device.federation }]];
    }
    case "round": {
      const seen = device.announced;
      // The network may repeat and reorder; and there may be leftovers of an earlier run.
      if (seen && same(seen.run, message.run) && message.number < seen.number) return [device, []];
      const current = seen && device.federation && same(seen.run, device.federation.run);
      if (current && !same(seen.run, message.run)) return [device, []];
      return actOnRound({ ...device, announced: message }, [], nowS);
    }
    case "catch-up": {
      const known = message.base === 0 || sameKey(device.votes, { run: message.run, number: message.base });
      const wanted = device.askedS !== null && sameKey(device.announced, message);
      return [device, known && wanted ? [{ type: "take-votes", announced: message }] : []];
    }
    case "receipt": {
      if (!device.pending || !sameKey(device.pending, message)) return [device, []];
      const confirmed = keyOf(message);
      const log: Action = { type: "log", text: `round ${message.number}: the mask has arrived` };
      return actOnRound({ ...device, pending: null, tries: 0, confirmed }, [{ type: "drop-pending", confirmed }, log], nowS);
    }
    case "refusal":
      return onRefusal(device, message, nowS);
    case "welcome":
      if (!same(message.instance, device.hello.instance) || device.welcomed) return [device, []];
      return [{ ...device, welcomed: true }, [{ type: "log", text: "joined; waiting for a round" }]];
    default:
      return [device, []]; // what other devices say is none of our business
  }
}

function keyOf({ run, number }: Key): Key {
  return { run, number };
}

function sameKey(a: Key | null, b: Key | null): boolean {
  return a !== null && b !== null && a.number === b.number && same(a.run, b.run);
}

function sameFederation(a: Federation | null, b: Federation): boolean {
  return a !== null && same(a.run, b.run) && a.issued === b.issued && same(a.key, b.key) && describe(a) === describe(b);
}

function describe({ name, rounds, seed, ticket, bundles, training }: Federation): string {
  const hashes = [...bundles].map(([runtime, hash]) => [runtime, toHex(hash)]);
  return JSON.stringify([name, rounds, seed, toHex(ticket), hashes, training]);
}

function onFederation(device: Device, event: Federation): Outcome {
  if (sameFederation(device.federation, event)) return [device, []];
  const { runtime } = device.hello;
  if (!event.bundles.has(runtime)) {
    return [device, [{ type: "stop", error: `federation '${event.name}' offers no bundle for runtime '${runtime}'` }]];
  }
  const actions: Action[] = device.training ? [{ type: "stop-training" }] : [];
  let next = device;
  if (device.pending && !same(device.pending.run, event.run)) {
    next = { ...next, pending: null };
    actions.push({ type: "drop-pending", confirmed: null });
  }
  actions.push({ type: "log", text: `federation '${event.name}', run ${toHex(event.run)}` });
  actions.push({ type: "open-bundle", federation: event });
  return [
    { ...next, federation: event, ready: false, training: null, handled: null, votes: null, askedS: null, due: false },
    actions,
  ];
}

/**
 * Do what the newest announced round asks of this device, once, as soon as its ticket and its votes are there.
 *
 * A device that wakes hears of many rounds at once. Of those that are open to all it would finish the first that it
 * began, so it begins when things are `quiet`.
 */
function actOnRound(device: Device, first: Action[], nowS: number, quiet = false): Outcome {
  const { announced } = device;
  if (!announced || !device.ready || !device.federation || !same(announced.run, device.federation.run)) return [device, first];
  const actions = [...first];
  const open = openToAll(announced);
  let next = device;
  if (!open) {
    if (next.training && !sameKey(next.training, announced)) {
      actions.push({ type: "stop-training" });
      next = { ...next, training: null };
    }
    if (device.pending && !sameKey(device.pending, announced)) {
      actions.push({ type: "drop-pending", confirmed: null }); // its round closed without it: nobody waits for it any more
      next = { ...next, pending: null };
    }
  }
  if (!sameKey(next.votes, announced)) {
    const known = announced.base === 0 || sameKey(next.votes, { run: announced.run, number: announced.base });
    return known ? [next, [...actions, { type: "take-votes", announced }]] : askVotes(next, actions, nowS);
  }
  // It finishes what it began, with the network that an evaluation would need too.
  if (next.training && !sameKey(next.training, announced)) return [next, actions];
  if (open && !quiet) return [{ ...next, due: true }, actions];
  if (!sameKey(next.handled, announced)) {
    next = { ...next, handled: keyOf(announced) };
    if (announced.evaluate) actions.push({ type: "evaluate", announced });
  }
  if (announced.final) {
    if (!device.stay) actions.push({ type: "stop", error: null });
    return [next, actions];
  }
  const wanted = (open || announced.selected.includes(device.name)) && !sameKey(device.confirmed, announced);
  if (wanted && !next.training && !next.pending) {
    actions.push({ type: "train", announced });
    next = { ...next, training: keyOf(announced) };
  }
  return [next, actions];
}

/** Whether everyone may train, and masks of earlier rounds are wanted too; how early, the coordinator knows. */
function openToAll(announced: Round): boolean {
  return announced.selected.includes(EVERYONE) && !announced.final;
}

function askVotes(device: Device, actions: Action[], nowS: number): Outcome {
  const { announced } = device;
  if (!announced) return [device, actions];
  // The coordinator may have left for good.
  if (announced.final && !device.stay && device.askedS !== null) return [device, [...actions, { type: "stop", error: null }]];
  const have = device.votes && same(device.votes.run, announced.run) ? device.votes.number : 0;
  const missed: Missed = { type: "missed", run: announced.run, number: announced.number, have };
  return [{ ...device, askedS: nowS }, [...actions, { type: "ask-votes", missed }]];
}

function onTick(device: Device, nowS: number): Outcome {
  if (device.due && device.askedS === null) return actOnRound({ ...device, due: false }, [], nowS, true);
  if (device.askedS !== null && nowS - device.askedS >= ASK_AGAIN_AFTER_S) return askVotes(device, [], nowS);
  const joinS = Math.min(JOIN_AGAIN_AFTER_S * 2 ** (device.seeks - 1), JOIN_AGAIN_AT_MOST_S);
  if (!device.ready && device.soughtS !== null && nowS - device.soughtS >= joinS) {
    const missing: Action[] = device.federation ? [{ type: "subscribe" }, { type: "download" }] : [{ type: "subscribe" }];
    return [{ ...device, soughtS: nowS, seeks: Math.min(device.seeks + 1, 16) }, missing];
  }
  const waitS = Math.min(RESEND_AFTER_S * 2 ** Math.max(device.tries - 1, 0), RESEND_AT_MOST_S);
  const early = !device.pending || nowS - device.sentS < waitS;
  return early ? [device, []] : sendAgain(device, nowS, []);
}

function onRefusal(device: Device, event: Extract<Message, { type: "refusal" }>, nowS: number): Outcome {
  if (!same(event.instance, device.hello.instance)) return [device, []];
  if (event.code !== "mask") {
    return [device, [{ type: "stop", error: `the coordinator refused '${device.name}': ${event.reason}` }]];
  }
  const [refused, newest] = [device.pending, device.announced];
  if (!refused || refused.number !== event.number) return [device, []]; // about another one: late, or repeated by somebody
  const late = newest !== null && openToAll(newest) && !sameKey(refused, newest);
  const next = { ...device, pending: null };
  const actions: Action[] = [{ type: "drop-pending", confirmed: null }, { type: "log", text: `mask refused: ${event.reason}` }];
  // Not for the round of a refused mask: another one of it would be no better.
  return late ? actOnRound(next, actions, nowS) : [{ ...next, due: false }, actions];
}

function sendAgain(device: Device, nowS: number, actions: Action[]): Outcome {
  if (!device.pending) return [device, actions];
  const send: Action = { type: "send-mask", update: device.pending, isNew: false };
  return [{ ...device, sentS: nowS, tries: device.tries + 1 }, [...actions, send]];
}
