/** The magnitudes of a real signal's spectrum: radix 2, in place, with a Hann window. */

export class Spectrum {
  #size;
  #window;
  #cos;
  #sin;
  #re;
  #im;

  /** `size` is a power of two. */
  constructor(size) {
    this.#size = size;
    const each = (of) => Float32Array.from({ length: size }, (_, i) => of(i));
    this.#window = each((i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
    this.#cos = each((i) => Math.cos((2 * Math.PI * i) / size));
    this.#sin = each((i) => -Math.sin((2 * Math.PI * i) / size));
    this.#re = new Float32Array(size);
    this.#im = new Float32Array(size);
  }

  /** Magnitudes of the bins from 0 Hz to half the rate; a sine of full scale has 1. */
  of(samples) {
    const [n, re, im] = [this.#size, this.#re, this.#im];
    for (let i = 0, j = 0; i < n; i++) {
      re[j] = (samples[i] ?? 0) * this.#window[i];
      im[j] = 0;
      let bit = n >> 1; // j counts with its bits reversed
      while (j & bit) {
        j ^= bit;
        bit >>= 1;
      }
      j |= bit;
    }
    for (let half = 1; half < n; half *= 2) this.#butterflies(half);
    return Float32Array.from({ length: n / 2 }, (_, i) => (4 * Math.hypot(re[i], im[i])) / n);
  }

  #butterflies(half) {
    const [n, re, im] = [this.#size, this.#re, this.#im];
    for (let start = 0; start < n; start += 2 * half) {
      for (let k = 0; k < half; k++) {
        const turn = (k * n) / (2 * half);
        const [a, b] = [start + k, start + k + half];
        const x = re[b] * this.#cos[turn] - im[b] * this.#sin[turn];
        const y = re[b] * this.#sin[turn] + im[b] * this.#cos[turn];
        [re[b], im[b]] = [re[a] - x, im[a] - y];
        [re[a], im[a]] = [re[a] + x, im[a] + y];
      }
    }
  }
}
