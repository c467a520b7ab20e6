/** Places where a file is dropped, or chosen with the keyboard. */

import { $ } from "./dom.js";

/** Calls `take` with each file that is dropped on `zone` or chosen by `input`. */
export function dropZone(zone, input, take) {
  const over = (is) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", is && !input.disabled);
  };
  zone.addEventListener("dragover", over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", (event) => {
    over(false)(event);
    const [file] = event.dataTransfer.files;
    if (file && !input.disabled) take(file);
  });
  input.addEventListener("change", () => {
    if (input.files.length) take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
}

// A file that misses its place must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

const uses = () => $("#compose").elements.use;
let file = null;

/** The file to start from and its use, {file, use}, or null. */
export const source = () => file && { file, use: uses().value };

/** Starts from a file, {file, use}, or from none. */
export function start(from) {
  file = from?.file ?? null;
  if (from && !$(`input[value="${from.use}"]`).disabled) uses().value = from.use;
  $("#source-name").textContent = file
    ? file.name
    : "or drop one here: wav, flac, mp3, ogg, opus, m4a, aiff";
  for (const id of ["source-uses", "source-remove"]) $(`#${id}`).hidden = !file;
  uses()[0].dispatchEvent(new Event("change"));
}

dropZone($("#source-drop"), $("#source-file"), (chosen) =>
  start({ file: chosen, use: uses().value }),
);
$("#source-remove").addEventListener("click", () => {
  start(null);
  $("#source-file").focus();
});
