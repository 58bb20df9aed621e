// A field that takes a file: choose it, drop it, take a result of an earlier job, or name a URL or a path on the worker's volume.

import { upload } from "./api.js";
import { button, h, icon, makeId, notify } from "./dom.js";
import { formatBytes } from "./words.js";

/** What the page knows of results and open zones; app.js fills `listResults`. */
export const sources = {
  /** The outputs that can be used as inputs: [{key, label, kind, load() -> Promise<{id, name, size}>}] */
  listResults: () => [],
};

/** Every file field of the page, so that a file dropped beside them finds one. */
const zones = new Set();

export class FileField {
  /** @param options.audio  whether the field takes audio, else any file
   *  @param options.references  function that lists references to earlier steps of a pipeline, or undefined */
  constructor({ label, labelId, describedBy, audio, references, onchange }) {
    this.label = label;
    this.audio = audio;
    this.onchange = onchange;
    this.references = references;
    this.file = null; // {id, name, size} once it is uploaded
    this.uploading = null;
    const id = makeId("file");
    this.control = h("input", { type: "file", class: "visually-hidden", tabindex: "-1", "aria-hidden": "true", accept: audio ? "audio/*,.flac,.opus,.ogg,.m4a,.aiff,.aif,.webm" : undefined, onchange: () => this.choose(this.control.files[0]) });
    this.chooseButton = button("Choose a file", { image: "upload", id, "aria-describedby": describedBy, "aria-label": `Choose a file for ${label}` }, () => this.control.click());
    this.resultSelect = h("select", { "aria-label": `Use a result as ${label}`, class: "result-select", onchange: () => this.useSelected(), onfocus: () => this.fillResults(), onpointerdown: () => this.fillResults() });
    this.text = h("input", { type: "text", id: makeId("address"), class: "address", placeholder: "or a URL, or a path on the volume", "aria-label": `${label}: URL or path on the volume`, "aria-describedby": describedBy, spellcheck: "false", autocomplete: "off", oninput: () => this.onchange() });
    this.empty = h("div", { class: "drop-empty" }, h("p", { class: "drop-hint" }, "Drop a file here, or"), h("div", { class: "drop-buttons" }, this.chooseButton, this.resultSelect), this.text, this.control);
    this.filled = h("div", { class: "drop-filled", hidden: true });
    this.element = h("div", { class: "drop", role: "group", "aria-labelledby": labelId, "data-drop": "" }, this.empty, this.filled);
    this.element.addEventListener("dragover", (event) => this.markDrag(event, true));
    this.element.addEventListener("dragleave", (event) => this.markDrag(event, false));
    this.element.addEventListener("drop", (event) => this.drop(event));
    this.element.zone = this;
    this.focusTarget = this.chooseButton;
    zones.add(this);
    this.fillResults();
  }

  remove() {
    zones.delete(this);
  }

  isEmpty() {
    return !this.file && !this.uploading && !this.text.value.trim();
  }

  read() {
    if (this.file) return { $file: this.file.id, name: this.file.name };
    return this.text.value.trim() || undefined;
  }

  write(value) {
    if (value === undefined || value === null) {
      this.clear();
    } else if (value.$file) {
      this.setFile({ id: value.$file, name: value.name ?? "file", size: value.size });
    } else {
      this.clear();
      this.text.value = value;
    }
  }

  /** Waits for an upload that is under way. */
  async settle() {
    await this.uploading?.catch(() => {});
  }

  markDrag(event, on) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    this.element.classList.toggle("dragged", on);
  }

  drop(event) {
    const file = event.dataTransfer?.files[0];
    if (!file) return;
    event.preventDefault();
    event.stopPropagation();
    document.body.classList.remove("dragging");
    this.element.classList.remove("dragged");
    this.choose(file);
  }

  choose(file) {
    if (file) this.start(file.name, (options) => upload(file, file.name, options), file.size);
  }

  /** Lists results in the select; called when it is opened, because results come at any time. */
  fillResults() {
    const results = sources.listResults().filter((result) => !this.audio || result.kind === "audio");
    const references = this.references?.() ?? [];
    const options = [h("option", { value: "" }, results.length || references.length ? "Use a result…" : "No results yet")];
    if (references.length) options.push(h("optgroup", { label: "Earlier steps" }, references.map((name) => h("option", { value: `$${name}` }, `$${name}`))));
    options.push(...results.map((result) => h("option", { value: result.key }, result.label)));
    this.resultSelect.replaceChildren(...options);
    this.resultSelect.disabled = options.length === 1;
  }

  useSelected() {
    const key = this.resultSelect.value;
    if (key.startsWith("$")) {
      this.text.value = key;
      this.onchange();
      return;
    }
    const result = sources.listResults().find((candidate) => candidate.key === key);
    if (result) this.use(result);
  }

  /** Takes a result of an earlier job. */
  use(result) {
    this.start(result.name, () => result.load(), result.size);
  }

  start(name, load, size) {
    const stop = new AbortController();
    this.stop?.abort();
    this.stop = stop;
    const bar = h("progress", { max: 1, value: 0, "aria-label": `Upload of ${name}` });
    this.showFilled(name, size, bar);
    this.uploading = load({ signal: stop.signal, onProgress: (share) => (bar.value = share) })
      .then((file) => {
        if (stop.signal.aborted) return;
        this.uploading = null;
        this.setFile(file);
        this.onchange();
      })
      .catch((error) => {
        if (error.name === "AbortError" || stop.signal.aborted) return;
        this.clear();
        notify(error.message);
      });
  }

  setFile(file) {
    this.file = file;
    this.text.value = "";
    this.showFilled(file.name, file.size);
  }

  showFilled(name, size, bar) {
    const remove = button(`Remove ${name}`, { image: "close", quiet: true }, () => {
      this.clear();
      this.onchange();
      this.chooseButton.focus();
    });
    this.filled.replaceChildren(icon("check"), h("span", { class: "file-name" }, name), h("span", { class: "file-size" }, size === undefined ? "" : formatBytes(size)), bar ?? "", remove);
    this.filled.hidden = false;
    this.empty.hidden = true;
    this.element.classList.toggle("busy", Boolean(bar));
  }

  /** Forgets the file. An upload stays with the server until it ends: an earlier request may refer to it. */
  clear() {
    this.stop?.abort();
    this.uploading = null;
    this.file = null;
    this.text.value = "";
    this.control.value = "";
    this.filled.hidden = true;
    this.filled.replaceChildren();
    this.empty.hidden = false;
    this.element.classList.remove("busy");
  }
}

/** Lets files be dropped anywhere: they go to the first empty file fields, or to `onExtra` if there are none left. */
export function acceptDrops(onExtra) {
  let depth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  window.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    document.body.classList.add("dragging");
  });
  window.addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    if (!depth) document.body.classList.remove("dragging");
  });
  window.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  window.addEventListener("drop", (event) => {
    depth = 0;
    document.body.classList.remove("dragging");
    if (!hasFiles(event)) return;
    event.preventDefault();
    for (const file of event.dataTransfer.files) {
      const zone = findEmptyZone() ?? onExtra();
      if (!zone) {
        notify("This operation has no free field for a file. Choose another operation, or drop the file on the field that it is to replace.");
        return;
      }
      zone.element.closest("details")?.setAttribute("open", "");
      zone.choose(file);
    }
  });
}

/** The first empty file field on the page: visible ones before those in folded groups. */
export function findEmptyZone() {
  const inPage = [...document.querySelectorAll("[data-drop]")].map((element) => element.zone);
  const empty = inPage.filter((zone) => zone.isEmpty());
  return empty.find((zone) => zone.element.checkVisibility?.() ?? true) ?? empty[0];
}
