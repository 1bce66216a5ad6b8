/** Who said this: Ed25519 signatures (RFC 8032) over topic and message, by the browser's own WebCrypto. */
import { concat, fromHex, sha256, toHex, utf8, type Bytes } from "./bytes";
import { Stopped, WireError } from "./errors";
import { decode, encode, type Message, type Upward } from "./messages";

export const SIGNATURE_BYTES = 64;
const ALGORITHM = "Ed25519";
const PURPOSE = utf8("hidenseek message\0");
const PRIVATE_HEAD = fromHex("302e020100300506032b657004220420"); // before the 32 bytes of a key (RFC 8410)

/** A private key that cannot be read out, and the 32 bytes of its public one. */
export interface Keys {
  secret: CryptoKey;
  public: Bytes;
}

/** Fresh keys; no script can read the private one, this page's own neither. */
export async function newKeys(): Promise<Keys> {
  try {
    const pair = (await crypto.subtle.generateKey(ALGORITHM, false, ["sign", "verify"])) as CryptoKeyPair;
    return { secret: pair.privateKey, public: new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey)) };
  } catch (error) {
    throw new Stopped("this browser cannot sign with Ed25519: Chrome 137, Firefox 129, Safari 17 or newer can", { cause: error });
  }
}

/** The private key of these 32 bytes, for tests against known signatures. */
export function importSecret(secret: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey("pkcs8", concat(PRIVATE_HEAD, secret), ALGORITHM, false, ["sign"]);
}

/** A message for a topic, signed: its bytes and the 64 of the signature. */
export async function seal(secret: CryptoKey, topic: string, message: Upward): Promise<Bytes> {
  const body = encode(message);
  return concat(body, new Uint8Array(await crypto.subtle.sign(ALGORITHM, secret, signed(topic, body))));
}

/**
 * Inverse of `seal`; `trust` says whose signature it must have.
 *
 * @throws WireError if it is no message, or another's.
 */
export async function unseal(topic: string, data: Uint8Array, trust: (message: Message) => Bytes): Promise<Message> {
  if (data.length < SIGNATURE_BYTES) throw new WireError(`signed message of ${data.length} bytes`);
  const body = data.slice(0, data.length - SIGNATURE_BYTES);
  const message = decode(body);
  const key = trust(message);
  let valid = false;
  try {
    const imported = await crypto.subtle.importKey("raw", key, ALGORITHM, false, ["verify"]);
    valid = await crypto.subtle.verify(ALGORITHM, imported, data.slice(body.length), signed(topic, body));
  } catch {
    valid = false; // no point of the curve
  }
  if (!valid) throw new WireError(`not signed by ${await fingerprint(key)}, or altered since`);
  return message;
}

/** A public key in a form that people compare. */
export async function fingerprint(key: Bytes): Promise<string> {
  return toHex((await sha256(key)).subarray(0, 8)).match(/.{4}/g)!.join("-");
}

function signed(topic: string, body: Bytes): Bytes {
  return concat(PURPOSE, utf8(topic), Uint8Array.of(0), body);
}
