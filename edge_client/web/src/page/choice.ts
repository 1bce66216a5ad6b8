/** The choice of data: the phone's motion, a file, or a demo person. */
import { readCsv } from "../data/csv";
import { demoPerson } from "../data/demo";
import { DataError } from "../data/errors";
import { allowMotion, Recorder } from "../data/motion";
import { readNpz } from "../data/npz";
import { ACTIVITIES, countWindows, CHANNELS, cut, RATE_HZ, type Recording } from "../data/windows";
import type { DeviceData } from "../device/client";
import { element, say, show } from "./dom";
import type { Chosen } from "./memory";

const LEAST_S = 5; // of a recording: shorter ones are mostly the hand at the button

/** Wires the section up; `chosen` is called with data, or with null while there is none. */
export function offerChoice(chosen: (found: Chosen | null) => void): void {
  const recordings: Recording[] = [];
  let recorder: Recorder | null = null;
  let timer: ReturnType<typeof setInterval> | undefined;

  const attempt = async (words: string, make: () => DeviceData | Promise<DeviceData>) => {
    try {
      const data = await make();
      const all = `${words}: ${data.train.y.length} samples to train on, ${data.test.y.length} to measure with`;
      fine(all);
      chosen({ data, words: all });
    } catch (error) {
      chosen(null);
      if (error instanceof DOMException) wrong(`${words} cannot be read (${error.name}): choose it again`);
      else if (error instanceof DataError) wrong(`${words}: ${error.message}`);
      else throw error;
    }
  };

  element("sources").addEventListener("change", (event) => {
    const { value } = event.target as HTMLInputElement;
    show("motion", value === "motion");
    show("file", value === "file");
    if (recorder) finish();
    chosen(null);
    say("data-said", null);
    if (value === "demo") void attempt("A demo person, made up", () => cut(demoPerson()));
    if (value === "motion" && recordings.length) useRecordings();
  });

  const file = element<HTMLInputElement>("chosen-file");
  file.addEventListener("click", () => (file.value = "")); // the same one again, mended, is news
  file.addEventListener("change", () => {
    const found = file.files?.[0];
    if (!found) return;
    void attempt(found.name, async () =>
      /\.csv$/i.test(found.name) ? cut(readCsv(await found.text())) : readNpz(new Uint8Array(await found.arrayBuffer())),
    );
  });

  const activity = element<HTMLSelectElement>("activity");
  ACTIVITIES.forEach((name, i) => activity.add(new Option(name, String(i))));
  const record = element<HTMLButtonElement>("record");

  const useRecordings = () => void attempt("Your motion", () => cut(recordings));

  const finish = () => {
    clearInterval(timer);
    const found = recorder!.stop();
    recorder = null;
    record.textContent = "Record";
    record.ariaPressed = "false";
    activity.disabled = false;
    const seconds = found.readings.length / CHANNELS / RATE_HZ;
    if (seconds < LEAST_S) {
      say("recorded", `${seconds.toFixed(1)} s is too short; ${LEAST_S} s at least.`);
      return;
    }
    recordings.push(found);
    const item = document.createElement("li");
    item.textContent = `${ACTIVITIES[found.activity]}: ${seconds.toFixed(0)} s, ${countWindows(found.readings.length / CHANNELS)} samples`;
    element("recordings").append(item);
    say("recorded", "Recorded. Record another activity, or the same again.");
    useRecordings();
  };

  record.addEventListener("click", async () => {
    if (recorder) return finish();
    try {
      await allowMotion();
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      return wrong(error.message);
    }
    recorder = new Recorder(Number(activity.value), () => {
      finish();
      wrong("The motion sensors say nothing. A computer has none; on a phone, open this page over https.");
    });
    record.textContent = "Stop recording";
    record.ariaPressed = "true";
    activity.disabled = true;
    timer = setInterval(() => say("recorded", `${(recorder!.count / RATE_HZ).toFixed(0)} s of ${ACTIVITIES[Number(activity.value)]}`), 1000);
  });
}

function fine(text: string): void {
  element("data-said").classList.remove("bad");
  say("data-said", text);
}

function wrong(text: string): void {
  element("data-said").classList.add("bad");
  say("data-said", text);
}
