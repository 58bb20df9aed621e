// Small helpers to build elements. Text always goes in as text nodes: nothing that a file or a worker says is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  play: "M8 5.5v13l11-6.5z",
  pause: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
  download: "M12 4v10m0 0-4-4m4 4 4-4M5 19h14",
  upload: "M12 16V5m0 0L8 9m4-4 4 4M5 19h14",
  close: "M6 6l12 12M18 6 6 18",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  up: "M6 15l6-6 6 6",
  down: "M6 9l6 6 6-6",
  copy: "M9 9h10v10H9zM5 15V5h10",
  trash: "M5 7h14M10 7V5h4v2M7 7l1 12h8l1-12",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  screen: "M4 5h16v11H4zM9 20h6M12 16v4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  warning: "M12 4 2.8 19.5h18.4zM12 10v4.5M12 17v.5",
  again: "M19 12a7 7 0 1 1-2-5m2-3v4h-4",
};

const FILLED = new Set(["play", "pause"]);

/** An element with properties (`class`, `for`, `aria-*`, `data-*`, `on<event>`) and children; null children are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "hidden" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false) element.append(child);
  }
  return element;
}

/** A 20 pixel icon that screen readers skip. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", width: 20, height: 20, class: "icon" })) svg.setAttribute(key, value);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  path.setAttribute("class", FILLED.has(name) ? "filled" : "stroked");
  svg.append(path);
  return svg;
}

/** A button with an icon and a name; `label` is shown unless `quiet`, and is its accessible name in any case. */
export function button(label, { image, quiet = false, kind = "", ...properties } = {}, onclick) {
  const named = quiet ? { "aria-label": label, title: label } : {};
  return h(
    "button",
    { type: "button", class: `button ${kind} ${quiet ? "quiet" : ""}`.trim(), onclick, ...named, ...properties },
    image && icon(image),
    quiet ? null : h("span", {}, label),
  );
}

let counter = 0;
/** An id that no other element of the page has. */
export function makeId(prefix) {
  counter += 1;
  return `${prefix}-${counter}`;
}

/** `text` with its `code` spans as <code> elements. */
export function prose(text) {
  return String(text)
    .split("`")
    .map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

/** Says `text` to screen readers without moving the focus. */
export function announce(text) {
  const region = document.getElementById("announcements");
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = text));
}

/** Copies `text` and says so. */
export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    notify(`${what} copied.`);
  } catch {
    notify(`The browser did not allow copying ${what.toLowerCase()}.`);
  }
}

let noticeTimer = 0;
/** A short message at the foot of the page, which is also announced. */
export function notify(text) {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  notice.classList.add("shown");
  announce(text);
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => notice.classList.remove("shown"), 4000);
}
