/** Rendered blocks of the output at one scale, and drawing them at another. */
import { outputLength, type Region } from "../src/grid.js";
import type { Side } from "./messages.js";

/** Output rows and columns of a block. */
export const BLOCK = 256;

interface Block {
  readonly region: Region;
  readonly canvas: Record<Side, OffscreenCanvas>;
  complete: boolean;
}

/** Where the output's pixel (0, 0) lies on the stage, in device pixels. */
export interface Place {
  readonly top: number;
  readonly left: number;
}

/** The blocks of one model at one scale. */
export class Layer {
  readonly rows: number;
  readonly cols: number;
  private readonly blocks = new Map<string, Block>();

  constructor(
    readonly scale: number,
    readonly height: number,
    readonly width: number,
  ) {
    this.rows = outputLength(height, scale);
    this.cols = outputLength(width, scale);
  }

  /** Blocks that a rectangle touches and that are not complete, those nearest its middle first. */
  missing([y0, x0, y1, x1]: Region): Region[] {
    const found: { region: Region; distance: number }[] = [];
    const [middleY, middleX] = [(y0 + y1) / 2, (x0 + x1) / 2];
    for (let y = Math.floor(y0 / BLOCK) * BLOCK; y < y1; y += BLOCK) {
      for (let x = Math.floor(x0 / BLOCK) * BLOCK; x < x1; x += BLOCK) {
        if (!this.blocks.get(`${y},${x}`)?.complete) {
          const region: Region = [y, x, Math.min(this.rows, y + BLOCK), Math.min(this.cols, x + BLOCK)];
          found.push({ region, distance: Math.hypot(y + BLOCK / 2 - middleY, x + BLOCK / 2 - middleX) });
        }
      }
    }
    return found.sort((a, b) => a.distance - b.distance).map(({ region }) => region);
  }

  /** Put pixels of a part, which lies within one block, in their place. */
  put(side: Side, region: Region, rgba: Uint8ClampedArray<ArrayBuffer>): void {
    const [y0, x0, y1, x1] = region;
    const [top, left] = [Math.floor(y0 / BLOCK) * BLOCK, Math.floor(x0 / BLOCK) * BLOCK];
    const key = `${top},${left}`;
    let block = this.blocks.get(key);
    if (block === undefined) {
      const whole: Region = [top, left, Math.min(this.rows, top + BLOCK), Math.min(this.cols, left + BLOCK)];
      const make = (): OffscreenCanvas => new OffscreenCanvas(whole[3] - left, whole[2] - top);
      block = { region: whole, canvas: { bicubic: make(), network: make() }, complete: false };
      this.blocks.set(key, block);
    }
    const context = block.canvas[side].getContext("2d")!;
    context.putImageData(new ImageData(rgba, x1 - x0, y1 - y0), x0 - left, y0 - top);
    // Parts of a block come from top to bottom and from left to right.
    block.complete ||= side === "network" && y1 === block.region[2] && x1 === block.region[3];
  }

  /** Draw one side where the output of `rows` x `cols` pixels has its corner at a place. */
  draw(context: CanvasRenderingContext2D, side: Side, { top, left }: Place, rows: number, cols: number): void {
    const [zoomY, zoomX] = [rows / this.rows, cols / this.cols];
    context.imageSmoothingEnabled = rows !== this.rows || cols !== this.cols;
    for (const { region, canvas } of this.blocks.values()) {
      // Ends are rounded alike, so that neighbours meet without a gap.
      const y0 = Math.round(top + region[0] * zoomY);
      const x0 = Math.round(left + region[1] * zoomX);
      const y1 = Math.round(top + region[2] * zoomY);
      const x1 = Math.round(left + region[3] * zoomX);
      if (y1 > 0 && x1 > 0 && y0 < context.canvas.height && x0 < context.canvas.width) {
        context.drawImage(canvas[side], x0, y0, x1 - x0, y1 - y0);
      }
    }
  }

  /** Whether nothing is rendered yet. */
  get empty(): boolean {
    return this.blocks.size === 0;
  }

  /** Forget blocks far from a rectangle when there are many. */
  trim([y0, x0, y1, x1]: Region, most: number): void {
    if (this.blocks.size <= most) {
      return;
    }
    for (const [key, { region }] of this.blocks) {
      const far = region[2] < y0 - BLOCK || region[0] > y1 + BLOCK || region[3] < x0 - BLOCK || region[1] > x1 + BLOCK;
      if (far) {
        this.blocks.delete(key);
      }
    }
  }
}
