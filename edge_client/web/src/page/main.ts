/** The page: an invitation, a choice of data, and what the worker says about taking part. */
import type { Progress } from "../device/client";
import type { Answer, Request } from "../device/worker";
import { WireError } from "../wire/errors";
import { decodeInvite, type Invite } from "../wire/invite";
import { offerChoice } from "./choice";
import { bytes, element, percent, say, show } from "./dom";
import {
  forgetEverything, keepChosen, keepInvite, keepTakesPart, recallChosen, recallInvite, recallTakesPart, type Chosen,
} from "./memory";
import { WakeLock, watchPower } from "./power";

const MAX_LOG = 200;
const STATES: Record<Progress["state"], string> = {
  connecting: "Connecting to the broker …",
  offline: "No connection; it goes on when there is one",
  joining: "Connected; waiting for the federation to say what is trained",
  downloading: "Downloading the network",
  waiting: "Joined; waiting for a round that wants this phone",
  training: "Training",
  sending: "Sent this round's signs; waiting for the receipt",
  over: "The run is over. Thank you! The phone waits for another one",
};

let invite: Invite | null = null;
let chosen: Chosen | null = null;
let worker: Worker | null = null;
let paused = false;
let goesOn = false; // as soon as the worker that is leaving has left
let hindrance: string | null = null; // why it had better not train now
const wakeLock = new WakeLock();
const anyway = element<HTMLInputElement>("anyway");

function log(text: string): void {
  const item = document.createElement("li");
  item.textContent = `${new Date().toLocaleTimeString()} ${text}`;
  const list = element("log");
  list.append(item);
  while (list.childElementCount > MAX_LOG) list.firstElementChild!.remove();
}

/** Show what fits the state that the page is in. */
function refresh(): void {
  const taking = worker !== null || paused;
  show("no-invite", invite === null);
  show("invite", invite !== null);
  show("data", invite !== null && !taking);
  show("join", invite !== null && (!taking || hindrance !== null));
  show("join-button", !taking);
  show("progress", taking);
  element<HTMLButtonElement>("join-button").disabled = chosen === null || hindered();
  element("pause").textContent = paused ? "Go on" : "Pause";
  say("power", hindrance && `${hindrance} ${taking ? "" : "Joining can wait."}`.trim());
  show("anyway-label", hindrance !== null);
  if (invite) {
    say("federation", invite.federation);
    say("device", invite.device);
    say("broker", new URL(invite.broker).host);
  }
  wakeLock.want(worker !== null);
}

function hindered(): boolean {
  return hindrance !== null && !anyway.checked;
}

function ask(request: Request): void {
  worker?.postMessage(request);
}

/** Begin, or go on. */
function start(): void {
  if (!invite || !chosen || worker) return;
  paused = false;
  say("problem", null);
  say("state", STATES.connecting);
  worker = new Worker("worker.js", { type: "module" });
  const own = worker;
  own.onmessage = ({ data: answer }: MessageEvent<Answer>) => heard(own, answer);
  own.onerror = ({ message }) => heard(own, { type: "left", error: `the training could not be started: ${message || "is the page complete?"}` });
  ask({ ask: "start", invite, data: chosen.data });
  void keepTakesPart(true);
  refresh();
}

/** Leave the broker; with `pausing`, to come back. */
function leave(pausing: string | null): void {
  ask({ ask: "leave" });
  paused = pausing !== null;
  if (pausing) say("state", pausing);
  else void keepTakesPart(false);
  refresh();
}

function heard(from: Worker, answer: Answer): void {
  if (from !== worker) return;
  switch (answer.type) {
    case "enrolling":
      say("state", "Using the invitation: waiting for this phone's account");
      return;
    case "progress":
      if (!paused) report(answer.progress);
      return;
    case "log":
      log(answer.text);
      return;
    case "left":
      from.terminate();
      worker = null;
      if (answer.error !== null) {
        paused = false;
        say("problem", answer.error[0].toUpperCase() + answer.error.slice(1) + ".");
        log(answer.error);
        void keepTakesPart(false);
      }
      refresh();
      if (goesOn && paused) start();
      else consider();
      goesOn = false;
  }
}

function report(progress: Progress): void {
  const { state, round, rounds, step, steps, loss, masks } = progress;
  say("state", state === "training" ? `Training, round ${round}` : STATES[state]);
  const bar = element<HTMLProgressElement>("bar");
  bar.value = state === "training" && steps ? step / steps : state === "sending" || state === "over" ? 1 : 0;
  say("round", round ? `${round} of ${rounds}` : "–");
  say("loss", loss === null ? "–" : loss.toFixed(3));
  say("accuracy", percent(progress.accuracy));
  say("fleet", percent(progress.fleetAccuracy));
  say("masks", String(masks));
  say("sent", bytes(progress.sentBytes));
  say("received", bytes(progress.receivedBytes));
}

let waitsForPower = false;

/** Pause where power or data are short, and go on where they no longer are. */
function consider(): void {
  if (hindered() && worker && !paused) {
    waitsForPower = true;
    leave("Paused, to save battery or data; it goes on by itself");
  } else if (!hindered() && waitsForPower && paused && !worker) {
    waitsForPower = false;
    start();
  }
}

async function use(coded: string): Promise<void> {
  try {
    invite = decodeInvite(coded);
    await keepInvite(invite);
    say("problem", null);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    say("problem", `${error.message[0].toUpperCase()}${error.message.slice(1)}. Scan the QR code again, or ask for another invitation.`);
  }
}

/** Once it is kept, the secret goes out of the address, and so out of the history and of what is shared. */
async function readAddress(): Promise<boolean> {
  const coded = location.hash.slice(1);
  if (!coded) return false;
  await use(coded);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

async function begin(): Promise<void> {
  if (!globalThis.isSecureContext) {
    say("problem", "This page was opened over http, where browsers give no cryptography: open it over https.");
    return;
  }
  [invite, chosen] = [(await recallInvite()) ?? null, (await recallChosen()) ?? null];
  const before = invite;
  const fresh = await readAddress();
  const other = fresh && (before?.federation !== invite?.federation || before?.device !== invite?.device);
  if (chosen) say("data-said", `${chosen.words} (from before)`);
  await watchPower((reason) => {
    hindrance = reason;
    refresh();
    consider();
  });
  if (!other && (await recallTakesPart())) {
    if (hindered()) {
      [paused, waitsForPower] = [true, true];
      say("state", "Paused, to save battery or data; it goes on by itself");
    } else start();
  }
  refresh();
}

offerChoice((found) => {
  chosen = found;
  if (found) void keepChosen(found);
  refresh();
});
element("paste").addEventListener("submit", async (event) => {
  event.preventDefault();
  await use(element<HTMLInputElement>("link").value.split("#").at(-1)!.trim());
  refresh();
});
element("join-button").addEventListener("click", start);
element("pause").addEventListener("click", () => {
  waitsForPower = false;
  if (paused) {
    if (worker) goesOn = true;
    else start();
  } else leave("Paused; nothing is sent or received");
});
element("stop").addEventListener("click", () => {
  waitsForPower = goesOn = false;
  leave(null);
});
element("forget").addEventListener("click", async () => {
  worker?.terminate();
  worker = null;
  await forgetEverything(invite);
  location.reload();
});
anyway.addEventListener("change", () => {
  refresh();
  consider();
});
addEventListener("hashchange", () => {
  if (!worker) void readAddress().then(refresh);
});
addEventListener("online", () => ask({ ask: "hurry" }));
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && ask({ ask: "hurry" }));
void navigator.serviceWorker?.register("sw.js").catch((error) => log(`not kept for use without a network: ${String(error)}`));
void navigator.storage?.persist?.();
void begin();
