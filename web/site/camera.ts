/** What part of the photograph the stage shows, and how large. */
import { outputLength, type Region } from "../src/grid.js";
import type { Place } from "./layers.js";

/** Largest photograph in pixels that the page takes. */
export const MOST_PIXELS = 80e6;

export class Camera {
  /** Device pixels per pixel of the photograph: the network's scale. */
  scale = 1;
  /** The photograph's point in the middle of the stage, in its pixels. */
  y = 0;
  x = 0;
  /** Size of the stage in device pixels. */
  stageHeight = 1;
  stageWidth = 1;
  /** Scales that the model renders. */
  min = 1;
  max = 8;

  constructor(
    readonly height: number,
    readonly width: number,
  ) {
    this.y = height / 2;
    this.x = width / 2;
  }

  /** The scale at which all of the photograph fits the stage. */
  get fit(): number {
    return Math.min(this.stageHeight / this.height, this.stageWidth / this.width);
  }

  /** Smallest scale: the whole photograph, which may be below what a model renders. */
  get smallest(): number {
    return Math.min(this.min, this.fit);
  }

  get rows(): number {
    return outputLength(this.height, this.scale);
  }

  get cols(): number {
    return outputLength(this.width, this.scale);
  }

  /** Where the output's corner lies on the stage: whole pixels, so that nothing is resampled. */
  get place(): Place {
    return {
      top: Math.round(this.stageHeight / 2 - (this.y * this.rows) / this.height),
      left: Math.round(this.stageWidth / 2 - (this.x * this.cols) / this.width),
    };
  }

  /** Visible rectangle of the output. */
  get visible(): Region {
    const { top, left } = this.place;
    return [
      Math.max(0, -top),
      Math.max(0, -left),
      Math.min(this.rows, this.stageHeight - top),
      Math.min(this.cols, this.stageWidth - left),
    ];
  }

  resize(height: number, width: number): void {
    this.stageHeight = height;
    this.stageWidth = width;
    this.settle();
  }

  /** Show the whole photograph, or a small one as large as the model allows. */
  showAll(): void {
    this.y = this.height / 2;
    this.x = this.width / 2;
    this.zoomTo(this.fit);
  }

  /** First look at a photograph: all of a small one, the middle of a large one at x2. */
  showFirst(): void {
    this.showAll();
    if (this.scale < 2) {
      this.zoomTo(Math.min(2, this.max));
    }
  }

  /** Zoom about a point of the stage in device pixels; its middle when left out. */
  zoomTo(scale: number, atY = this.stageHeight / 2, atX = this.stageWidth / 2): void {
    const next = Math.min(this.max, Math.max(this.smallest, scale));
    const [dy, dx] = [atY - this.stageHeight / 2, atX - this.stageWidth / 2];
    this.y += dy / this.scale - dy / next;
    this.x += dx / this.scale - dx / next;
    this.scale = next;
    this.settle();
  }

  /** Move the photograph by device pixels. */
  move(dy: number, dx: number): void {
    this.y -= dy / this.scale;
    this.x -= dx / this.scale;
    this.settle();
  }

  /** Keep the photograph on the stage. */
  private settle(): void {
    this.scale = Math.min(this.max, Math.max(this.smallest, this.scale));
    this.y = kept(this.y, this.height, this.stageHeight / this.scale);
    this.x = kept(this.x, this.width, this.stageWidth / this.scale);
  }
}

function kept(at: number, length: number, shown: number): number {
  return length <= shown ? length / 2 : Math.min(length - shown / 2, Math.max(shown / 2, at));
}
