/** The list of what was made before. */

import { $, copyOf, inSeconds } from "./dom.js";
import * as store from "./store.js";

const list = $("#entries");
const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Keeps a take, and shows it with the others; where the browser keeps nothing, it says why. */
export async function keep(take, restore) {
  try {
    await store.add(take);
    await show(restore);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    const place = $("#history-empty");
    place.textContent = `This browser did not keep it: ${error.message}`;
    place.hidden = false;
  }
}

/** Shows all that is kept; `restore` takes one of them. */
export async function show(restore) {
  const kept = await store.all();
  list.replaceChildren(...kept.map((take) => entry(take, restore)));
  $("#history-empty").hidden = kept.length > 0;
  $("#history-clear").hidden = !kept.length;
}

function entry(take, restore) {
  const { settings, at, files } = take;
  const shown = copyOf("entry-template");
  $(".what", shown).textContent = settings.prompt;
  const clips = files.length === 1 ? "1 clip" : `${files.length} clips`;
  const facts = [
    settings.model,
    inSeconds(settings.duration),
    `seed ${settings.seed}`,
    clips,
    when.format(at),
  ];
  $(".facts", shown).textContent = facts.join(" · ");
  for (const [name, action] of [
    ["restore", () => restore(take)],
    ["forget", () => drop(take, restore)],
  ]) {
    const button = $(`.${name}`, shown);
    button.ariaLabel = `${button.textContent} “${settings.prompt}”`;
    button.addEventListener("click", action);
  }
  return shown;
}

async function drop(take, restore) {
  await store.forget(take.id);
  await show(restore);
  $("#history-title").focus();
}

/** Has the button forget everything. */
export function installClearing(restore) {
  $("#history-clear").addEventListener("click", async () => {
    await store.forgetAll();
    await show(restore);
  });
}
