/** What the page and its worker say to each other. */
import type { Region } from "../src/index.js";

/** A model of the site, from `models/models.json`. */
export interface Model {
  readonly name: string;
  readonly title: string;
  readonly bundle: string;
}

export type ToWorker =
  | { readonly kind: "start"; readonly base: string; readonly provider: "auto" | "wasm" | "webgpu" }
  | { readonly kind: "photo"; readonly bitmap: ImageBitmap }
  | { readonly kind: "model"; readonly bundle: string }
  | {
      readonly kind: "render";
      readonly id: number;
      readonly scale: number;
      /** Blocks of the output in the order in which they are wanted. */
      readonly blocks: readonly Region[];
    }
  | { readonly kind: "save"; readonly id: number; readonly scale: number }
  | { readonly kind: "cancel"; readonly id: number };

export type Side = "bicubic" | "network";

export type FromWorker =
  | { readonly kind: "ready"; readonly provider: string; readonly version: string; readonly notice: string }
  | { readonly kind: "model"; readonly bundle: string; readonly min: number; readonly max: number }
  | { readonly kind: "opened"; readonly height: number; readonly width: number }
  | {
      readonly kind: "part";
      readonly id: number;
      readonly side: Side;
      readonly region: Region;
      readonly rgba: Uint8ClampedArray<ArrayBuffer>;
    }
  | {
      readonly kind: "rendered";
      readonly id: number;
      readonly provider: string;
      /** Milliseconds to the first part of the network and to the last. */
      readonly first: number;
      readonly last: number;
      readonly encoded: number;
    }
  | { readonly kind: "progress"; readonly id: number; readonly done: number }
  | { readonly kind: "saved"; readonly id: number; readonly file: Blob }
  | { readonly kind: "failed"; readonly id: number; readonly message: string };
