/** An opened image: encoded once, tile by tile, rendered at any scale and region. */
import { BackendError, Cancelled, ImageError, ScaleError } from "./errors.js";
import { Axis, Grid, outputLength, scalePair, type Region, type Scale, type Size } from "./grid.js";
import { crop, resample, support, type Planes } from "./resample.js";
import type { Tensors } from "./runtime.js";
import { bytesOf, dispose, type Stages } from "./stages.js";
import { bands, cut, rampOf, steps, weights, type Span } from "./tiles.js";

/** How much is worked on at once. */
export interface TilePolicy {
  /** Most LR rows or columns that one tile owns; 0 does not cut. */
  readonly tile: number;
  /** Most output pixels that one call of a query decoder makes. */
  readonly renderPixels: number;
  /** Bytes of features and of rendered lattices that are kept for the next rendering. */
  readonly cacheBytes: number;
}

export const DEFAULT_POLICY: TilePolicy = { tile: 192, renderPixels: 1 << 15, cacheBytes: 256 << 20 };

/** What is to be rendered: a scale or an output size, all of it or a region. */
export interface Request {
  readonly scale?: Scale;
  readonly size?: Size;
  /** Output pixels; the whole output when left out. */
  readonly region?: Region;
  /** Cancels the rendering between two calls of the network. */
  readonly signal?: AbortSignal;
}

/** Where a view takes pixels from. */
export interface Source {
  /** Planes: 3 per image. */
  readonly count: number;
  readonly height: number;
  readonly width: number;
  /** Rows `y0:y1` and columns `x0:x1`, float32 in [0, 1]. */
  crop(y0: number, x0: number, y1: number, x1: number): Planes;
}

/** Planes as a source. */
export function sourceOf(planes: Planes): Source {
  const { count, height, width, data } = planes;
  if (data.length !== count * height * width) {
    throw new ImageError(`${count} planes of ${height}x${width} do not have ${data.length} samples`);
  }
  return { count, height, width, crop: (y0, x0, y1, x1) => crop(planes, y0, x0, y1, x1) };
}

/** A finished rectangle of the output: `planes` has the shape of `region`. */
export interface Part {
  readonly region: Region;
  readonly planes: Planes;
}

interface Tile {
  readonly row: Span;
  readonly col: Span;
}

interface Kept {
  readonly bytes: number;
  readonly free: () => void;
  readonly value: Tensors | Planes;
}

/** Made by {@link Upscaler.open}. One rendering at a time. */
export class View {
  private readonly rows: Span[];
  private readonly cols: Span[];
  private readonly ramp: number;
  private readonly bySize: boolean;
  private readonly kept = new Map<string, Kept>();
  private encodings = 0;

  /** @throws ImageError if the image has no pixels or not 3 planes. */
  constructor(
    private readonly stages: Stages,
    private readonly image: Source,
    private readonly policy: TilePolicy,
  ) {
    const { count, height, width } = image;
    if (count % 3 !== 0 || !(count * height * width > 0)) {
      throw new ImageError(`an image needs 3 planes of pixels, got ${count} of ${height}x${width}`);
    }
    const { manifest } = stages.bundle;
    this.rows = this.cut(height, manifest.height.max);
    this.cols = this.cut(width, manifest.width.max);
    this.ramp = manifest.tiling === "exact" ? 0 : rampOf(this.rows, this.cols, manifest.receptiveField);
    this.bySize = manifest.family === "query" && stages.has("prepare");
  }

  private cut(length: number, most: number): Span[] {
    const { manifest } = this.stages.bundle;
    let { tile } = this.policy;
    if (manifest.tiling === "not-allowed") {
      tile = 0;
    } else if (length > most) {
      tile = Math.max(1, Math.min(tile || most, most - 2 * this.halo));
    }
    return cut(length, tile, this.halo);
  }

  /** LR pixels that the crop of a tile reaches beyond what the tile owns. */
  get halo(): number {
    const { family, receptiveField, scale } = this.stages.bundle.manifest;
    // The reduction from the lattice reads a little beyond what a tile owns.
    return receptiveField + (family === "lattice" ? Math.ceil(2 / scale.min) + 1 : 0);
  }

  /** Height and width of the opened image. */
  get shape(): Size {
    return [this.image.height, this.image.width];
  }

  /** How often the encoder has run: once per tile, and again for tiles that were dropped. */
  get encoded(): number {
    return this.encodings;
  }

  /** Bytes that are kept for the next rendering. */
  get cachedBytes(): number {
    return [...this.kept.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Size of the whole output at a scale; throws ScaleError if it is out of range. */
  outputSize(scale: Scale): Size {
    return this.grid({ scale }).outputSize;
  }

  /** Rows of the whole output, from top to bottom, that are cheapest rendered together. */
  bands(scale: Scale): [number, number][] {
    return steps(this.grid({ scale }).rows, this.rows, this.ramp)
      .filter(({ first, done }) => first < done)
      .map(({ first, done }) => [first, done]);
  }

  private grid({ scale, size, region }: Request): Grid {
    if ((scale === undefined) === (size === undefined)) {
      throw new ScaleError("give either scale or size");
    }
    const [height, width] = this.shape;
    const { min, max } = this.stages.bundle.manifest.scale;
    let grid: Grid;
    if (scale !== undefined) {
      if (!scalePair(scale).every((value) => min <= value && value <= max)) {
        throw new ScaleError(`scale ${String(scale)} is outside the range of this model, ${min} to ${max}`);
      }
      grid = Grid.fromScale(height, width, scale);
    } else {
      [height, width].forEach((n, i) => {
        if (!(outputLength(n, min) <= size![i]! && size![i]! <= outputLength(n, max))) {
          throw new ScaleError(`${size![i]} pixels from ${n} is outside the range x${min} to x${max}`);
        }
      });
      grid = Grid.fromSize(height, width, size![0], size![1]);
    }
    return region === undefined ? grid : grid.region(region);
  }

  /**
   * Render the image or a region of the output: float32 planes, not clamped.
   *
   * @throws ScaleError, BackendError, or Cancelled if the request's signal is aborted.
   */
  async render(request: Request): Promise<Planes> {
    const [height, width] = this.grid(request).shape;
    const [top, left] = request.region ?? [0, 0];
    const out: Planes = {
      data: new Float32Array(this.image.count * height * width),
      count: this.image.count,
      height,
      width,
    };
    for await (const { region, planes } of this.parts(request)) {
      paste(out, planes, region[0] - top, region[1] - left);
    }
    return out;
  }

  /** Render in parts, each handed out as soon as it is final. Together they cover the region. */
  async *parts(request: Request): AsyncGenerator<Part> {
    const grid = this.grid(request);
    const { signal } = request;
    if (this.stages.bundle.manifest.tiling === "not-allowed" && request.region !== undefined) {
      // Pixels depend on what else the same call renders: it has to be everything.
      const [y0, x0, y1, x1] = request.region;
      const [height, width] = grid.outputSize;
      const whole = await this.render({ size: [height, width], ...(signal && { signal }) });
      yield { region: request.region, planes: crop(whole, y0, x0, y1, x1) };
    } else if (this.ramp > 0 && Math.max(this.rows.length, this.cols.length) > 1) {
      yield* this.blended(grid, signal);
    } else {
      for (const row of steps(grid.rows, this.rows, 0)) {
        for (const col of steps(grid.cols, this.cols, 0)) {
          yield* this.tile({ row: row.span, col: col.span }, part(grid, row, col), signal);
        }
      }
    }
  }

  /** Tiles that are not exact overlap and fade into each other, so that their border is no edge. */
  private async *blended(grid: Grid, signal?: AbortSignal): AsyncGenerator<Part> {
    const [height, width] = grid.shape;
    const { count } = this.image;
    const sum: Planes = { data: new Float32Array(count * height * width), count, height, width };
    const { start: top } = grid.rows;
    const { start: left } = grid.cols;
    for (const row of steps(grid.rows, this.rows, this.ramp)) {
      for (const col of steps(grid.cols, this.cols, this.ramp)) {
        const wanted = part(grid, row, col);
        const vertical = weights(wanted.rows, row.span, this.ramp);
        const horizontal = weights(wanted.cols, col.span, this.ramp);
        for await (const { region, planes } of this.tile({ row: row.span, col: col.span }, wanted, signal)) {
          const [dy, dx] = [region[0] - row.first, region[1] - col.first];
          fade(planes, vertical.subarray(dy), horizontal.subarray(dx));
          paste(sum, planes, region[0] - top, region[1] - left, true);
        }
        if (row.first < row.done && col.first < col.done) {
          const region: Region = [row.first, col.first, row.done, col.done];
          yield {
            region,
            planes: crop(sum, row.first - top, col.first - left, row.done - top, col.done - left),
          };
        }
      }
    }
  }

  /** A part of the output from one tile, in pieces. */
  private async *tile(tile: Tile, grid: Grid, signal?: AbortSignal): AsyncGenerator<Part> {
    const { rows, cols } = grid;
    await breathe(signal);
    const scale = this.latticeScale(grid);
    if (scale !== undefined) {
      const planes = await this.reduced(tile, grid, scale);
      yield { region: [rows.start, cols.start, rows.stop, cols.stop], planes };
      return;
    }
    const features = await this.features(tile, grid);
    const untiled = this.stages.bundle.manifest.tiling === "not-allowed";
    const most = untiled ? rows.length : this.policy.renderPixels / cols.length;
    for (const [y0, y1] of bands(rows.start, rows.stop, most)) {
      await breathe(signal);
      const region: Region = [y0, cols.start, y1, cols.stop];
      const origin: Size = [tile.row.cropStart, tile.col.cropStart];
      const planes = await this.stages.renderQuery(features, grid.region(region, origin));
      yield { region, planes: sized(planes, y1 - y0, cols.length) };
    }
  }

  /** The integer scale of the graph that makes this output; undefined for the query decoder. */
  private latticeScale(grid: Grid): number | undefined {
    const { family, scale } = this.stages.bundle.manifest;
    const [height, width] = grid.inputSize;
    const [outHeight, outWidth] = grid.outputSize;
    if (family === "query") {
      const frozen = Math.floor(outHeight / height);
      const exact = outHeight === height * frozen && outWidth === width * frozen;
      return exact && this.stages.has(`render_x${frozen}`) ? frozen : undefined;
    }
    const native = [...scale.native].sort((a, b) => a - b);
    const found = native.find((s) => height * s >= outHeight && width * s >= outWidth);
    if (found === undefined) {
      throw new ScaleError(`this model renders x${native.at(-1)} at most`);
    }
    return found;
  }

  /** A part of the output from the tile's lattice, by antialiased reduction. */
  private async reduced(tile: Tile, grid: Grid, scale: number): Promise<Planes> {
    const lattice = await this.lattice(tile, grid, scale);
    const [height, width] = grid.inputSize;
    // The lattice of this crop begins here, in pixels of the whole lattice.
    const top = tile.row.cropStart * scale;
    const left = tile.col.cropStart * scale;
    const { rows, cols } = grid;
    if (rows.N === height * scale && cols.N === width * scale) {
      return crop(lattice, rows.start - top, cols.start - left, rows.stop - top, cols.stop - left);
    }
    const vertical = new Axis(height * scale, rows.N, rows.start, rows.stop);
    const horizontal = new Axis(width * scale, cols.N, cols.start, cols.stop);
    const [y0, y1] = support(vertical, "replicate");
    const [x0, x1] = support(horizontal, "replicate");
    const read = crop(lattice, y0 - top, x0 - left, y1 - top, x1 - left);
    return resample(
      read,
      vertical.slice(rows.start, rows.stop, y0),
      horizontal.slice(cols.start, cols.stop, x0),
      "replicate",
    );
  }

  private async lattice(tile: Tile, grid: Grid, scale: number): Promise<Planes> {
    const key = `x${scale} ${this.key(tile, grid)}`;
    const found = this.recall(key) as Planes | undefined;
    if (found !== undefined) {
      return found;
    }
    const rendered = sized(
      await this.stages.renderLattice(await this.features(tile, grid), scale),
      (tile.row.cropStop - tile.row.cropStart) * scale,
      (tile.col.cropStop - tile.col.cropStart) * scale,
    );
    this.keep(key, { value: rendered, bytes: rendered.data.byteLength, free: () => undefined });
    return rendered;
  }

  private async features(tile: Tile, grid: Grid): Promise<Tensors> {
    const key = this.key(tile, grid);
    const found = this.recall(key) as Tensors | undefined;
    if (found !== undefined) {
      return found;
    }
    const { row, col } = tile;
    const image = this.image.crop(row.cropStart, col.cropStart, row.cropStop, col.cropStop);
    const modulation = this.bySize ? await this.stages.modulation(grid) : {};
    const features = await this.stages.encode(image, modulation);
    this.encodings += 1;
    this.keep(key, { value: features, bytes: bytesOf(features), free: () => dispose(features) });
    return features;
  }

  // Features of some networks depend on the output size.
  private key({ row, col }: Tile, grid: Grid): string {
    return `${row.start},${col.start}${this.bySize ? ` ${grid.outputSize.join("x")}` : ""}`;
  }

  private recall(key: string): Tensors | Planes | undefined {
    const found = this.kept.get(key);
    if (found !== undefined) {
      // The map's order is the order of use.
      this.kept.delete(key);
      this.kept.set(key, found);
    }
    return found?.value;
  }

  /** Keep a value and drop those used least recently; the two latest are in use and stay. */
  private keep(key: string, value: Kept): void {
    this.kept.set(key, value);
    let bytes = this.cachedBytes;
    for (const [old, { bytes: size, free }] of this.kept) {
      if (bytes <= this.policy.cacheBytes || this.kept.size <= 2) {
        break;
      }
      free();
      this.kept.delete(old);
      bytes -= size;
    }
  }

  /** Free everything that is kept. Wait for a rendering to end before. */
  close(): void {
    this.kept.forEach(({ free }) => free());
    this.kept.clear();
  }
}

interface Range {
  readonly first: number;
  readonly last: number;
}

function part(grid: Grid, row: Range, col: Range): Grid {
  return grid.region([row.first, col.first, row.last, col.last]);
}

/** Copy or add planes into larger ones at a place. */
function paste(out: Planes, planes: Planes, top: number, left: number, add = false): void {
  for (let plane = 0; plane < planes.count; plane++) {
    for (let y = 0; y < planes.height; y++) {
      const from = (plane * planes.height + y) * planes.width;
      const to = (plane * out.height + top + y) * out.width + left;
      if (add) {
        for (let x = 0; x < planes.width; x++) {
          out.data[to + x]! += planes.data[from + x]!;
        }
      } else {
        out.data.set(planes.data.subarray(from, from + planes.width), to);
      }
    }
  }
}

function fade(planes: Planes, vertical: Float32Array, horizontal: Float32Array): void {
  const { data, count, height, width } = planes;
  for (let line = 0; line < count * height; line++) {
    const weight = vertical[line % height]!;
    for (let x = 0; x < width; x++) {
      data[line * width + x]! *= Math.fround(weight * horizontal[x]!);
    }
  }
}

function sized(planes: Planes, height: number, width: number): Planes {
  if (planes.height !== height || planes.width !== width) {
    throw new BackendError(
      `ONNX Runtime returned ${planes.height}x${planes.width} pixels instead of ${height}x${width}`,
    );
  }
  return planes;
}

/** Let messages and events in, so that a rendering can be cancelled. */
async function breathe(signal?: AbortSignal): Promise<void> {
  if (signal !== undefined) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (signal.aborted) {
      throw new Cancelled("the rendering was cancelled");
    }
  }
}
