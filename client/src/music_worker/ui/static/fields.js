// One control for each kind of field. A field has `element`, `read()`, `write(value)`, `showError(problem)`; an unset field reads as undefined.

import { h, makeId, prose } from "./dom.js";
import { FileField } from "./inputs.js";
import { describeRange, kindOf, listChoices, resolve } from "./schema.js";
import { labelOf } from "./words.js";

const LONG_TEXT = 1000; // characters from which on a field has several lines
const MOST_SLIDER_VALUES = 200;
const OTHER = "\u0000other";

/** Thrown by `read` if what was typed cannot be a value at all. */
export class TypedError extends Error {}

/** The control for `name`. `context` has root (the whole schema), operation, watchModels (function: the models that a field chooses from), onchange, references. */
export function makeField(name, schema, { required, ...context }) {
  const field = resolve(schema, context.root);
  const kind = kindOf(name, field, context.root);
  return new Field({ name, schema, field, kind, required, context });
}

class Field {
  constructor({ name, schema, field, kind, required, context }) {
    Object.assign(this, { name, schema, field, kind, required });
    this.id = makeId(name);
    this.errorId = `${this.id}-error`;
    this.helpId = `${this.id}-help`;
    this.label = labelOf(name);
    this.changed = () => {
      this.showError("");
      context.onchange();
    };
    const models = kind === "text" ? context.watchModels?.(context.operation, name) : undefined;
    this.control = models ? new ModelControl(this, models) : CONTROLS[kind](this, context);
    this.error = h("p", { class: "error", id: this.errorId, hidden: true });
    this.element = this.layOut();
    this.write(this.startValue());
  }

  /** The attributes that tie a control to its label, help and error. */
  attributes() {
    const described = [this.field.description ? this.helpId : "", this.errorId].filter(Boolean).join(" ");
    return { id: this.id, "aria-describedby": described, "aria-required": this.required ? "true" : undefined };
  }

  layOut() {
    const help = this.field.description ? h("p", { class: "help", id: this.helpId }, prose(this.field.description)) : null;
    const note = this.required ? h("span", { class: "required" }, "required") : h("span", { class: "range" }, describeRange(this.field));
    if (this.kind === "boolean") {
      const label = h("label", { for: this.id, class: "switch-label" }, this.control.element, h("span", {}, this.label));
      return h("div", { class: "field switch-field", "data-field": this.name }, label, help, this.error);
    }
    const grouped = ["file", "choices"].includes(this.kind);
    const label = grouped ? h("span", { class: "label", id: `${this.id}-label` }, this.label) : h("label", { for: this.id, class: "label" }, this.label);
    return h("div", { class: "field", "data-field": this.name, "data-kind": this.kind }, h("div", { class: "field-head" }, label, note), this.control.element, help, this.error);
  }

  startValue() {
    return this.field.default ?? undefined;
  }

  read() {
    return this.control.read();
  }

  write(value) {
    this.control.write(value);
  }

  /** The value if it is to be sent: undefined if it is the default. */
  readChange() {
    const value = this.read();
    return JSON.stringify(value) === JSON.stringify(this.startValue()) ? undefined : value;
  }

  showError(problem) {
    const target = this.control.focusTarget ?? this.control.element;
    this.error.textContent = problem ? `${this.label} ${problem}.`.replace(/\.\.$/, ".") : "";
    this.error.hidden = !problem;
    this.element.classList.toggle("invalid", Boolean(problem));
    if (problem) target.setAttribute("aria-invalid", "true");
    else target.removeAttribute("aria-invalid");
  }

  focus() {
    (this.control.focusTarget ?? this.control.element).focus();
  }

  remove() {
    this.control.remove?.();
  }
}

const CONTROLS = {
  file: (field, context) =>
    new FileField({
      label: field.label,
      labelId: `${field.id}-label`,
      describedBy: field.attributes()["aria-describedby"],
      audio: field.field.input !== "file" && !/^(archive|checkpoint|index)$|codes$/.test(field.name),
      references: context.references,
      onchange: field.changed,
    }),
  boolean: (field) => {
    const box = h("input", { type: "checkbox", role: "switch", class: "switch", ...field.attributes(), onchange: field.changed });
    return { element: box, read: () => box.checked, write: (value) => (box.checked = Boolean(value)) };
  },
  choice: (field) => {
    const values = listChoices(field.field);
    const optional = field.startValue() === undefined;
    const select = h(
      "select",
      { ...field.attributes(), onchange: field.changed },
      optional ? h("option", { value: "" }, field.required ? "Choose…" : "Default") : null,
      values.map((value, index) => h("option", { value: String(index) }, { true: "yes", false: "no" }[value] ?? String(value))),
    );
    return {
      element: select,
      read: () => (select.value === "" ? undefined : values[Number(select.value)]),
      write: (value) => (select.value = value === undefined ? "" : String(values.indexOf(value))),
    };
  },
  choices: (field, context) => {
    const item = resolve(field.field.variants[0].items, context.root);
    const boxes = listChoices(item).map((value) => {
      const box = h("input", { type: "checkbox", value, onchange: field.changed });
      return { value, box, label: h("label", { class: "chip" }, box, h("span", {}, labelOf(String(value)))) };
    });
    const element = h("div", { class: "chips", role: "group", "aria-labelledby": `${field.id}-label`, "aria-describedby": field.attributes()["aria-describedby"] }, boxes.map(({ label }) => label));
    const read = () => boxes.filter(({ box }) => box.checked).map(({ value }) => value);
    return {
      element,
      focusTarget: boxes[0]?.box,
      read: () => (read().length ? read() : undefined),
      write: (values) => boxes.forEach(({ box, value }) => (box.checked = Boolean(values?.includes(value)))),
    };
  },
  number: (field) => new NumberControl(field),
  text: (field) => {
    const [schema] = field.field.variants;
    const many = (schema.maxLength ?? 0) >= LONG_TEXT;
    const box = many ? h("textarea", { rows: 3, ...field.attributes(), oninput: field.changed }) : h("input", { type: "text", autocomplete: "off", ...field.attributes(), oninput: field.changed });
    const read = () => (box.value.trim() === "" && field.startValue() !== "" ? undefined : box.value);
    return { element: box, read, write: (value) => (box.value = value ?? "") };
  },
  list: (field, context) => {
    const item = resolve(field.field.variants[0].items, context.root).variants[0];
    const box = h("input", { type: "text", autocomplete: "off", placeholder: "Several, separated by commas", ...field.attributes(), oninput: field.changed });
    const read = () => {
      const parts = splitList(box.value);
      return parts.length ? parts.map((part) => (item.type === "string" ? part : readNumber(part))) : undefined;
    };
    return { element: box, read, write: (values) => (box.value = (values ?? []).join(", ")) };
  },
  mixed: (field) => new MixedControl(field),
  json: (field) => {
    const box = h("textarea", { rows: 4, class: "code", spellcheck: "false", placeholder: "JSON", ...field.attributes(), oninput: field.changed });
    const read = () => (box.value.trim() ? readJson(box.value) : undefined);
    return { element: box, read, write: (value) => (box.value = value === undefined ? "" : JSON.stringify(value, null, 1)) };
  },
};
CONTROLS.object = CONTROLS.json; // objects with fields of their own are form.js's
CONTROLS.objects = CONTROLS.json;

class NumberControl {
  constructor(field) {
    const [schema] = field.field.variants;
    const low = schema.minimum ?? schema.exclusiveMinimum;
    const high = schema.maximum ?? schema.exclusiveMaximum;
    const whole = schema.type === "integer";
    const start = field.startValue();
    this.box = h("input", { type: "number", step: whole ? "1" : "any", inputmode: whole ? "numeric" : "decimal", min: low, max: high < 1e9 ? high : undefined, placeholder: start === undefined && !field.required ? "default" : undefined, ...field.attributes(), oninput: () => this.typed(field) });
    this.focusTarget = this.box;
    const span = high - low;
    const step = whole ? 1 : chooseStep(span, start - low);
    if (start !== undefined && Number.isFinite(span) && (!whole || span <= MOST_SLIDER_VALUES)) {
      this.slider = h("input", { type: "range", min: low, max: high, step, "aria-label": `${field.label}, slider`, oninput: () => this.slid(field) });
    }
    this.element = h("div", { class: "number" }, this.slider, this.box);
  }

  typed(field) {
    if (this.slider && this.box.value !== "") this.setSlider(Number(this.box.value));
    field.changed();
  }

  slid(field) {
    this.box.value = this.slider.value;
    this.setSlider(Number(this.slider.value));
    field.changed();
  }

  setSlider(value) {
    this.slider.value = value;
    const share = (Number(this.slider.value) - this.slider.min) / (this.slider.max - this.slider.min);
    this.slider.style.setProperty("--share", `${share * 100}%`);
  }

  read() {
    if (this.box.validity.badInput) throw new TypedError("must be a valid number");
    return this.box.value === "" ? undefined : Number(this.box.value);
  }

  write(value) {
    this.box.value = value ?? "";
    if (this.slider && value !== undefined) this.setSlider(value);
  }
}

/** A step of 1, 2 or 5 times a power of ten, of which `start` is a multiple: about 200 of them make up `span`. */
function chooseStep(span, start) {
  const exact = span / MOST_SLIDER_VALUES;
  const power = 10 ** Math.floor(Math.log10(exact));
  const steps = [10, 5, 2, 1, 0.5, 0.2, 0.1].map((factor) => factor * power).filter((step) => step <= exact * 2.5);
  return steps.find((step) => Math.abs(start / step - Math.round(start / step)) < 1e-6) ?? steps.at(-1);
}

/** A value of one of several types, typed as text: a number, a word, or a list in JSON or with commas. */
class MixedControl {
  constructor(field) {
    this.field = field;
    const { variants } = field.field;
    this.text = variants.find((variant) => variant.type === "string" && variant.const === undefined && !variant.enum);
    const many = (this.text?.maxLength ?? 0) >= LONG_TEXT;
    this.lists = variants.some((variant) => variant.type === "array");
    const code = !this.text && !variants.some((variant) => ["number", "integer"].includes(variant.type) || variant.enum);
    this.box = many || code ? h("textarea", { rows: 3, class: code ? "code" : undefined, ...field.attributes(), oninput: field.changed }) : h("input", { type: "text", autocomplete: "off", placeholder: field.startValue() === undefined ? "default" : undefined, ...field.attributes(), oninput: field.changed });
    this.element = this.box;
    this.focusTarget = this.box;
    if (many) this.box.removeAttribute("placeholder");
    this.offerWords(field);
  }

  /** Lists the fixed words that the field takes beside other values, such as `auto`. */
  offerWords(field) {
    const words = field.field.variants.flatMap((variant) => variant.enum ?? (variant.const === undefined ? [] : [variant.const]));
    if (!words.length || this.box.tagName !== "INPUT") return;
    const list = h("datalist", { id: `${field.id}-words` }, words.map((word) => h("option", { value: String(word) })));
    this.box.setAttribute("list", list.id);
    this.element = h("div", {}, this.box, list);
  }

  read() {
    const text = this.box.value.trim();
    if (text === "") return undefined;
    const { variants } = this.field.field;
    if (/^[[{]/.test(text)) {
      if (!this.text) return readJson(text);
      try {
        return JSON.parse(text);
      } catch {
        return this.box.value; // a prompt may begin with a bracket
      }
    }
    const numeric = variants.some((variant) => variant.type === "number" || variant.type === "integer");
    if (numeric && Number.isFinite(Number(text))) return Number(text);
    const items = variants.find((variant) => variant.type === "array")?.items;
    if (!this.text && items && (items.type === "integer" || items.type === "number") && text.includes(",")) return splitList(text).map(readNumber);
    return this.text ? this.box.value : text;
  }

  write(value) {
    this.box.value = value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  }
}

/** The name of a model: chosen from those of the worker, or typed. */
class ModelControl {
  constructor(field, models) {
    this.field = field;
    this.select = h("select", { ...field.attributes(), onchange: () => this.chosen() });
    this.other = h("input", { type: "text", "aria-label": `${field.label}: another name`, placeholder: "Name of the model", autocomplete: "off", hidden: true, oninput: field.changed });
    this.element = h("div", { class: "model" }, this.select, this.other);
    this.focusTarget = this.select;
    this.value = undefined;
    models.subscribe((groups) => this.fill(groups));
  }

  fill(groups) {
    const value = this.read();
    const empty = h("option", { value: "" }, this.field.required ? "Choose…" : `Default${this.field.field.default ? ` (${this.field.field.default})` : ""}`);
    const listed = groups.map(([title, rows]) => h("optgroup", { label: title }, rows.map((row) => h("option", { value: row.value }, row.label))));
    this.names = new Set(groups.flatMap(([, rows]) => rows.map((row) => row.value)));
    this.select.replaceChildren(empty, ...listed, h("option", { value: OTHER }, "Another name…"));
    this.write(value);
  }

  chosen() {
    this.other.hidden = this.select.value !== OTHER;
    if (!this.other.hidden) this.other.focus();
    this.field.changed();
  }

  read() {
    if (!this.names) return this.value;
    return (this.select.value === OTHER ? this.other.value.trim() : this.select.value) || undefined;
  }

  write(value) {
    this.value = value;
    if (!this.names) return;
    const known = value === undefined || this.names.has(value);
    const isDefault = value !== undefined && value === this.field.field.default;
    this.select.value = known ? (value ?? "") : isDefault ? "" : OTHER;
    this.other.value = known || isDefault ? "" : value;
    this.other.hidden = known || isDefault;
  }
}

function splitList(text) {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
}

function readNumber(text) {
  if (!Number.isFinite(Number(text))) throw new TypedError("must be numbers, separated by commas");
  return Number(text);
}

function readJson(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TypedError(`must be JSON: ${error.message}`);
  }
}
