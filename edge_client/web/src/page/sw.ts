/** Keeps the page's files, so that it opens without a network after the first visit. */
export {};
declare const FILES: string[]; // put in by the build, with a version that depends on all their bytes
declare const VERSION: string;
declare const self: ServiceWorkerGlobalScope;

interface ServiceWorkerGlobalScope extends EventTarget {
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
  registration: { scope: string };
}
interface Waiting extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface Fetching extends Waiting {
  request: Request;
  respondWith(answer: Promise<Response>): void;
}

const PREFIX = "hidenseek-";
const NAME = `${PREFIX}${VERSION}`;

self.addEventListener("install", (event) => {
  (event as Waiting).waitUntil(caches.open(NAME).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = async () => {
    for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== NAME) await caches.delete(name);
    await self.clients.claim();
  };
  (event as Waiting).waitUntil(old());
});

self.addEventListener("fetch", (event) => {
  const { request } = event as Fetching;
  if (request.method !== "GET" || !request.url.startsWith(self.registration.scope)) return;
  const answer = async () => (await caches.match(request, { cacheName: NAME, ignoreSearch: true })) ?? fetch(request);
  (event as Fetching).respondWith(answer());
});
