/** The page: a photograph, zoomed without steps, bicubic and the network side by side. */
import { Camera, MOST_PIXELS } from "./camera.js";
import { gestures } from "./gestures.js";
import { Layer } from "./layers.js";
import type { FromWorker, Model, Side, ToWorker } from "./messages.js";

const SETTLE = 60;
const MOST_BLOCKS = 160;

function element<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

const stage = element("stage");
const canvas = element<HTMLCanvasElement>("canvas");
const context = canvas.getContext("2d", { alpha: false })!;
const handle = element("handle");
const status = element("status");
const zoom = element<HTMLInputElement>("zoom");
const factor = element<HTMLInputElement>("factor");
const save = element<HTMLButtonElement>("save");
const choice = element<HTMLSelectElement>("model");
const file = element<HTMLInputElement>("file");

let worker: Worker;
let camera: Camera | undefined;
let photo: ImageBitmap | undefined;
let name = "photograph";
let layer: Layer | undefined;
let previous: Layer | undefined;
let split = 0.5;
let modelReady = false;
let requests = 0;
let running = 0;
let saving = 0;
let provider = "";
let timer = 0;
let scheduled = false;

function tell(message: ToWorker, transfer: Transferable[] = []): void {
  worker.postMessage(message, transfer);
}

function fail(message: string): void {
  element("error").textContent = message;
  window.setTimeout(() => (element("error").textContent = ""), 8000);
}

function say(text: string): void {
  if (status.textContent !== text) {
    status.textContent = text;
    status.title = text;
  }
}

function busy(): void {
  document.body.classList.toggle("busy", running > 0 || saving > 0);
  document.body.classList.toggle("saving", saving > 0);
}

// Drawing ---------------------------------------------------------------------------------------

/** Draw anew soon. Until what is seen has been rendered, the page does not say that it has. */
function changed(): void {
  delete document.body.dataset["rendered"];
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      draw();
    });
  }
}

function draw(): void {
  if (camera === undefined || photo === undefined) {
    return;
  }
  const { width, height } = canvas;
  const { rows, cols, place, scale } = camera;
  context.fillStyle = "#0d0e11";
  context.fillRect(0, 0, width, height);
  const cut = Math.round(split * width);
  const sides: [Side, number, number][] = [
    ["bicubic", 0, cut],
    ["network", cut, width],
  ];
  for (const [side, from, to] of sides) {
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, height);
    context.clip();
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = scale < 1 ? "high" : "medium";
    context.drawImage(photo, place.left, place.top, cols, rows);
    if (scale >= camera.min) {
      previous?.draw(context, side, place, rows, cols);
      layer?.draw(context, side, place, rows, cols);
    }
    context.restore();
  }
  Object.assign(canvas.dataset, { scale, top: place.top, left: place.left });
  zoom.value = String(Math.round(1000 * fractionOf(scale)));
  zoom.setAttribute("aria-valuetext", `×${scale.toFixed(2)}`);
  if (document.activeElement !== factor) {
    factor.value = scale.toFixed(2);
  }
  save.disabled = scale < camera.min || !modelReady;
  if (!saving) {
    save.title = `The whole photograph at ×${scale.toFixed(2)}: ${cols} × ${rows} pixels`;
  }
  stage.setAttribute("aria-label", `Photograph at ×${scale.toFixed(2)}, bicubic left and network right of a divider`);
  want();
}

/** Ask for the blocks that are missing, when the zoom has come to rest. */
function want(): void {
  if (camera === undefined || !modelReady || saving > 0) {
    return;
  }
  if (camera.scale < camera.min) {
    say("Below ×1 the photograph itself is shown.");
    return;
  }
  if (layer?.scale !== camera.scale) {
    if (layer !== undefined && !layer.empty) {
      previous = layer;
    }
    layer = new Layer(camera.scale, camera.height, camera.width);
    stopRendering();
  }
  window.clearTimeout(timer);
  timer = window.setTimeout(request, SETTLE);
}

/** Blocks of the rendering that runs. */
let asked = new Set<string>();

function request(): void {
  if (camera === undefined || layer?.scale !== camera.scale || !modelReady || saving > 0) {
    return;
  }
  const blocks = layer.missing(camera.visible);
  if (blocks.length === 0) {
    if (running > 0) {
      return; // its last message is on the way
    }
    document.body.dataset["rendered"] = String(requests);
    return;
  }
  const keys = blocks.map(String);
  if (running > 0 && keys.every((key) => asked.has(key))) {
    return;
  }
  asked = new Set(keys);
  layer.trim(camera.visible, MOST_BLOCKS);
  running = ++requests;
  delete document.body.dataset["rendered"];
  busy();
  tell({ kind: "render", id: running, scale: camera.scale, blocks });
}

function stopRendering(): void {
  running = 0;
  busy();
}

// Messages --------------------------------------------------------------------------------------

function heard(message: FromWorker): void {
  switch (message.kind) {
    case "ready":
      provider = message.provider;
      say(message.notice || `Ready. ${provider}`);
      break;
    case "model":
      if (camera !== undefined) {
        Object.assign(camera, { min: message.min, max: message.max });
        camera.zoomTo(camera.scale);
      }
      modelReady = true;
      limits = { min: message.min, max: message.max };
      forget();
      changed();
      break;
    case "opened":
      changed();
      break;
    case "part":
      if (message.id === running) {
        layer?.put(message.side, message.region, message.rgba);
        changed();
      }
      break;
    case "rendered":
      if (message.id === running) {
        stopRendering();
        provider = message.provider;
        previous = undefined;
        Object.assign(document.body.dataset, {
          first: message.first,
          last: message.last,
          encoded: message.encoded,
        });
        say(`×${layer!.scale.toFixed(2)} in ${seconds(message.last)} · ${provider}`);
        changed();
      }
      break;
    case "progress":
      if (message.id === saving) {
        element("progress").style.setProperty("--done", `${100 * message.done}%`);
        say(`Rendering the download: ${Math.round(100 * message.done)} %`);
      }
      break;
    case "saved":
      if (message.id === saving) {
        handOut(message.file);
      }
      break;
    case "failed":
      endSaving();
      stopRendering();
      fail(message.message);
      say(provider);
      break;
  }
}

let limits = { min: 1, max: 8 };

function forget(): void {
  layer = previous = undefined;
  stopRendering();
}

function seconds(milliseconds: number): string {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

// The photograph --------------------------------------------------------------------------------

async function open(source: Blob, called: string): Promise<void> {
  element("error").textContent = "";
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(source, { imageOrientation: "from-image" });
  } catch {
    fail(`${called} is not an image that this browser can read. Try a JPEG, PNG or WebP file.`);
    return;
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    fail(`${called} has ${bitmap.width} × ${bitmap.height} pixels; at most 80 megapixels fit.`);
    bitmap.close();
    return;
  }
  cancelSaving();
  photo?.close();
  photo = bitmap;
  name = called.replace(/\.[^.]*$/, "") || "photograph";
  camera = new Camera(bitmap.height, bitmap.width);
  Object.assign(camera, limits);
  document.body.dataset["state"] = "open";
  forget();
  measure();
  camera.showFirst();
  const copy = await createImageBitmap(bitmap);
  tell({ kind: "photo", bitmap: copy }, [copy]);
  say(modelReady ? `${bitmap.width} × ${bitmap.height} pixels` : "Loading the model …");
  changed();
  stage.focus({ preventScroll: true });
}

function takeFile(): void {
  const [given] = file.files ?? [];
  if (given !== undefined) {
    void open(given, given.name);
  }
  file.value = "";
}

function download(): void {
  if (saving > 0) {
    cancelSaving();
    return;
  }
  if (camera === undefined) {
    return;
  }
  stopRendering();
  window.clearTimeout(timer);
  saving = ++requests;
  save.textContent = "Cancel";
  element("progress").style.setProperty("--done", "0%");
  busy();
  say("Rendering the download: 0 %");
  tell({ kind: "save", id: saving, scale: camera.scale });
}

function cancelSaving(): void {
  if (saving > 0) {
    tell({ kind: "cancel", id: saving });
    endSaving();
    say("The download was cancelled.");
  }
}

function endSaving(): void {
  saving = 0;
  save.textContent = "Download";
  busy();
  changed();
}

function handOut(result: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(result);
  link.download = `${name}-x${camera!.scale.toFixed(2)}.png`;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  endSaving();
  say(`Saved ${link.download}`);
}

// Controls --------------------------------------------------------------------------------------

function fractionOf(scale: number): number {
  const { smallest, max } = camera!;
  return Math.log(scale / smallest) / Math.log(max / smallest);
}

function zoomBy(ratio: number, atY?: number, atX?: number): void {
  camera?.zoomTo(camera.scale * ratio, atY, atX);
  changed();
}

function measure(): void {
  const ratio = window.devicePixelRatio || 1;
  const box = stage.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(box.width * ratio));
  canvas.height = Math.max(1, Math.round(box.height * ratio));
  camera?.resize(canvas.height, canvas.width);
  changed();
}

function splitAt(value: number): void {
  split = Math.min(1, Math.max(0, value));
  const percent = Math.round(100 * split);
  element("viewer").style.setProperty("--split", `${100 * split}%`);
  handle.setAttribute("aria-valuenow", String(percent));
  handle.setAttribute("aria-valuetext", `bicubic ${percent} %, network ${100 - percent} %`);
  element("tag-left").hidden = split < 0.08;
  element("tag-right").hidden = split > 0.92;
  changed();
}

function controls(): void {
  element("choose").addEventListener("click", () => file.click());
  element("replace").addEventListener("click", () => file.click());
  element("sample").addEventListener("click", () => {
    void fetch("sample.png")
      .then((response) => response.blob())
      .then((blob) => open(blob, "sample.png"));
  });
  file.addEventListener("change", takeFile);
  save.addEventListener("click", download);
  element("in").addEventListener("click", () => zoomBy(1.25));
  element("out").addEventListener("click", () => zoomBy(0.8));
  zoom.addEventListener("input", () => {
    if (camera !== undefined) {
      camera.zoomTo(camera.smallest * (camera.max / camera.smallest) ** (Number(zoom.value) / 1000));
      changed();
    }
  });
  factor.addEventListener("change", () => {
    const wanted = Number(factor.value.trim().replace(",", ".").replace(/^[×x]/i, ""));
    if (camera !== undefined && Number.isFinite(wanted) && wanted > 0) {
      camera.zoomTo(wanted);
    }
    factor.blur();
    changed();
  });
  choice.addEventListener("change", chooseModel);
  gestures(stage, handle, {
    zoomBy,
    moveBy(dy, dx) {
      camera?.move(dy, dx);
      changed();
    },
    fit() {
      camera?.showAll();
      changed();
    },
    split: (value, relative) => splitAt(relative ? split + value : value),
  });
  new ResizeObserver(measure).observe(stage);
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  window.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) {
      document.body.classList.remove("dropping");
    }
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [given] = event.dataTransfer?.files ?? [];
    if (given !== undefined) {
      void open(given, given.name);
    }
  });
  window.addEventListener("paste", (event) => {
    const [given] = event.clipboardData?.files ?? [];
    if (given !== undefined) {
      void open(given, given.name);
    }
  });
}

// Start -----------------------------------------------------------------------------------------

function chooseModel(): void {
  cancelSaving();
  modelReady = false;
  stopRendering();
  changed();
  say("Loading the model …");
  tell({ kind: "model", bundle: choice.value });
}

/** Wait for the service worker, so that all that is loaded is kept; not for long. */
async function keepSite(): Promise<void> {
  const { serviceWorker } = navigator;
  if (serviceWorker === undefined) {
    return;
  }
  try {
    await serviceWorker.register("sw.js");
    if (serviceWorker.controller === null) {
      const controlled = new Promise((resolve) =>
        serviceWorker.addEventListener("controllerchange", resolve, { once: true }),
      );
      await Promise.race([controlled, new Promise((resolve) => setTimeout(resolve, 4000))]);
    }
    // Threads need an isolated page. A host that does not isolate it is helped by the service
    // worker, from the next load on.
    const again = "scaleport-isolating";
    if (!crossOriginIsolated && serviceWorker.controller !== null && !sessionStorage.getItem(again)) {
      sessionStorage.setItem(again, "1");
      location.reload();
      await new Promise(() => undefined);
    }
  } catch {
    // The page works without: only not offline.
  }
}

async function start(): Promise<void> {
  controls();
  splitAt(0.5);
  await keepSite();
  const models = (await (await fetch("models/models.json")).json()) as Model[];
  for (const { bundle, title } of models) {
    choice.add(new Option(title, bundle));
  }
  worker = new Worker("worker.js", { type: "module" });
  worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => heard(data));
  worker.addEventListener("error", () => fail("The page cannot start here: this browser is too old."));
  const asked = new URLSearchParams(location.search).get("provider");
  const given = asked === "wasm" || asked === "webgpu" ? asked : "auto";
  tell({ kind: "start", base: new URL("./", location.href).href, provider: given });
  tell({ kind: "model", bundle: choice.value });
}

start().catch((error: Error) => fail(error.message));
