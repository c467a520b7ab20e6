/** The page: what each part tells the others. */

import * as analysis from "./analysis.js";
import { Clip } from "./clip.js";
import { $, el } from "./dom.js";
import * as form from "./form.js";
import * as history from "./history.js";
import * as problem from "./problem.js";
import { ServerError, ask, saveKey, savedKey } from "./server.js";
import * as stats from "./stats.js";
import { drawnSeed, Take } from "./take.js";
import { source, start } from "./upload.js";

const MORE_S = 10; // that a clip goes on for, where nothing else is said
const actions = { stop, goOn, judge: analysis.analyse, canJudge: analysis.whyNot };
let take = null;
let running = false;

/** Generates what the form says, and keeps it. */
async function generate() {
  const asked = form.settings();
  if (running || !asked) return;
  const settings = { ...asked, seed: asked.seed ?? drawnSeed() };
  const from = source();
  problem.clear($("#compose-problem"));
  place(() => new Take(settings, from, actions));
  busy(true);
  say("Generating.");
  $("#result").scrollIntoView({ block: "nearest" });
  const started = take;
  try {
    await started.run(once(() => say("The first sound has come.")));
    say(`Done: ${started.files.length === 1 ? "1 clip" : `${started.files.length} clips`}.`);
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else refused(error);
  }
  busy(false);
  if (started.files.length) {
    await history.keep({ at: Date.now(), settings, source: from, files: started.files }, restore);
  }
}

/** Shows what the server refused, at its field where it has one. */
function refused(error) {
  if (!(error instanceof ServerError)) throw error;
  say(""); // the problem is an alert of its own
  if (error.status === 401) openKeys(error.message);
  if (error.param && form.complain(error.param, error.message)) form.reveal($(`#${error.param}`));
  problem.show($("#compose-problem"), error, generate);
}

/** Makes a take, and shows its clips in place of the last one's. */
function place(made) {
  take?.close(); // before the next one can silence it
  take = made();
  $("#clips").replaceChildren(take.element);
}

function busy(is) {
  const [go, stop] = [$("#generate"), $("#cancel")];
  const focused = document.activeElement === (is ? go : stop);
  running = is;
  stop.hidden = !is;
  go.disabled = is;
  go.textContent = is ? "Generating …" : "Generate";
  if (focused) (is ? stop : go).focus();
}

const say = (text) => Object.assign($("#status"), { textContent: text });

function once(call) {
  let called = false;
  return () => {
    if (!called) call();
    called = true;
  };
}

function stop() {
  take.stop();
}

/** Goes on from a clip. */
function goOn(file) {
  start({ file, use: "continue" });
  const duration = $("#duration");
  duration.value = Math.min(Number(duration.value) + MORE_S, Number(duration.max));
  say(`${file.name} is continued: describe how, then generate.`);
  $("#prompt").focus();
}

/** Brings back what was made before. */
async function restore({ settings, source: from, files }) {
  if (running) return;
  start(from);
  form.fill(settings);
  const element = el("div", { className: "take" });
  const clips = files.map(({ title, facts }) => new Clip({ title, facts, heard: false }, actions));
  element.append(...clips.map((clip) => clip.element));
  place(() => ({ element, close: () => clips.forEach((clip) => clip.close()) }));
  await Promise.all(clips.map((clip, i) => clip.whole(files[i].file)));
  say("Restored.");
  $("#result-title").focus();
}

/** Asks the server what it has. */
async function meet() {
  try {
    const [models, limits] = await Promise.all(
      ["v1/models", "v1/limits"].map(async (path) => (await ask(path)).json()),
    );
    problem.clear($("#compose-problem"));
    form.offer(models.data, limits);
    analysis.offer();
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    if (error.status === 401) openKeys(error.message);
    problem.show($("#compose-problem"), error, meet);
  }
}

function openKeys(reason) {
  if (reason) $("#key-reason").textContent = `The server says: ${reason}.`;
  $("#key").value = savedKey();
  if (!$("#key-dialog").open) $("#key-dialog").showModal();
}

$("#key-open").addEventListener("click", () => openKeys(""));
$("#key-dialog").addEventListener("close", async ({ target }) => {
  if (target.returnValue !== "save") return;
  saveKey($("#key").value.trim());
  await meet();
  stats.watch();
});
$("#compose").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("#cancel").addEventListener("click", stop);
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) generate();
  if (event.key === "Escape" && running) stop();
});

history.installClearing(restore);
history.show(restore);
await meet();
stats.watch();
