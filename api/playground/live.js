/** Plays a clip while it is made: each part is scheduled to the sample after the one before. */

const FIRST_S = 0.08; // between a part's coming and its sound: what the page may be late by
const ENOUGH_S = 0.5; // to have in hand before it begins; twice that after each silence
const contexts = new Map();

/** The context of a sample rate. A clip's own, so that nothing is resampled where parts meet. */
function contextOf(rate) {
  if (!contexts.has(rate)) contexts.set(rate, new AudioContext({ sampleRate: rate }));
  return contexts.get(rate);
}

export class Live {
  #context;
  #gain;
  #sources = new Set();
  #waiting = [];
  #heard = []; // {at, from, seconds}: when what was scheduled sounds, and its place in the clip
  #next = 0;
  #come = 0;
  #enough = ENOUGH_S;
  #ended = false;
  #onEnd;

  /** Of a clip of this rate; `onEnd` is called once all of it was heard. */
  constructor(rate, onEnd) {
    this.#context = contextOf(rate);
    this.#context.resume();
    this.#gain = this.#context.createGain();
    this.#gain.connect(this.#context.destination);
    this.#onEnd = onEnd;
  }

  set audible(is) {
    this.#gain.gain.setTargetAtTime(is ? 1 : 0, this.#context.currentTime, 0.01);
  }

  /** Seconds of the clip that were heard. */
  get position() {
    const now = this.#context.currentTime;
    const last = this.#heard.findLast((part) => part.at <= now);
    return last ? last.from + Math.min(now - last.at, last.seconds) : 0;
  }

  /** Takes the next samples, an array a channel. */
  add(channels) {
    const buffer = this.#context.createBuffer(
      channels.length,
      channels[0].length,
      this.#context.sampleRate,
    );
    channels.forEach((samples, i) => buffer.copyToChannel(samples, i));
    this.#waiting.push(buffer);
    const inHand = this.#waiting.reduce((sum, one) => sum + one.duration, 0);
    const late = !this.#heard.length || this.#next < this.#context.currentTime;
    if (late && inHand < this.#enough) return;
    if (late) this.#enough *= 2;
    this.#schedule();
  }

  /** No more will come. */
  end() {
    this.#ended = true;
    this.#schedule();
    if (!this.#sources.size) this.#onEnd();
  }

  /** Is silent from now on, and calls nobody back. */
  stop() {
    this.#onEnd = () => {};
    for (const source of this.#sources) source.stop();
    this.#gain.disconnect();
  }

  #schedule() {
    this.#next = Math.max(this.#next, this.#context.currentTime + FIRST_S);
    for (const buffer of this.#waiting.splice(0)) {
      const source = new AudioBufferSourceNode(this.#context, { buffer });
      source.connect(this.#gain);
      source.start(this.#next);
      source.onended = () =>
        this.#sources.delete(source) && this.#ended && !this.#sources.size && this.#onEnd();
      this.#sources.add(source);
      this.#heard.push({ at: this.#next, from: this.#come, seconds: buffer.duration });
      this.#next += buffer.duration;
      this.#come += buffer.duration;
    }
  }
}
