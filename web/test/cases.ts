/** Comparisons with files that the Python side wrote; the same in Node and in a browser. */
import { Axis, outputLength } from "../src/grid.js";
import { load, maxDifference, openRuntime, pixelsOf, planesOf, resample, selfTest } from "../src/index.js";
import { openBundle, type ReadFile } from "../src/bundle.js";
import { dispose, Stages } from "../src/stages.js";
import type { Planes, Provider, Request, Runtime, TilePolicy } from "../src/index.js";

export interface AxisCase {
  readonly n: number;
  readonly N: number;
  readonly start: number;
  readonly stop: number;
  readonly origin: number;
  readonly index: readonly number[];
  /** The float32 fractions as their bits. */
  readonly offset: readonly number[];
  /** Half-open ranges of input samples, and the output samples that lie on them. */
  readonly owned: readonly (readonly [number, number, number, number])[];
}

export interface Stored {
  readonly file: string;
  readonly height: number;
  readonly width: number;
}

export interface Vectors {
  readonly axes: readonly AxisCase[];
  readonly lengths: readonly (readonly [number, number, number])[];
  readonly resamples: readonly {
    readonly image: Stored;
    readonly rows: readonly [number, number, number];
    readonly cols: readonly [number, number, number];
    readonly border: "symmetric" | "replicate";
    readonly expected: Stored;
  }[];
  readonly golden: { readonly bundle: string; readonly expected: string };
  readonly models: readonly {
    readonly bundle: string;
    readonly image: Stored;
    readonly policy: Partial<TilePolicy>;
    readonly cases: readonly (Request & { readonly expected: Stored; readonly pixels: string })[];
  }[];
}

export interface Result {
  readonly name: string;
  readonly provider: string;
  /** Largest absolute difference of the float samples. */
  readonly difference: number;
  /** PSNR in dB at peak 1. */
  readonly psnr: number;
  /** Largest difference of the shown bytes. */
  readonly shown: number;
}

/** Reads a file of the folder with the vectors. */
export type Read = (path: string) => Promise<Uint8Array>;

export async function readVectors(read: Read): Promise<Vectors> {
  return JSON.parse(new TextDecoder().decode(await read("vectors.json"))) as Vectors;
}

/** What the grid makes wrong; empty if nothing. */
export function gridFaults(vectors: Vectors): string[] {
  const faults: string[] = [];
  for (const [n, scale, expected] of vectors.lengths) {
    if (outputLength(n, scale) !== expected) {
      faults.push(`outputLength(${n}, ${scale}) is ${outputLength(n, scale)}, not ${expected}`);
    }
  }
  for (const wanted of vectors.axes) {
    const axis = new Axis(wanted.n, wanted.N, wanted.start, wanted.stop, wanted.origin);
    const name = `${wanted.n} -> ${wanted.N} [${wanted.start}:${wanted.stop}]`;
    const bits = new Uint32Array(axis.offset().buffer);
    if (axis.index().join() !== wanted.index.join()) {
      faults.push(`indices of ${name}`);
    }
    if (bits.join() !== wanted.offset.join()) {
      faults.push(`fractions of ${name}`);
    }
    for (const [first, last, ...range] of wanted.owned) {
      if (axis.owned(first, last).join() !== range.join()) {
        faults.push(`owned(${first}, ${last}) of ${name}`);
      }
    }
  }
  return faults;
}

export async function resampleResults(vectors: Vectors, read: Read): Promise<number[]> {
  const worst: number[] = [];
  for (const { image, rows, cols, border, expected } of vectors.resamples) {
    const planes = await floats(read, image);
    const vertical = new Axis(planes.height, ...rows);
    const horizontal = new Axis(planes.width, ...cols);
    const found = resample(planes, vertical, horizontal, border);
    worst.push(maxDifference(found.data, (await floats(read, expected)).data));
  }
  return worst;
}

export interface ModelRun {
  readonly results: Result[];
  readonly selfTest: { readonly passed: boolean; readonly difference: number };
  /** Where the features of every model lie between encoding and rendering. */
  readonly features: readonly string[];
}

export async function modelResults(
  vectors: Vectors,
  read: Read,
  options: { readonly provider: Provider; readonly threads?: number; readonly wasmPaths?: string },
  only = "",
): Promise<ModelRun> {
  const runtime = await openRuntime(options);
  const results: Result[] = [];
  const features = new Set<string>();
  for (const model of vectors.models) {
    if (model.bundle.includes(only)) {
      results.push(...(await oneModel(model, read, runtime)));
      (await featuresOf(model, read, runtime)).forEach((location) => features.add(location));
    }
  }
  const expected = await read(vectors.golden.expected);
  const tile = await openBundle(within(read, vectors.golden.bundle));
  const tested = await selfTest(runtime, tile, new Float32Array(expected.slice().buffer));
  return { results, selfTest: tested, features: [...features] };
}

async function featuresOf(model: Vectors["models"][number], read: Read, runtime: Runtime): Promise<string[]> {
  const stages = new Stages(await openBundle(within(read, model.bundle)), runtime, "fp32");
  const data = new Float32Array(3 * 12 * 12).fill(0.5);
  const features = await stages.encode({ data, count: 3, height: 12, width: 12 });
  const locations = Object.values(features).map(({ location }) => location);
  dispose(features);
  await stages.release();
  return locations;
}

async function oneModel(model: Vectors["models"][number], read: Read, runtime: Runtime): Promise<Result[]> {
  const upscaler = await load(within(read, model.bundle), { runtime, policy: model.policy });
  const bytes = await read(model.image.file);
  const view = upscaler.open(planesOf(bytes, model.image.height, model.image.width));
  const results: Result[] = [];
  for (const { expected, pixels, ...request } of model.cases) {
    const found = await view.render(request);
    const wanted = await floats(read, expected);
    const shown = pixelsOf(found);
    const stored = await read(pixels);
    let worst = stored.length === shown.length ? 0 : NaN;
    shown.forEach((value, i) => (worst = Math.max(worst, Math.abs(value - stored[i]!))));
    results.push({
      name: `${model.bundle} tile ${model.policy.tile ?? "default"} ${JSON.stringify(request)}`,
      provider: await upscaler.provider(),
      difference: maxDifference(found.data, wanted.data),
      psnr: psnr(found.data, wanted.data),
      shown: worst,
    });
  }
  view.close();
  await upscaler.release();
  return results;
}

export function within(read: Read, folder: string): ReadFile {
  return (path) => read(`${folder}/${path}`);
}

async function floats(read: Read, stored: Stored): Promise<Planes> {
  const bytes = await read(stored.file);
  const data = new Float32Array(bytes.slice().buffer);
  return { data, count: data.length / (stored.height * stored.width), height: stored.height, width: stored.width };
}

function psnr(found: Float32Array, expected: Float32Array): number {
  let total = 0;
  found.forEach((value, i) => (total += (value - expected[i]!) ** 2));
  return total === 0 ? Infinity : -10 * Math.log10(total / found.length);
}
