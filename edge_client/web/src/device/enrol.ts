/** An invitation's token for an account at the broker; afterwards the token is worth nothing to anybody else. */
import { checkGrant, makeClaim, openPassword, type ClaimKeys } from "../wire/claim";
import { Stopped, WireError } from "../wire/errors";
import type { Invite } from "../wire/invite";
import type { Grant } from "../wire/messages";
import { Topics } from "../wire/topics";
import { Link } from "./link";

const AGAIN_MS = 15_000;

/**
 * Claim the account and return its password; waits for ever for a broker that is away, until `signal` says stop.
 *
 * @throws Stopped if the token is not good (any more).
 */
export async function enrol(invite: Invite, keys: ClaimKeys, signal: AbortSignal): Promise<string> {
  const topics = new Topics(invite.federation, invite.device);
  const claim = await makeClaim(invite.secret, invite.device, keys.public, "a browser");
  const account = {
    broker: invite.broker, user: `claim.${invite.device}`, password: invite.secret,
    clientId: `hns-${invite.federation}-claim-${invite.device}`,
  };
  let timer: ReturnType<typeof setInterval> | undefined;
  let link: Link | undefined;
  try {
    return await new Promise<string>((done, fail) => {
      signal.addEventListener("abort", () => fail(new Stopped("left before the invitation was answered")));
      const ask = () => {
        link?.subscribe(topics.claimAnswer);
        void link?.send(topics.claim, claim);
      };
      const answered = async (grant: Grant) => {
        await checkGrant(invite.secret, invite.device, claim, grant);
        if (grant.refused) throw new Stopped(`the invitation is not good any more: ${grant.refused}`);
        return openPassword(grant.sealed, keys);
      };
      link = new Link(account, keys.secret, trusted, (happening) => {
        if (happening.type === "connected") {
          clearInterval(timer);
          timer = setInterval(ask, AGAIN_MS);
          ask();
        } else if (happening.type === "lost" && happening.refused) {
          fail(new Stopped("the broker does not know this invitation's token (any more); ask for another invitation"));
        } else if (happening.type === "message" && happening.message.type === "grant") {
          // An answer to an earlier claim, or of a stranger, is none: the right one may still come.
          answered(happening.message).then(done, (error) => (error instanceof WireError ? undefined : fail(error as Error)));
        }
      });
      link.open();
    });
  } finally {
    clearInterval(timer);
    await link?.close();
  }
}

/** A grant is signed with the key that it names; what makes it believed is its proof. */
function trusted(message: { type: string; key?: unknown }): Grant["key"] {
  if (message.type === "grant") return message.key as Grant["key"];
  throw new WireError(`a ${message.type} is no answer to a claim`);
}
