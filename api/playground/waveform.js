/** A clip's peaks, drawn while it is made as wavesurfer.js draws them afterwards. */

import { themed } from "./dom.js";

const BUCKETS = 600;
export const BAR = { barWidth: 3, barGap: 2, barRadius: 2 };
const QUIETEST = 0.05; // a scale for what is almost silent, so that noise does not fill the height

export class Waveform {
  #canvas;
  #peaks = new Float32Array(BUCKETS);
  #length = 1;
  #come = 0;
  #drawn = "";

  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** Begins a clip of so many samples. */
  begin(length) {
    this.#length = length;
    this.#come = 0;
    this.#peaks.fill(0);
  }

  /** Takes the next samples of one channel. */
  add(samples) {
    for (let i = 0; i < samples.length; i++) {
      const bucket = Math.min(Math.floor(((this.#come + i) / this.#length) * BUCKETS), BUCKETS - 1);
      this.#peaks[bucket] = Math.max(this.#peaks[bucket], Math.abs(samples[i]));
    }
    this.#come += samples.length;
  }

  /** The peaks, from 0 to 1; the loudest is 1. */
  get peaks() {
    const loudest = this.#peaks.reduce((most, one) => Math.max(most, one), QUIETEST);
    return this.#peaks.map((one) => one / loudest);
  }

  /** Draws what has come; what was heard, a part from 0 to 1, is accentuated. */
  draw(heard) {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const step = BAR.barWidth + BAR.barGap;
    const bars = Math.floor(width / step);
    const [accent, wave] = [themed("--accent"), themed("--wave")];
    const wanted = [width, height, this.#come, Math.ceil(heard * bars), accent].join();
    if (wanted === this.#drawn) return; // it is asked for with every frame
    this.#drawn = wanted;
    const scale = devicePixelRatio;
    Object.assign(this.#canvas, { width: width * scale, height: height * scale });
    const context = this.#canvas.getContext("2d");
    context.scale(scale, scale);
    const peaks = this.peaks;
    const come = (this.#come / this.#length) * bars;
    for (let bar = 0; bar < bars; bar++) {
      const of = peaks.subarray(
        (bar / bars) * BUCKETS,
        Math.max(((bar + 1) / bars) * BUCKETS, (bar / bars) * BUCKETS + 1),
      );
      const tall = bar < come ? Math.max(Math.max(...of) * height, 2) : 2;
      context.fillStyle = bar < heard * bars ? accent : wave;
      context.beginPath();
      context.roundRect(bar * step, (height - tall) / 2, BAR.barWidth, tall, BAR.barRadius);
      context.fill();
    }
  }
}
