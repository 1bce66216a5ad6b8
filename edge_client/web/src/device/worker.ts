/** The worker: one device, from the page's "start" until it has left. */
import { newClaimKeys, type ClaimKeys } from "../wire/claim";
import { sha256, utf8 } from "../wire/bytes";
import { Stopped } from "../wire/errors";
import type { Invite } from "../wire/invite";
import { Topics } from "../wire/topics";
import { Client, type DeviceData, type Progress } from "./client";
import { enrol } from "./enrol";
import { Store } from "./store";

/** What the page asks. */
export type Request = { ask: "start"; invite: Invite; data: DeviceData } | { ask: "leave" } | { ask: "hurry" };

/** What the worker answers; `left` ends it, with an error for the person or without. */
export type Answer =
  | { type: "enrolling" }
  | { type: "progress"; progress: Progress }
  | { type: "log"; text: string }
  | { type: "left"; error: string | null };

let client: Client | null = null;
const leaving = new AbortController();

onmessage = ({ data: request }: MessageEvent<Request>) => {
  if (request.ask === "start") void start(request.invite, request.data);
  else if (request.ask === "hurry") client?.hurry();
  else {
    leaving.abort();
    client?.leave();
  }
};

function answer(answer: Answer): void {
  postMessage(answer);
}

async function start(invite: Invite, data: DeviceData): Promise<void> {
  try {
    await takePart(invite, data);
    answer({ type: "left", error: null });
  } catch (error) {
    if (!(error instanceof Stopped)) console.error(error);
    const said = error instanceof Stopped ? error.message : `something is wrong with this page: ${String(error)}`;
    answer({ type: "left", error: leaving.signal.aborted ? null : said });
  }
}

async function takePart(invite: Invite, data: DeviceData): Promise<void> {
  const { federation, device, broker } = invite;
  const kernels = WebAssembly.compileStreaming(fetch("kernels.wasm"));
  const store = new Store(federation, device);
  let password = invite.secret;
  if (invite.claim) {
    const keys = await store.keys<ClaimKeys>(newClaimKeys);
    const token = await sha256(utf8(invite.secret));
    const kept = await store.password(token);
    if (kept === undefined) {
      answer({ type: "enrolling" });
      if (!keys.box) throw new Stopped("this phone took part under another invitation; remove its data below, then open the link again");
      password = await enrol(invite, keys, leaving.signal);
      await store.keepPassword(token, password);
    } else password = kept;
  }
  const keys = await store.keys();
  client = new Client({
    device, topics: new Topics(federation, device), keys, data, store, started: await store.countStart(), trusted: invite.key,
    account: { broker, user: device, password, clientId: `hns-${federation}-${device}` },
    kernels: await kernels,
    report: (progress) => answer({ type: "progress", progress }),
    log: (text) => answer({ type: "log", text }),
  });
  if (leaving.signal.aborted) return;
  await client.run();
}
