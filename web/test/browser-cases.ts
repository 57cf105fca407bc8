/** The comparisons in a browser: a page that the driver opens and asks for results. */
import { gridFaults, modelResults, readVectors, resampleResults, type ModelRun, type Read } from "./cases.js";
import type { Provider } from "../src/index.js";

const read: Read = async (path) => {
  const response = await fetch(`/vectors/${path}`);
  if (!response.ok) {
    throw new Error(`${path}: ${response.status}`);
  }
  return new Uint8Array(await response.arrayBuffer());
};

export interface Report extends ModelRun {
  readonly faults: string[];
  readonly resampled: number[];
  readonly isolated: boolean;
}

async function run(provider: Provider, only = ""): Promise<Report> {
  const vectors = await readVectors(read);
  const wasmPaths = new URL("ort/", location.href).href;
  return {
    faults: gridFaults(vectors),
    resampled: await resampleResults(vectors, read),
    isolated: crossOriginIsolated,
    ...(await modelResults(vectors, read, { provider, wasmPaths }, only)),
  };
}

Object.assign(globalThis, { runCases: run });
