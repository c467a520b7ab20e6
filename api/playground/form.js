/** The form: what it says, and what of it the configured models can do. */

import { $, el } from "./dom.js";

const NUMBERS = ["duration", "n", "temperature", "guidance_scale", "top_k", "top_p"];
const TEXTS = ["prompt", "model", "decoder", "format", "normalize"];
const LARGEST_SEED = 2n ** 53n - 1n; // of a number that JSON brings over whole
const EXAMPLES = {
  music: ["calm piano", "fast drums", "slow waltz with bells"],
  sound: ["rain on a roof", "footsteps on gravel", "thunder"],
};

const form = $("#compose");
const field = (name) => form.elements[name];
let [models, limits] = [[], null];

/** What is asked for, or null where a field is wrong: it says so, and has the focus. */
export function settings() {
  forgive();
  const checks = ["prompt", ...NUMBERS].map((name) => [name, field(name).validationMessage]);
  if (field("prompt").value && !field("prompt").value.trim())
    checks.push(["prompt", "Say what to hear."]);
  if (!seedFits()) checks.push(["seed", `A whole number from 0 to ${LARGEST_SEED}, or nothing.`]);
  const wrong = checks.filter(([, message]) => message);
  for (const [name, message] of wrong) complain(name, message);
  if (wrong.length) {
    reveal(field(wrong[0][0]));
    return null;
  }
  const seed = field("seed").value;
  return {
    ...Object.fromEntries(TEXTS.map((name) => [name, field(name).value])),
    ...Object.fromEntries(NUMBERS.map((name) => [name, Number(field(name).value)])),
    seed: seed === "" ? null : Number(seed),
    include_prompt: field("include_prompt").checked,
  };
}

/** Puts settings into the form, as of a clip that was made before. */
export function fill(settings) {
  forgive();
  for (const name of [...TEXTS, ...NUMBERS, "seed"]) field(name).value = settings[name] ?? "";
  if (!field("model").value) field("model").selectedIndex = 0; // the server has it no more
  field("include_prompt").checked = settings.include_prompt;
  fit();
}

/** Shows what the server says of a field. False where the form has no such field. */
export function complain(name, message) {
  const place = $(`#${name}-wrong`);
  if (!place) return false;
  place.textContent = message;
  field(name).ariaInvalid = "true";
  return true;
}

/** Moves the focus to a field, wherever it is folded away. */
export function reveal(of) {
  const folded = of.closest("details");
  if (folded) folded.open = true;
  of.focus();
}

function forgive() {
  for (const place of form.querySelectorAll(".wrong")) place.textContent = "";
  for (const one of form.querySelectorAll("[aria-invalid]")) one.removeAttribute("aria-invalid");
}

function seedFits() {
  const seed = field("seed").value;
  return seed === "" || (/^\d+$/.test(seed) && BigInt(seed) <= LARGEST_SEED);
}

/** Offers what these models can do, within these limits. */
export function offer(theseModels, theseLimits) {
  [models, limits] = [theseModels, theseLimits];
  const chosen = field("model").value;
  const offered = models.filter((model) => model.role);
  field("model").replaceChildren(
    ...offered.map(({ id }) => el("option", { value: id, textContent: id })),
  );
  if (offered.some(({ id }) => id === chosen)) field("model").value = chosen;
  offerFormats();
  field("duration").max = limits.max_duration_s;
  if (Number(field("duration").value) > limits.max_duration_s)
    field("duration").value = limits.max_duration_s;
  field("n").max = limits.max_clips;
  $("#generate").disabled = !offered.length;
  fit();
}

/** Offers the server's formats that this browser can play. */
function offerFormats() {
  const [audio, chosen] = [document.createElement("audio"), field("format").value];
  const playable = Object.entries(limits.formats).filter(([, { media_type: type }]) =>
    audio.canPlayType(type),
  );
  field("format").replaceChildren(
    ...playable.map(([value, { title }]) => el("option", { value, textContent: title })),
  );
  if (playable.some(([value]) => value === chosen)) field("format").value = chosen;
}

/** The media type of a format's file. */
export const mediaType = (format) => limits.formats[format].media_type;

/** The first model of a kind, or undefined. */
export const ofKind = (kind) => models.find((model) => model.kind === kind);

const chosenModel = () => models.find(({ id }) => id === field("model").value);

/** Fits the controls to the chosen model; what it cannot do is disabled, with the reason. */
function fit() {
  const model = chosenModel();
  $("#model-hint").textContent = model
    ? describe(model)
    : "No model of kind musicgen or audiogen is configured on this server.";
  if (!model) return;
  fitMelody(model);
  fitDecoder(model);
  const examples = EXAMPLES[model.role].map((text) =>
    el("button", { type: "button", textContent: text }),
  );
  for (const one of examples)
    one.addEventListener("click", () => Object.assign(field("prompt"), { value: one.textContent }));
  $("#examples").replaceChildren(...examples);
}

function describe({ role, license }) {
  const what = role === "music" ? "Makes music" : "Makes sounds";
  return license ? `${what}. Its weights' licence: ${license}.` : `${what}.`;
}

function fitMelody(model) {
  const others = models.filter((one) => one.melody).map((one) => one.id);
  const instead = others.length ? `choose ${others.join(" or ")}.` : "no configured model does.";
  const reasons = new Map([
    [true, ""],
    [false, `The model “${model.id}” does not follow melodies; ${instead}`],
    [null, "Whether it follows melodies is not known now; the model may be asleep."],
  ]);
  $("#melody-hint").textContent = reasons.get(model.melody);
  $("#melody").disabled = model.melody === false;
  if ($("#melody").disabled && $("#melody").checked) field("use").value = "continue";
  fitUse();
}

function fitUse() {
  $("#include-prompt").hidden = field("use").value !== "continue";
}

function fitDecoder(model) {
  const can = models.some((one) => one.kind === "mbd" && one.codec === model.codec);
  for (const option of field("decoder").querySelectorAll("[data-needs]")) option.disabled = !can;
  if (!can) field("decoder").value = "encodec";
  $("#decoder-reason").textContent = can
    ? ""
    : `Diffusion needs a model of kind mbd for the codec “${model.codec}”; none is configured.`;
}

field("model").addEventListener("change", fit);
for (const one of field("use")) one.addEventListener("change", fitUse);
