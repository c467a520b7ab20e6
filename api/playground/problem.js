/** What went wrong, in the server's words, and what one can do about it. */

import { $, copyOf } from "./dom.js";

let counting = null;

/** Shows an error in `place`; `again` tries once more, once the server wants it. */
export function show(place, error, again = null) {
  clear(place);
  const shown = copyOf("problem-template");
  $(".message", shown).textContent = error.message;
  if (error.requestId) {
    $(".id", shown).hidden = false;
    $("code", shown).textContent = error.requestId;
    $(".copy", shown).addEventListener("click", (event) => copy(event.target, error.requestId));
  }
  place.append(shown);
  if (again) offer($(".again", shown), error.retryAfter ?? 0, again);
}

export function clear(place) {
  clearInterval(counting);
  place.replaceChildren();
}

async function copy(button, text) {
  await navigator.clipboard.writeText(text);
  button.textContent = "Copied";
}

function offer(button, seconds, again) {
  button.hidden = false;
  button.addEventListener("click", again);
  let left = seconds;
  const count = () => {
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left-- <= 0) clearInterval(counting);
  };
  count();
  if (seconds) counting = setInterval(count, 1000);
}
