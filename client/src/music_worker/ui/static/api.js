// Requests to the server of this page. All addresses are relative: the path of the page itself holds the token of this run.

/** A refusal of the server: its `code`, `message` and `details`. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.message ?? `The server of this page answered with status ${status}.`);
    this.status = status;
    this.code = body?.code ?? "page_error";
    this.details = body?.details ?? {};
    this.advice = body?.advice ?? "";
  }
}

/** The server of this page does not answer: `music-worker ui` was stopped. */
export class ServerGoneError extends Error {
  constructor() {
    super("The server of this page does not answer. Start `music-worker ui` again; the history stays in this browser.");
    this.code = "server_gone";
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ServerGoneError();
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(response.status, body);
  return body;
}

function post(path, value) {
  return request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });
}

export const api = {
  getPage: () => request("api/page"),
  getWorker: () => request("api/worker"),
  connect: () => post("api/worker", {}),
  listJobs: () => request("api/jobs"),
  getJob: (id) => request(`api/jobs/${id}`),
  submit: (operation, params) => post("api/jobs", { operation, params }),
  resume: (operation, platformId) => post("api/jobs/resume", { operation, platform_id: platformId }),
  cancel: (id) => post(`api/jobs/${id}/cancel`, {}),
  removeJob: (id) => request(`api/jobs/${id}`, { method: "DELETE" }),
  fileUrl: (id) => `api/files/${id}`,
};

/** Uploads `file` (a File or Blob); resolves to {id, name, size}. `onProgress` gets the share from 0 to 1. */
export function upload(file, name, { onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest(); // fetch has no progress of uploads
    call.open("POST", `api/files?name=${encodeURIComponent(name)}`);
    call.responseType = "json";
    call.upload.onprogress = (event) => event.lengthComputable && onProgress?.(event.loaded / event.total);
    call.onload = () => (call.status < 300 ? resolve(call.response) : reject(new ApiError(call.status, call.response)));
    call.onerror = () => reject(new ServerGoneError());
    call.onabort = () => reject(new DOMException("The upload was stopped.", "AbortError"));
    signal?.addEventListener("abort", () => call.abort());
    call.send(file);
  });
}
