// Reads JSON schemas: which control a field needs, and whether a value is valid, in the words that the worker uses.

const FILE_NAMES = /(^|_)audio$|^(archive|checkpoint|index)$/;

/** `schema` with `$ref` resolved and `null` taken out of its alternatives: {nullable, variants, title, description, default}. */
export function resolve(schema, root) {
  const target = schema.$ref ? { ...lookUp(schema.$ref, root), ...schema } : schema;
  const alternatives = (target.anyOf ?? target.oneOf ?? [target]).map((item) => (item.$ref ? lookUp(item.$ref, root) : item));
  const variants = alternatives.filter((item) => item.type !== "null").map(spellBounds);
  return { ...target, nullable: variants.length < alternatives.length, variants };
}

function lookUp(reference, root) {
  return reference
    .replace(/^#\//, "")
    .split("/")
    .reduce((node, key) => node?.[key], root) ?? {};
}

/** The bounds `ge`, `le`, `gt`, `lt` of older workers under their names in JSON schema. */
function spellBounds(schema) {
  const { ge, le, gt, lt, ...rest } = schema;
  const bounds = { minimum: rest.minimum ?? ge, maximum: rest.maximum ?? le, exclusiveMinimum: rest.exclusiveMinimum ?? gt, exclusiveMaximum: rest.exclusiveMaximum ?? lt };
  for (const [name, value] of Object.entries(bounds)) if (value !== undefined) rest[name] = value;
  return rest;
}

/** The control for a resolved field: file, boolean, choice, choices, number, text, list, objects, object, json or mixed. */
export function kindOf(name, field, root) {
  const { variants } = field;
  if (isFile(name, field)) return "file";
  if (variants.every((variant) => variant.enum || variant.const !== undefined)) return "choice";
  if (variants.length > 1) return "mixed";
  const [only] = variants;
  if (only.type === "boolean") return typeof field.default === "boolean" ? "boolean" : "choice"; // a switch has no third state
  if (only.type === "number" || only.type === "integer") return "number";
  if (only.type === "string") return "text";
  if (only.type === "object") return only.properties ? "object" : "json";
  if (only.type === "array") {
    const item = resolve(only.items ?? {}, root);
    if (item.variants.length === 1 && item.variants[0].type === "object" && item.variants[0].properties) return "objects";
    if (item.variants.every((variant) => variant.enum)) return "choices";
    return item.variants.every((variant) => ["string", "number", "integer"].includes(variant.type)) ? "list" : "json";
  }
  return "json";
}

/** Whether the field takes a file: marked so by the worker, or by its name for workers that do not mark them. */
export function isFile(name, field) {
  const text = field.variants.find((variant) => variant.type === "string");
  if (!text || text.enum) return false;
  if (field.input !== undefined || text.input !== undefined) return true;
  return FILE_NAMES.test(name) || name === "codes" || name === "continuation_codes";
}

/** The values that a choice offers. */
export function listChoices(field) {
  return field.variants.flatMap((variant) => variant.enum ?? (variant.type === "boolean" ? [true, false] : [variant.const]));
}

/** What a field takes, in a few words: `0.5 to 600`, `20 to 300, or auto`. */
export function describeRange(field) {
  const parts = field.variants.map((variant) => {
    if (variant.const !== undefined) return String(variant.const);
    if (variant.type !== "number" && variant.type !== "integer") return "";
    const low = variant.minimum ?? variant.exclusiveMinimum;
    const high = variant.maximum ?? variant.exclusiveMaximum;
    if (low !== undefined && high !== undefined && high < 1e9) return `${low} to ${high}`;
    if (low !== undefined) return variant.exclusiveMinimum === undefined ? `${low} or more` : `above ${low}`;
    return high !== undefined ? `up to ${high}` : "";
  });
  return parts.filter(Boolean).join(", or ");
}

/** The problems of `value`: [{path, problem}], with paths such as `tracks.0.gain_db`. */
export function validate(value, schema, root, path = "") {
  const field = resolve(schema, root);
  if (value === null || value === undefined) return field.nullable ? [] : [{ path, problem: "is required" }];
  const results = field.variants.map((variant) => checkVariant(value, variant, root, path));
  if (results.some((problems) => problems.length === 0)) return [];
  const matching = results.filter((problems) => !problems.some((entry) => entry.wrongType && entry.path === path));
  if (matching.length) return matching[0];
  const wanted = [...new Set(results.map((problems) => problems[0].problem.replace("must be ", "")))];
  return [{ path, problem: `must be ${wanted.join(" or ")}` }];
}

const TYPES = {
  string: ["a valid string", (value) => typeof value === "string"],
  boolean: ["a valid boolean", (value) => typeof value === "boolean"],
  number: ["a valid number", (value) => typeof value === "number" && Number.isFinite(value)],
  integer: ["a valid integer", (value) => Number.isInteger(value)],
  array: ["a valid list", (value) => Array.isArray(value)],
  object: ["a JSON object", (value) => typeof value === "object" && !Array.isArray(value)],
};

function checkVariant(value, schema, root, path) {
  if (schema.const !== undefined) return value === schema.const ? [] : [{ path, problem: `must be '${schema.const}'`, wrongType: true }];
  if (schema.enum) {
    const names = schema.enum.map((item) => `'${item}'`);
    const listed = names.length > 1 ? `${names.slice(0, -1).join(", ")} or ${names.at(-1)}` : names[0];
    return schema.enum.includes(value) ? [] : [{ path, problem: `must be ${listed}` }];
  }
  const [words, matches] = TYPES[schema.type] ?? ["", () => true];
  // The page keeps a chosen file as an object; it becomes text on its way.
  if (!(matches(value) || (schema.type === "string" && value.$file))) return [{ path, problem: `must be ${words}`, wrongType: true }];
  if (schema.type === "number" || schema.type === "integer") return checkNumber(value, schema, path);
  if (schema.type === "string" && typeof value === "string") return checkString(value, schema, path);
  if (schema.type === "array") return checkArray(value, schema, root, path);
  return schema.type === "object" ? checkObject(value, schema, root, path) : [];
}

function checkNumber(value, schema, path) {
  const rules = [
    [schema.minimum, (bound) => value >= bound, "greater than or equal to"],
    [schema.maximum, (bound) => value <= bound, "less than or equal to"],
    [schema.exclusiveMinimum, (bound) => value > bound, "greater than"],
    [schema.exclusiveMaximum, (bound) => value < bound, "less than"],
  ];
  return rules.filter(([bound, holds]) => bound !== undefined && !holds(bound)).map(([bound, , words]) => ({ path, problem: `must be ${words} ${bound}` }));
}

function checkString(value, schema, path) {
  const length = [...value].length;
  if (schema.minLength > length) return [{ path, problem: `must have at least ${plural(schema.minLength, "character")}` }];
  if (schema.maxLength < length) return [{ path, problem: `must have at most ${plural(schema.maxLength, "character")}; it has ${length}` }];
  if (schema.pattern && !new RegExp(schema.pattern, "u").test(value)) return [{ path, problem: `must match the pattern ${schema.pattern}` }];
  return [];
}

function checkArray(value, schema, root, path) {
  if (value.length < (schema.minItems ?? 0)) return [{ path, problem: `must have at least ${plural(schema.minItems, "item")}` }];
  if (value.length > (schema.maxItems ?? Infinity)) return [{ path, problem: `must have at most ${plural(schema.maxItems, "item")}` }];
  return value.flatMap((item, index) => validate(item, schema.items ?? {}, root, `${path}.${index}`));
}

function checkObject(value, schema, root, path) {
  const inside = (name) => (path ? `${path}.${name}` : name);
  const missing = (schema.required ?? []).filter((name) => value[name] === undefined).map((name) => ({ path: inside(name), problem: "is required" }));
  const wrong = Object.entries(schema.properties ?? {})
    .filter(([name]) => value[name] !== undefined)
    .flatMap(([name, property]) => validate(value[name], property, root, inside(name)));
  return [...missing, ...wrong];
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
