/**
 * Antialiased cubic resampling with exact regions, as in `scaleport/imaging/resample.py`.
 *
 * The kernel is Keys' cubic (a = -0.5), stretched by the reduction ratio `max(1, n / N)` and
 * normalised, applied to rows and then to columns.
 */
import { ImageError } from "./errors.js";
import type { Axis } from "./grid.js";

/** How the image goes on beyond its border: mirrored, or its last pixel repeated. */
export type Border = "symmetric" | "replicate";

/** Planes of pixels: float32 [count, height, width]. */
export interface Planes {
  readonly data: Float32Array<ArrayBuffer>;
  readonly count: number;
  readonly height: number;
  readonly width: number;
}

interface Taps {
  readonly count: number;
  /** Input sample per output sample and tap, counted from the origin of the axis. */
  readonly place: Int32Array;
  readonly weight: Float64Array;
}

function cubic(value: number): number {
  const a = -0.5;
  const x = Math.abs(value);
  if (x <= 1) {
    return ((a + 2) * x - (a + 3)) * x * x + 1;
  }
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

function taps(axis: Axis, border: Border): Taps {
  const ratio = Math.max(1, axis.n / axis.N);
  const half = Math.ceil(2 * ratio);
  const count = 2 * half;
  const place = new Int32Array(axis.length * count);
  const weight = new Float64Array(axis.length * count);
  const offset = axis.offset();
  const index = axis.index();
  for (let i = 0; i < axis.length; i++) {
    let total = 0;
    for (let t = 0; t < count; t++) {
      const step = t + 1 - half;
      const value = cubic((offset[i]! - step) / ratio);
      weight[i * count + t] = value;
      total += value;
      // Borders belong to the whole image, so that a crop gives what the whole gives.
      let at = index[i]! + axis.origin + step;
      if (border === "replicate") {
        at = Math.min(Math.max(at, 0), axis.n - 1);
      } else {
        const period = 2 * axis.n;
        at = ((at % period) + period) % period;
        at = at < axis.n ? at : period - 1 - at;
      }
      place[i * count + t] = at - axis.origin;
    }
    for (let t = 0; t < count; t++) {
      weight[i * count + t]! /= total;
    }
  }
  return { count, place, weight };
}

/** Half-open range of input samples of the whole image that an axis reads. */
export function support(axis: Axis, border: Border): [number, number] {
  const { place } = taps(axis, border);
  let low = Infinity;
  let high = -Infinity;
  for (const at of place) {
    low = Math.min(low, at);
    high = Math.max(high, at);
  }
  return [low + axis.origin, high + axis.origin + 1];
}

/**
 * Resize planes, or compute a region of the resized planes.
 *
 * Where the planes are a crop, the axes' `origin` is the sample of the whole that the crop begins
 * with, and the crop must hold {@link support} of both axes.
 *
 * @throws ImageError if the crop misses samples that the region needs.
 */
export function resample(planes: Planes, rows: Axis, cols: Axis, border: Border = "symmetric"): Planes {
  const vertical = taps(rows, border);
  const horizontal = taps(cols, border);
  check("rows", vertical, planes.height);
  check("columns", horizontal, planes.width);
  const { count, height, width, data } = planes;
  const out = new Float32Array(count * rows.length * cols.length);
  const line = new Float32Array(width);
  for (let plane = 0; plane < count; plane++) {
    for (let y = 0; y < rows.length; y++) {
      line.fill(0);
      for (let t = 0; t < vertical.count; t++) {
        const weight = Math.fround(vertical.weight[y * vertical.count + t]!);
        if (weight !== 0) {
          const from = (plane * height + vertical.place[y * vertical.count + t]!) * width;
          for (let x = 0; x < width; x++) {
            line[x]! += data[from + x]! * weight;
          }
        }
      }
      const to = (plane * rows.length + y) * cols.length;
      for (let x = 0; x < cols.length; x++) {
        let total = 0;
        for (let t = 0; t < horizontal.count; t++) {
          const tap = x * horizontal.count + t;
          total += line[horizontal.place[tap]!]! * horizontal.weight[tap]!;
        }
        out[to + x] = total;
      }
    }
  }
  return { data: out, count, height: rows.length, width: cols.length };
}

function check(name: string, { place }: Taps, length: number): void {
  for (const at of place) {
    if (at < 0 || at >= length) {
      throw new ImageError(`the region needs ${name} ${at} of ${length}; check the crop's origin`);
    }
  }
}

/** Rows `y0:y1` and columns `x0:x1` of planes, as planes of their own. */
export function crop(planes: Planes, y0: number, x0: number, y1: number, x1: number): Planes {
  const [height, width] = [y1 - y0, x1 - x0];
  const data = new Float32Array(planes.count * height * width);
  for (let plane = 0; plane < planes.count; plane++) {
    for (let y = 0; y < height; y++) {
      const from = (plane * planes.height + y0 + y) * planes.width + x0;
      data.set(planes.data.subarray(from, from + width), (plane * height + y) * width);
    }
  }
  return { data, count: planes.count, height, width };
}
