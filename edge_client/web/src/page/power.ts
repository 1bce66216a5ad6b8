/** Whether it is a good time to train: battery, data saver; and the screen's wake lock while it does. */

interface Battery extends EventTarget {
  charging: boolean;
  level: number; // 0 to 1
}
interface Connection extends EventTarget {
  saveData?: boolean;
}
type Machine = Navigator & { getBattery?: () => Promise<Battery>; connection?: Connection };

const LEAST_LEVEL = 0.2;

/** Tells `changed` why it had better not train now, or null; now and whenever that changes. */
export async function watchPower(changed: (reason: string | null) => void): Promise<void> {
  const { connection, getBattery } = navigator as Machine;
  const battery = await getBattery?.call(navigator).catch(() => undefined);
  const look = () => {
    const low = battery && !battery.charging && battery.level < LEAST_LEVEL;
    if (low) changed(`The battery is at ${Math.round(battery.level * 100)} % and not charging.`);
    else changed(connection?.saveData ? "Data saver is on. Taking part takes a few kilobytes a round, and the network once." : null);
  };
  battery?.addEventListener("levelchange", look);
  battery?.addEventListener("chargingchange", look);
  connection?.addEventListener?.("change", look);
  look();
}

/** Keeps the screen on: a phone that sleeps stops its pages. */
export class WakeLock {
  private lock: WakeLockSentinel | null = null;
  private wanted = false;

  constructor() {
    document.addEventListener("visibilitychange", () => void this.hold());
  }

  want(wanted: boolean): void {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    if (wanted) void this.hold();
    else void this.lock?.release();
  }

  private async hold(): Promise<void> {
    if (!this.wanted || document.visibilityState !== "visible" || (this.lock && !this.lock.released)) return;
    this.lock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null;
  }
}
