// What a reply says beside its files, for people to read.

import { formatNumber, formatSpan, labelOf } from "./words.js";

const SHOWN_ELSEWHERE = new Set(["success", "operation", "warnings", "outputs", "stems", "files", "parameters", "filename", "format", "size", "sha256", "output_url", "output_path", "sample_rate", "channels", "duration", "schemas"]);
const MOST_ITEMS = 12;

/** [[label, value]] of what is worth large type: the results of an analysis, the seed of a generation. */
export function listHighlights(reply) {
  const picks = [
    ["Tempo", reply.tempo?.bpm && `${formatNumber(Math.round(reply.tempo.bpm * 10) / 10)} BPM`],
    ["Key", reply.key?.name],
    ["Time signature", reply.time_signature],
    ["Loudness", Number.isFinite(reply.loudness?.integrated_lufs) && `${reply.loudness.integrated_lufs.toFixed(1)} LUFS`],
    ["Status", reply.operation === "health_check" && reply.status],
    ["Device", reply.operation === "health_check" && reply.device],
  ];
  return picks.filter(([, value]) => value);
}

/** [[label, value]] of the rest, parameters and timings last. */
export function listFacts(reply) {
  const entries = Object.entries(reply).filter(([name]) => !SHOWN_ELSEWHERE.has(name) && name !== "timings");
  const parameters = Object.entries(reply.parameters ?? {}).filter(([, value]) => value !== null && value !== "");
  return [
    ...entries.flatMap(([name, value]) => describe(labelOf(name), value)),
    ...(reply.timings ? [["Time taken", Object.entries(reply.timings).map(([name, seconds]) => `${labelOf(name.replace(/_s$/, "")).toLowerCase()} ${seconds < 10 ? `${formatNumber(Math.round(seconds * 100) / 100)} s` : formatSpan(seconds)}`).join(", ")]] : []),
    ...(parameters.length ? [["Settings used", parameters.map(([name, value]) => `${name} ${write(value)}`).join(", ")]] : []),
  ];
}

function describe(label, value) {
  if (value === null || value === undefined || value === "") return [];
  if (isPlainObject(value)) return Object.entries(value).flatMap(([name, item]) => describe(`${label}: ${labelOf(name).toLowerCase()}`, item));
  return [[label, write(value)]];
}

function isPlainObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function write(value) {
  if (typeof value === "number") return formatNumber(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) {
    if (!value.length) return "none";
    const shown = value.slice(0, MOST_ITEMS).map(write).join(", ");
    return value.length > MOST_ITEMS ? `${shown}, … (${value.length} in all)` : shown;
  }
  if (isPlainObject(value)) return value.name === undefined ? JSON.stringify(value) : value.start === undefined ? value.name : `${value.name} (${formatNumber(value.start)} s)`;
  return String(value);
}
