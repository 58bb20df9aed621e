// Names, order and units as people read them. What an operation takes is not here: forms are made from the schemas.

const TITLES = {
  generate_music: "Generate music",
  edit_music: "Edit a song",
  plan_music: "Plan a song",
  generate_cover: "Voice cover",
  separate: "Separate stems",
  analyze: "Analyze",
  mix_audio: "Mix tracks",
  pipeline: "Pipeline",
  extend_via_suno: "Extend with Suno",
  encode_audio: "Encode to codes",
  decode_audio: "Decode codes",
  add_voice: "Add a voice",
  release_task: "ACE-Step task",
  format_input: "Format a song's text",
  create_random_sample: "Random song text",
  list_models: "List models",
  health_check: "Health check",
};

const GROUPS = [
  ["Create", ["generate_music", "edit_music", "plan_music", "extend_via_suno"]],
  ["Transform", ["separate", "generate_cover", "mix_audio", "pipeline"]],
  ["Inspect", ["analyze", "encode_audio", "decode_audio"]],
];

/** Fields that are shown above the fold, beside the required ones. */
const MAIN_FIELDS = {
  generate_music: ["prompt", "model", "duration", "lyrics", "seed"],
  edit_music: ["audio", "task", "prompt", "track", "repainting_start", "repainting_end"],
  plan_music: ["mode", "prompt", "audio", "duration"],
  generate_cover: ["audio", "voice_model", "pitch_adjust", "voice_audio", "instrument_audio"],
  separate: ["audio", "model", "two_stems", "stems"],
  analyze: ["audio", "features", "picture"],
  mix_audio: ["tracks", "master"],
  pipeline: ["steps", "return"],
  extend_via_suno: ["audio", "continue_at", "prompt", "style", "model"],
  encode_audio: ["audio", "model", "bandwidth"],
  decode_audio: ["codes", "model"],
  add_voice: ["name", "archive", "checkpoint", "index"],
  release_task: ["prompt", "lyrics", "audio_duration"],
};

/** The lists of `list_models` that a field chooses from, with a filter on their rows and what stands before a name. */
const MODEL_LISTS = {
  "generate_music.model": [{ list: "music" }, { list: "suno", prefix: "suno/" }],
  "edit_music.model": [{ list: "music", keep: (row) => row.family === "acestep" }],
  "release_task.model": [{ list: "music", keep: (row) => row.family === "acestep" }],
  "plan_music.model": [{ list: "planners" }],
  "separate.model": [{ list: "separation" }],
  "extend_via_suno.model": [{ list: "suno" }],
  "encode_audio.model": [{ list: "codecs" }],
  "decode_audio.model": [{ list: "codecs" }],
  "generate_cover.separation_model": [{ list: "separation", keep: (row) => ["stems", "vocals"].includes(row.role) }],
  "generate_cover.karaoke_model": [{ list: "separation", keep: (row) => row.role === "karaoke" }],
  "generate_cover.dereverb_model": [{ list: "separation", keep: (row) => row.role === "dereverb" }],
  planner: [{ list: "planners" }],
  voice_model: [{ list: "voices" }],
  backup_voice_model: [{ list: "voices" }],
  embedder: [{ list: "content_encoders" }],
  beat_model: [{ list: "beat_models" }],
};

export const AUDIO_OUT = ["output_format", "bit_depth", "bitrate", "normalize", "loudness_lufs", "delivery"];

export const ENGINE_TITLES = { musicgen: "MusicGen", acestep: "ACE-Step", suno: "Suno" };

/** Words that keep their spelling in a label. */
const SPELLINGS = { n: "Number of", num: "Number of", bpm: "BPM", f0: "F0", cfg: "CFG", lm: "LM", mbd: "Multi-band diffusion", adg: "ADG", rms: "RMS", lufs: "(LUFS)", hz: "(Hz)", db: "(dB)", s: "(s)", id: "ID", url: "URL", cot: "CoT", top: "Top" };

export function titleOf(operation) {
  return TITLES[operation] ?? labelOf(operation);
}

/** `fade_in` -> `Fade in`; units and abbreviations keep their spelling. */
export function labelOf(name) {
  const words = name.split("_").map((word, index) => SPELLINGS[word] ?? (index ? word : word.charAt(0).toUpperCase() + word.slice(1)));
  return words.join(" ").replace("Top k", "Top-k").replace("Top p", "Top-p");
}

/** [[group title, operations]] in the order of the page; operations that the page does not know come last. */
export function groupOperations(names) {
  const known = new Set(GROUPS.flatMap(([, members]) => members));
  const groups = GROUPS.map(([title, members]) => [title, members.filter((name) => names.includes(name))]);
  return [...groups, ["More", names.filter((name) => !known.has(name))]].filter(([, members]) => members.length);
}

export function mainFields(operation) {
  return MAIN_FIELDS[operation] ?? [];
}

/** The sources of names for a field, or undefined if it is not the name of a model. */
export function modelLists(operation, field) {
  return MODEL_LISTS[`${operation}.${field}`] ?? MODEL_LISTS[field];
}

/** 63 -> `1:03`, 4.25 -> `0:04.3` with `digits` 1. */
export function formatTime(seconds, digits = 0) {
  if (!Number.isFinite(seconds)) return "–:––";
  const scale = 10 ** digits;
  const rounded = Math.round(seconds * scale) / scale;
  const minutes = Math.floor(rounded / 60);
  const rest = (rounded - minutes * 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  if (minutes < 60) return `${minutes}:${rest}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

/** 3.2 -> `3 s`, 200 -> `3 min 20 s`. */
export function formatSpan(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = -1;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** The date and time of `milliseconds` since 1970: today only the time. */
export function formatDate(milliseconds) {
  const date = new Date(milliseconds);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}

/** Numbers without digits that say nothing: 103.0500001 -> `103.05`. */
export function formatNumber(value) {
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
}
