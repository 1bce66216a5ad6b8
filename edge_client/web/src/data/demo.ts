/** A demo person: motion that nobody made, so that a phone can be tried without data. Every one moves differently. */
import { RATE_HZ, WINDOW, type Recording } from "./windows";

interface Style {
  steps: number; // a second
  strength: number; // of the accelerometer's swing, g
  turn: number; // of the gyroscope's, rad/s
  climb: number; // how much of the swing is forwards
  gravity: [number, number, number];
}

// Plausible, not measured: the phone is at the waist, upright but where the person lies.
const STYLES: Style[] = [
  { steps: 1.9, strength: 0.3, turn: 0.6, climb: 0.2, gravity: [1, 0, 0.1] }, // walking
  { steps: 1.5, strength: 0.2, turn: 0.8, climb: 0.5, gravity: [0.95, 0, 0.3] }, // upstairs
  { steps: 2.1, strength: 0.5, turn: 0.9, climb: -0.4, gravity: [0.97, 0, -0.2] }, // downstairs
  { steps: 0, strength: 0, turn: 0, climb: 0, gravity: [0.85, 0.1, 0.5] }, // sitting
  { steps: 0, strength: 0, turn: 0, climb: 0, gravity: [1, -0.05, 0.05] }, // standing
  { steps: 0, strength: 0, turn: 0, climb: 0, gravity: [0.1, 0.6, 0.75] }, // laying
];
const WINDOWS_EACH = 16;
const STRIDE = 64;
const NOISE = 0.03;

/** Recordings of one person; `random` gives numbers in [0, 1). */
export function demoPerson(random: () => number = Math.random): Recording[] {
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const pace = 1 + 0.1 * normal();
  const vigour = 1 + 0.2 * normal();
  const tilt = [normal(), normal(), normal()].map((one) => 0.05 * one);
  return STYLES.map((style, activity) => {
    const count = WINDOW + (WINDOWS_EACH - 1) * STRIDE;
    const readings = new Float32Array(count * 6);
    for (let i = 0; i < count; i++) {
      const phase = (2 * Math.PI * style.steps * pace * i) / RATE_HZ;
      const swing = style.strength * vigour * (Math.sin(phase) + 0.3 * Math.sin(2 * phase));
      const turn = style.turn * vigour * Math.cos(phase / 2);
      const moved = [swing, 0.4 * swing, style.climb * swing, turn, 0.6 * turn, 0.3 * turn];
      for (let channel = 0; channel < 6; channel++) {
        const still = channel < 3 ? style.gravity[channel] + tilt[channel] : 0;
        readings[6 * i + channel] = still + moved[channel] + NOISE * normal();
      }
    }
    return { activity, readings };
  });
}
