// The page: chooses an operation, shows its form, sends requests, shows the jobs.

import { api } from "./api.js";
import { announce, button, copyText, h, icon, notify, prose } from "./dom.js";
import { Form } from "./form.js";
import { acceptDrops, sources } from "./inputs.js";
import { JobList } from "./jobs.js";
import { redrawPlayers } from "./player.js";
import { formatBytes, groupOperations, modelLists, titleOf } from "./words.js";
import { isFile, resolve } from "./schema.js";

const CONNECT_POLL_MS = 700;
const CONNECT_AGAIN_MS = 5000; // a worker that is being started
const THEMES = [
  ["system", "screen", "Colours as in the system"],
  ["light", "sun", "Light colours"],
  ["dark", "moon", "Dark colours"],
];

const page = await api.getPage();
const drafts = new Map();
const subscribers = new Set(); // of the worker's models
let worker = { state: "connecting" };
let schemas = page.schemas;
let form = null;
let sending = false;

const jobs = new JobList(document.getElementById("jobs"), page, {
  useResult: (source, operation) => {
    choose(operation);
    const zone = [...form.element.querySelectorAll("[data-drop]")].map((element) => element.zone).find((candidate) => candidate.isEmpty() && (source.kind !== "audio" || candidate.audio)) ?? form.makeZone() ?? form.findAudioZone();
    zone?.use(source);
    zone?.element.closest("details")?.setAttribute("open", "");
    document.getElementById("form-title").focus();
    announce(`${source.label} is used in ${titleOf(operation)}.`);
  },
  reuse: (record) => {
    choose(record.operation);
    form.write(record.run === page.run ? (record.request.params ?? {}) : dropFiles(record.request.params ?? {}));
    saveDraft();
    document.getElementById("form-title").focus();
  },
  showRefusal: (record) => {
    const errors = record.error?.details?.errors;
    if (errors && form.operation === record.operation) form.showProblems(errors.map(({ field, problem }) => ({ path: field, problem })), { focus: false });
  },
  listTargets: (isAudio) => Object.keys(schemas).filter((name) => takesFile(name, isAudio)),
  writeRequest: ({ operation, params }) => ({ input: { operation, params: namePlaceholders(params) } }),
});
sources.listResults = () => jobs.listSources();

// --- operations -----------------------------------------------------------------------------------------------------

function takesFile(operation, isAudio) {
  const schema = schemas[operation];
  const objects = [schema, ...Object.values(schema.$defs ?? {})];
  return objects.some((object) => Object.entries(object.properties ?? {}).some(([name, property]) => {
    const field = resolve(property, schema);
    return isFile(name, field) && (isAudio ? /audio$/.test(name) : !/audio$/.test(name));
  }));
}

function showOperations() {
  const groups = groupOperations(Object.keys(schemas));
  const nav = document.getElementById("operations");
  nav.replaceChildren(
    ...groups.map(([title, names]) => {
      const items = names.map((name) => {
        const problem = findProblem(name);
        const link = h("a", { href: `#${name}`, class: "operation", "aria-current": form?.operation === name ? "page" : undefined }, h("span", {}, titleOf(name)));
        if (problem) link.append(h("span", { class: "tag", title: problem }, "off"));
        else if (worker.operations?.[name] === "ready (demo)") link.append(h("span", { class: "tag", title: "Only demo models are on this worker" }, "demo"));
        return h("li", {}, link);
      });
      return h("div", { class: "nav-group" }, h("h2", {}, title), h("ul", {}, items));
    }),
  );
  const select = document.getElementById("operation-select");
  select.replaceChildren(...groups.map(([title, names]) => h("optgroup", { label: title }, names.map((name) => h("option", { value: name }, titleOf(name))))));
  select.value = form?.operation ?? "";
}

/** Why the worker cannot do the operation now, or "". */
function findProblem(operation) {
  const state = worker.operations?.[operation];
  return state === undefined || state.startsWith("ready") ? "" : state;
}

function choose(operation) {
  if (!(operation in schemas)) operation = "generate_music" in schemas ? "generate_music" : Object.keys(schemas)[0];
  if (location.hash !== `#${operation}`) window.history.replaceState(null, "", `#${operation}`);
  if (form?.operation === operation) return;
  form?.remove();
  form = new Form(operation, schemas[operation], { schemas, watchModels, onchange: formChanged });
  document.getElementById("fields").replaceChildren(form.element);
  const draft = drafts.get(operation) ?? readDraft(operation);
  if (draft) form.write(draft);
  document.getElementById("form-title").textContent = titleOf(operation);
  document.getElementById("form-summary").replaceChildren(...prose(schemas[operation].summary ?? ""));
  document.title = `${titleOf(operation)} – Music worker`;
  showSummary([]);
  showOperations();
  showOperationState();
  applyEngine();
}

function showOperationState() {
  const notice = document.getElementById("operation-notice");
  const problem = form ? findProblem(form.operation) : "";
  notice.hidden = !problem;
  notice.replaceChildren(icon("warning"), h("span", {}, `This worker cannot do this at present: ${problem}`));
}

// --- models ---------------------------------------------------------------------------------------------------------

/** What a field that names a model subscribes to; undefined if the field is not one. */
function watchModels(operation, field) {
  const lists = modelLists(operation, field);
  if (!lists) return undefined;
  return {
    subscribe: (fill) => {
      subscribers.add({ lists, fill });
      fill(groupModels(lists));
    },
  };
}

function groupModels(lists) {
  const rows = lists.flatMap(({ list, keep = () => true, prefix = "" }) => (worker.models?.[list] ?? []).filter(keep).map((row) => ({ row, value: prefix + row.name })));
  const label = ({ row, value }) => (row.download_bytes && row.available === "download" ? `${value} (${formatBytes(row.download_bytes)})` : value);
  const select = (test) => rows.filter(({ row }) => test(row)).map((entry) => ({ value: entry.value, label: label(entry) }));
  return [
    ["On the worker", select((row) => row.available === "local" || row.available === undefined)],
    ["Downloaded at first use", select((row) => row.available === "download")],
    ["Not available at present", select((row) => !["local", "download", undefined].includes(row.available))],
  ].filter(([, members]) => members.length);
}

/** Hides the fields of other engines once a model is chosen. */
function applyEngine() {
  if (!form || !Object.values(form.schema.properties).some((property) => property.engines)) return;
  const model = form.editor.editors.get("model")?.read();
  const row = worker.models?.music?.find((candidate) => candidate.name === model);
  form.showEngine(model?.startsWith("suno/") ? "suno" : (row?.family ?? null));
}

// --- the form's request ---------------------------------------------------------------------------------------------

function formChanged() {
  applyEngine();
  showSummary([]);
  saveDraft();
}

function saveDraft() {
  const params = form.read().params;
  drafts.set(form.operation, params);
  try {
    sessionStorage.setItem(`${page.run}:${form.operation}`, JSON.stringify(params));
  } catch {
    // a full store only loses the draft at the next reload
  }
}

function readDraft(operation) {
  const text = sessionStorage.getItem(`${page.run}:${operation}`);
  return text ? JSON.parse(text) : null;
}

async function run() {
  if (sending) return;
  sending = true;
  const runButton = document.getElementById("run");
  runButton.disabled = true;
  try {
    await form.settle();
    const { params, problems } = form.read();
    const elsewhere = form.showProblems(problems);
    showSummary(problems, elsewhere);
    if (problems.length) return;
    await jobs.submit(form.operation, params, { operation: form.operation, params });
    document.getElementById("jobs-title").scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
  } catch (error) {
    const errors = (error.details?.errors ?? []).map(({ field, problem }) => ({ path: field, problem }));
    const elsewhere = form.showProblems(errors);
    showSummary(errors, elsewhere, error);
  } finally {
    sending = false;
    runButton.disabled = false;
  }
}

/** Says above the buttons what is wrong: how many fields, or the message itself. */
function showSummary(problems, elsewhere = [], error = null) {
  const box = document.getElementById("form-errors");
  const lines = [];
  if (error) lines.push(h("p", {}, error.message), error.advice ? h("p", {}, error.advice) : "");
  else if (problems.length) lines.push(h("p", {}, problems.length === 1 ? "One field needs another value." : `${problems.length} fields need other values.`));
  lines.push(...elsewhere.filter(() => !error).map(({ path, problem }) => h("p", {}, `${path} ${problem}.`)));
  box.hidden = lines.length === 0;
  box.replaceChildren(...lines.filter(Boolean));
}

/** The request as it is sent, with a placeholder for each file. */
function writeRequest(params) {
  return { input: { operation: form.operation, params: namePlaceholders(params) } };
}

function namePlaceholders(value) {
  if (Array.isArray(value)) return value.map(namePlaceholders);
  if (typeof value !== "object" || value === null) return value;
  if (value.$file) return `<base64 of ${value.name ?? "the file"}>`;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, namePlaceholders(item)]));
}

function dropFiles(value) {
  if (Array.isArray(value)) return value.map(dropFiles);
  if (typeof value !== "object" || value === null) return value;
  if (value.$file) return undefined;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, dropFiles(item)]).filter(([, item]) => item !== undefined));
}

function writeCurl(request) {
  const body = JSON.stringify(request).replaceAll("'", String.raw`'\''`);
  const key = page.needs_key ? ` -H "Authorization: Bearer $RUNPOD_API_KEY"` : "";
  return `curl -s -X POST ${page.request_url}${key} -H 'Content-Type: application/json' -d '${body}'`;
}

// --- connection -----------------------------------------------------------------------------------------------------

async function connect() {
  for (;;) {
    worker = await api.getWorker().catch((error) => ({ state: "failed", message: error.message }));
    showConnection();
    if (worker.state === "ready") break;
    if (worker.state === "failed" && worker.code !== "connection_failed") break;
    await new Promise((resolve) => setTimeout(resolve, worker.state === "failed" ? CONNECT_AGAIN_MS : CONNECT_POLL_MS));
    if (worker.state === "failed") await api.connect().catch(() => {}); // the next answer says that the server is gone
  }
  if (worker.schemas) takeSchemas(worker.schemas);
  for (const subscriber of subscribers) subscriber.fill(groupModels(subscriber.lists));
  showOperations();
  showOperationState();
  applyEngine();
}

/** Uses the worker's own schemas; the form on the page is made anew only if its schema differs. */
function takeSchemas(found) {
  const before = form && JSON.stringify(schemas[form.operation]);
  schemas = found;
  if (form && JSON.stringify(schemas[form.operation]) !== before) {
    const { operation } = form;
    form.remove();
    form = null;
    choose(operation);
  }
}

function showConnection() {
  const { state } = worker;
  const words = { connecting: "Connecting…", ready: `Connected${worker.device ? ` · ${worker.device}` : ""}`, failed: "Not connected" }[state];
  const pill = document.getElementById("connection");
  pill.dataset.state = state;
  pill.querySelector(".connection-words").textContent = words;
  pill.title = page.endpoint;
  if (state === "connecting") return; // what was said before stays until there is news
  const box = document.getElementById("connection-notice");
  const notes = [...(worker.message ? [worker.message] : []), ...(worker.warnings ?? [])];
  box.hidden = notes.length === 0;
  box.replaceChildren(
    icon("warning"),
    h("div", {}, notes.map((note) => h("p", {}, note))),
    state === "failed" && worker.code !== "connection_failed" ? button("Try again", { image: "again", kind: "small" }, () => api.connect().then(connect, (error) => notify(error.message))) : "",
  );
}

// --- colours --------------------------------------------------------------------------------------------------------

function showTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  for (const control of document.querySelectorAll("#theme button")) control.setAttribute("aria-pressed", String(control.dataset.theme === theme));
  redrawPlayers();
}

function setUpTheme() {
  const group = document.getElementById("theme");
  group.append(
    ...THEMES.map(([theme, image, label]) =>
      h("button", { type: "button", class: "segment", "data-theme": theme, "aria-label": label, title: label, onclick: () => {
        localStorage.setItem("theme", theme);
        showTheme(theme);
      } }, icon(image)),
    ),
  );
  showTheme(localStorage.getItem("theme") ?? "system");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawPlayers);
}

function calm() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

// --- start ----------------------------------------------------------------------------------------------------------

setUpTheme();
document.getElementById("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") run();
});
document.getElementById("form-actions").append(
  button("Reset", {}, () => {
    form.write({});
    form.showProblems([]);
    formChanged();
  }),
  button("Copy JSON", { image: "copy", title: "Copy the request as JSON" }, async () => {
    await form.settle();
    copyText(JSON.stringify(writeRequest(form.read().params), null, 2), "Request");
  }),
  button("Copy cURL", { image: "copy", title: "Copy the request as a command for a terminal" }, async () => {
    await form.settle();
    copyText(writeCurl(writeRequest(form.read().params)), "Command");
  }),
);
document.getElementById("jobs-clear").addEventListener("click", () => {
  if (window.confirm("Remove all finished jobs and what they made from this browser?")) jobs.clear();
});
document.getElementById("operation-select").addEventListener("change", (event) => choose(event.target.value));
window.addEventListener("hashchange", () => choose(location.hash.slice(1)));
acceptDrops(() => form.makeZone());
choose(location.hash.slice(1));
await jobs.start();
document.body.dataset.ready = "";
await connect();
