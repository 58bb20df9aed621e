// The jobs of the page: submitted, watched, kept in the history, and shown as cards.

import { ServerGoneError, api, upload } from "./api.js";
import { announce, button, copyText, h, icon, notify } from "./dom.js";
import { history } from "./history.js";
import { Player } from "./player.js";
import { listFacts, listHighlights } from "./reply.js";
import { formatBytes, formatDate, formatSpan, labelOf, titleOf } from "./words.js";
import { makeZip } from "./zip.js";

const POLL_MS = 500;
const SLOW_POLL_MS = 3000; // while the server does not answer
const FINAL = new Set(["done", "failed", "cancelled", "lost"]);
const STATE_WORDS = { sending: "Sending", queued: "In the queue", running: "Running", cancelling: "Cancelling", done: "Done", failed: "Failed", cancelled: "Cancelled", lost: "Lost" };

/** Files that the browser plays; the rest is shown as a picture or only offered for download. */
const AUDIO_FORMATS = new Set(["wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "webm"]);

export class JobList {
  /** @param page  what the server said of itself: run, request_url, needs_key
   *  @param actions.useResult  called with (output source, operation or undefined)
   *  @param actions.reuse  called with a record, to fill the form with its request
   *  @param actions.showRefusal  called with a record whose job failed
   *  @param actions.listTargets  the operations that take a result, by whether it is audio
   *  @param actions.writeRequest  a request as it is sent, with placeholders for its files */
  constructor(element, page, actions) {
    this.element = element;
    this.page = page;
    this.actions = actions;
    this.records = [];
    this.cards = new Map();
    this.timer = 0;
  }

  /** Shows the history, takes up the server's jobs, and those of an earlier run that the platform may still have. */
  async start() {
    this.records = await history.list();
    const { jobs } = await api.listJobs();
    const live = new Map(jobs.map((job) => [job.id, job]));
    for (const record of [...this.records]) {
      const job = live.get(record.id);
      if (job) this.take(record, job);
      else if (!FINAL.has(record.state)) await this.pickUp(record);
    }
    const known = new Set(this.records.map((record) => record.id));
    for (const job of jobs.filter((candidate) => !known.has(candidate.id))) {
      const record = this.makeRecord(job, { operation: job.operation, params: {} }); // of another tab or browser
      this.take(record, job);
      this.records.unshift(record);
    }
    this.render();
    this.watch();
    for (const record of this.records) if (this.isHere(record) && FINAL.has(record.state)) await this.keep(record);
  }

  /** Goes on with a job of an earlier run by its id on the platform; without one it is lost. */
  async pickUp(record) {
    const lose = (why) => Object.assign(record, { state: "lost", error: { message: why } });
    try {
      if (!record.platformId || record.endpoint !== this.page.endpoint) throw new Error("`music-worker ui` was stopped while this job ran. Run it again.");
      const job = await api.resume(record.operation, record.platformId);
      await history.remove(record);
      record.id = job.id;
      record.run = this.page.run;
      this.take(record, job);
    } catch (error) {
      lose(error.message);
    }
    await history.save(record);
  }

  makeRecord(job, request) {
    return { id: job.id, run: this.page.run, endpoint: this.page.endpoint, operation: job.operation, request, createdAt: Date.now(), state: job.state, platformId: job.platform_id };
  }

  /** Sends a request; resolves to its record, or throws what the server said. */
  async submit(operation, params, shown) {
    const job = await api.submit(operation, params);
    const record = this.makeRecord(job, shown);
    this.take(record, job);
    this.add(record);
    await history.save(record);
    announce(`${titleOf(operation)}: sent.`);
    if (FINAL.has(record.state)) await this.finish(record);
    this.watch();
    return record;
  }

  add(record) {
    this.records.unshift(record);
    this.render();
  }

  /** Takes over what the server says of a job. */
  take(record, job) {
    Object.assign(record, { state: job.state, platformId: job.platform_id ?? record.platformId, progress: job.progress, error: job.error, elapsed: job.elapsed_s });
    if (job.result) {
      record.reply = job.result.reply;
      record.warnings = job.result.warnings;
      record.outputs = job.result.files.map((file, index) => ({ ...file, kept: record.outputs?.[index]?.kept ?? false }));
    }
  }

  watch() {
    clearTimeout(this.timer);
    if (this.records.some((record) => !FINAL.has(record.state))) this.timer = setTimeout(() => this.poll(), POLL_MS);
  }

  async poll() {
    let wait = POLL_MS;
    try {
      for (const record of this.records.filter((candidate) => !FINAL.has(candidate.state))) {
        const job = await api.getJob(record.id);
        this.take(record, job);
        this.cards.get(record.id)?.update();
        if (FINAL.has(record.state)) await this.finish(record);
      }
      document.body.classList.remove("offline");
    } catch (error) {
      if (!(error instanceof ServerGoneError)) throw error;
      if (!document.body.classList.contains("offline")) notify(error.message);
      document.body.classList.add("offline");
      wait = SLOW_POLL_MS;
    }
    clearTimeout(this.timer);
    if (this.records.some((record) => !FINAL.has(record.state))) this.timer = setTimeout(() => this.poll(), wait);
  }

  async finish(record) {
    const message = record.error ? `: ${record.error.message}` : "";
    announce(`${titleOf(record.operation)}: ${STATE_WORDS[record.state].toLowerCase()}${message}`);
    await history.save(record);
    if (record.state === "failed") this.actions.showRefusal(record);
    this.render();
    await this.keep(record);
  }

  /** Copies the results into the browser's database. */
  async keep(record) {
    for (const [index, output] of (record.outputs ?? []).entries()) {
      if (output.kept || !output.file) continue;
      const response = await fetch(api.fileUrl(output.file)).catch(() => null);
      if (response?.ok) output.kept = await history.keepFile(record, index, await response.blob());
    }
    await history.save(record);
  }

  async cancel(record) {
    record.state = "cancelling";
    this.cards.get(record.id).update();
    try {
      this.take(record, await api.cancel(record.id));
    } catch (error) {
      notify(error.message);
    }
    this.cards.get(record.id)?.update();
    this.watch();
  }

  async remove(record) {
    const card = this.cards.get(record.id);
    const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
    card.remove();
    this.cards.delete(record.id);
    this.records = this.records.filter((candidate) => candidate !== record);
    await this.forget(record);
    this.render();
    (next?.querySelector?.("h3") ?? document.getElementById("jobs-title")).focus();
  }

  /** Deletes a job here and at the server. */
  async forget(record) {
    await history.remove(record);
    if (this.isHere(record)) await api.removeJob(record.id).catch(() => {}); // the server forgets it at its end anyway
  }

  async clear() {
    for (const record of this.records.filter((candidate) => FINAL.has(candidate.state))) {
      this.cards.get(record.id)?.remove();
      this.cards.delete(record.id);
      await this.forget(record);
    }
    this.records = this.records.filter((record) => !FINAL.has(record.state));
    this.render();
  }

  /** Keeps the cards in the order of the jobs; a card that exists is not built anew, so that its player goes on. */
  render() {
    for (const record of this.records) if (!this.cards.has(record.id)) this.cards.set(record.id, new Card(record, this));
    const wanted = this.records.map((record) => this.cards.get(record.id).element);
    wanted.forEach((element, index) => {
      if (this.element.children[index] !== element) this.element.insertBefore(element, this.element.children[index] ?? null);
    });
    document.getElementById("jobs-empty").hidden = this.records.length > 0;
    document.getElementById("jobs-clear").hidden = !this.records.some((record) => FINAL.has(record.state));
  }

  /** The results that can be used as inputs, the newest first. */
  listSources() {
    const list = (record) => (record.outputs ?? []).map((output, index) => !output.problem && this.makeSource(record, output, index));
    return this.records.flatMap(list).filter(Boolean);
  }

  makeSource(record, output, index) {
    return {
      key: `${record.id}/${index}`,
      name: output.filename,
      size: output.size,
      kind: AUDIO_FORMATS.has(output.format) ? "audio" : "file",
      label: `${titleOf(record.operation)}, ${formatDate(record.createdAt)}: ${output.name}`,
      load: async (options) => {
        if (this.isHere(record)) return { id: output.file, name: output.filename, size: output.size };
        const blob = await history.getFile(record, index);
        if (!blob) throw new Error("This result is no longer kept. Run its job again.");
        return upload(blob, output.filename, options);
      },
    };
  }

  /** Whether the server that runs now has the files of the job. */
  isHere(record) {
    return record.run === this.page.run;
  }

  /** The address of a file: the server's, or that of the browser's own copy. */
  async findUrl(record, output, index) {
    if (this.isHere(record)) return api.fileUrl(output.file);
    const blob = await history.getFile(record, index);
    if (!blob) throw new Error("This result is no longer kept. Run its job again.");
    output.url ??= URL.createObjectURL(blob.slice(0, blob.size, output.media_type));
    return output.url;
  }
}

class Card {
  constructor(record, list) {
    this.record = record;
    this.list = list;
    this.players = [];
    this.status = h("div", { class: "status" });
    this.body = h("div", { class: "card-body" });
    const title = `${titleOf(record.operation)}`;
    this.heading = h("h3", { tabindex: "-1" }, title);
    this.tools = h("div", { class: "card-tools" });
    this.element = h(
      "li",
      { class: "card", "data-job": record.id },
      h("div", { class: "card-head" }, h("div", {}, this.heading, h("p", { class: "summary" }, summarize(record.request))), h("div", { class: "card-side" }, h("time", { datetime: new Date(record.createdAt).toISOString() }, formatDate(record.createdAt)), this.tools)),
      this.status,
      this.body,
    );
    this.update();
  }

  update() {
    const { record } = this;
    this.element.dataset.state = record.state;
    this.showStatus();
    if (!FINAL.has(record.state) || this.complete) return;
    this.complete = true;
    this.showTools();
    this.showResult();
  }

  showStatus() {
    const { state, progress, error } = this.record;
    if (FINAL.has(state)) {
      this.status.replaceChildren(...(state === "done" ? [] : [this.describeEnd(state, error)]));
      return;
    }
    const percent = state === "running" ? progress?.percent : undefined;
    const stage = (state === "running" && progress?.stage && sentence(progress.stage)) || STATE_WORDS[state];
    const left = progress?.remaining_s === null || progress?.remaining_s === undefined ? "" : `, about ${formatSpan(progress.remaining_s)} left`;
    const times = `${formatSpan(this.record.elapsed ?? 0)}${percent === undefined || percent === null ? "" : left}`;
    if (!this.bar) {
      this.bar = h("div", { class: "bar", role: "progressbar", "aria-label": `Progress of ${titleOf(this.record.operation)}`, "aria-valuemin": "0", "aria-valuemax": "100" }, h("div", { class: "bar-fill" }));
      this.stage = h("span", { class: "stage" });
      this.times = h("span", { class: "times" });
      this.cancelButton = button("Cancel", { image: "close", kind: "small", "aria-label": `Cancel ${titleOf(this.record.operation)}` }, () => this.list.cancel(this.record));
      this.status.replaceChildren(h("div", { class: "status-line" }, this.stage, this.times, this.cancelButton), this.bar);
    }
    this.stage.textContent = percent === undefined || percent === null ? stage : `${stage}, ${Math.round(percent)} %`;
    this.times.textContent = times;
    this.cancelButton.disabled = state === "cancelling";
    this.bar.classList.toggle("unknown", percent === undefined || percent === null);
    this.bar.firstChild.style.width = `${percent ?? 0}%`;
    if (percent === undefined || percent === null) this.bar.removeAttribute("aria-valuenow");
    else this.bar.setAttribute("aria-valuenow", String(Math.round(percent)));
    this.bar.setAttribute("aria-valuetext", this.stage.textContent);
  }

  describeEnd(state, error) {
    if (state === "cancelled") return h("p", { class: "end" }, "Cancelled. Nothing was kept.");
    const code = error?.code ? h("code", { class: "error-code" }, error.code) : null;
    const advice = error?.advice ? h("p", { class: "advice" }, error.advice) : null;
    return h("div", { class: "end error-box", role: "alert" }, h("p", {}, icon("warning"), h("span", {}, error?.message ?? "The job did not end with a result."), code), advice);
  }

  showTools() {
    const { record, list } = this;
    const name = titleOf(record.operation);
    const copy = [
      button(`Copy request of ${name} as JSON`, { image: "copy", quiet: true }, () => copyText(JSON.stringify(list.actions.writeRequest(record.request), null, 2), "Request")),
      button(`Use these settings of ${name} again`, { image: "again", quiet: true }, () => list.actions.reuse(record)),
      button(`Remove ${name} from the history`, { image: "trash", quiet: true }, () => list.remove(record)),
    ];
    this.tools.replaceChildren(...copy);
  }

  showResult() {
    const { record } = this;
    const outputs = record.outputs ?? [];
    const warnings = (record.warnings ?? []).map((warning) => h("p", { class: "warning" }, icon("warning"), h("span", {}, warning)));
    const highlights = listHighlights(record.reply ?? {});
    const tiles = highlights.length ? h("dl", { class: "tiles" }, highlights.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value)))) : null;
    const facts = listFacts(record.reply ?? {});
    const details = facts.length ? h("details", { class: "fold facts" }, h("summary", {}, "Details"), h("dl", { class: "fact-list" }, facts.map(([label, value]) => [h("dt", {}, label), h("dd", {}, value)]))) : null;
    const all = outputs.length > 1 ? button("Download all", { image: "download", kind: "small" }, () => this.downloadAll()) : null;
    this.body.replaceChildren(...warnings, tiles ?? "", ...outputs.map((output, index) => this.showOutput(output, index)), all ?? "", details ?? "");
  }

  showOutput(output, index) {
    const { record, list } = this;
    const getUrl = () => list.findUrl(record, output, index);
    const facts = [output.sample_rate && `${output.sample_rate / 1000} kHz`, output.channels && (output.channels === 1 ? "mono" : output.channels === 2 ? "stereo" : `${output.channels} channels`), output.format, output.size !== null && output.size !== undefined && formatBytes(output.size)].filter(Boolean).join(" · ");
    const name = labelOf(output.name);
    const full = `${name} of ${titleOf(record.operation)}, ${formatDate(record.createdAt)}`;
    if (output.problem) {
      const message = h("p", { class: "warning" }, icon("warning"), h("span", {}, output.problem));
      return h("div", { class: "output", role: "group", "aria-label": full }, h("div", { class: "output-title" }, h("strong", {}, name), h("span", { class: "output-facts" }, facts)), message);
    }
    const isAudio = AUDIO_FORMATS.has(output.format);
    const download = h("button", { type: "button", class: "button small", "aria-label": `Download ${full}`, onclick: () => this.download(output, getUrl) }, icon("download"), h("span", {}, "Download"));
    const use = this.makeUseMenu(output, index, full);
    const head = h("div", { class: "output-head" }, h("div", { class: "output-title" }, h("strong", {}, name), h("span", { class: "output-facts" }, facts)), h("div", { class: "output-tools" }, use, download));
    const figure = h("div", { class: "output", role: "group", "aria-label": full }, head);
    if (isAudio) {
      const player = new Player({ name: full, getUrl, duration: output.duration, sampleRate: output.sample_rate });
      this.players.push(player);
      figure.append(player.element);
    } else if (output.format === "png") {
      const image = h("img", { class: "picture", alt: full });
      getUrl().then((url) => (image.src = url), (error) => image.replaceWith(h("p", { class: "help" }, error.message)));
      figure.append(image);
    }
    return figure;
  }

  makeUseMenu(output, index, full) {
    const targets = this.list.actions.listTargets(AUDIO_FORMATS.has(output.format));
    if (!targets.length) return null;
    const select = h("select", { class: "use small", "aria-label": `Use ${full} in another operation` }, h("option", { value: "" }, "Use in…"), targets.map((name) => h("option", { value: name }, titleOf(name))));
    select.addEventListener("change", () => {
      const operation = select.value;
      select.value = "";
      if (operation) this.list.actions.useResult(this.list.makeSource(this.record, output, index), operation);
    });
    return select;
  }

  async download(output, getUrl) {
    try {
      saveAs(await getUrl(), output.filename);
    } catch (error) {
      notify(error.message);
    }
  }

  async downloadAll() {
    const { record, list } = this;
    try {
      const files = [];
      for (const [index, output] of record.outputs.entries()) {
        if (output.problem) continue;
        const response = await fetch(await list.findUrl(record, output, index));
        if (!response.ok) throw new Error(`${output.filename} is gone. Run the job again.`);
        files.push({ name: output.filename, blob: await response.blob() });
      }
      const url = URL.createObjectURL(await makeZip(files));
      saveAs(url, `${record.operation}-${new Date(record.createdAt).toISOString().slice(0, 19).replace(/[:T]/g, "-")}.zip`);
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    } catch (error) {
      notify(error.message);
    }
  }

  remove() {
    for (const player of this.players) player.remove();
    this.element.remove();
  }
}

function saveAs(url, name) {
  const link = h("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
}

/** A line about a request: its text, else its settings. */
function summarize(request) {
  const params = request.params ?? {};
  const text = [params.prompt, params.description, params.lyrics, params.style, params.name].flat().find((value) => typeof value === "string" && value);
  const short = Object.entries(params)
    .filter(([, value]) => ["string", "number", "boolean"].includes(typeof value))
    .map(([name, value]) => `${labelOf(name).toLowerCase()} ${value}`)
    .join(", ");
  const line = [text ?? short, ...listFileNames(params)].filter(Boolean).join(" · ");
  return line.length > 140 ? `${line.slice(0, 139)}…` : line;
}

function listFileNames(value) {
  if (typeof value !== "object" || value === null) return [];
  return value.$file ? [value.name] : Object.values(value).flatMap(listFileNames);
}

/** `parts: separate` -> `Parts: separate`. */
function sentence(stage) {
  const words = stage.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
