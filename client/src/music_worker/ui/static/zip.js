// Packs files into one zip archive without compressing them: audio hardly shrinks.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

const UTF8_NAMES = 0x0800; // flag 11 of the zip format
const MOST_BYTES = 0xfffffffe;

export function checksum(bytes, start = 0) {
  let value = ~start;
  for (let index = 0; index < bytes.length; index += 1) value = TABLE[(value ^ bytes[index]) & 0xff] ^ (value >>> 8);
  return ~value >>> 0;
}

/** A zip archive of [{name, blob}] as a Blob. Throws a RangeError beyond 4 GB, which needs another format. */
export async function makeZip(files, date = new Date()) {
  const parts = [];
  const entries = [];
  const stamp = [(date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1), ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate()];
  let offset = 0;
  for (const { name, blob } of nameEachOnce(files)) {
    const encoded = new TextEncoder().encode(name);
    let sum = 0;
    const reader = blob.stream().getReader();
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) sum = checksum(chunk.value, sum);
    const common = [20, UTF8_NAMES, 0, ...stamp];
    const sizes = [sum, blob.size, blob.size];
    const head = write(30 + encoded.length, [[4, 0x04034b50], ...common.map((value) => [2, value]), ...sizes.map((value) => [4, value]), [2, encoded.length], [2, 0]], encoded);
    entries.push(write(46 + encoded.length, [[4, 0x02014b50], [2, 20], ...common.map((value) => [2, value]), ...sizes.map((value) => [4, value]), [2, encoded.length], [2, 0], [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]], encoded));
    parts.push(head, blob);
    offset += head.length + blob.size;
    if (offset > MOST_BYTES) throw new RangeError("The files are too large for one archive. Download them one by one.");
  }
  const directory = entries.reduce((total, entry) => total + entry.length, 0);
  const end = write(22, [[4, 0x06054b50], [2, 0], [2, 0], [2, entries.length], [2, entries.length], [4, directory], [4, offset], [2, 0]]);
  return new Blob([...parts, ...entries, end], { type: "application/zip" });
}

/** Numbers of 2 or 4 bytes, the lowest first, and the bytes of a name. */
function write(length, values, name = new Uint8Array()) {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  let position = 0;
  for (const [size, value] of values) {
    if (size === 2) view.setUint16(position, value, true);
    else view.setUint32(position, value, true);
    position += size;
  }
  bytes.set(name, position);
  return bytes;
}

function nameEachOnce(files) {
  const taken = new Set();
  return files.map(({ name, blob }) => {
    let free = name;
    for (let number = 2; taken.has(free); number += 1) free = name.replace(/(\.[^.]*)?$/, ` (${number})$1`);
    taken.add(free);
    return { name: free, blob };
  });
}
