/** The phone's own motion sensors: readings at 50 Hz while the person does what the label says. */
import { DataError } from "./errors";
import { CHANNELS, RATE_HZ, type Recording } from "./windows";

const G = 9.80665; // m/s²
const RADIANS = Math.PI / 180;
const SILENT_MS = 2000;

type Asking = typeof DeviceMotionEvent & { requestPermission?: () => Promise<string> };

/**
 * Ask for the sensors; has to be called from a press of a button (iOS).
 *
 * @throws DataError if the browser has none, or the person says no.
 */
export async function allowMotion(): Promise<void> {
  if (typeof DeviceMotionEvent === "undefined") throw new DataError("this browser does not give pages the motion sensors");
  const answer = await (DeviceMotionEvent as Asking).requestPermission?.();
  if (answer && answer !== "granted") throw new DataError("the motion sensors were not allowed; allow them in the browser's settings for this page");
}

/** Puts readings that come when they like onto a grid of 50 a second, by straight lines between them. */
export class Resampler {
  readonly values: number[] = [];
  private before: { atMs: number; reading: number[] } | null = null;
  private nextMs = 0;

  add(atMs: number, reading: number[]): void {
    const { before } = this;
    this.before = { atMs, reading };
    if (!before) {
      this.values.push(...reading);
      this.nextMs = atMs + 1000 / RATE_HZ;
      return;
    }
    if (atMs <= before.atMs) return;
    for (; this.nextMs <= atMs; this.nextMs += 1000 / RATE_HZ) {
      const share = (this.nextMs - before.atMs) / (atMs - before.atMs);
      reading.forEach((value, i) => this.values.push(before.reading[i] + share * (value - before.reading[i])));
    }
  }
}

/** One recording under way. */
export class Recorder {
  private readonly resampler = new Resampler();
  private readonly listener = (event: DeviceMotionEvent) => this.take(event);
  private readonly timer: ReturnType<typeof setTimeout>;

  /** `silent` is called if the sensors say nothing: a computer has none. */
  constructor(private readonly activity: number, silent: () => void) {
    addEventListener("devicemotion", this.listener);
    this.timer = setTimeout(() => this.resampler.values.length || silent(), SILENT_MS);
  }

  /** Readings so far. */
  get count(): number {
    return this.resampler.values.length / CHANNELS;
  }

  stop(): Recording {
    removeEventListener("devicemotion", this.listener);
    clearTimeout(this.timer);
    return { activity: this.activity, readings: Float32Array.from(this.resampler.values) };
  }

  private take({ accelerationIncludingGravity: a, rotationRate: r, timeStamp }: DeviceMotionEvent): void {
    if (a?.x == null || a.y == null || a.z == null) return;
    // A phone's long side is its y, HAPT's phones had gravity on x: a quarter turn about z. alpha, beta and gamma are
    // the rates about x, y and z.
    const [alpha, beta, gamma] = [r?.alpha, r?.beta, r?.gamma].map((rate) => (rate ?? 0) * RADIANS);
    this.resampler.add(timeStamp, [a.y / G, -a.x / G, a.z / G, beta, -alpha, gamma]);
  }
}
