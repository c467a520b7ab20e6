/** One clip: its card, which draws and plays it while it is made and once it is whole. */

import { $, clock, copyOf, inSeconds, onScheme, themed } from "./dom.js";
import { Live } from "./live.js";
import { Spectrogram } from "./spectrogram.js";
import WaveSurfer from "./vendor/wavesurfer.js";
import { mono } from "./wav.js";
import { BAR, Waveform } from "./waveform.js";

const DRAWN_AT_HZ = 32000; // what files are decoded at, to be drawn
const HEIGHT = 84; // of the waveform: page.css, and the policy's hash of wavesurfer's style
let sounding = null; // one at a time

export class Clip {
  /** The file, once it is whole. */
  file = null;
  #live = null;
  #player = null;
  #audible = false;
  #seconds = 0;
  #url = null;
  #wave;
  #spectrum;
  #resized = new ResizeObserver(() => this.#draw());
  #closed = new AbortController();

  /** `actions`: {stop(), goOn(file), judge(file), canJudge()}, whose last says why not, or "". */
  constructor({ title, facts, heard }, actions) {
    this.title = title;
    this.facts = facts;
    this.element = copyOf("clip-template");
    this.#part("h3").textContent = title;
    this.#part(".facts").textContent = facts;
    this.#part(".seek").ariaLabel = `Position in ${title}`;
    this.#part("progress").ariaLabel = `Progress of ${title}`;
    this.#wave = new Waveform(this.#part(".peaks"));
    this.#spectrum = new Spectrogram(this.#part(".spectrum"));
    this.#part(".play").addEventListener("click", () => this.#toggle());
    this.#part(".seek").addEventListener("input", (event) =>
      this.#seek(Number(event.target.value)),
    );
    this.#part(".spectrum").addEventListener("click", (event) => this.#seekAt(event));
    this.#part(".peaks").addEventListener("click", (event) => this.#seekAt(event));
    this.#part(".stop").addEventListener("click", () => actions.stop());
    this.#part(".go-on").addEventListener("click", () => actions.goOn(this.file));
    this.#part(".judge").addEventListener("click", () => actions.judge(this.file));
    this.#offerJudging(actions.canJudge());
    onScheme(() => this.#recolour(), this.#closed.signal);
    this.#resized.observe(this.#part(".wave"));
    if (heard) this.#solo();
  }

  /** Takes the next samples of a growing file. */
  grow(channels, wav) {
    if (!this.#live) {
      this.#begin(wav.samples, wav.rate);
      this.#live = new Live(wav.rate, () => this.#settle(0, false));
      this.#live.audible = this.#audible;
      this.#label();
      this.#tick();
    }
    this.#live.add(channels);
    this.#add(mono(channels));
    this.told(wav.come, wav.samples);
  }

  /** Shows how far it is, and of what. */
  told(done, total, stage = "") {
    Object.assign(this.#part("progress"), { value: done / total });
    this.#part(".time").textContent = `${stage} ${Math.round((100 * done) / total)} %`;
  }

  /** Takes the whole file; where it was `heard` and has not grown, it is played. */
  async whole(file) {
    this.file = file;
    this.#url = URL.createObjectURL(file);
    Object.assign(this.#part(".download"), { href: this.#url, download: file.name, hidden: false });
    for (const name of [".go-on", ".judge"]) this.#part(name).hidden = false;
    for (const name of ["progress", ".stop"]) this.#part(name).hidden = true;
    if (this.#live) {
      this.#live.end();
    } else {
      await this.#decode(file);
    }
    Object.assign(this.#part(".seek"), { max: this.#seconds, hidden: !this.#seconds });
    if (!this.#live) await this.#settle(0, this.#audible);
    else if (!this.#audible) await this.#settle(0, false);
    this.#label();
  }

  /** Takes what came before it was stopped: the clip is that long now. */
  async cut(file) {
    this.#live?.stop();
    this.#live = null;
    this.#audible = false;
    await this.whole(file);
    this.#note(`Stopped after ${inSeconds(this.#seconds)}.`);
  }

  /** Says why there is nothing to hear. */
  nothing(reason) {
    for (const name of ["progress", ".stop"]) this.#part(name).hidden = true;
    this.#part(".time").textContent = "";
    this.#note(reason);
  }

  /** Is silent, and lets go of what it holds. */
  close() {
    if (sounding === this) sounding = null;
    this.#closed.abort();
    this.#resized.disconnect();
    this.#live?.stop();
    this.#player?.destroy();
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.element.remove();
  }

  #part(selector) {
    return $(selector, this.element);
  }

  #offerJudging(reason) {
    const button = this.#part(".judge");
    if (reason) Object.assign(button, { disabled: true, title: reason });
  }

  #note(text) {
    Object.assign(this.#part(".note"), { textContent: text, hidden: false });
  }

  #begin(samples, rate) {
    this.#seconds = samples / rate;
    this.#wave.begin(samples);
    this.#spectrum.begin(samples, rate);
    this.#part(".playhead").hidden = false;
    this.#part(".play").disabled = false;
  }

  #add(samples) {
    this.#wave.add(samples);
    this.#spectrum.add(samples);
    this.#draw();
  }

  async #decode(file) {
    try {
      const context = new OfflineAudioContext(1, 1, DRAWN_AT_HZ);
      const buffer = await context.decodeAudioData(await file.arrayBuffer());
      this.#begin(buffer.length, buffer.sampleRate);
      this.#add(
        mono(Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i))),
      );
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      this.#note("This browser cannot play the file's format. Download it, or choose WAV.");
    }
  }

  /** Passes the clip from what played it while it was made to wavesurfer.js. */
  async #settle(at, play) {
    this.#live?.stop();
    this.#live = null;
    if (!this.#seconds || this.#player || this.#closed.signal.aborted) return;
    const [waveColor, progressColor] = [themed("--wave"), themed("--accent")];
    this.#player = WaveSurfer.create({
      container: this.#part(".surfer"),
      url: this.#url,
      peaks: [this.#wave.peaks],
      duration: this.#seconds,
      height: HEIGHT,
      cursorWidth: 0,
      hideScrollbar: true,
      dragToSeek: true,
      waveColor,
      progressColor,
      ...BAR,
    });
    this.#part(".peaks").hidden = true;
    for (const name of ["play", "pause", "finish"]) this.#player.on(name, () => this.#label());
    this.#player.on("timeupdate", (seconds) => this.#at(seconds));
    await new Promise((ready) => this.#player.once("ready", ready));
    this.#player.setTime(at);
    this.#at(at);
    this.#label();
    if (play) await this.#play();
  }

  async #play() {
    this.#solo();
    try {
      await this.#player.play();
    } catch (error) {
      // of a page that nobody has touched yet, such as a restored one
      if (error.name !== "NotAllowedError" && error.name !== "AbortError") throw error;
    }
  }

  #solo() {
    if (sounding && sounding !== this) sounding.#hush();
    sounding = this;
    this.#audible = true;
    if (this.#live) this.#live.audible = true;
  }

  #hush() {
    this.#audible = false;
    this.#player?.pause();
    if (this.#live && this.file) this.#settle(this.#live.position, false);
    else if (this.#live) this.#live.audible = false;
    this.#label();
  }

  #toggle() {
    if (this.#player) {
      if (this.#player.isPlaying()) this.#player.pause();
      else this.#play();
    } else if (this.#audible) this.#hush();
    else this.#solo();
    this.#label();
  }

  async #seek(seconds) {
    if (!this.file) return;
    if (this.#live) await this.#settle(seconds, this.#audible);
    else this.#player?.setTime(seconds);
  }

  #seekAt(event) {
    const { left, width } = event.currentTarget.getBoundingClientRect();
    this.#seek(((event.clientX - left) / width) * this.#seconds);
  }

  #label() {
    const button = this.#part(".play");
    const playing = this.#player ? this.#player.isPlaying() : this.#audible;
    const [on, off] = this.file ? ["Pause", "Play"] : ["Mute", "Listen"];
    button.textContent = playing ? on : off;
    button.ariaLabel = `${button.textContent} ${this.title}`;
  }

  #tick() {
    if (!this.#live) return;
    this.#at(this.#live.position);
    this.#draw();
    requestAnimationFrame(() => this.#tick());
  }

  #at(seconds) {
    this.#part(".playhead").style.left = `${(100 * seconds) / this.#seconds}%`;
    const seek = this.#part(".seek");
    seek.value = seconds;
    if (this.file) this.#part(".time").textContent = `${clock(seconds)} / ${clock(this.#seconds)}`;
    const told = `${inSeconds(seconds)} of ${inSeconds(this.#seconds)}`;
    if (seek.ariaValueText !== told) seek.ariaValueText = told;
  }

  #draw() {
    if (!this.#player) this.#wave.draw(this.#live ? this.#live.position / this.#seconds : 0);
  }

  #recolour() {
    this.#spectrum.repaint();
    this.#player?.setOptions({ waveColor: themed("--wave"), progressColor: themed("--accent") });
    this.#draw();
  }
}
