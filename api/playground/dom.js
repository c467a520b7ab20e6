/** Small helpers for the document. */

/** The first element that fits, within `root`. */
export const $ = (selector, root = document) => root.querySelector(selector);

/** A new element with properties, such as `textContent`, and children. */
export function el(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A new SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A copy of the only element in a `<template>`. */
export const copyOf = (id) => $(`#${id}`).content.firstElementChild.cloneNode(true);

/** The value of a custom property of the theme, such as "--accent". */
export const themed = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const dark = matchMedia("(prefers-color-scheme: dark)");
export const isDark = () => dark.matches;

/** Calls back when the colour scheme changes, until `signal` aborts. */
export const onScheme = (changed, signal) => dark.addEventListener("change", changed, { signal });

/** Seconds as m:ss. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** A number of seconds in words, such as "2.5 s". */
export const inSeconds = (seconds) => `${Number(seconds.toFixed(1))} s`;
