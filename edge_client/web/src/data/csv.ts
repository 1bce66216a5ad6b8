/** A recording as CSV: columns ax, ay, az in g, gx, gy, gz in rad/s, activity; rows at 50 Hz in order of time. */
import { DataError } from "./errors";
import { ACTIVITIES, CHANNELS, type Recording } from "./windows";

const COLUMNS = ["ax", "ay", "az", "gx", "gy", "gz", "activity"];

/**
 * Read a file; stretches of one activity are recordings of their own.
 *
 * @throws DataError naming the line, what was found and what was expected.
 */
export function readCsv(text: string): Recording[] {
  const [head = "", ...lines] = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  const names = head.split(",").map((name) => name.trim().toLowerCase());
  const places = COLUMNS.map((name) => names.indexOf(name));
  const missing = COLUMNS.filter((_, i) => places[i] < 0);
  if (missing.length) {
    throw new DataError(`line 1: '${head.slice(0, 60)}' has no column ${missing.join(", ")}; it names ${COLUMNS.join(",")}, parted by commas`);
  }
  const found: { activity: number; readings: number[] }[] = [];
  lines.forEach((line, i) => {
    if (!line.trim()) return;
    const cells = line.split(",").map((cell) => cell.trim());
    const readings = places.slice(0, CHANNELS).map((place) => (cells[place] ? Number(cells[place]) : NaN));
    const bad = readings.findIndex((reading) => !Number.isFinite(reading));
    if (bad >= 0) throw new DataError(`line ${i + 2}: ${COLUMNS[bad]} is '${(cells[places[bad]] ?? "").slice(0, 30)}', a number expected`);
    const said = cells[places[CHANNELS]] ?? "";
    const activity = (ACTIVITIES as readonly string[]).indexOf(said.toLowerCase());
    if (activity < 0) throw new DataError(`line ${i + 2}: activity '${said.slice(0, 30)}', one of ${ACTIVITIES.join(", ")} expected`);
    const last = found.at(-1);
    if (last?.activity === activity) last.readings.push(...readings);
    else found.push({ activity, readings });
  });
  return found.map(({ activity, readings }) => ({ activity, readings: Float32Array.from(readings) }));
}
