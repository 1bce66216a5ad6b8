/** Bytes that are not what they should be: whoever sent them, nothing else follows from them. */
export class WireError extends Error {
  override name = "WireError";
}

/** What went wrong for good; the text is for the person at the phone. */
export class Stopped extends Error {
  override name = "Stopped";
}
