/** A device at work: carries out what the agent decides, over a real connection, with the kernels (edge_client/client.py). */
import { handle, newDevice, type Action, type Device, type Event } from "../agent/agent";
import { logPrior, Trainer, type Trained } from "../agent/trainer";
import { Coder } from "../kernels/module";
import { checkSamples, SparseRuntime, type Samples } from "../kernels/runtime";
import { openBundle } from "../wire/bundle";
import { same, type Bytes } from "../wire/bytes";
import { known, signsOf, startScores } from "../wire/dither";
import { Stopped, WireError } from "../wire/errors";
import type { CatchUp, Federation, MaskUpdate, Message, Round, State } from "../wire/messages";
import { randomise } from "../wire/privacy";
import { mix } from "../wire/prng";
import { fingerprint, type Keys } from "../wire/signing";
import { Topics } from "../wire/topics";
import { decodeVotes, encodeSigns, type Votes } from "../wire/votes";
import { Link, type Account, type Happening } from "./link";
import type { Store } from "./store";

const RUNTIME = "sparse";
const SOFTWARE = "hidenseek-web";
const TICK_MS = 1000;
const QUIET_MS = 200; // without news: what is announced is the newest
const SLICE_MS = 30; // of training between two looks at what has come

/** What the device trains on and is measured with; `shape` is that of one sample. */
export interface DeviceData {
  train: Samples;
  test: Samples;
  shape: number[];
}

/** What a person sees of it. */
export interface Progress {
  state: "connecting" | "offline" | "joining" | "downloading" | "waiting" | "training" | "sending" | "over";
  federation: string;
  round: number;
  rounds: number;
  step: number;
  steps: number;
  loss: number | null;
  accuracy: number | null; // of the phone's own network on its own test samples
  fleetAccuracy: number | null; // of the agreed network, there
  masks: number; // that have a receipt
  sentBytes: number;
  receivedBytes: number;
}

export interface Setting {
  device: string;
  topics: Topics;
  account: Account;
  keys: Keys;
  started: number;
  data: DeviceData;
  store: Store;
  kernels: WebAssembly.Module;
  trusted: Bytes | null; // the federation's key, where the invitation names it
  report: (progress: Progress) => void;
  log: (text: string) => void;
}

export class Client {
  private device: Device;
  private readonly link: Link;
  private readonly coder: Coder;
  private readonly events: Event[] = [];
  private readonly inbox: Happening[] = [];
  private wake: (() => void) | null = null;
  private federationKey: Bytes | null;
  private issued = 0;
  private runtime: SparseRuntime | null = null;
  private trainer: Trainer | null = null;
  private round: Round | null = null;
  private votes: Votes | null = null;
  private began: Votes | null = null;
  private seed = 0n; // of the training that runs
  private connection = 0;
  private online = false;
  private tried = false; // to connect, once at least
  private left = false;
  private stopped: Extract<Action, { type: "stop" }> | null = null;
  private readonly seen: Progress = {
    state: "connecting", federation: "", round: 0, rounds: 0, step: 0, steps: 0, loss: null, accuracy: null,
    fleetAccuracy: null, masks: 0, sentBytes: 0, receivedBytes: 0,
  };

  constructor(private readonly setting: Setting) {
    const { device, topics, account, keys, started, data, kernels } = setting;
    const instance = crypto.getRandomValues(new Uint8Array(8));
    this.device = newDevice(device, {
      type: "hello", instance, software: SOFTWARE, runtime: RUNTIME, profile: "", trainSamples: data.train.y.length,
      testSamples: data.test.y.length, key: keys.public, started, greetings: 0, connection: 0, dithers: true,
    }, true);
    this.coder = new Coder(kernels);
    this.federationKey = setting.trusted;
    const offline = (connection: number) => ({ topic: topics.up("state"), message: this.state(false, connection) });
    this.link = new Link(account, keys.secret, (message) => this.trust(message), (happening) => this.hear(happening), offline);
  }

  /**
   * Take part until `leave`.
   *
   * @throws Stopped if broker or coordinator turn the phone away, or its data does not fit.
   */
  async run(): Promise<void> {
    const { store } = this.setting;
    const known = await store.known();
    if (known && (!this.federationKey || same(known.key, this.federationKey))) {
      this.federationKey = known.key;
      this.issued = known.issued;
    }
    this.device = { ...this.device, pending: await store.pending(), confirmed: await store.confirmed() };
    this.link.open();
    try {
      while (!this.left && !this.stopped) {
        await this.listen();
        this.train();
        this.show();
      }
    } finally {
      if (this.online) await this.link.send(this.setting.topics.up("state"), this.state(false, this.connection), true);
      await this.link.close();
    }
    if (this.stopped?.error) throw new Stopped(this.stopped.error);
  }

  /** Disconnect and end `run`; what is not confirmed stays in the store. */
  leave(): void {
    this.left = true;
    this.wake?.();
  }

  /** The network has come back. */
  hurry(): void {
    this.link.hurry();
  }

  private hear(happening: Happening): void {
    this.inbox.push(happening);
    this.wake?.();
  }

  private async listen(): Promise<void> {
    const waitMs = this.trainer ? 0 : this.device.due ? QUIET_MS : TICK_MS;
    if (!this.inbox.length && !this.events.length) await this.pause(waitMs);
    const happened = this.inbox.shift();
    if (!happened) this.events.push({ type: "tick" });
    else await this.take(happened);
    while (this.events.length && !this.stopped) {
      const [device, actions] = handle(this.device, this.events.shift()!, performance.now() / 1000);
      this.device = device;
      for (const action of actions) {
        try {
          await this.carryOut(action);
        } catch (error) {
          // Whoever sent it, a device outlives a bad announcement: the next one may be good.
          if (!(error instanceof WireError)) throw error;
          this.setting.log(`ignored: ${error.message}`);
        }
      }
    }
  }

  /** Until something comes, or so long; messages of the browser are dealt with meanwhile even if that is 0. */
  private async pause(waitMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((done) => {
      this.wake = done;
      timer = setTimeout(done, waitMs);
    });
    clearTimeout(timer);
    this.wake = null;
  }

  private async take(happened: Happening): Promise<void> {
    switch (happened.type) {
      case "connected":
        [this.online, this.connection] = [true, happened.number];
        this.events.push({ type: "online" });
        return;
      case "lost":
        [this.online, this.tried] = [false, true];
        if (happened.refused) {
          throw new Stopped(`the broker does not let '${this.setting.device}' in (${happened.reason}): the invitation is not good any more, or the phone's account was taken away`);
        }
        this.setting.log(`no connection (${happened.reason}); trying again`);
        return;
      case "garbled":
        this.setting.log(`ignored a message: ${happened.error.message}`);
        return;
      case "message":
        if (happened.message.type === "federation") await this.introduced(happened.message);
        this.events.push({ type: "heard", message: happened.message });
    }
  }

  /** Whose word counts: that of the federation in the invitation, or of the first that was met. */
  private trust(message: Message): Bytes {
    if (message.type === "federation") {
      if (this.federationKey && !same(message.key, this.federationKey)) throw new WireError("a federation with another key than the one this phone trusts");
      if (message.issued < this.issued) throw new WireError("said in a run that is over");
      return message.key;
    }
    if (!this.federationKey) throw new WireError("said before the federation has introduced itself");
    return this.federationKey;
  }

  private async introduced({ key, issued, name, rounds }: Federation): Promise<void> {
    Object.assign(this.seen, { federation: name, rounds });
    if (this.federationKey && this.issued === issued) return;
    const first = this.issued === 0;
    [this.federationKey, this.issued] = [key, issued];
    await this.setting.store.keepKnown({ key, issued });
    if (!first) return;
    this.setting.log(`trusting the federation with the key ${await fingerprint(key)}`);
    this.subscribe();
  }

  /** Not to rounds before the federation is known: they would be refused, and not be said again. */
  private subscribe(): void {
    const { topics } = this.setting;
    this.link.subscribe(topics.down);
    this.link.subscribe(topics.announcement);
    if (this.issued) this.link.subscribe(topics.round);
  }

  private async carryOut(action: Action): Promise<void> {
    const { topics, store, log } = this.setting;
    switch (action.type) {
      case "subscribe":
        return this.subscribe();
      case "say-hello": {
        const hello = { ...this.device.hello, greetings: this.device.hello.greetings + 1, connection: this.connection };
        this.device = { ...this.device, hello };
        await this.link.send(topics.up("hello"), hello);
        return this.link.send(topics.up("state"), this.state(true, this.connection), true); // who has not said hello is not believed
      }
      case "open-bundle":
        return this.open(action.federation);
      case "download":
        return this.link.subscribe(topics.bundle(RUNTIME));
      case "keep-bundle":
        return store.keepBundle(action.digest, action.data);
      case "take-votes":
        this.events.push(await this.takeVotes(action.announced));
        return;
      case "ask-votes":
        return this.link.send(topics.up("missed"), action.missed);
      case "evaluate":
        return this.evaluate(action.announced);
      case "train":
        return this.startTraining(action.announced);
      case "stop-training":
        this.trainer = null;
        return log("training stopped: its round is over");
      case "send-mask":
        if (action.isNew) await store.keepPending(action.update);
        return this.link.send(topics.up("mask"), action.update);
      case "drop-pending":
        if (action.confirmed) {
          this.seen.masks++;
          await store.keepConfirmed(action.confirmed);
        }
        return store.dropPending();
      case "log":
        return log(action.text);
      case "stop":
        this.stopped = action;
    }
  }

  private state(online: boolean, connection: number): State {
    return { type: "state", instance: this.device.hello.instance, online, connection };
  }

  private async open(federation: Federation): Promise<void> {
    const digest = federation.bundles.get(RUNTIME)!;
    const kept = await this.setting.store.bundle(digest);
    const { data, kernels, log } = this.setting;
    let ticket;
    try {
      ticket = kept && (await openBundle(kept, digest));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      log(`the network is damaged, downloading it again: ${error.message}`);
    }
    if (!ticket) {
      this.events.push({ type: "bundle-needed", digest });
      return;
    }
    const { inputShape, classes } = ticket.plan;
    if (inputShape.join() !== data.shape.join()) {
      throw new Stopped(`the federation's network takes samples of ${inputShape.join(" × ")} numbers, the data here has ${data.shape.join(" × ")}: choose other data`);
    }
    try {
      checkSamples(data.train, ticket);
      checkSamples(data.test, ticket);
    } catch (error) {
      throw new Stopped(`the data does not fit the federation's network of ${classes} classes: ${(error as Error).message}`);
    }
    this.runtime = new SparseRuntime(kernels, ticket, federation.training);
    this.events.push({ type: "bundle-opened", digest });
  }

  private async takeVotes(announced: Round | CatchUp): Promise<Event> {
    const { ends } = this.runtime!.ticket;
    try {
      const votes = decodeVotes(this.coder, announced.votes, ends, announced.base ? this.votes : null);
      if (!same(await votes.digest(), announced.digest)) throw new WireError("they do not fit those that this phone has");
      this.votes = votes;
      return { type: "votes-taken", run: announced.run, number: announced.number };
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.setting.log(`round ${announced.number}: its votes cannot be used: ${error.message}`);
      return { type: "votes-unusable", base: announced.base };
    }
  }

  private async evaluate({ run, number }: Round): Promise<void> {
    const { test } = this.setting.data;
    const correct = this.runtime!.countCorrect(this.votes!.mean(), test);
    this.seen.fleetAccuracy = test.y.length ? correct / test.y.length : null;
    await this.link.send(this.setting.topics.up("evaluation"), { type: "evaluation", run, number, correct, testSamples: test.y.length });
  }

  private async startTraining(announced: Round): Promise<void> {
    const { seed, training } = this.device.federation!;
    const { data, device, log } = this.setting;
    [this.round, this.began] = [announced, this.votes];
    this.seed = await mix(seed, announced.number, device);
    this.trainer = new Trainer(this.runtime!, data.train, startScores(this.votes!, training), this.seed);
    this.seen.step = 0;
    this.seen.steps = training.epochs * Math.ceil(data.train.y.length / training.batch);
    log(`round ${announced.number}: training on ${data.train.y.length} samples`);
  }

  private train(): void {
    const until = performance.now() + SLICE_MS;
    while (this.trainer && performance.now() < until) {
      const trained = this.trainer.step();
      this.seen.step++;
      if (!trained) continue;
      this.trainer = null;
      this.events.push({ type: "training-done", update: this.finish(trained) });
    }
  }

  private finish({ signs, loss, trainS, stepMs }: Trained): MaskUpdate {
    const { data, store, log } = this.setting;
    const { ticket, training } = this.runtime!;
    const { run, number } = this.round!;
    const prior = logPrior(data.train.y, ticket.plan.classes);
    void store.keepPersonal({ ticket: ticket.id, run, number, logPrior: prior, signs });
    const sent = randomise(signsOf(this.runtime!.scores(), training, this.seed), training.privacyEpsilon);
    const coded = encodeSigns(this.coder, sent, known(this.began!, training, this.seed), ticket.ends);
    const initial = Float32Array.from(signs, (sign) => (sign ? 1 : -1));
    const correct = this.runtime!.countCorrect(initial, data.test, prior);
    this.seen.loss = loss;
    this.seen.accuracy = data.test.y.length ? correct / data.test.y.length : null;
    log(`round ${number}: loss ${loss.toFixed(3)}, ${correct} of ${data.test.y.length} test samples right, ${coded.length} bytes of signs`);
    return {
      type: "mask-update", run, number, signs: coded, trainSamples: data.train.y.length, loss: Math.fround(loss), correct,
      testSamples: data.test.y.length, trainS: Math.fround(trainS), stepMs: Math.fround(stepMs), peakMemoryKb: 0,
    };
  }

  private show(): void {
    const { announced, ready, pending, federation } = this.device;
    this.seen.round = announced?.number ?? 0;
    this.seen.sentBytes = this.link.sentBytes;
    this.seen.receivedBytes = this.link.receivedBytes;
    this.seen.state = this.trainer ? "training"
      : !this.online ? (this.tried ? "offline" : "connecting")
      : pending ? "sending"
      : announced?.final && federation && same(announced.run, federation.run) ? "over"
      : ready ? "waiting"
      : federation ? "downloading" : "joining";
    this.setting.report({ ...this.seen });
  }
}
