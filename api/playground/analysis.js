/** How real a file sounds to the discriminators. */

import { $, el, onScheme } from "./dom.js";
import { ofKind } from "./form.js";
import * as plots from "./plots.js";
import * as problem from "./problem.js";
import { ask } from "./server.js";
import { dropZone } from "./upload.js";

const place = $("#analysis");
const NONE = "No model of kind discriminators is configured on this server.";
const NAMES = { mpd_score: "Periods", msd_score: "Scales", msstftd_score: "Spectra" };
let last = null;

/** Why nothing can be analysed here, or "". */
export const whyNot = () => (ofKind("discriminators") ? "" : NONE);

/** Enables or disables the section, as the models allow. */
export function offer() {
  $("#analyse-file").disabled = Boolean(whyNot());
  $("#analyse-reason").textContent = whyNot();
}

/** Analyses a file and shows what came of it. */
export async function analyse(file) {
  problem.clear($("#analyse-problem"));
  $("#analyse-name").textContent = file.name;
  place.replaceChildren(el("p", { className: "hint", textContent: "Listening …" }));
  const form = new FormData();
  form.append("audio_file", file);
  try {
    last = await (await ask("analyze", { method: "POST", body: form })).json();
    show();
  } catch (error) {
    place.replaceChildren();
    problem.show($("#analyse-problem"), error, () => analyse(file));
  }
  $("#analyse-title").focus();
  $("#analyse").scrollIntoView({ block: "nearest" });
}

function show() {
  const rows = Object.entries(NAMES).map(([field, name]) => [name, last[field]]);
  const { mpd, msd, msstftd } = last.scales;
  place.replaceChildren(
    verdict(last),
    el(
      "div",
      { className: "plots" },
      el("div", {}, plots.scores(rows, last.threshold), plots.featureMaps(last.feature_maps)),
      plots.logits({ period: mpd, scale: msd, spectrum: msstftd }),
    ),
  );
}

function verdict({ probability, is_real: isReal, model }) {
  const figure =
    probability === null
      ? isReal
        ? "Sounds real"
        : "Sounds generated"
      : `${percent(probability)} likely real`;
  const meaning =
    probability === null
      ? "By the mean of the scores; these discriminators are not calibrated."
      : "The calibrated probability that it is a recording or a render, and was not made by the models that these discriminators know.";
  return el(
    "div",
    { className: "verdict" },
    el("strong", { textContent: figure }),
    el("p", { className: "hint", textContent: `${meaning} Judged by “${model}”.` }),
  );
}

function percent(part) {
  if (part > 0 && part < 0.01) return "Below 1 %";
  return part > 0.99 && part < 1 ? "Above 99 %" : `${Math.round(100 * part)} %`;
}

onScheme(() => last && place.childElementCount && show());
dropZone($("#analyse-drop"), $("#analyse-file"), analyse);
