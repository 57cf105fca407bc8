/** The golden tile: a tiny network and what PyTorch made of a picture, to test a runtime with. */
import type { Bundle } from "./bundle.js";
import type { Planes } from "./resample.js";
import type { Runtime } from "./runtime.js";
import { load } from "./upscaler.js";

const [HEIGHT, WIDTH] = [15, 21];
const SCALE = 2.7;

/** Largest difference to PyTorch that counts as equal, in float32. */
export const MAX_DIFFERENCE = 1e-4;

export interface SelfTest {
  readonly passed: boolean;
  /** Largest absolute difference to the stored result; NaN if there is none. */
  readonly difference: number;
  readonly seconds: number;
}

/** The picture of the test: integers alone, so that every machine makes the same. */
export function goldenImage(): Planes {
  const data = Float32Array.from({ length: 3 * HEIGHT * WIDTH }, (_, i) => ((i * 7919) % 257) / 256);
  return { data, count: 3, height: HEIGHT, width: WIDTH };
}

/** Run the golden tile on a runtime; `expected` is float32 [3, 41, 57]. */
export async function selfTest(runtime: Runtime, tile: Bundle, expected: Float32Array): Promise<SelfTest> {
  const start = performance.now();
  const upscaler = await load(tile, { runtime, precision: "fp32" });
  try {
    const found = await upscaler.upscale(goldenImage(), { scale: SCALE });
    const difference = maxDifference(found.data, expected);
    return {
      passed: difference <= MAX_DIFFERENCE,
      difference,
      seconds: (performance.now() - start) / 1000,
    };
  } finally {
    await upscaler.release();
  }
}

/** Largest absolute difference; NaN if the lengths differ or a value is NaN. */
export function maxDifference(found: Float32Array, expected: Float32Array): number {
  if (found.length !== expected.length) {
    return NaN;
  }
  let worst = 0;
  for (let i = 0; i < found.length; i++) {
    const difference = Math.abs(found[i]! - expected[i]!);
    if (!(difference <= worst)) {
      worst = difference;
    }
    if (Number.isNaN(worst)) {
      return NaN;
    }
  }
  return worst;
}
