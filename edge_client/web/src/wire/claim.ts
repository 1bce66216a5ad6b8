/** How a phone gets its account with an invitation's token, once (wire/claim.py): proofs, and the sealed password. */
import { hsalsa, xsalsa20poly1305 } from "@noble/ciphers/salsa.js";
import { blake2b } from "@noble/hashes/blake2.js";

import { concat, fromHex, same, utf8, type Bytes } from "./bytes";
import { Stopped, WireError } from "./errors";
import type { Claim, Grant } from "./messages";
import { importSecret, type Keys } from "./signing";

const PROOF_BYTES = 32;
const NONCE_BYTES = 16;
const BOX_NONCE_BYTES = 24;
const KEY_BYTES = 32;
const BOX_HEAD = fromHex("302e020100300506032b656e04220420"); // before the 32 bytes of an X25519 key (RFC 8410)
const SIGN_HEAD = fromHex("302e020100300506032b657004220420");
const SIGMA = words(utf8("expand 32-byte k"));

/** Keys that also open what is sealed for them. */
export interface ClaimKeys extends Keys {
  box: CryptoKey; // X25519, the form of the signing key that libsodium's sealed boxes are for
  boxPublic: Bytes;
}

/** Fresh keys, both private ones out of one seed, which is forgotten; no script can read them out. */
export async function newClaimKeys(): Promise<ClaimKeys> {
  const seed = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  try {
    const scalar = new Uint8Array(await crypto.subtle.digest("SHA-512", seed)).slice(0, KEY_BYTES);
    scalar[0] &= 248;
    scalar[31] = (scalar[31] & 127) | 64;
    const found = {
      secret: await importSecret(seed), public: await publicOf("Ed25519", SIGN_HEAD, seed),
      box: await importBox(scalar), boxPublic: await publicOf("X25519", BOX_HEAD, scalar),
    };
    scalar.fill(0);
    return found;
  } catch (error) {
    throw new Stopped("this browser has no Ed25519 and X25519: Chrome 137, Firefox 130, Safari 17 or newer have", { cause: error });
  } finally {
    seed.fill(0);
  }
}

/** A claim with its proof of knowing the token. */
export async function makeClaim(token: string, device: string, key: Bytes, hardware: string): Promise<Claim> {
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  const claim: Claim = { type: "claim", key, proof: new Uint8Array(PROOF_BYTES), hardware, nonce };
  return { ...claim, proof: await prove(token, "claim", utf8(device), key, utf8(hardware), nonce) };
}

/**
 * Whether an answer is to this claim, of somebody who knows the token.
 *
 * @throws WireError if not.
 */
export async function checkGrant(token: string, device: string, claim: Claim, grant: Grant): Promise<void> {
  const expected = await prove(token, "grant", utf8(device), claim.key, claim.nonce, grant.key, grant.sealed, utf8(grant.refused));
  if (!same(expected, grant.proof)) throw new WireError("not from somebody with the invitation's token");
}

/**
 * The password in a sealed box (libsodium's crypto_box_seal).
 *
 * @throws WireError if it is for another key, or altered.
 */
export async function openPassword(sealed: Bytes, keys: ClaimKeys): Promise<string> {
  try {
    const ephemeral = sealed.slice(0, KEY_BYTES);
    const theirs = await crypto.subtle.importKey("raw", ephemeral, "X25519", false, []);
    const shared = new Uint8Array(await crypto.subtle.deriveBits({ name: "X25519", public: theirs }, keys.box, 256));
    const key = new Uint32Array(8);
    hsalsa(SIGMA, words(shared), new Uint32Array(4), key);
    const nonce = blake2b(concat(ephemeral, keys.boxPublic), { dkLen: BOX_NONCE_BYTES });
    const opened = xsalsa20poly1305(new Uint8Array(key.buffer), nonce).decrypt(sealed.slice(KEY_BYTES));
    return new TextDecoder("utf-8", { fatal: true }).decode(opened);
  } catch {
    throw new WireError("the password is sealed for another key");
  }
}

/** What shows that somebody knows the token: HMAC-SHA-256 over every part and its length. */
export async function prove(token: string, what: string, ...parts: Uint8Array[]): Promise<Bytes> {
  const key = await crypto.subtle.importKey("raw", utf8(token), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const lengths = (part: Uint8Array) => new Uint8Array(Uint32Array.of(part.length).buffer);
  const text = concat(...[utf8("hidenseek"), utf8(what), ...parts].flatMap((part) => [lengths(part), part]));
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, text));
}

function importBox(scalar: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey("pkcs8", concat(BOX_HEAD, scalar), "X25519", false, ["deriveBits"]);
}

async function publicOf(algorithm: string, head: Bytes, secret: Bytes): Promise<Bytes> {
  const usage: KeyUsage = algorithm === "X25519" ? "deriveBits" : "sign";
  const readable = await crypto.subtle.importKey("pkcs8", concat(head, secret), algorithm, true, [usage]);
  const { x } = await crypto.subtle.exportKey("jwk", readable);
  return Uint8Array.from(atob(x!.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}

function words(data: Uint8Array): Uint32Array {
  return new Uint32Array(data.slice().buffer);
}
