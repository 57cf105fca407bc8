/** PNG files of any size, written row by row: no canvas of the whole picture is needed. */
import { BackendError } from "./errors.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const SUB = 1;

/**
 * Encode RGB pixels.
 *
 * @param bands bytes R, G, B of whole rows, from top to bottom; a band holds any number of rows.
 * @throws BackendError if the browser cannot compress, or the bands hold another number of rows.
 */
export async function encodePng(width: number, height: number, bands: AsyncIterable<Uint8Array>): Promise<Blob> {
  if (typeof CompressionStream === "undefined") {
    throw new BackendError("this browser cannot compress files; use a newer one");
  }
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8); // bits per sample
  header.setUint8(9, 2); // RGB
  const parts: BlobPart[] = [new Uint8Array(SIGNATURE), chunk("IHDR", new Uint8Array(header.buffer))];
  const stream = new CompressionStream("deflate");
  const writing = write(stream.writable, 3 * width, height, bands);
  // A failure of the source is reported by the await below; without this it would be unhandled.
  writing.catch(() => undefined);
  for (const reader = stream.readable.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    parts.push(chunk("IDAT", value));
  }
  await writing;
  parts.push(chunk("IEND", new Uint8Array()));
  return new Blob(parts, { type: "image/png" });
}

async function write(
  target: WritableStream<BufferSource>,
  line: number,
  height: number,
  bands: AsyncIterable<Uint8Array>,
): Promise<void> {
  const writer = target.getWriter();
  try {
    let rows = 0;
    for await (const band of bands) {
      rows += band.length / line;
      await writer.write(filtered(band, line));
    }
    if (rows !== height) {
      throw new BackendError(`the picture has ${rows} rows instead of ${height}`);
    }
    await writer.close();
  } catch (error) {
    await writer.abort(error);
    throw error;
  }
}

/** Rows as differences to the pixel on the left, which compress better. */
function filtered(band: Uint8Array, line: number): Uint8Array<ArrayBuffer> {
  const rows = band.length / line;
  const out = new Uint8Array(rows * (line + 1));
  for (let y = 0; y < rows; y++) {
    const [from, to] = [y * line, y * (line + 1)];
    out[to] = SUB;
    for (let i = 0; i < line; i++) {
      out[to + 1 + i] = band[from + i]! - (i < 3 ? 0 : band[from + i - 3]!);
    }
  }
  return out;
}

function chunk(kind: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(data.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set([...kind].map((letter) => letter.charCodeAt(0)), 4);
  out.set(data, 8);
  view.setUint32(8 + data.length, crc(out.subarray(4, 8 + data.length)));
  return out;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let value = n;
  for (let bit = 0; bit < 8; bit++) {
    value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  }
  return value;
});

function crc(data: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of data) {
    value = TABLE[(value ^ byte) & 255]! ^ (value >>> 8);
  }
  return (value ^ 0xffffffff) >>> 0;
}
