// One connection to the coordinator, made again whenever it is lost; says so while it is.
const QUIET_MS = 15000; // without a word, though something is said every 5 s
const AGAIN_MS = 3000;
const away = document.querySelector("#away");

/** Calls `heard` with every event of the fleet; `last` is what to say when it is away for good. */
export function listen(heard, last = () => "") {
  let source, watchdog;
  const alive = () => {
    away.hidden = true;
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, QUIET_MS);
  };
  const lost = async () => {
    source.close();
    clearTimeout(watchdog);
    const words = last() || "The coordinator is away. What you see is the last that it said; trying again …";
    if (away.hidden || away.textContent !== words) away.textContent = words;
    away.hidden = false;
    setTimeout(connect, AGAIN_MS);
    const answer = await fetch("/api/fleet", { method: "HEAD" }).catch(() => null);
    if (answer?.status === 401) location.assign("/login");
  };
  const connect = () => {
    source = new EventSource("/events");
    source.addEventListener("open", alive);
    source.addEventListener("alive", alive);
    source.addEventListener("fleet", ({ data }) => {
      alive();
      heard(JSON.parse(data));
    });
    source.addEventListener("error", lost);
  };
  connect();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", ({ persisted }) => persisted && connect());
}

/** Put what a page of ours has now into an element of this one, unless somebody is at work in it. */
export async function refresh(element, address, selector) {
  if (element.matches(":focus-within")) return;
  const answer = await fetch(address).catch(() => null);
  if (!answer?.ok) return;
  const text = await answer.text();
  const found = new DOMParser().parseFromString(text, "text/html");
  element.replaceChildren(...(selector ? found.querySelector(selector) : found.body).childNodes);
}
