/** Recordings of motion as the samples that `har-cnn` takes: windows of 2.56 s, cut and scaled as for UCI HAPT. */
import type { DeviceData } from "../device/client";
import { DataError } from "./errors";

export const ACTIVITIES = ["walking", "upstairs", "downstairs", "sitting", "standing", "laying"] as const;
export const RATE_HZ = 50;
export const CHANNELS = 6; // accelerometer x, y, z in g with gravity, gyroscope x, y, z in rad/s
export const WINDOW = 128;
const STRIDE = 64;
// Mean and deviation of each channel (coordinator/datasets/har.py).
const MEAN = [0.81, 0.02, 0.09, 0, 0, -0.01];
const DEVIATION = [0.41, 0.4, 0.35, 0.41, 0.39, 0.26];
const HELD_BACK = 5; // every fifth sample is for measuring

/** Readings (n, 6) one after the other, at 50 Hz, all of one activity. */
export interface Recording {
  activity: number;
  readings: Float32Array;
}

/** Whole windows in a recording of so many readings. */
export function countWindows(readings: number): number {
  return Math.max(0, Math.floor((readings - WINDOW) / STRIDE) + 1);
}

/**
 * Windows (n, 6, 128) of all recordings, scaled, and their labels.
 *
 * @throws DataError if there are too few to train on.
 */
export function cut(recordings: Recording[]): DeviceData {
  const x: number[] = [];
  const y: number[] = [];
  for (const { activity, readings } of recordings) {
    for (let window = 0; window < countWindows(readings.length / CHANNELS); window++) {
      const from = window * STRIDE;
      for (let channel = 0; channel < CHANNELS; channel++) {
        for (let i = 0; i < WINDOW; i++) x.push((readings[(from + i) * CHANNELS + channel] - MEAN[channel]) / DEVIATION[channel]);
      }
      y.push(activity);
    }
  }
  return holdBack(Float32Array.from(x), Int32Array.from(y), [CHANNELS, WINDOW]);
}

/**
 * Samples x (n, ...shape) with every fifth held back for measuring.
 *
 * @throws DataError if there are too few to train on.
 */
export function holdBack(x: Float32Array, y: Int32Array, shape: number[]): DeviceData {
  if (y.length < HELD_BACK) throw new DataError(`${y.length} samples, ${HELD_BACK} or more are needed`);
  const size = shape.reduce((a, b) => a * b, 1);
  const part = (wanted: (i: number) => boolean) => {
    const chosen = Array.from(y.keys()).filter(wanted);
    const found = { x: new Float32Array(chosen.length * size), y: Int32Array.from(chosen, (i) => y[i]) };
    chosen.forEach((from, to) => found.x.set(x.subarray(from * size, (from + 1) * size), to * size));
    return found;
  };
  const held = (i: number) => i % HELD_BACK === HELD_BACK - 1;
  return { train: part((i) => !held(i)), test: part(held), shape };
}
