/** Run by `npm test`; comparisons need the files of `tests/web/web_vectors.py` in SCALEPORT_VECTORS. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { zipSync } from "fflate";

import { openBundle, zipReader } from "../src/bundle.js";
import { ArtifactError, Cancelled, ScaleError } from "../src/errors.js";
import { Axis, Grid, outputLength } from "../src/grid.js";
import { load, openRuntime, parseManifest, planesOf } from "../src/index.js";
import { checkedPath } from "../src/manifest.js";
import { encodePng } from "../src/png.js";
import { cut, rampOf, steps, weights } from "../src/tiles.js";
import { gridFaults, modelResults, readVectors, resampleResults, within, type Read } from "./cases.js";

const folder = process.env["SCALEPORT_VECTORS"] ?? "";
const skip = folder === "" ? "SCALEPORT_VECTORS does not name the folder of tests/web/web_vectors.py" : false;
const read: Read = (path) => readFile(join(folder, path));

test("sizes and regions out of range are refused", () => {
  assert.throws(() => outputLength(0, 2), ScaleError);
  assert.throws(() => outputLength(10, Number.NaN), ScaleError);
  assert.throws(() => outputLength(1 << 23, 2.5), ScaleError);
  assert.throws(() => Grid.fromScale(4, 4, 2).region([0, 0, 9, 8]), ScaleError);
  assert.throws(() => Grid.fromScale(4, 4, 2).region([0, 0, 0, 8]), ScaleError);
});

test("tiles cover an axis once, and faded ones add up to 1", () => {
  for (const [n, tile, halo] of [[1, 0, 3], [97, 24, 5], [64, 16, 20], [50, 7, 0]] as const) {
    const spans = cut(n, tile, halo);
    const axis = Axis.whole(n, Math.round(n * 2.7));
    assert.equal(spans[0]!.start, 0);
    assert.equal(spans.at(-1)!.stop, n);
    const ramp = rampOf(spans, spans, 9);
    const sum = new Float64Array(axis.N);
    for (const { span, first, last } of steps(axis, spans, ramp)) {
      weights(axis.slice(first, last), span, ramp).forEach((w, i) => (sum[first + i]! += w));
    }
    assert.ok(sum.every((total) => Math.abs(total - 1) < 1e-6));
  }
});

test("paths that leave the bundle are refused", () => {
  for (const path of ["../x", "/x", "a//b", "a/./b", "C:/x", "a\\b", "a?b", "a%2e", "a.", ""]) {
    assert.throws(() => checkedPath(path), ArtifactError, path);
  }
  assert.equal(checkedPath("onnx/fp32/encode.onnx"), "onnx/fp32/encode.onnx");
});

test("a png holds the pixels that went in", async () => {
  const rows = [new Uint8Array([1, 2, 3, 4, 5, 6]), new Uint8Array([7, 8, 9, 250, 11, 12])];
  async function* bands(): AsyncGenerator<Uint8Array> {
    yield* rows;
  }
  const file = new Uint8Array(await (await encodePng(2, 2, bands())).arrayBuffer());
  assert.deepEqual([...file.subarray(0, 8)], [137, 80, 78, 71, 13, 10, 26, 10]);
  const { inflateSync } = await import("node:zlib");
  const data: Uint8Array[] = [];
  const view = new DataView(file.buffer);
  for (let at = 8; at < file.length; at += view.getUint32(at) + 12) {
    if (new TextDecoder().decode(file.subarray(at + 4, at + 8)) === "IDAT") {
      data.push(file.subarray(at + 8, at + 8 + view.getUint32(at)));
    }
  }
  const raw = inflateSync(Buffer.concat(data));
  // Rows begin with their filter: 1 is the difference to the pixel on the left.
  assert.deepEqual([...raw.subarray(0, 7)], [1, 1, 2, 3, 3, 3, 3]);
  assert.equal(raw.length, 14);
});

test("indices, fractions and sizes are those of Python, to the bit", { skip }, async () => {
  const vectors = await readVectors(read);
  assert.ok(vectors.axes.length > 20 && vectors.lengths.length > 20);
  assert.deepEqual(gridFaults(vectors), []);
});

test("resampling is that of Python", { skip }, async () => {
  const worst = await resampleResults(await readVectors(read), read);
  assert.ok(worst.length >= 4);
  worst.forEach((difference) => assert.ok(difference <= 2e-6, `${difference}`));
});

test("WebAssembly renders what ONNX Runtime renders", { skip }, async () => {
  const vectors = await readVectors(read);
  const { results, selfTest } = await modelResults(vectors, read, { provider: "wasm", threads: 1 });
  assert.equal(results.length, vectors.models.reduce((sum, model) => sum + model.cases.length, 0));
  for (const { name, difference, psnr, shown, provider } of results) {
    assert.ok(difference <= 1e-4 && psnr >= 80 && shown <= 1, `${name}: ${difference}, ${psnr} dB, ${shown}`);
    assert.match(provider, /^WebAssembly \(1 thread\)$/);
  }
  assert.ok(selfTest.passed, `self-test: ${selfTest.difference}`);
});

test("an image is encoded once; another zoom renders only; a cancelled one stops", { skip }, async () => {
  const vectors = await readVectors(read);
  const runtime = await openRuntime({ provider: "wasm", threads: 1 });
  for (const { bundle, image } of vectors.models) {
    const upscaler = await load(within(read, bundle), { runtime, policy: { tile: 16 } });
    const view = upscaler.open(planesOf(await read(image.file), image.height, image.width));
    await view.render({ scale: 2.7 });
    const tiles = Math.ceil(image.height / 16) * Math.ceil(image.width / 16);
    assert.equal(view.encoded, tiles);
    await view.render({ scale: 3.3, region: [5, 7, 60, 50] });
    assert.equal(view.encoded, tiles);
    const stop = new AbortController();
    stop.abort();
    await assert.rejects(view.render({ scale: 2, signal: stop.signal }), Cancelled);
    await assert.rejects(view.render({ scale: 99 }), ScaleError);
    view.close();
    assert.equal(view.cachedBytes, 0);
  }
});

test("a zip is read, a changed file and a false size are refused", { skip }, async () => {
  const vectors = await readVectors(read);
  const { bundle } = vectors.models[0]!;
  const plain = await openBundle(within(read, bundle));
  const files: Record<string, Uint8Array> = { "x.bundle/manifest.json": await read(`${bundle}/manifest.json`) };
  for (const path of plain.manifest.files.keys()) {
    files[`x.bundle/${path}`] = await read(`${bundle}/${path}`);
  }
  const path = plain.graph("encode", "fp32")!.path;
  const zipped = await openBundle(zipReader(zipSync(files)));
  assert.deepEqual(await zipped.file(path), await plain.file(path));

  const changed = files[`x.bundle/${path}`]!.slice();
  changed[100]! ^= 1;
  const bad = await openBundle(zipReader(zipSync({ ...files, [`x.bundle/${path}`]: changed })));
  await assert.rejects(bad.file(path), /is not the file of the manifest/);
  const longer = new Uint8Array([...changed, 0]);
  const long = await openBundle(zipReader(zipSync({ ...files, [`x.bundle/${path}`]: longer })));
  await assert.rejects(long.file(path), ArtifactError);
  assert.throws(() => zipReader(new Uint8Array(100)), ArtifactError);
  assert.throws(() => zipReader(zipSync({ "a.txt": new Uint8Array(3) })), ArtifactError);
});

test("bundles of fixed shape are refused before anything is loaded", { skip }, async () => {
  const { bundle } = (await readVectors(read)).models[0]!;
  const manifest = JSON.parse(new TextDecoder().decode(await read(`${bundle}/manifest.json`))) as {
    graphs: { onnx: { inputs: { name: string; shape: unknown[] }[] }[] };
  };
  for (const graph of manifest.graphs.onnx) {
    graph.inputs.filter(({ name }) => name === "image").forEach((port) => (port.shape = [1, 3, 64, 96]));
  }
  const fixed = new TextEncoder().encode(JSON.stringify(manifest));
  const source: Read = (path) => (path === "manifest.json" ? Promise.resolve(fixed) : Promise.reject(new Error(path)));
  await assert.rejects(load(source, { provider: "wasm" }), /images of 96x64 only; export the bundle without --static/);
});

test("manifests of other versions and with missing fields are refused", { skip }, async () => {
  const { bundle } = (await readVectors(read)).models[0]!;
  const text = new TextDecoder().decode(await read(`${bundle}/manifest.json`));
  assert.equal(parseManifest(text).family, "query");
  for (const key of ["format_version", "size_rule", "family", "scale", "files", "graphs", "tiling"]) {
    const value = JSON.parse(text) as Record<string, unknown>;
    value[key] = key === "graphs" ? { onnx: [{}] } : "?";
    assert.throws(() => parseManifest(JSON.stringify(value)), ArtifactError, key);
  }
  assert.throws(() => parseManifest("{"), ArtifactError);
});
