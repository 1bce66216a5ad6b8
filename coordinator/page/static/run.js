import { listen } from "./stream.js";

// What can be filled in is another form once the run is over, or another has begun.
const shown = document.querySelector("[data-run-id]").dataset;
listen(({ run }) => {
  if (run.id !== shown.runId || String(run.over) !== shown.over) location.assign(run.over ? "/run" : "/");
});
