/** Everything that computes: it runs beside the page, so that zooming stays smooth. */
import {
  Axis,
  Cancelled,
  encodePng,
  load,
  openBundle,
  openRuntime,
  outputLength,
  pixelSource,
  pixelsOf,
  resample,
  selfTest,
  support,
  type Region,
  type Runtime,
  type Source,
  type Upscaler,
  type View,
} from "../src/index.js";
import type { FromWorker, ToWorker } from "./messages.js";

const STRIP = 512;

let base = "";
let runtime: Promise<Runtime>;
let photo: Source | undefined;
let wanted = "";
let view: View | undefined;
let viewOf: Upscaler | undefined;
const upscalers = new Map<string, Promise<Upscaler>>();
let stop = new AbortController();
const cancelled = new Set<number>();
// One thing at a time, in order; a new rendering cancels the one before.
let queue: Promise<unknown> = Promise.resolve();

function say(message: FromWorker, transfer: Transferable[] = []): void {
  (self as DedicatedWorkerGlobalScope).postMessage(message, transfer);
}

self.addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === "cancel") {
    cancelled.add(data.id);
    return;
  }
  if (data.kind !== "start") {
    stop.abort();
  }
  const control = new AbortController();
  stop = control;
  const id = "id" in data ? data.id : 0;
  queue = queue.then(async () => {
    try {
      await handle(data, control.signal);
    } catch (error) {
      if (!(error instanceof Cancelled)) {
        say({ kind: "failed", id, message: error instanceof Error ? error.message : String(error) });
      }
    }
  });
});

async function handle(message: ToWorker, signal: AbortSignal): Promise<void> {
  switch (message.kind) {
    case "start":
      base = message.base;
      await start(message.provider);
      break;
    case "photo":
      close();
      photo = pixels(message.bitmap);
      say({ kind: "opened", height: photo.height, width: photo.width });
      break;
    case "model": {
      wanted = message.bundle;
      const { min, max } = (await upscaler()).manifest.scale;
      say({ kind: "model", bundle: wanted, min, max });
      break;
    }
    case "render":
      await render(message.id, message.scale, message.blocks, signal);
      break;
    case "save":
      await save(message.id, message.scale);
      break;
  }
}

async function start(provider: "auto" | "wasm" | "webgpu"): Promise<void> {
  const wasmPaths = `${base}ort/`;
  const expected = fetch(`${base}golden/expected.f32`).then((response) => response.arrayBuffer());
  const tile = await openBundle(`${base}golden/tile.bundle`);
  runtime = openRuntime({ provider, wasmPaths });
  let notice = "";
  let opened = await runtime;
  let tested = await selfTest(opened, tile, new Float32Array(await expected)).catch((error: Error) => error);
  if (opened.provider === "webgpu" && (tested instanceof Error || !tested.passed)) {
    const why = tested instanceof Error ? tested.message : `its self-test is off by ${tested.difference}`;
    notice = `WebGPU is not used: ${why}`;
    runtime = openRuntime({ provider: "wasm", wasmPaths });
    opened = await runtime;
    tested = await selfTest(opened, tile, new Float32Array(await expected)).catch((error: Error) => error);
  }
  if (tested instanceof Error) {
    throw tested;
  }
  if (!tested.passed) {
    throw new Error(`This browser computes wrongly: the self-test is off by ${tested.difference}.`);
  }
  say({ kind: "ready", provider: opened.description, version: opened.version, notice });
}

async function upscaler(): Promise<Upscaler> {
  let found = upscalers.get(wanted);
  if (found === undefined) {
    found = load(base + wanted, { runtime: await runtime, policy: { cacheBytes: 192 << 20 } });
    upscalers.set(wanted, found);
    found.catch(() => upscalers.delete(wanted));
  }
  return found;
}

function close(): void {
  view?.close();
  view = undefined;
}

async function opened(): Promise<View> {
  const model = await upscaler();
  if (photo === undefined) {
    throw new Error("There is no photograph.");
  }
  if (view === undefined || viewOf !== model) {
    close();
    view = model.open(photo);
    viewOf = model;
  }
  return view;
}

/** The photograph's pixels, read in strips: canvases of whole photographs are refused by phones. */
function pixels(bitmap: ImageBitmap): Source {
  const { height, width } = bitmap;
  const rgba = new Uint8ClampedArray(4 * height * width);
  const canvas = new OffscreenCanvas(width, Math.min(STRIP, height));
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  for (let top = 0; top < height; top += STRIP) {
    const rows = Math.min(STRIP, height - top);
    // What is transparent shows white.
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    rgba.set(context.getImageData(0, 0, width, rows).data, 4 * top * width);
  }
  bitmap.close();
  return pixelSource(rgba, height, width);
}

async function render(id: number, scale: number, blocks: readonly Region[], signal: AbortSignal): Promise<void> {
  const begin = performance.now();
  let first = 0;
  for (const region of blocks) {
    // Messages are let in between blocks: the next one may cancel this rendering.
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (signal.aborted) {
      return;
    }
    const rgba = bicubic(scale, region);
    say({ kind: "part", id, side: "bicubic", region, rgba }, [rgba.buffer]);
  }
  const current = await opened();
  for (const region of blocks) {
    for await (const part of current.parts({ scale, region, signal })) {
      const rgba = pixelsOf(part.planes);
      first ||= performance.now() - begin;
      say({ kind: "part", id, side: "network", region: part.region, rgba }, [rgba.buffer]);
    }
  }
  const provider = await viewOf!.provider();
  const last = performance.now() - begin;
  say({ kind: "rendered", id, provider, first, last, encoded: current.encoded });
}

/** The same region by Keys' cubic, as the network's rivals do it. */
function bicubic(scale: number, [y0, x0, y1, x1]: Region): Uint8ClampedArray<ArrayBuffer> {
  const { height, width } = photo!;
  const rows = new Axis(height, outputLength(height, scale), y0, y1);
  const cols = new Axis(width, outputLength(width, scale), x0, x1);
  const [top, bottom] = support(rows, "symmetric");
  const [left, right] = support(cols, "symmetric");
  const read = photo!.crop(top, left, bottom, right);
  return pixelsOf(resample(read, rows.slice(y0, y1, top), cols.slice(x0, x1, left)));
}

/** The whole picture as a PNG, band by band. */
async function save(id: number, scale: number): Promise<void> {
  const current = await opened();
  const [height, width] = current.outputSize(scale);
  async function* rows(): AsyncGenerator<Uint8Array> {
    const bands = current.bands(scale);
    for (const [i, [y0, y1]] of bands.entries()) {
      if (cancelled.has(id)) {
        throw new Cancelled("the download was cancelled");
      }
      const band = new Uint8Array(3 * (y1 - y0) * width);
      const region: Region = [y0, 0, y1, width];
      const signal = new AbortController().signal;
      for await (const part of current.parts({ scale, region, signal })) {
        place(band, pixelsOf(part.planes), part.region, y0, width);
        if (cancelled.has(id)) {
          throw new Cancelled("the download was cancelled");
        }
        say({ kind: "progress", id, done: (i + (part.region[2] - y0) / (y1 - y0) / 2) / bands.length });
      }
      yield band;
      say({ kind: "progress", id, done: (i + 1) / bands.length });
    }
  }
  say({ kind: "saved", id, file: await encodePng(width, height, rows()) });
}

function place(band: Uint8Array, rgba: Uint8ClampedArray, region: Region, top: number, width: number): void {
  const [y0, x0, y1, x1] = region;
  let from = 0;
  for (let y = y0; y < y1; y++) {
    let to = 3 * ((y - top) * width + x0);
    for (let x = x0; x < x1; x++) {
      band[to++] = rgba[from]!;
      band[to++] = rgba[from + 1]!;
      band[to++] = rgba[from + 2]!;
      from += 4;
    }
  }
}
