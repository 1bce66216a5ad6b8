/** What stands behind the # of the page's address: a way into a federation (docs/wire-format.md, "Invitation"). */
import type { Bytes } from "./bytes";
import { bytes, decode as decodeCbor, text } from "./cbor";
import { WireError } from "./errors";

const VERSION = 1;
const MAX_CHARACTERS = 2048;
const MAX_TEXT = 512;
const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const ADDRESS = /^wss?:\/\/[^\s/@?#]+(\/[^\s?#]*)?$/;

/** `claim`: the secret is a token that is good for one phone; `key`: of the federation, null: the first that is met. */
export interface Invite {
  federation: string;
  broker: string;
  device: string;
  secret: string;
  claim: boolean;
  key: Bytes | null;
}

/**
 * Read an invitation.
 *
 * @throws WireError if it is none of this version.
 */
export function decodeInvite(coded: string): Invite {
  if (coded.length > MAX_CHARACTERS || !/^[A-Za-z0-9_-]+$/.test(coded)) throw new WireError("this link holds no invitation");
  let data: Uint8Array;
  try {
    data = Uint8Array.from(atob(coded.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  } catch {
    throw new WireError("the invitation in this link is cut off");
  }
  if (data[0] !== VERSION) throw new WireError(`an invitation of version ${data[0]}, this page reads version ${VERSION}`);
  const fields = decodeCbor(data.subarray(1));
  if (!(fields instanceof Map)) throw new WireError("an invitation is a map of fields");
  const [federation, broker, device, secret] = [1, 2, 3, 4].map((number) => text(fields.get(number), MAX_TEXT));
  const [claim, key] = [fields.get(5) ?? false, fields.get(6)];
  if (!NAME.test(federation) || !NAME.test(device) || !ADDRESS.test(broker) || !secret || typeof claim !== "boolean") {
    throw new WireError("the invitation in this link makes no sense");
  }
  return { federation, broker, device, secret, claim, key: key === undefined ? null : bytes(key, 32) };
}
