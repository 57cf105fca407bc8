/** Cutting an image into tiles whose crops overlap by a halo, and fading tiles into each other. */
import { ScaleError } from "./errors.js";
import type { Axis } from "./grid.js";

/** One tile along one axis: the input samples it owns, and the crop that it is made from. */
export interface Span {
  readonly start: number;
  readonly stop: number;
  readonly cropStart: number;
  readonly cropStop: number;
}

/** Output samples that a tile takes part in, and where they are complete after it. */
export interface Step {
  readonly span: Span;
  readonly first: number;
  readonly last: number;
  readonly done: number;
}

/**
 * Cut an axis into spans of nearly equal length, at most `tile` samples owned by each.
 *
 * @param length samples of the axis.
 * @param tile most samples that a span owns; 0 does not cut.
 * @param halo samples by which a crop reaches beyond what the span owns, up to the border.
 */
export function cut(length: number, tile: number, halo: number): Span[] {
  if (tile < 0 || halo < 0) {
    throw new ScaleError(`tile and halo must be at least 0, got ${tile} and ${halo}`);
  }
  const count = tile === 0 ? 1 : Math.ceil(length / tile);
  const edge = (i: number): number => Math.floor((length * i) / count);
  return Array.from({ length: count }, (_, i) => ({
    start: edge(i),
    stop: edge(i + 1),
    cropStart: Math.max(0, edge(i) - halo),
    cropStop: Math.min(length, edge(i + 1) + halo),
  }));
}

/** Half-open pieces of `start:stop`, at most `most` samples each. */
export function bands(start: number, stop: number, most: number): [number, number][] {
  const step = Math.max(1, Math.floor(most));
  const pieces: [number, number][] = [];
  for (let first = start; first < stop; first += step) {
    pieces.push([first, Math.min(stop, first + step)]);
  }
  return pieces;
}

/** LR pixels on each side of a border over which tiles fade: half the receptive field, or less. */
export function rampOf(rows: readonly Span[], cols: readonly Span[], radius: number): number {
  const shortest = Math.min(...[...rows, ...cols].map((span) => span.stop - span.start));
  return Math.max(0, Math.min(Math.floor(radius / 2), Math.floor(shortest / 2)));
}

/** Output samples of an axis that a tile takes part in; empty if the second is not larger. */
export function reach(axis: Axis, span: Span, ramp: number): [number, number] {
  const before = span.start > 0 ? ramp : 0;
  const after = span.stop < axis.n ? ramp : 0;
  const [first, last] = axis.owned(span.start - before, span.stop + after);
  return [Math.max(axis.start, first), Math.min(axis.stop, last)];
}

/** Weight in [0, 1] of a tile per output sample of an axis; over all tiles they add up to 1. */
export function weights(axis: Axis, span: Span, ramp: number): Float32Array {
  const result = new Float32Array(axis.length).fill(1);
  if (!ramp) {
    return result;
  }
  for (let i = 0; i < axis.length; i++) {
    // Positions in LR samples; the border between samples i - 1 and i lies at i.
    const centre = ((2 * (axis.start + i) + 1) * axis.n) / (2 * axis.N);
    let value = 1;
    if (span.start > 0) {
      value = Math.min(value, (centre - (span.start - ramp)) / (2 * ramp));
    }
    if (span.stop < axis.n) {
      value = Math.min(value, (span.stop + ramp - centre) / (2 * ramp));
    }
    result[i] = Math.min(1, Math.max(0, value));
  }
  return result;
}

/** The tiles that a region touches along one axis, in order. */
export function steps(axis: Axis, spans: readonly Span[], ramp: number): Step[] {
  const touched = spans
    .map((span) => ({ span, range: reach(axis, span, ramp) }))
    .filter(({ range }) => range[0] < range[1]);
  return touched.map(({ span, range }, i) => ({
    span,
    first: range[0],
    last: range[1],
    // What the next tile does not reach is complete: ramps are too short for the one after it.
    done: touched[i + 1]?.range[0] ?? axis.stop,
  }));
}
