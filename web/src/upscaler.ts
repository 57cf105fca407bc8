/** What applications use: a model on a runtime, opened pictures, and a test of both. */
import { openBundle, type Bundle, type ReadFile } from "./bundle.js";
import { ArtifactError } from "./errors.js";
import type { Manifest } from "./manifest.js";
import type { Planes } from "./resample.js";
import { openRuntime, type Runtime, type RuntimeOptions } from "./runtime.js";
import { Stages } from "./stages.js";
import { DEFAULT_POLICY, sourceOf, View, type Request, type Source, type TilePolicy } from "./view.js";

export interface LoadOptions extends RuntimeOptions {
  /** Precision of the graphs; the first of the bundle when left out. */
  readonly precision?: string;
  readonly policy?: Partial<TilePolicy>;
  /** A runtime that is open already, instead of the options of one. */
  readonly runtime?: Runtime;
}

/** A model on a runtime. Made by {@link load}. */
export class Upscaler {
  constructor(
    private readonly stages: Stages,
    private readonly policy: TilePolicy,
  ) {}

  get manifest(): Manifest {
    return this.stages.bundle.manifest;
  }

  get precision(): string {
    return this.stages.precision;
  }

  get runtime(): Runtime {
    return this.stages.runtime;
  }

  /** Load the encoder now, and the decoder of a query model. */
  async warm(): Promise<void> {
    await this.stages.session("encode");
    if (this.manifest.family === "query") {
      await this.stages.session("render");
    }
  }

  /** The provider that really runs the loaded graphs, in words. */
  provider(): Promise<string> {
    return this.stages.provider();
  }

  /** Open an image, float32 RGB planes in [0, 1], for rendering at any scale and region. */
  open(image: Planes | Source): View {
    return new View(this.stages, "crop" in image ? image : sourceOf(image), this.policy);
  }

  /** Upscale an image once: float32 planes, not clamped. */
  async upscale(image: Planes | Source, request: Request): Promise<Planes> {
    const view = this.open(image);
    try {
      return await view.render(request);
    } finally {
      view.close();
    }
  }

  /** Free the sessions. */
  release(): Promise<void> {
    return this.stages.release();
  }
}

/**
 * Load a bundle.
 *
 * @param source address of a bundle folder or `.zip`, a function that reads its files, or a bundle.
 * @throws ArtifactError if the bundle is damaged, lacks the graphs or is of fixed shape, BackendError if the provider
 * is not there.
 */
export async function load(source: string | URL | ReadFile | Bundle, options: LoadOptions = {}): Promise<Upscaler> {
  const opened =
    typeof source === "object" && "manifest" in source ? source : await openBundle(source as string | URL | ReadFile);
  const there = opened.precisions();
  const precision = options.precision ?? there[0];
  if (precision === undefined || !there.includes(precision)) {
    const has = there.length > 0 ? there.join(", ") : "none";
    throw new ArtifactError(`the bundle has no ONNX stages in ${precision ?? "any precision"} (has: ${has})`);
  }
  const shape = opened.graph("encode", precision)?.inputs.find((port) => port.name === "image")?.shape ?? [];
  if (shape.slice(2).every((size) => typeof size === "number") && shape.length > 0) {
    const size = `${String(shape[3])}x${String(shape[2])}`;
    throw new ArtifactError(`the graphs take images of ${size} only; export the bundle without --static`);
  }
  const runtime = options.runtime ?? (await openRuntime(options));
  return new Upscaler(new Stages(opened, runtime, precision), { ...DEFAULT_POLICY, ...options.policy });
}
