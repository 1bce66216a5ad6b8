/**
 * Messages larger than one packet: cut into parts, each on a topic of its own, and put together again.
 *
 *     "HP"  version u8  SHA-256 of the whole, first 16 bytes  part u16  parts u16  data
 */
import { concat, sha256, startsWith, same, toHex, view, type Bytes } from "./bytes";
import { WireError } from "./errors";

const PACKET_BYTES = 256 * 1024;
const HEADER_BYTES = 23;
const DIGEST_BYTES = 16;
const MAX_PARTS = 4096;

export interface Packet {
  topic: string;
  payload: Bytes;
}

/** Packets of at most `packetBytes` each. */
export async function split(topic: string, data: Bytes, packetBytes = PACKET_BYTES): Promise<Packet[]> {
  if (data.length <= packetBytes) return [{ topic, payload: data }];
  const room = packetBytes - HEADER_BYTES;
  const count = Math.ceil(data.length / room);
  if (count > MAX_PARTS) throw new WireError(`${data.length} bytes for ${topic} are too many`);
  const digest = (await sha256(data)).subarray(0, DIGEST_BYTES);
  return Array.from({ length: count }, (_, part) => {
    const head = new Uint8Array(HEADER_BYTES);
    head.set([..."HP"].map((letter) => letter.charCodeAt(0)));
    head[2] = 1;
    head.set(digest, 3);
    view(head).setUint16(19, part, true);
    view(head).setUint16(21, count, true);
    return { topic: `${topic}/${part}`, payload: concat(head, data.subarray(part * room, (part + 1) * room)) };
  });
}

/** Puts parts together again; holds at most twice `maxBytes` of unfinished messages, whatever is sent. */
export class Joiner {
  private readonly pending = new Map<string, (Uint8Array | undefined)[]>(); // oldest first

  constructor(private readonly maxBytes = 128 << 20, private readonly maxPending = 64) {}

  /**
   * Take one packet; the message that it completes, or null.
   *
   * @throws WireError if it makes no sense.
   */
  async add(topic: string, payload: Bytes): Promise<Packet | null> {
    if (!startsWith(payload, "HP")) {
      if (payload.length > this.maxBytes) throw new WireError(`${payload.length} bytes on ${topic}`);
      return { topic, payload };
    }
    if (payload.length <= HEADER_BYTES) throw new WireError(`part of ${payload.length} bytes on ${topic}`);
    const digest = payload.slice(3, 3 + DIGEST_BYTES);
    const part = view(payload).getUint16(19, true);
    const count = view(payload).getUint16(21, true);
    const base = topic.slice(0, Math.max(topic.lastIndexOf("/"), 0));
    if (payload[2] !== 1 || count < 2 || count > MAX_PARTS || part >= count || topic !== `${base}/${part}`) {
      throw new WireError(`part ${part} of ${count} on ${topic} makes no sense`);
    }
    const key = `${base} ${toHex(digest)}`;
    if (!this.pending.has(key)) while (this.pending.size >= this.maxPending) this.forgetOldest();
    const parts = this.pending.get(key) ?? new Array<Uint8Array | undefined>(count).fill(undefined);
    if (parts.length !== count) throw new WireError(`part of ${count}, ${parts.length} expected, on ${topic}`);
    this.pending.set(key, parts);
    parts[part] = payload.slice(HEADER_BYTES);
    if (sizeOf(parts) > this.maxBytes) {
      this.pending.delete(key);
      throw new WireError(`message on ${base} of more than ${this.maxBytes} bytes`);
    }
    const found = parts.filter((piece) => piece !== undefined);
    if (found.length < count) {
      while ([...this.pending.values()].reduce((sum, one) => sum + sizeOf(one), 0) > 2 * this.maxBytes) this.forgetOldest();
      return null;
    }
    this.pending.delete(key);
    const whole = concat(...found);
    if (same((await sha256(whole)).subarray(0, DIGEST_BYTES), digest)) return { topic: base, payload: whole };
    throw new WireError(`parts on ${base} without the SHA-256 they announce`);
  }

  private forgetOldest(): void {
    this.pending.delete(this.pending.keys().next().value!);
  }
}

function sizeOf(parts: (Uint8Array | undefined)[]): number {
  return parts.reduce((sum, piece) => sum + (piece?.length ?? 0), 0);
}
