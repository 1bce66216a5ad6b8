/** What survives a reload: keys, counters, what is not confirmed yet, the bundle; of one device, in IndexedDB. */
import { createStore, del, get, set, update, type UseStore } from "idb-keyval";

import type { Key } from "../agent/agent";
import { toHex, type Bytes } from "../wire/bytes";
import type { MaskUpdate } from "../wire/messages";
import { newKeys, type Keys } from "../wire/signing";

/** Whom this device trusts, and when the newest of its runs began. */
export interface Known {
  key: Bytes;
  issued: number;
}

/** What the last local training ended with; it never leaves the phone. */
export interface Personal {
  ticket: Bytes;
  run: Bytes;
  number: number;
  logPrior: Float32Array;
  signs: Uint8Array;
}

export class Store {
  private readonly store: UseStore;

  constructor(federation: string, device: string) {
    this.store = createStore(`hidenseek ${federation} ${device}`, "state");
  }

  /** This device's keys; made, by `make`, if there are none. */
  async keys<K extends Keys = Keys>(make: () => Promise<K> = newKeys as () => Promise<K>): Promise<K> {
    const known = await get<K>("keys", this.store);
    if (known) return known;
    const made = await make();
    await set("keys", made, this.store);
    return made;
  }

  /** Count another start; how many there were, this one among them. */
  async countStart(): Promise<number> {
    await update<number>("started", (before) => (before ?? 0) + 1, this.store);
    return (await get<number>("started", this.store))!;
  }

  password(token: Bytes): Promise<string | undefined> {
    return get<string>(`password ${toHex(token)}`, this.store);
  }

  /** Keep the password that was got for a token; `token` is its SHA-256. */
  keepPassword(token: Bytes, password: string): Promise<void> {
    return set(`password ${toHex(token)}`, password, this.store);
  }

  known(): Promise<Known | undefined> {
    return get<Known>("federation", this.store);
  }

  keepKnown(known: Known): Promise<void> {
    return set("federation", known, this.store);
  }

  async pending(): Promise<MaskUpdate | null> {
    return (await get<MaskUpdate>("pending", this.store)) ?? null;
  }

  keepPending(update: MaskUpdate): Promise<void> {
    return set("pending", update, this.store);
  }

  dropPending(): Promise<void> {
    return del("pending", this.store);
  }

  async confirmed(): Promise<Key | null> {
    return (await get<Key>("confirmed", this.store)) ?? null;
  }

  keepConfirmed(key: Key): Promise<void> {
    return set("confirmed", key, this.store);
  }

  /** The bundle of this hash, as it was kept: whoever opens it looks at the hash again. */
  async bundle(digest: Bytes): Promise<Bytes | null> {
    const kept = await get<{ digest: string; data: Bytes }>("bundle", this.store);
    return kept?.digest === toHex(digest) ? kept.data : null;
  }

  keepBundle(digest: Bytes, data: Bytes): Promise<void> {
    return set("bundle", { digest: toHex(digest), data }, this.store);
  }

  keepPersonal(personal: Personal): Promise<void> {
    return set("personal", personal, this.store);
  }
}
