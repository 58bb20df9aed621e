// The form of an operation, made from its JSON schema: main fields first, the rest in folded groups.

import { button, h, makeId, prose } from "./dom.js";
import { TypedError, makeField } from "./fields.js";
import { kindOf, resolve, validate } from "./schema.js";
import { AUDIO_OUT, ENGINE_TITLES, labelOf, mainFields, titleOf } from "./words.js";

const MAIN_COUNT = 4; // fields above the fold of an operation that the page does not know

/** The fields of one object: of a whole request, of a track of a mix, of a step of a pipeline. */
class ObjectEditor {
  /** @param context  root, operation, schemas, watchModels, onchange, references, nested */
  constructor(schema, context) {
    this.schema = schema;
    this.context = context;
    this.editors = new Map();
    const required = new Set(schema.required ?? []);
    for (const [name, property] of Object.entries(schema.properties ?? {})) {
      if (context.leaveOut?.includes(name)) continue;
      this.editors.set(name, this.makeEditor(name, property, required.has(name)));
    }
    this.element = h("div", { class: "fields" }, this.layOut(required));
  }

  makeEditor(name, property, required) {
    const field = resolve(property, this.context.root);
    const kind = kindOf(name, field, this.context.root);
    const context = { ...this.context, required };
    if (kind === "objects") return new ArrayEditor(name, property, context);
    if (kind === "json" && name === "params" && this.schema.properties.operation) return new StepParams(this, context);
    return makeField(name, property, context);
  }

  /** Main fields, then folded groups: other settings, those of one engine each, the format of the result. */
  layOut(required) {
    const names = [...this.editors.keys()];
    const wanted = this.context.nested === "item" ? [] : mainFields(this.context.operation);
    const first = wanted.length ? wanted : names.filter((name) => !AUDIO_OUT.includes(name)).slice(0, MAIN_COUNT);
    const main = [...new Set([...first.filter((name) => this.editors.has(name)), ...names.filter((name) => required.has(name))])];
    const groups = new Map([["More settings", []]]);
    for (const name of names.filter((candidate) => !main.includes(candidate))) {
      const { engines } = this.schema.properties[name];
      const title = AUDIO_OUT.includes(name) ? "Format and delivery" : engines?.length === 1 ? `${ENGINE_TITLES[engines[0]] ?? engines[0]} settings` : "More settings";
      if (!groups.has(title)) groups.set(title, []);
      groups.get(title).push(name);
    }
    const formats = groups.get("Format and delivery");
    groups.delete("Format and delivery");
    if (formats) groups.set("Format and delivery", AUDIO_OUT.filter((name) => formats.includes(name)));
    return [
      main.map((name) => this.editors.get(name).element),
      [...groups].filter(([, members]) => members.length).map(([title, members]) => this.fold(title, members)),
    ];
  }

  fold(title, names) {
    const count = h("span", { class: "fold-count" });
    const body = h("div", { class: "fold-body" }, names.map((name) => this.editors.get(name).element));
    const details = h("details", { class: "fold" }, h("summary", {}, h("span", {}, title), count), body);
    details.names = names;
    details.count = count;
    return details;
  }

  /** Shows how many fields of a folded group are set. */
  countChanges() {
    for (const details of this.element.querySelectorAll(":scope > details.fold")) {
      const set = details.names.filter((name) => safely(() => this.editors.get(name).readChange()) !== undefined).length;
      details.count.textContent = set ? `${set} set` : "";
    }
  }

  /** Hides what `engine` does not take; null shows all. Hidden fields are not sent. */
  showEngine(engine) {
    for (const [name, editor] of this.editors) {
      const { engines } = this.schema.properties[name];
      editor.element.hidden = Boolean(engine && engines && !engines.includes(engine));
    }
    for (const details of this.element.querySelectorAll(":scope > details.fold")) {
      details.hidden = details.names.every((name) => this.editors.get(name).element.hidden);
    }
  }

  /** The values that differ from the defaults. What cannot be read is added to `problems`. */
  read(problems, path = "") {
    const values = {};
    for (const [name, editor] of this.editors) {
      if (editor.element.hidden) continue;
      const here = path ? `${path}.${name}` : name;
      try {
        const value = editor.readItems ? editor.readItems(problems, here) : editor.readChange();
        if (value !== undefined) values[name] = value;
      } catch (error) {
        if (!(error instanceof TypedError)) throw error;
        problems.push({ path: here, problem: error.message, typed: true });
      }
    }
    return values;
  }

  write(values) {
    for (const [name, editor] of this.editors) editor.write(values[name] ?? editor.field?.default ?? undefined);
  }

  /** Shows a problem beside the field that `path` names; false if there is no such field. */
  showProblem([name, ...rest], problem) {
    const editor = this.editors.get(name);
    if (!editor || editor.element.hidden) return null;
    for (let fold = editor.element.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    if (editor.showProblem) return editor.showProblem(rest, problem);
    editor.showError(problem);
    return editor;
  }

  clearProblems() {
    for (const editor of this.editors.values()) (editor.clearProblems ?? editor.showError).call(editor, "");
  }

  remove() {
    for (const editor of this.editors.values()) editor.remove();
  }
}

/** A list of objects, such as the tracks of a mix; items can be added, moved and removed. */
class ArrayEditor {
  constructor(name, schema, context) {
    this.name = name;
    this.context = context;
    this.field = resolve(schema, context.root);
    [this.list] = this.field.variants;
    this.itemSchema = resolve(this.list.items, context.root).variants[0];
    this.label = labelOf(name);
    this.noun = labelOf(name.replace(/s$/, ""));
    this.items = [];
    this.rows = h("div", { class: "items" });
    this.error = h("p", { class: "error", hidden: true });
    this.addButton = button(`Add ${this.noun.toLowerCase()}`, { image: "plus" }, () => {
      this.add();
      this.items.at(-1).element.querySelector("input, select, textarea, button")?.focus();
      context.onchange();
    });
    const help = this.field.description ? h("p", { class: "help" }, prose(this.field.description)) : null;
    this.element = h("fieldset", { class: "array", "data-field": name }, h("legend", {}, this.label), help, this.rows, this.addButton, this.error);
    this.write(undefined);
  }

  add(values) {
    const item = { element: h("fieldset", { class: "item" }) };
    const references = () => this.listReferences(item);
    item.editor = new ObjectEditor(this.itemSchema, { ...this.context, nested: "item", references: this.itemSchema.properties.params ? references : this.context.references });
    const tools = [
      button("Move up", { image: "up", quiet: true }, () => this.move(item, -1)),
      button("Move down", { image: "down", quiet: true }, () => this.move(item, 1)),
      button("Remove", { image: "trash", quiet: true }, () => this.drop(item)),
    ];
    item.legend = h("legend", {});
    item.element.append(item.legend, h("div", { class: "item-tools" }, tools), item.editor.element);
    this.items.push(item);
    this.rows.append(item.element);
    if (values) item.editor.write(values);
    this.number();
    return item;
  }

  /** The outputs of the steps before `item` that an audio field may name. */
  listReferences(item) {
    return this.items.slice(0, this.items.indexOf(item)).flatMap(({ editor }) => {
      const id = editor.editors.get("id")?.read();
      const operation = editor.editors.get("operation")?.read();
      if (!id) return [];
      const stems = operation === "separate" ? ["vocals", "no_vocals", "drums", "bass", "other"].map((stem) => `${id}.stems.${stem}`) : [];
      return [id, ...stems];
    });
  }

  move(item, by) {
    const index = this.items.indexOf(item);
    const target = index + by;
    if (target < 0 || target >= this.items.length) return;
    this.items.splice(index, 1);
    this.items.splice(target, 0, item);
    this.rows.replaceChildren(...this.items.map(({ element }) => element));
    this.number();
    this.context.onchange();
  }

  drop(item) {
    item.editor.remove();
    item.element.remove();
    this.items.splice(this.items.indexOf(item), 1);
    this.number();
    this.context.onchange();
    this.addButton.focus();
  }

  number() {
    this.items.forEach((item, index) => {
      item.legend.textContent = `${this.noun} ${index + 1}`;
      for (const tool of item.element.querySelectorAll(":scope > .item-tools button")) {
        const action = tool.title.split(" ").slice(0, tool.title.startsWith("Move") ? 2 : 1).join(" ");
        tool.title = `${action} ${this.noun.toLowerCase()} ${index + 1}`;
        tool.setAttribute("aria-label", tool.title);
      }
    });
    this.addButton.disabled = this.items.length >= (this.list.maxItems ?? Infinity);
  }

  /** A file field for one more dropped file: of a new item. */
  makeZone() {
    if (this.addButton.disabled) return null;
    return this.add().element.querySelector("[data-drop]")?.zone ?? null;
  }

  readItems(problems, path) {
    const values = this.items.map((item, index) => item.editor.read(problems, `${path}.${index}`));
    return values.length || this.context.required ? values : undefined;
  }

  readChange() {
    return this.readItems([], this.name);
  }

  write(values) {
    for (const item of this.items) item.editor.remove();
    this.items = [];
    this.rows.replaceChildren();
    const least = this.context.required ? (this.list.minItems ?? 1) : 0;
    for (const value of values ?? Array.from({ length: least }, () => undefined)) this.add(value);
    this.number();
  }

  showProblem([key, ...rest], problem) {
    const item = this.items[key] ?? this.items.find(({ editor }) => safely(() => editor.editors.get("id")?.read()) === key);
    if (item && rest.length) return item.editor.showProblem(rest, problem);
    this.error.textContent = `${item ? item.legend.textContent : this.label} ${problem}.`;
    this.error.hidden = false;
    return this;
  }

  clearProblems() {
    this.error.hidden = true;
    for (const item of this.items) item.editor.clearProblems();
  }

  focus() {
    this.addButton.focus();
  }

  remove() {
    for (const item of this.items) item.editor.remove();
  }
}

/** The parameters of a pipeline's step: the form of the operation that the step names. */
class StepParams {
  constructor(owner, context) {
    this.owner = owner;
    this.context = context;
    this.element = h("div", { class: "step-params" });
    this.editor = null;
    this.operation = undefined;
    this.values = {};
    // The operation is a text in the schema, and this control is made before the form is complete.
    queueMicrotask(() => this.watch());
  }

  watch() {
    const field = this.owner.editors.get("operation");
    const names = Object.keys(this.context.schemas).filter((name) => name !== "pipeline");
    const list = h("datalist", { id: makeId("operations") }, names.map((name) => h("option", { value: name }, titleOf(name))));
    field.control.element.setAttribute("list", list.id);
    field.element.append(list);
    field.control.element.addEventListener("input", () => this.update());
    this.update();
  }

  update() {
    const operation = this.owner.editors.get("operation").read();
    const schema = this.context.schemas[operation];
    if (operation === this.operation || !schema) return;
    this.operation = operation;
    this.editor?.remove();
    this.editor = new ObjectEditor(schema, { ...this.context, root: schema, operation, nested: "step", leaveOut: AUDIO_OUT });
    this.element.replaceChildren(this.editor.element);
    this.editor.write(this.values);
  }

  readItems(problems, path) {
    if (!this.editor) return undefined;
    const values = this.editor.read(problems, path);
    const schema = this.context.schemas[this.operation];
    problems.push(...validate(values, schema, schema, path));
    return Object.keys(values).length ? values : undefined;
  }

  readChange() {
    return this.readItems([], "params");
  }

  write(values) {
    this.values = values ?? {};
    this.editor?.write(this.values);
    queueMicrotask(() => this.update());
  }

  showProblem(path, problem) {
    return this.editor?.showProblem(path, problem) ?? null;
  }

  clearProblems() {
    this.editor?.clearProblems();
  }

  remove() {
    this.editor?.remove();
  }
}

/** The whole form of one operation. */
export class Form {
  constructor(operation, schema, { schemas, watchModels, onchange }) {
    this.operation = operation;
    this.schema = schema;
    this.onchange = onchange;
    this.editor = new ObjectEditor(schema, { root: schema, operation, schemas, watchModels, onchange: () => this.changed() });
    this.element = this.editor.element;
  }

  changed() {
    this.editor.countChanges();
    this.onchange();
  }

  /** Waits for uploads that are under way. */
  settle() {
    return Promise.all([...this.element.querySelectorAll("[data-drop]")].map((element) => element.zone.settle()));
  }

  /** {params, problems}: the parameters that differ from the defaults, and what is wrong with them. */
  read() {
    const problems = [];
    const params = this.editor.read(problems);
    const unreadable = new Set(problems.filter((entry) => entry.typed).map((entry) => entry.path));
    const found = validate(params, this.schema, this.schema).filter((entry) => !unreadable.has(entry.path));
    const seen = new Set();
    const all = [...problems, ...found].filter(({ path }) => !seen.has(path) && seen.add(path));
    return { params, problems: all };
  }

  write(params) {
    this.editor.write(params);
    this.editor.countChanges();
  }

  showEngine(engine) {
    this.editor.showEngine(engine);
  }

  /** Shows each problem beside its field and moves the focus to the first; returns those that have no field here. */
  showProblems(problems, { focus = true } = {}) {
    this.editor.clearProblems();
    const shown = problems.map(({ path, problem }) => this.editor.showProblem(path.split("."), problem));
    const first = focus && shown.find(Boolean);
    if (first) {
      first.focus();
      first.element.scrollIntoView({ block: "center" }); // its message must not be below the buttons
    }
    return problems.filter((_, index) => !shown[index]);
  }

  /** A file field for one more dropped file, in a list that can grow. */
  makeZone() {
    for (const editor of this.editor.editors.values()) {
      const zone = editor.makeZone?.();
      if (zone) return zone;
    }
    return null;
  }

  /** The first file field for audio. */
  findAudioZone() {
    return [...this.element.querySelectorAll("[data-drop]")].map((element) => element.zone).find((zone) => zone.audio) ?? null;
  }

  remove() {
    this.editor.remove();
  }
}

function safely(read) {
  try {
    return read();
  } catch (error) {
    if (error instanceof TypedError) return null;
    throw error;
  }
}
