import { listen } from "./stream.js";

const waits = document.querySelector("#waits");
if (waits) {
  const { device } = waits.dataset;
  document.querySelector("#link").addEventListener("focus", ({ target }) => target.select());
  listen(({ devices }) => {
    const state = devices[device]?.[0];
    if (!state) return;
    const words = state === "flashed, waiting" ? "Waiting for the phone …" : `${device} is there: ${state}`;
    if (waits.textContent !== words) waits.textContent = words;
  });
}
