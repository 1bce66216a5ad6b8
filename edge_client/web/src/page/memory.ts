/** What the page remembers over a reload: the invitation, the data that was chosen, and whether it takes part. */
import { createStore, delMany, get, set } from "idb-keyval";

import type { DeviceData } from "../device/client";
import type { Invite } from "../wire/invite";

/** The data, and in words where it is from. */
export interface Chosen {
  data: DeviceData;
  words: string;
}

const store = createStore("hidenseek page", "state");

export const recallInvite = () => get<Invite>("invite", store);
export const keepInvite = (invite: Invite) => set("invite", invite, store);
export const recallChosen = () => get<Chosen>("chosen", store);
export const keepChosen = (chosen: Chosen) => set("chosen", chosen, store);
export const recallTakesPart = async () => (await get<boolean>("takes part", store)) ?? false;
export const keepTakesPart = (takesPart: boolean) => set("takes part", takesPart, store);

/** Remove all that this page, and the device it was, have kept. */
export async function forgetEverything(invite: Invite | null): Promise<void> {
  await delMany(["invite", "chosen", "takes part"], store);
  if (!invite) return;
  await new Promise<void>((done) => {
    const request = indexedDB.deleteDatabase(`hidenseek ${invite.federation} ${invite.device}`);
    request.onsuccess = request.onerror = request.onblocked = () => done();
  });
}
