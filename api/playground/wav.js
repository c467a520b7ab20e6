/** A 16-bit WAV file that comes in parts, as the server streams it. */

export class GrowingWav {
  /** Of the header, once it has come; `samples` is a channel's length in all. */
  rate = 0;
  channels = 0;
  samples = 0;
  /** Samples a channel that have come. */
  come = 0;
  #parts = [];
  #rest = new Uint8Array();
  #dataAt = 0;

  get seconds() {
    return this.samples / this.rate;
  }

  get isWhole() {
    return this.rate > 0 && this.come === this.samples;
  }

  /** Takes the next bytes; returns the samples in them, an array a channel, or null where none. */
  add(bytes) {
    this.#parts.push(bytes);
    this.#rest = joined([this.#rest, bytes]);
    if (!this.rate && !this.#readHeader()) return null;
    const count = Math.min(
      Math.floor(this.#rest.length / (2 * this.channels)),
      this.samples - this.come,
    );
    if (!count) return null;
    const size = count * 2 * this.channels;
    const made = split(new DataView(this.#rest.buffer, this.#rest.byteOffset, size), this.channels);
    this.#rest = this.#rest.slice(size);
    this.come += count;
    return made;
  }

  /** The file; where it was cut short, its header says how long it is now. */
  blob() {
    const bytes = joined(this.#parts);
    if (!this.isWhole) {
      const view = new DataView(bytes.buffer);
      const size = this.come * 2 * this.channels;
      view.setUint32(4, this.#dataAt + size - 8, true);
      view.setUint32(this.#dataAt - 4, size, true);
      return new Blob([bytes.subarray(0, this.#dataAt + size)], { type: "audio/wav" });
    }
    return new Blob([bytes], { type: "audio/wav" });
  }

  #readHeader() {
    const bytes = this.#rest;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let [at, rate, channels] = [12, 0, 0];
    while (at + 8 <= bytes.length) {
      const name = String.fromCharCode(...bytes.subarray(at, at + 4));
      const size = view.getUint32(at + 4, true);
      if (name === "fmt ")
        [channels, rate] = [view.getUint16(at + 10, true), view.getUint32(at + 12, true)];
      if (name === "data") {
        Object.assign(this, { rate, channels, samples: size / (2 * channels) });
        this.#dataAt = at + 8;
        this.#rest = bytes.slice(this.#dataAt);
        return true;
      }
      at += 8 + size + (size % 2);
    }
    return false;
  }
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function split(view, channels) {
  const count = view.byteLength / (2 * channels);
  const made = Array.from({ length: channels }, () => new Float32Array(count));
  for (let i = 0; i < count * channels; i++) {
    made[i % channels][Math.floor(i / channels)] = view.getInt16(2 * i, true) / 32768;
  }
  return made;
}

/** One channel: the mean of all. */
export function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map(
    (_, i) => channels.reduce((sum, one) => sum + one[i], 0) / channels.length,
  );
}
