// Plays one result: waveform or spectrogram to click into, keyboard control, zoom.

import { button, h, icon } from "./dom.js";
import { COLOURS, LOWEST_HZ, heightOf, measurePeaks, measureSpectrogram, readPeaks } from "./spectrum.js";
import { formatTime } from "./words.js";

const HEIGHT = 88; // CSS pixels of the picture
const AXIS = 18; // CSS pixels of the time axis below it
const LONGEST_FINE_S = 600; // decoded at full rate up to here, to bound memory
const LONGEST_DRAWN_S = 5400;
const COARSE_RATE = 8000;
const MOST_ZOOM_S = 0.05; // the shortest span that is shown
const TICKS_S = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600];

let playing = null;

/** Decodes files for pictures, one after the other: each takes memory and a processor. */
let decoding = Promise.resolve();

const visible = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) entry.target.player?.prepare();
});

const resized = new ResizeObserver((entries) => {
  for (const entry of entries) entry.target.player?.draw();
});

export class Player {
  /** @param getUrl  function that resolves to the address of the file @param duration  seconds, if known */
  constructor({ name, getUrl, duration, sampleRate }) {
    this.name = name;
    this.getUrl = getUrl;
    this.known = duration;
    this.sampleRate = sampleRate;
    this.view = "waveform";
    this.start = 0;
    this.span = duration || 1;
    this.picture = null;
    this.audio = h("audio", { preload: "none" });
    for (const event of ["play", "pause", "ended", "timeupdate", "seeked", "durationchange"]) this.audio.addEventListener(event, () => this.update(event));
    this.audio.addEventListener("error", () => this.fail());
    this.playButton = button(`Play ${name}`, { image: "play", quiet: true, kind: "play" }, () => this.toggle());
    this.time = h("span", { class: "time" });
    this.canvas = h("canvas", { class: "canvas" });
    this.note = h("span", { class: "canvas-note" }, "");
    this.slider = h("div", { class: "seek", role: "slider", tabindex: "0", "aria-label": `Position in ${name}`, "aria-valuemin": "0", onkeydown: (event) => this.press(event) }, this.canvas, this.note);
    this.slider.addEventListener("pointerdown", (event) => this.point(event));
    this.slider.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.views = ["waveform", "spectrogram"].map((view) => {
      const title = view === "waveform" ? "Waveform" : "Spectrogram";
      return h("button", { type: "button", class: "segment", "aria-pressed": String(view === this.view), "aria-label": `${title} of ${name}`, onclick: () => this.show(view) }, title);
    });
    this.zoomButtons = [
      button(`Zoom out of ${name}`, { image: "minus", quiet: true, kind: "small" }, () => this.zoom(0.5)),
      button(`Zoom in to ${name}`, { image: "plus", quiet: true, kind: "small" }, () => this.zoom(2)),
    ];
    const controls = h("div", { class: "player-controls" }, this.playButton, this.time, h("div", { class: "segments" }, this.views), h("div", { class: "zoom" }, this.zoomButtons));
    this.element = h("div", { class: "player" }, controls, this.slider, this.audio);
    this.element.player = this;
    visible.observe(this.element);
    resized.observe(this.element);
    this.update();
  }

  get duration() {
    const length = this.audio.duration;
    return Number.isFinite(length) && length > 0 ? length : this.known || this.buffer?.duration || 0;
  }

  /** Decodes the file for the pictures, once; called when the player comes into view. */
  prepare() {
    if (this.prepared) return this.prepared;
    visible.unobserve(this.element);
    if (this.known > LONGEST_DRAWN_S) {
      this.note.textContent = "Too long for a picture";
      this.prepared = Promise.resolve();
      return this.prepared;
    }
    this.note.textContent = "Drawing…";
    this.prepared = decoding.then(() => this.decode()).catch(() => (this.note.textContent = "This browser cannot draw this file"));
    decoding = this.prepared;
    return this.prepared;
  }

  async decode() {
    const response = await fetch(await this.getUrl());
    if (!response.ok) throw new Error("The file is gone.");
    const bytes = await response.arrayBuffer();
    const rate = this.known > LONGEST_FINE_S ? COARSE_RATE : Math.min(48000, Math.max(8000, this.sampleRate || 44100));
    this.buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
    this.peaks = measurePeaks(this.buffer);
    this.span = Math.min(this.span, this.duration) === this.known || !this.known ? this.duration : this.span;
    this.note.textContent = "";
    this.picture = null;
    this.update();
  }

  async load() {
    if (!this.audio.src) this.audio.src = await this.getUrl();
  }

  async toggle() {
    if (!this.audio.paused) {
      this.audio.pause();
      return;
    }
    await this.load();
    if (playing && playing !== this) playing.audio.pause();
    playing = this;
    try {
      await this.audio.play();
    } catch (error) {
      if (error.name !== "AbortError") this.fail();
    }
  }

  fail() {
    if (!this.audio.src) return;
    this.note.textContent = "This browser cannot play this file; download it instead";
  }

  async seek(seconds) {
    await this.load();
    if (this.audio.readyState === 0) {
      this.audio.preload = "metadata";
      await new Promise((resolve) => {
        this.audio.addEventListener("loadedmetadata", resolve, { once: true });
        this.audio.addEventListener("error", resolve, { once: true });
        this.audio.load();
      });
    }
    this.audio.currentTime = Math.min(Math.max(0, seconds), this.duration);
    this.update();
  }

  press(event) {
    const step = Math.min(5, Math.max(0.1, this.duration / 20));
    const moves = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step, PageDown: -this.duration / 10, PageUp: this.duration / 10 };
    const actions = { Home: () => this.seek(0), End: () => this.seek(this.duration), " ": () => this.toggle(), "+": () => this.zoom(2), "=": () => this.zoom(2), "-": () => this.zoom(0.5) };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = event.key in moves ? () => this.seek(this.audio.currentTime + moves[event.key]) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  point(event) {
    const seekTo = (clientX) => {
      const box = this.canvas.getBoundingClientRect();
      this.seek(this.start + Math.min(1, Math.max(0, (clientX - box.left) / box.width)) * this.span);
    };
    if (event.button !== 0) return;
    seekTo(event.clientX);
    const follow = (moved) => seekTo(moved.clientX);
    const stop = () => {
      window.removeEventListener("pointermove", follow);
      window.removeEventListener("pointerup", stop);
      window.removeEventListener("pointercancel", stop);
    };
    window.addEventListener("pointermove", follow);
    window.addEventListener("pointerup", stop);
    window.addEventListener("pointercancel", stop);
  }

  /** Control and wheel zoom about the pointer, as in maps; a sideways wheel moves. */
  wheel(event) {
    if (event.ctrlKey) {
      event.preventDefault();
      const box = this.canvas.getBoundingClientRect();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, this.start + ((event.clientX - box.left) / box.width) * this.span);
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) && this.span < this.duration) {
      event.preventDefault();
      this.move(this.start + (event.deltaX / this.canvas.clientWidth) * this.span);
    }
  }

  zoom(factor, centre = this.audio.currentTime) {
    const share = Math.min(1, Math.max(0, (centre - this.start) / this.span));
    this.span = Math.min(this.duration, Math.max(MOST_ZOOM_S, this.span / factor));
    this.move(centre - share * this.span);
  }

  move(start) {
    this.start = Math.min(Math.max(0, start), Math.max(0, this.duration - this.span));
    this.picture = null;
    this.draw();
  }

  show(view) {
    this.view = view;
    this.picture = null;
    for (const [index, name] of ["waveform", "spectrogram"].entries()) this.views[index].setAttribute("aria-pressed", String(name === view));
    this.prepare();
    this.draw();
  }

  update(event) {
    const now = this.audio.currentTime;
    const duration = this.duration;
    const digits = duration < 60 ? 1 : 0;
    this.time.textContent = `${formatTime(now, digits)} / ${formatTime(duration, digits)}`;
    this.slider.setAttribute("aria-valuemax", duration.toFixed(1));
    this.slider.setAttribute("aria-valuenow", now.toFixed(1));
    this.slider.setAttribute("aria-valuetext", `${now.toFixed(1)} of ${duration.toFixed(1)} seconds`);
    if (["play", "pause", "ended"].includes(event)) {
      const label = `${this.audio.paused ? "Play" : "Pause"} ${this.name}`;
      this.playButton.replaceChildren(icon(this.audio.paused ? "play" : "pause"));
      this.playButton.title = label;
      this.playButton.setAttribute("aria-label", label);
      if (event === "play") this.animate();
    }
    if (now > this.start + this.span || now < this.start) this.move(now - this.span * 0.05);
    else this.draw();
  }

  /** Redraws the position at every frame while the sound plays. */
  animate() {
    this.draw();
    if (!this.audio.paused) requestAnimationFrame(() => this.animate());
  }

  draw() {
    const width = this.slider.clientWidth;
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    const columns = Math.round(width * ratio);
    const rows = Math.round((HEIGHT + AXIS) * ratio);
    if (this.canvas.width !== columns || this.canvas.height !== rows) {
      this.canvas.width = columns;
      this.canvas.height = rows;
      this.picture = null;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, columns, rows);
    const style = getComputedStyle(this.element);
    const colour = (name) => style.getPropertyValue(name).trim();
    const now = this.audio.currentTime;
    const x = ((now - this.start) / this.span) * columns;
    if (this.buffer && this.view === "spectrogram") this.drawSpectrogram(context, columns, Math.round(HEIGHT * ratio), ratio);
    else if (this.buffer) this.drawWaveform(context, { columns, height: HEIGHT * ratio, played: x, ratio, colour });
    this.drawAxis(context, { columns, ratio, colour });
    context.fillStyle = this.view === "spectrogram" && this.buffer ? "#ffffff" : colour("--text");
    context.fillRect(Math.round(x), 0, Math.max(1, Math.round(1.5 * ratio)), HEIGHT * ratio);
  }

  drawWaveform(context, { columns, height, played, ratio, colour }) {
    const rate = this.buffer.sampleRate;
    const bar = Math.max(1, Math.round(3 * ratio));
    const gap = Math.max(1, Math.round(ratio));
    const middle = height / 2;
    const scale = (height / 2 - 2 * ratio) / Math.max(0.05, this.loudest ?? (this.loudest = readLoudest(this.peaks)));
    const fine = ((this.span / columns) * bar * rate) < 256;
    const samples = fine ? this.buffer.getChannelData(0) : null;
    for (let left = 0; left < columns; left += bar) {
      const from = (this.start + (left / columns) * this.span) * rate;
      const to = (this.start + ((left + bar) / columns) * this.span) * rate;
      const [low, high] = fine ? readSamples(samples, from, to) : readPeaks(this.peaks, from, to);
      context.fillStyle = left < played ? colour("--accent") : colour("--wave");
      const top = middle - high * scale;
      context.fillRect(left, top, bar - (fine ? 0 : gap), Math.max(ratio, (high - low) * scale));
    }
  }

  drawSpectrogram(context, columns, height, ratio) {
    const key = `${columns}x${height}`;
    if (this.picture?.key !== key) {
      const width = Math.min(columns, 1400);
      const rows = Math.min(height, 176);
      const rate = this.buffer.sampleRate;
      const levels = measureSpectrogram(this.buffer, { start: this.start * rate, end: (this.start + this.span) * rate, width, height: rows });
      const image = new ImageData(width, rows);
      levels.forEach((level, index) => image.data.set([...COLOURS[level], 255], index * 4));
      const canvas = new OffscreenCanvas(width, rows);
      canvas.getContext("2d").putImageData(image, 0, 0);
      this.picture = { key, canvas };
    }
    context.drawImage(this.picture.canvas, 0, 0, columns, height);
    context.font = `${10 * ratio}px ui-sans-serif, system-ui, sans-serif`;
    context.fillStyle = "#ffffff";
    context.strokeStyle = "rgba(0,0,0,0.7)";
    context.lineWidth = 2.5 * ratio;
    context.lineJoin = "round";
    context.textBaseline = "middle";
    for (const hertz of [100, 1000, 10000]) {
      if (hertz <= LOWEST_HZ || hertz * 1.3 > this.buffer.sampleRate / 2) continue;
      const y = Math.max(6 * ratio, heightOf(hertz, this.buffer.sampleRate) * height);
      context.fillRect(0, y, 4 * ratio, ratio);
      context.strokeText(hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`, 7 * ratio, y);
      context.fillText(hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`, 7 * ratio, y);
    }
  }

  drawAxis(context, { columns, ratio, colour }) {
    const wanted = this.span / Math.max(2, columns / ratio / 90);
    const step = TICKS_S.find((tick) => tick >= wanted) ?? TICKS_S.at(-1);
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    context.font = `${11 * ratio}px ui-sans-serif, system-ui, sans-serif`;
    context.fillStyle = colour("--muted");
    context.textBaseline = "bottom";
    for (let tick = Math.ceil(this.start / step - 1e-6) * step; tick <= this.start + this.span; tick += step) {
      const x = ((tick - this.start) / this.span) * columns;
      const text = formatTime(tick, digits);
      const width = context.measureText(text).width;
      if (x + width > columns) break;
      context.fillRect(Math.round(x), (HEIGHT + 1) * ratio, ratio, 4 * ratio);
      context.fillText(text, x + 4 * ratio, (HEIGHT + AXIS) * ratio);
    }
  }

  remove() {
    this.audio.pause();
    this.audio.removeAttribute("src");
    visible.unobserve(this.element);
    resized.unobserve(this.element);
  }
}

function readLoudest(peaks) {
  let loudest = 0;
  for (let block = 0; block < peaks.low.length; block += 1) loudest = Math.max(loudest, peaks.high[block], -peaks.low[block]);
  return Math.min(1, loudest) || 1;
}

function readSamples(samples, from, to) {
  const first = Math.max(0, Math.floor(from));
  const last = Math.min(samples.length, Math.max(first + 1, Math.ceil(to)));
  let low = 0;
  let high = 0;
  for (let index = first; index < last; index += 1) {
    if (samples[index] < low) low = samples[index];
    if (samples[index] > high) high = samples[index];
  }
  return [low, high];
}

/** Draws all players anew, after the colours have changed. */
export function redrawPlayers() {
  for (const element of document.querySelectorAll(".player")) element.player.draw();
}
