/** What is downloaded once for a runtime: "HNSB", version 1, CBOR [runtime, ticket, {file: bytes}]. */
import { sha256, same, startsWith, type Bytes } from "./bytes";
import { bytes, decode, list } from "./cbor";
import { WireError } from "./errors";
import { decodeTicket, type Ticket } from "./ticket";

const HEADER_BYTES = 5;

/**
 * The ticket in a bundle whose SHA-256 is known.
 *
 * @throws WireError if the hash is another, or there is no ticket in it.
 */
export async function openBundle(data: Bytes, digest: Bytes): Promise<Ticket> {
  if (!same(await sha256(data), digest)) throw new WireError("a bundle without the SHA-256 that was announced");
  if (!startsWith(data, "HNSB") || data[4] !== 1) throw new WireError("no bundle of version 1");
  return decodeTicket(bytes(list(decode(data.subarray(HEADER_BYTES)), 3)[1]));
}
