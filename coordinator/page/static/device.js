import { listen, refresh } from "./stream.js";

document.addEventListener("submit", (event) => {
  const { ask } = event.target.dataset;
  if (ask && !confirm(ask)) event.preventDefault();
});

const live = document.querySelector("[data-live]");
if (live) {
  const name = decodeURIComponent(location.pathname.split("/").pop());
  let known = false;
  listen(({ devices }) => {
    if (known && name in devices) refresh(live, location.pathname, "[data-live]");
    known = true;
  });
}
