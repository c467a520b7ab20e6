/** One press of Generate: what it asks for, and the clips that come of it. */

import { Clip } from "./clip.js";
import { el, inSeconds } from "./dom.js";
import { mediaType } from "./form.js";
import { ask, bytesOf, events } from "./server.js";
import { GrowingWav } from "./wav.js";

const DECODERS = { encodec: "EnCodec", mbd: "Multi-band diffusion" };
const STAGES = { generate: "Generating", decode: "Decoding" };

/** A seed as the server draws them, where none was given. */
export const drawnSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;

/** Whether a clip can be heard while it is made. */
const isStreamed = ({ format, normalize }, decoder) =>
  format === "wav" && normalize === "none" && decoder === "encodec";

export class Take {
  element = el("div", { className: "take" });
  #settings;
  #source;
  #clips = [];
  #stopped = new AbortController();

  /** Of settings with a seed; `source` is {file, use} or null. */
  constructor(settings, source, actions) {
    this.#settings = settings;
    this.#source = source;
    const decoders = settings.decoder === "both" ? ["encodec", "mbd"] : [settings.decoder];
    for (const decoder of decoders) {
      for (let variation = 0; variation < settings.n; variation++) {
        const title = this.#title(decoder, decoders, variation);
        const facts = [
          settings.model,
          `seed ${settings.seed}`,
          DECODERS[decoder],
          inSeconds(settings.duration),
        ].join(" · ");
        const clip = new Clip({ title, facts, heard: !this.#clips.length }, actions);
        this.#clips.push({ decoder, variation, clip });
        this.element.append(clip.element);
      }
    }
  }

  #title(decoder, decoders, variation) {
    const several = this.#settings.n > 1 ? `Variation ${variation + 1}` : this.#settings.prompt;
    return decoders.length > 1 ? `${DECODERS[decoder]}: ${several}` : several;
  }

  /** Asks for all clips. Throws ServerError, or AbortError once stopped. */
  async run(onFirstSound) {
    const decoders = [...new Set(this.#clips.map((one) => one.decoder))];
    try {
      await Promise.all(decoders.map((decoder) => this.#generate(decoder, onFirstSound)));
    } finally {
      this.stop();
    }
  }

  /** Ends the requests; the server frees their slots. */
  stop() {
    this.#stopped.abort();
  }

  close() {
    this.stop();
    for (const { clip } of this.#clips) clip.close();
    this.element.remove();
  }

  /** What history keeps: the files that came, by their titles. */
  get files() {
    return this.#clips
      .filter(({ clip }) => clip.file)
      .map(({ clip: { title, facts, file } }) => ({ title, facts, file }));
  }

  async #generate(decoder, onFirstSound) {
    const clips = this.#clips.filter((one) => one.decoder === decoder).map((one) => one.clip);
    const wavs = clips.map(() => new GrowingWav());
    const stream = isStreamed(this.#settings, decoder);
    try {
      const asked = {
        method: "POST",
        signal: this.#stopped.signal,
        ...this.#body(decoder, stream),
      };
      for await (const { name, data } of events(await ask("v1/generations", asked))) {
        const clip = clips[data.clip];
        if (name === "progress") clip.told(data.done, data.total, STAGES[data.stage]);
        if (name !== "audio") continue;
        const bytes = bytesOf(data.audio);
        onFirstSound();
        if (stream) await this.#grow(clip, wavs[data.clip], bytes);
        else await clip.whole(this.#file(bytes, clip));
      }
    } finally {
      await Promise.all(clips.map((clip, i) => clip.file || this.#cut(clip, wavs[i])));
    }
  }

  async #grow(clip, wav, bytes) {
    const channels = wav.add(bytes);
    if (channels) clip.grow(channels, wav);
    if (wav.isWhole) await clip.whole(this.#file(wav.blob(), clip));
  }

  async #cut(clip, wav) {
    if (wav.come) await clip.cut(this.#file(wav.blob(), clip));
    else clip.nothing("Stopped before anything was heard.");
  }

  #file(data, clip) {
    const { format, seed } = this.#settings;
    const number = this.#clips.findIndex((one) => one.clip === clip) + 1;
    const name =
      this.#clips.length > 1 ? `clip-${seed}-${number}.${format}` : `clip-${seed}.${format}`;
    return new File([data], name, { type: mediaType(format) });
  }

  /** The request's headers and body: JSON, or a form where a file comes along. */
  #body(decoder, stream) {
    const { include_prompt: includePrompt, ...settings } = this.#settings;
    const fields = { ...settings, decoder, ...(stream && { stream }) };
    const accept = "text/event-stream";
    if (!this.#source) {
      return {
        headers: { accept, "content-type": "application/json" },
        body: JSON.stringify(fields),
      };
    }
    const { file, use } = this.#source;
    if (use === "continue") fields.include_prompt = includePrompt;
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append(use === "continue" ? "continue_from" : "melody", file);
    return { headers: { accept }, body: form };
  }
}
