// Processor seconds of encoding and rendering in WebAssembly, in Node with one thread:
// `npm run build && node test/cost.mjs BUNDLE`. Unlike times, they are little changed by other
// programs on the machine.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { load } from "../dist/index.js";

const [bundle] = process.argv.slice(2);
const [height, width] = [240, 320];
const read = (path) => readFile(join(bundle, path));
const upscaler = await load(read, { provider: "wasm", threads: 1 });
const data = Float32Array.from({ length: 3 * height * width }, (_, i) => ((i * 7919) % 257) / 256);
const image = { data, count: 3, height, width };
const { max } = upscaler.manifest.scale;

async function cost(work) {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return Number(((user + system) / 1e6).toFixed(2));
}

async function least(work) {
  return Math.min(await cost(work), await cost(work), await cost(work));
}

let view = upscaler.open(image);
await view.render({ scale: 2.7, region: [0, 0, 8, 8] }); // sessions are loaded and warm
const anew = async (request) => {
  view.close();
  view = upscaler.open(image);
  await view.render(request);
};
const close = Math.min(5.3, max);
const region = [300, 300, 300 + 400, 300 + 500];
const found = {
  "whole at x2.7, anew": await least(() => anew({ scale: 2.7 })),
  "whole at x2.7, encoded before": await least(() => view.render({ scale: 2.7 })),
  [`400x500 at x${close}, anew`]: await least(() => anew({ scale: close, region })),
  [`400x500 at x${close}, encoded before`]: await least(() => view.render({ scale: close, region })),
};
console.log(JSON.stringify({ provider: await upscaler.provider(), ...found }, null, 1));
