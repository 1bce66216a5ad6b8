/** A connection to the broker, made again for ever: MQTT 3.1.1 over a websocket, messages signed and in parts. */
import mqtt, { type MqttClient } from "mqtt";

import { type Bytes } from "../wire/bytes";
import { Joiner, split } from "../wire/envelope";
import { WireError } from "../wire/errors";
import type { Message, Upward } from "../wire/messages";
import { seal, unseal } from "../wire/signing";

const KEEPALIVE_S = 60;
const CONNECT_MS = 15_000;
const LEAST_WAIT_S = 1;
const MOST_WAIT_S = 30;
const CLOSE_MS = 3_000;
const REFUSED = new Set([2, 4, 5]); // of CONNACK: identifier, user or password, not authorised

/** What comes of a connection. */
export type Happening =
  | { type: "connected"; number: number }
  | { type: "lost"; reason: string; refused: boolean }
  | { type: "message"; topic: string; message: Message }
  | { type: "garbled"; topic: string; error: WireError };

export interface Account {
  broker: string;
  user: string;
  password: string;
  clientId: string;
}

/** What the broker says for a device that vanished, on its connection of this number: topic and message. */
export type Will = (connection: number) => { topic: string; message: Upward };

export class Link {
  sentBytes = 0;
  receivedBytes = 0;
  private client: MqttClient | null = null;
  private number = 0;
  private waitS = LEAST_WAIT_S;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private wanted = false;
  private readonly joiner = new Joiner();
  // What was published and is not acknowledged outlives a connection: the next one sends it again.
  private readonly unacknowledged = new mqtt.Store({ clean: false });
  private order: Promise<void> = Promise.resolve(); // messages are told of as they came, though hashing takes turns

  constructor(
    private readonly account: Account, private readonly secret: CryptoKey, private readonly trust: (message: Message) => Bytes,
    private readonly tell: (happening: Happening) => void, private readonly will: Will | null = null,
  ) {}

  open(): void {
    this.wanted = true;
    void this.connect();
  }

  /** Try at once, if it waits before the next attempt: the network has come back. */
  hurry(): void {
    if (!this.wanted || this.client) return;
    clearTimeout(this.timer);
    this.waitS = LEAST_WAIT_S;
    void this.connect();
  }

  /** Sign and publish at least once; stays for the next connection if this one breaks. */
  async send(topic: string, message: Upward, retain = false): Promise<void> {
    for (const packet of await split(topic, await seal(this.secret, topic, message))) {
      this.sentBytes += packet.payload.length;
      this.client?.publish(packet.topic, packet.payload as Buffer, { qos: 1, retain });
    }
  }

  /** Ask for a topic, and for the parts of what is too large for one packet. */
  subscribe(topic: string): void {
    this.client?.subscribe(`${topic}/#`, { qos: 0 });
  }

  /** Disconnect; what was sent before gets a moment to arrive. */
  async close(): Promise<void> {
    this.wanted = false;
    clearTimeout(this.timer);
    const { client } = this;
    this.client = null;
    if (!client) return;
    const ended = new Promise<void>((done) => client.end(false, {}, () => done()));
    await Promise.race([ended, new Promise((done) => setTimeout(done, CLOSE_MS))]);
    client.end(true);
  }

  private async connect(): Promise<void> {
    this.client = null;
    const number = ++this.number;
    const will = this.will?.(number);
    const payload = will && ((await seal(this.secret, will.topic, will.message)) as Buffer);
    if (!this.wanted) return;
    const { broker, user, password, clientId } = this.account;
    const client = mqtt.connect(broker, {
      protocolVersion: 4, clean: false, clientId, username: user, password, keepalive: KEEPALIVE_S, connectTimeout: CONNECT_MS,
      reconnectPeriod: 0, resubscribe: false, timerVariant: "native", outgoingStore: this.unacknowledged,
      ...(will && payload ? { will: { topic: will.topic, payload, qos: 1 as const, retain: true } } : {}),
    });
    this.client = client;
    let reason = "no answer";
    let refused = false;
    client.on("connect", () => {
      this.waitS = LEAST_WAIT_S;
      this.tell({ type: "connected", number });
    });
    client.on("error", (error) => {
      reason = error.message || reason;
      refused ||= "code" in error && REFUSED.has(Number(error.code));
    });
    client.on("message", (topic, data) => this.take(topic, Uint8Array.from(data)));
    client.on("close", () => {
      if (this.client !== client) return;
      this.client = null;
      client.end(true);
      this.tell({ type: "lost", reason, refused });
      if (!this.wanted) return;
      this.timer = setTimeout(() => void this.connect(), this.waitS * 1000 * (0.5 + Math.random()));
      this.waitS = Math.min(2 * this.waitS, MOST_WAIT_S);
    });
  }

  private take(topic: string, data: Bytes): void {
    this.receivedBytes += data.length;
    this.order = this.order.then(async () => {
      try {
        const whole = await this.joiner.add(topic, data);
        if (!whole) return;
        const message = await unseal(whole.topic, whole.payload, this.trust);
        this.tell({ type: "message", topic: whole.topic, message });
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.tell({ type: "garbled", topic, error });
      }
    });
  }
}
