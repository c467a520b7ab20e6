/** Plots of what the discriminators say. */

import { el, svg } from "./dom.js";
import { colours } from "./spectrogram.js";

const [WIDTH, LINE, NAMES, VALUES] = [320, 26, 92, 44];

/** A figure with a caption and a hint. */
function figure(title, hint, plot) {
  return el(
    "figure",
    {},
    el("figcaption", { textContent: title }, el("span", { className: "hint", textContent: hint })),
    plot,
  );
}

/** Bars from 0 to 1, with a line at the threshold. */
export function scores(rows, threshold) {
  const height = rows.length * LINE + 4;
  const room = WIDTH - NAMES - VALUES;
  const told = rows.map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ");
  const plot = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${height}`,
    role: "img",
    "aria-label": `Scores: ${told}; threshold ${threshold}`,
  });
  rows.forEach(([name, value], i) => {
    const y = i * LINE + 4;
    plot.append(
      svg("text", { x: 0, y: y + 14 }, name),
      svg("rect", { class: "track", x: NAMES, y: y + 3, width: room, height: 14, rx: 4 }),
      svg("rect", {
        class: value > threshold ? "bar" : "below",
        x: NAMES,
        y: y + 3,
        width: Math.max(room * value, 2),
        height: 14,
        rx: 4,
      }),
      svg("text", { x: WIDTH, y: y + 14, "text-anchor": "end" }, value.toFixed(2)),
    );
  });
  const x = NAMES + room * threshold;
  plot.append(svg("line", { class: "mark", x1: x, x2: x, y1: 0, y2: height }));
  return figure("Scores", "Mean sigmoid of each discriminator; the line is the threshold.", plot);
}

/** Bars to both sides of zero, one a sub-discriminator. */
export function logits(groups) {
  const rows = Object.entries(groups).flatMap(([name, values]) =>
    values.map((value, i) => [`${name} ${i + 1}`, value]),
  );
  const height = rows.length * 18 + 4;
  const [room, furthest] = [
    WIDTH - NAMES - VALUES,
    Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-6),
  ];
  const told = rows.map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ");
  const zero = NAMES + room / 2;
  const plot = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${height}`,
    role: "img",
    "aria-label": `Mean logits: ${told}`,
  });
  rows.forEach(([name, value], i) => {
    const length = (Math.abs(value) / furthest) * (room / 2);
    plot.append(
      svg("text", { x: 0, y: i * 18 + 14 }, name),
      svg("rect", {
        class: value > 0 ? "bar" : "below",
        x: value > 0 ? zero : zero - length,
        y: i * 18 + 5,
        width: Math.max(length, 1),
        height: 10,
        rx: 3,
      }),
      svg("text", { x: WIDTH, y: i * 18 + 14, "text-anchor": "end" }, value.toFixed(2)),
    );
  });
  plot.append(svg("line", { class: "axis", x1: zero, x2: zero, y1: 0, y2: height }));
  return figure("Sub-discriminators", "Mean logits; to the right is real.", plot);
}

/** A row a layer, a column a channel; each layer by its own strongest. */
export function featureMaps(layers) {
  const columns = Math.max(...layers.map((layer) => layer.length));
  const plot = el("canvas", { width: columns, height: layers.length });
  plot.role = "img";
  plot.ariaLabel = `Feature maps: ${layers.length} layers of up to ${columns} channels, mean absolute activation`;
  paint(plot, layers, columns);
  return figure("Feature maps", "Mean activation: a row a layer, a column a channel.", plot);
}

function paint(plot, layers, columns) {
  const palette = colours();
  const context = plot.getContext("2d");
  const image = context.createImageData(columns, layers.length);
  const pixels = new Uint32Array(image.data.buffer);
  layers.forEach((layer, y) => {
    const most = Math.max(...layer, 1e-9);
    for (let x = 0; x < columns; x++) {
      // narrow layers are as wide as the others
      pixels[y * columns + x] =
        palette[Math.round((255 * layer[Math.floor((x / columns) * layer.length)]) / most)];
    }
  });
  context.putImageData(image, 0, 0);
}
