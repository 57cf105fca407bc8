/**
 * Where output pixels lie between input pixels, in integers.
 *
 * The same arithmetic as `scaleport/grid.py`. Output sample `a` of an axis with `n` input and `N`
 * output samples lies at `u(a) = ((2a + 1) n - N) / 2N` in input samples. Numerators stay below
 * 2^50 (axes are limited to 2^24 samples), so that JavaScript's numbers hold them exactly.
 */
import { ScaleError } from "./errors.js";

/** Name of the rule of {@link outputLength}; a manifest names the rule that it expects. */
export const SIZE_RULE = "round-half-up";

/** Longest axis; up to here every fraction survives the conversion to float32. */
export const MAX_LENGTH = 1 << 24;

// Decimal scales such as 2.3 are not exact in binary; 15 * 2.3 must still count as a tie.
const TIE_TOLERANCE = 1e-12;
const LARGEST_OFFSET = 1 - 2 ** -24;

/** One scale for both axes, or `[vertical, horizontal]`. */
export type Scale = number | readonly [number, number];

/** Height and width in pixels. */
export type Size = readonly [number, number];

/** Output pixels `[y0, x0, y1, x1]`, half-open. */
export type Region = readonly [number, number, number, number];

/**
 * Output length of one axis: `max(1, floor(n * scale + 0.5))`.
 *
 * @throws ScaleError if `n` is below 1, the scale is not finite and above 0, or the result is
 * longer than {@link MAX_LENGTH}.
 */
export function outputLength(n: number, scale: number): number {
  if (!Number.isInteger(n) || n < 1) {
    throw new ScaleError(`an image axis needs at least 1 pixel, got ${n}`);
  }
  if (!Number.isFinite(scale) || scale <= 0) {
    throw new ScaleError(`scale must be a finite number above 0, got ${scale}`);
  }
  const exact = n * scale;
  if (exact > MAX_LENGTH) {
    throw new ScaleError(`${n} pixels times ${scale} is over the limit of ${MAX_LENGTH} per axis`);
  }
  return Math.max(1, Math.floor(exact * (1 + TIE_TOLERANCE) + 0.5));
}

/** `[vertical, horizontal]` of a scale. */
export function scalePair(scale: Scale): [number, number] {
  return typeof scale === "number" ? [scale, scale] : [scale[0], scale[1]];
}

/** `floor(a / b)` and the remainder in `[0, b)`, exact for integers below 2^53. */
export function divmod(a: number, b: number): [number, number] {
  const rest = ((a % b) + b) % b;
  return [(a - rest) / b, rest];
}

/**
 * Output samples `start <= a < stop` of one axis of `n` input and `N` output samples.
 *
 * `origin` is the input sample that counts as index 0: the first sample of a crop.
 */
export class Axis {
  constructor(
    readonly n: number,
    readonly N: number,
    readonly start: number,
    readonly stop: number,
    readonly origin = 0,
  ) {
    if (!(n >= 1 && N >= 1)) {
      throw new ScaleError(`an axis needs at least 1 pixel, got ${n} -> ${N}`);
    }
    if (n > MAX_LENGTH || N > MAX_LENGTH) {
      throw new ScaleError(`axis ${n} -> ${N} is over the limit of ${MAX_LENGTH}`);
    }
    const whole = [n, N, start, stop].every(Number.isInteger);
    if (!whole || !(0 <= start && start < stop && stop <= N)) {
      throw new ScaleError(`rows or columns ${start}:${stop} are not within 0:${N}`);
    }
  }

  /** All output samples of an axis. */
  static whole(n: number, N: number): Axis {
    return new Axis(n, N, 0, N);
  }

  /** Output samples in this axis. */
  get length(): number {
    return this.stop - this.start;
  }

  /** Index (counted from the whole axis) and numerator of the fraction of sample `a`. */
  split(a: number): [number, number] {
    return divmod((2 * a + 1) * this.n - this.N, 2 * this.N);
  }

  /** `floor(u)` per output sample, counted from `origin`; -1 above the first sample. */
  index(): Int32Array<ArrayBuffer> {
    return Int32Array.from({ length: this.length }, (_, i) => this.split(this.start + i)[0] - this.origin);
  }

  /** The fraction of `u` per output sample, in [0, 1). */
  offset(): Float32Array<ArrayBuffer> {
    const bottom = 2 * this.N;
    return Float32Array.from({ length: this.length }, (_, i) =>
      // A fraction within half an ulp of 1 must not round up: index and offset belong together.
      Math.min(Math.fround(this.split(this.start + i)[1] / bottom), LARGEST_OFFSET),
    );
  }

  /** The scale really applied, `N / n`. */
  get scale(): number {
    return this.N / this.n;
  }

  /** Output samples `start:stop` of the whole axis, indices counted from `origin`. */
  slice(start: number, stop: number, origin = 0): Axis {
    return new Axis(this.n, this.N, start, stop, origin);
  }

  /**
   * Output samples whose centres lie on input samples `first <= i < last`.
   *
   * Ranges of adjoining input ranges adjoin and cover every output sample once.
   */
  owned(first: number, last: number): [number, number] {
    return [this.firstAt(first), this.firstAt(last)];
  }

  // The smallest a whose centre (2a + 1) * n / 2N is at least i.
  private firstAt(i: number): number {
    return 0 - divmod(this.n - 2 * this.N * i, 2 * this.n)[0];
  }
}

/** The positions of a rectangle of output pixels: one {@link Axis} per direction. */
export class Grid {
  constructor(
    readonly rows: Axis,
    readonly cols: Axis,
  ) {}

  /** All output pixels of an image of `height` x `width` at a scale. */
  static fromScale(height: number, width: number, scale: Scale): Grid {
    const [y, x] = scalePair(scale);
    return Grid.fromSize(height, width, outputLength(height, y), outputLength(width, x));
  }

  /** All pixels of an output of exactly `outHeight` x `outWidth`. */
  static fromSize(height: number, width: number, outHeight: number, outWidth: number): Grid {
    return new Grid(Axis.whole(height, outHeight), Axis.whole(width, outWidth));
  }

  /** Size of the whole input. */
  get inputSize(): Size {
    return [this.rows.n, this.cols.n];
  }

  /** Size of the whole output, whatever region this grid covers. */
  get outputSize(): Size {
    return [this.rows.N, this.cols.N];
  }

  /** Rows and columns of this region. */
  get shape(): Size {
    return [this.rows.length, this.cols.length];
  }

  /** Output pixels of the whole output; `origin` is the LR pixel that counts as index (0, 0). */
  region([y0, x0, y1, x1]: Region, origin: Size = [0, 0]): Grid {
    return new Grid(this.rows.slice(y0, y1, origin[0]), this.cols.slice(x0, x1, origin[1]));
  }
}

/** Centres of the sub-pixels of one pixel on [-1, 1]: `(2i + 1) / s - 1`. */
export function subpixelCentres(scale: number): Float32Array<ArrayBuffer> {
  if (!Number.isInteger(scale) || scale < 1) {
    throw new ScaleError(`an integer scale must be at least 1, got ${scale}`);
  }
  return Float32Array.from({ length: scale }, (_, i) => (2 * i + 1) / scale - 1);
}
