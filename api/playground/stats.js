/** The server's state, now and then, while somebody looks. */

import { $, el, inSeconds } from "./dom.js";
import { ask } from "./server.js";

const EVERY_MS = 3000;
const SERVING = ["HEALTHY", "UPSCALING", "DOWNSCALING"];
const place = $("#models");
let timer = null;

/** Looks now and from here on, while the page is visible. */
export function watch() {
  document.addEventListener("visibilitychange", look);
  look();
}

async function look() {
  clearTimeout(timer);
  if (document.visibilityState !== "visible") return;
  let wait = EVERY_MS;
  try {
    show(await (await ask("v1/stats")).json());
  } catch (error) {
    pulse("bad", error.status === 401 ? "Needs an API key" : "Not reached");
    wait = Math.max(1000 * (error.retryAfter ?? 0), 3 * EVERY_MS);
  }
  timer = setTimeout(look, wait);
}

function pulse(kind, text) {
  const shown = $("#pulse");
  shown.className = `pulse ${kind}`;
  if (shown.textContent !== text) shown.textContent = text;
}

function show(stats) {
  const loads = Object.values(stats.models).filter((load) => load.slots);
  const [running, waiting] = ["running", "waiting"].map((name) =>
    loads.reduce((sum, load) => sum + load[name], 0),
  );
  const well = Object.values(stats.deployments).every((status) => SERVING.includes(status));
  pulse(well ? "good" : "bad", `${running} running · ${waiting} waiting`);
  place.replaceChildren(
    ...Object.entries(stats.models).map(([name, load]) => model(name, load, stats)),
  );
}

function model(name, load, { deployments, replicas, backlog }) {
  const count = replicas[name] ?? 0;
  const title = el(
    "h3",
    { textContent: name },
    el("span", { textContent: count === 1 ? "1 replica" : `${count} replicas` }),
  );
  const lines = facts(load, backlog[name]);
  if (!SERVING.includes(deployments[name])) lines.unshift(`is ${deployments[name] ?? "unknown"}`);
  if (!count) lines.push("sleeps; a request wakes it");
  const parts = [title];
  if (load.slots) {
    const slots = el("meter", {
      max: load.slots,
      value: load.running,
      ariaLabel: `Slots of ${name} in use`,
    });
    parts.push(slots);
  }
  return el(
    "article",
    { className: "model" },
    ...parts,
    ...lines.map((line) => el("p", { textContent: line })),
  );
}

/** What is worth telling of a replica, and of the backlog of all. */
function facts(load, backlog) {
  const told = [];
  if (load.slots) told.push(`${load.running} of ${load.slots} slots, ${load.waiting} waiting`);
  if (load.frames_per_second) told.push(`${Math.round(load.frames_per_second)} frames a second`);
  if (load.busy !== undefined)
    told.push(load.busy ? "working" : "idle", `${load.items} done in ${load.batches} batches`);
  if (backlog?.requests)
    told.push(`backlog of ${backlog.requests}: ${inSeconds(backlog.row_seconds)} of audio rows`);
  return told;
}
