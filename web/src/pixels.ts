/** Pixels as a canvas has them, and planes as networks take them. */
import type { Planes } from "./resample.js";
import type { Source } from "./view.js";

/** RGB planes in [0, 1] of RGBA bytes; alpha is left out. */
export function planesOf(rgba: Uint8ClampedArray | Uint8Array, height: number, width: number): Planes {
  const area = height * width;
  const data = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) {
    data[i] = rgba[4 * i]! / 255;
    data[area + i] = rgba[4 * i + 1]! / 255;
    data[2 * area + i] = rgba[4 * i + 2]! / 255;
  }
  return { data, count: 3, height, width };
}

/** RGBA bytes as a source: a photograph of 12 megapixels takes 48 MB, its planes would take 144. */
export function pixelSource(rgba: Uint8ClampedArray | Uint8Array, height: number, width: number): Source {
  return {
    count: 3,
    height,
    width,
    crop(y0, x0, y1, x1) {
      const part = new Uint8Array(4 * (y1 - y0) * (x1 - x0));
      for (let y = y0; y < y1; y++) {
        part.set(rgba.subarray(4 * (y * width + x0), 4 * (y * width + x1)), 4 * (y - y0) * (x1 - x0));
      }
      return planesOf(part, y1 - y0, x1 - x0);
    },
  };
}

/** Opaque RGBA bytes of RGB planes: rounded half to even and clipped. */
export function pixelsOf({ data, height, width }: Planes): Uint8ClampedArray<ArrayBuffer> {
  const area = height * width;
  const rgba = new Uint8ClampedArray(4 * area);
  for (let i = 0; i < area; i++) {
    // Clamped arrays round half to even; the product is rounded to float32 as in Python.
    rgba[4 * i] = Math.fround(data[i]! * 255);
    rgba[4 * i + 1] = Math.fround(data[area + i]! * 255);
    rgba[4 * i + 2] = Math.fround(data[2 * area + i]! * 255);
    rgba[4 * i + 3] = 255;
  }
  return rgba;
}
