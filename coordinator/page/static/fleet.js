import { listen, refresh } from "./stream.js";

const PER_PAGE = 25;
const DASH = "–";
const $ = (selector) => document.querySelector(selector);
const body = $("#fleet tbody");
const filter = $("#filter");
const pager = $(".pager");

const percent = (share) => (share == null ? DASH : `${(100 * share).toFixed(1)}%`);
const clock = (seconds) => {
  const when = new Date(1000 * seconds);
  const near = Math.abs(when - Date.now()) < 12 * 3600e3;
  return near ? when.toLocaleTimeString() : when.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
};
const size = (bytes) => (bytes == null ? DASH : `${(bytes / 1e6).toFixed(1)} MB`);
const whole = (number) => number.toLocaleString("en");

// A device's row, as `coordinator/page/snapshot.py` has it; `show` makes the text of a cell.
const COLUMNS = [
  { key: "name", of: (one) => one.name, show: (one) => one.name },
  { key: "state", of: (one) => one.state, show: (one) => one.state },
  { key: "profile", of: (one) => one.profile, show: (one) => one.profile || DASH },
  { key: "temperature", of: (one) => one.temperature, show: (one) => (one.temperature == null ? DASH : `${one.temperature.toFixed(1)} °C`) },
  { key: "memory", of: (one) => one.memory, show: (one) => size(one.memory) },
  { key: "round", of: (one) => one.round, show: (one) => one.round ?? DASH },
  { key: "mask", of: (one) => one.mask, show: (one) => (one.mask == null ? DASH : clock(one.mask)) },
  { key: "accuracy", of: (one) => one.accuracy, show: (one) => percent(one.accuracy) },
];
const read = (name, [state, profile, temperature, memory, round, mask, accuracy]) => ({ name, state, profile, temperature, memory, round, mask, accuracy });

const fleet = new Map();
let run = null;
let skew = 0; // seconds that the coordinator's clock is ahead of ours
let closed = null; // rounds that the charts show
let sort = { column: COLUMNS[0], down: false };
let page = 0;
let order = []; // names, as filtered and sorted last

const names = new Intl.Collator("en", { numeric: true });
function compare(a, b) {
  const [x, y] = [sort.column.of(a), sort.column.of(b)];
  if (x === y) return names.compare(a.name, b.name);
  if (x == null || x === "") return 1; // what is not known comes last, whichever way
  if (y == null || y === "") return -1;
  const found = typeof x === "string" ? names.compare(x, y) : x - y;
  return sort.down ? -found : found;
}

function arrange() {
  const text = filter.elements.text.value.trim().toLowerCase();
  const state = filter.elements.state.value;
  const fits = (one) => (!state || one.state === state) && (!text || `${one.name} ${one.profile}`.toLowerCase().includes(text));
  order = [...fleet.values()].filter(fits).sort(compare).map((one) => one.name);
  page = Math.max(0, Math.min(page, Math.ceil(order.length / PER_PAGE) - 1));
  const words = order.length === fleet.size ? `${whole(fleet.size)} devices` : `${whole(order.length)} of ${whole(fleet.size)} devices`;
  put($("#count"), words);
}

function put(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

function makeRow() {
  const row = document.createElement("tr");
  for (const { key } of COLUMNS) {
    const cell = row.appendChild(document.createElement(key === "name" ? "th" : "td"));
    if (key === "name") {
      cell.scope = "row";
      cell.appendChild(document.createElement("a")).appendChild(document.createElement("bdi"));
    }
    if (key === "state") cell.appendChild(document.createElement("span"));
    if (["name", "state", "profile"].includes(key)) cell.className = "text";
  }
  return row;
}

function draw() {
  const shown = order.slice(page * PER_PAGE, (page + 1) * PER_PAGE).filter((name) => fleet.has(name));
  while (body.rows.length > shown.length) body.lastChild.remove();
  while (body.rows.length < shown.length) body.appendChild(makeRow());
  shown.forEach((name, place) => {
    const one = fleet.get(name);
    COLUMNS.forEach(({ key, show }, at) => {
      const cell = body.rows[place].cells[at];
      put(key === "name" ? cell.firstChild.firstChild : key === "state" ? cell.firstChild : cell, show(one));
      if (key === "name") cell.firstChild.href = `/devices/${encodeURIComponent(name)}`;
      if (key === "state") cell.firstChild.className = `state s-${one.state.replace(/[, ]+/g, "-")}`;
    });
  });
  const pages = Math.ceil(order.length / PER_PAGE);
  pager.hidden = pages < 2;
  put($("#place"), `${page + 1} of ${pages}`);
  pager.querySelector("[data-go='-1']").disabled = page === 0;
  pager.querySelector("[data-go='1']").disabled = page >= pages - 1;
}

function offerStates() {
  const select = filter.elements.state;
  const offered = new Set([...select.options].map((option) => option.value));
  for (const state of new Set([...fleet.values()].map((one) => one.state)))
    if (!offered.has(state)) select.add(new Option(state, state));
}

function tile(key, text, how = "") {
  put($(`[data-run="${key}"]`), text);
  put($(`[data-run="${key}-how"]`), how || "\u00a0");
}

function standing() {
  if (run.next) return ["a run is being started", "open"];
  if (run.over) return run.stopped ? ["stopped", "open"] : ["finished", "over"];
  if (run.paused) return [run.closed < run.round ? "pausing after this round" : "paused", "open"];
  if (!run.connected) return ["broker lost", "open"];
  if (run.round === 0) return ["waiting for devices", "open"];
  return ["running", "over"];
}

function drawRun() {
  const [words, kind] = standing();
  put($("#standing"), words);
  $("#standing").className = `state ${kind}`;
  const finished = run.over;
  $("#progress").max = run.rounds;
  $("#progress").value = run.closed;
  $("#pause").hidden = run.paused || finished;
  $("#resume").hidden = !run.paused || finished;
  $("#stop").hidden = $("#change").hidden = finished;
  $("#start").hidden = !finished || run.next || $("#start").dataset.stays !== "true";
  $("#problem").hidden = !run.problem;
  put($("#problem"), run.problem);
  const number = finished ? run.closed : Math.min(run.round, run.rounds);
  tile("round", `${number} of ${run.rounds}`, run.end_s && !finished ? `done at about ${clock(run.end_s)}` : "");
  tile("masks", finished ? DASH : `${run.masks} of ${run.selected}`, deadline());
  tile("online", `${whole(run.online)} of ${whole(run.known)}`);
  tile("own", percent(run.own), "own signs on own test samples, mean of the last round");
  tile("seen", percent(run.seen), "newest network, on the devices' test samples");
  tile("held_out", percent(run.held_out), "on samples that nobody trains on");
  document.title = `${number}/${run.rounds} ${run.name} – hidenseek`;
  if (closed !== run.closed) {
    if (closed !== null) refresh($("#charts"), "/charts");
    closed = run.closed;
  }
}

function deadline() {
  if (run.over) return "";
  const between = run.closed === run.round && run.round > 0 && run.round < run.rounds;
  if (between && run.paused) return "no round opens until it is resumed";
  if (!run.deadline_s) return "";
  const left = Math.round(run.deadline_s - skew - Date.now() / 1000);
  if (between && run.online === 0) return "waits for devices to open the next";
  if (between) return left > 0 ? `the next round opens in ${left} s at the latest` : "the next round opens";
  return left > 0 ? `closes in ${left} s at the latest` : "past its deadline";
}

listen(
  (told) => {
    if (run && run.id !== told.run.id) return location.reload(); // the page was made for another
    if (told.all) fleet.clear();
    let news = told.all; // who is there, or how they are sorted, is another
    for (const [name, row] of Object.entries(told.devices)) {
      news ||= row === null || !fleet.has(name);
      if (row === null) fleet.delete(name);
      else fleet.set(name, read(name, row));
    }
    run = told.run;
    skew = run.now_s - Date.now() / 1000;
    offerStates();
    // Rows do not move under a hand or a reading cursor.
    if (news || !body.matches(":hover, :focus-within")) arrange();
    draw();
    drawRun();
    if (told.all) performance.mark("fleet-shown");
  },
  () => (run && run.over ? "The run is over and the coordinator has ended. Its report is report.html in its state folder." : ""),
);
setInterval(() => run && put($('[data-run="masks-how"]'), deadline() || "\u00a0"), 1000);

document.addEventListener("submit", (event) => {
  const { ask } = event.target.dataset;
  if (ask && !confirm(ask)) event.preventDefault();
});
filter.addEventListener("input", () => {
  page = 0;
  arrange();
  draw();
});
filter.addEventListener("submit", (event) => event.preventDefault());
pager.addEventListener("click", ({ target }) => {
  page += Number(target.dataset.go ?? 0);
  arrange();
  draw();
});
$("#fleet thead").addEventListener("click", ({ target }) => {
  const head = target.closest("th");
  if (!target.closest("button")) return;
  const column = COLUMNS.find(({ key }) => key === head.dataset.key);
  sort = { column, down: sort.column === column && !sort.down };
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
  page = 0;
  arrange();
  draw();
});
