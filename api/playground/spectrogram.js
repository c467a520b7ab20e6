/** A clip's spectrogram, drawn while it is made: time to the right, pitch upwards by octaves. */

import { isDark } from "./dom.js";
import { Spectrum } from "./fft.js";

const [COLUMNS, ROWS, SIZE] = [480, 96, 1024];
const [LOWEST_HZ, FLOOR_DB] = [50, -84];
const LIGHT = ["#f1eee8", "#f3c6a4", "#e0703f", "#8a2440", "#22102a"];
const DARK = ["#252120", "#5b1f3f", "#c4472c", "#f6ab63", "#fff2d3"];
const spectrum = new Spectrum(SIZE);

export class Spectrogram {
  #canvas;
  #levels = new Uint8Array(COLUMNS * ROWS);
  #samples = new Float32Array();
  #come = 0;
  #drawn = 0;
  #rows = [];

  constructor(canvas) {
    this.#canvas = Object.assign(canvas, { width: COLUMNS, height: ROWS });
  }

  /** Begins a clip of so many samples of this rate. */
  begin(length, rate) {
    this.#samples = new Float32Array(length);
    [this.#come, this.#drawn] = [0, 0];
    this.#levels.fill(0);
    const octaves = Math.log2(rate / 2 / LOWEST_HZ);
    const bin = (row) => ((LOWEST_HZ * 2 ** ((octaves * row) / ROWS)) / rate) * SIZE;
    this.#rows = Array.from({ length: ROWS }, (_, row) => [
      Math.floor(bin(row)),
      Math.ceil(bin(row + 1)),
    ]);
    this.repaint();
  }

  /** Takes the next samples of one channel, and draws the columns that they complete. */
  add(samples) {
    this.#samples.set(samples.subarray(0, this.#samples.length - this.#come), this.#come);
    this.#come += samples.length;
    const whole = this.#come >= this.#samples.length;
    const first = this.#drawn;
    while (this.#drawn < COLUMNS && (whole || this.#start(this.#drawn) + SIZE <= this.#come))
      this.#measure(this.#drawn++);
    this.#paint(first, this.#drawn);
  }

  /** Draws all of it anew, as in another colour scheme. */
  repaint() {
    this.#paint(0, COLUMNS);
  }

  #start(column) {
    return Math.max(Math.floor(((column + 0.5) / COLUMNS) * this.#samples.length - SIZE / 2), 0);
  }

  #measure(column) {
    const start = this.#start(column);
    const magnitudes = spectrum.of(this.#samples.subarray(start, start + SIZE));
    this.#rows.forEach(([from, to], row) => {
      const loudest = magnitudes
        .subarray(from, Math.max(to, from + 1))
        .reduce((a, b) => Math.max(a, b), 1e-9);
      const level = 1 - (20 * Math.log10(loudest)) / FLOOR_DB;
      this.#levels[column * ROWS + row] = 255 * Math.min(Math.max(level, 0), 1);
    });
  }

  #paint(from, to) {
    if (to <= from) return;
    const colours = palette(isDark() ? DARK : LIGHT);
    const context = this.#canvas.getContext("2d");
    const image = context.createImageData(to - from, ROWS);
    const pixels = new Uint32Array(image.data.buffer);
    for (let column = from; column < to; column++) {
      for (let row = 0; row < ROWS; row++) {
        pixels[(ROWS - 1 - row) * (to - from) + column - from] =
          colours[this.#levels[column * ROWS + row]];
      }
    }
    context.putImageData(image, from, 0);
  }
}

/** 256 colours between the stops, as little-endian RGBA. */
export function palette(stops) {
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (stops.length - 1);
    const [low, part] = [
      Math.min(Math.floor(place), stops.length - 2),
      place - Math.min(Math.floor(place), stops.length - 2),
    ];
    const [r, g, b] = rgb[low].map((one, c) => Math.round(one + (rgb[low + 1][c] - one) * part));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}

/** The colours of the scheme that holds, for other plots. */
export const colours = () => palette(isDark() ? DARK : LIGHT);
