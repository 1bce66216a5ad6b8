/** Data that cannot be trained on; the text is for the person at the phone. */
export class DataError extends Error {
  override name = "DataError";
}
