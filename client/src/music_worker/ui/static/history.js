// Jobs and their results, kept in the browser's own database: they survive reloads and restarts of `music-worker ui`.

const NAME = "music-worker";
const MOST_JOBS = 200;
const MOST_FILE_BYTES = 128e6; // larger results stay with the server only
const MOST_BYTES = 2e9; // the oldest results go first

let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("jobs", { keyPath: "id" });
      request.result.createObjectStore("files");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

/** Runs `work` on a store; resolves to its request's result when the transaction is complete. */
async function transact(store, mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(store, mode);
    const request = work(transaction.objectStore(store));
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

const fileKey = (jobId, index) => `${jobId}/${index}`;

/** What a browser refuses to keep (private windows, a full disk) is only lost at the next reload. */
async function tolerate(work) {
  try {
    return await work;
  } catch (error) {
    console.warn("The history was not written:", error);
    return undefined;
  }
}

export const history = {
  /** All jobs, the newest first. */
  async list() {
    const jobs = (await tolerate(transact("jobs", "readonly", (store) => store.getAll()))) ?? [];
    return jobs.sort((one, other) => other.createdAt - one.createdAt);
  },

  save: (record) => tolerate(transact("jobs", "readwrite", (store) => store.put(record))),

  /** Keeps the content of a job's file, and drops the oldest ones beyond the limit. */
  async keepFile(record, index, blob) {
    if (blob.size > MOST_FILE_BYTES) return false;
    const kept = await tolerate(transact("files", "readwrite", (store) => store.put(blob, fileKey(record.id, index))).then(() => true));
    await this.prune();
    return Boolean(kept);
  },

  getFile: (record, index) => tolerate(transact("files", "readonly", (store) => store.get(fileKey(record.id, index)))),

  async remove(record) {
    await tolerate(transact("jobs", "readwrite", (store) => store.delete(record.id)));
    await this.dropFiles(record);
  },

  dropFiles: (record) => tolerate(transact("files", "readwrite", (store) => store.delete(IDBKeyRange.bound(`${record.id}/`, `${record.id}/\uffff`)))),

  async prune() {
    const jobs = await this.list();
    let bytes = 0;
    for (const [index, record] of jobs.entries()) {
      bytes += (record.outputs ?? []).reduce((total, output) => total + (output.kept ? (output.size ?? 0) : 0), 0);
      if (index >= MOST_JOBS) await this.remove(record);
      else if (bytes > MOST_BYTES && index > 0) await this.dropFiles(record);
    }
  },
};
