/** ONNX Runtime Web: which provider runs, with how many threads, and sessions on it. */
import type * as Ort from "onnxruntime-web";

import { BackendError } from "./errors.js";
import type { Graph } from "./manifest.js";

/** `webgpu` runs on the graphics processor, `wasm` on the processor. */
export type Provider = "webgpu" | "wasm";

export interface RuntimeOptions {
  /** `auto` takes WebGPU if the browser offers an adapter, else WebAssembly. */
  readonly provider?: Provider | "auto";
  /** WebAssembly threads; more than one needs a cross-origin isolated page. 0 chooses. */
  readonly threads?: number;
  /** Address of the folder with ONNX Runtime's `.wasm` and `.mjs` files, with a slash at its end. */
  readonly wasmPaths?: string;
}

/** A tensor of ONNX Runtime, on the processor or on the device. */
export type Tensor = Ort.Tensor;
export type Tensors = Record<string, Tensor>;

const MOST_THREADS = 8;

/** A loaded graph. */
export class Session {
  constructor(
    readonly graph: Graph,
    private readonly runtime: Runtime,
    private readonly session: Ort.InferenceSession,
    /** Whether every operation runs on the provider; shape arithmetic may stay on the processor. */
    readonly undivided: boolean,
  ) {}

  /**
   * Run the graph once. Runs of one runtime follow each other.
   *
   * @throws BackendError if ONNX Runtime fails or returns something else than the manifest declares.
   */
  async run(feeds: Tensors): Promise<Tensors> {
    const outputs = await this.runtime.alone(async () => {
      try {
        return await this.session.run(feeds);
      } catch (error) {
        throw new BackendError(`ONNX Runtime failed in ${this.graph.stage}: ${reason(error)}`);
      }
    });
    for (const declared of this.graph.outputs) {
      const dims = outputs[declared.name]?.dims;
      const fits =
        dims?.length === declared.shape.length &&
        declared.shape.every((d, i) => typeof d === "string" || d === dims[i] || dims[i] === 1);
      if (!fits) {
        throw new BackendError(
          `ONNX Runtime returned [${dims?.join(", ") ?? ""}] as ${declared.name} of ` +
            `${this.graph.stage} instead of [${declared.shape.join(", ")}]`,
        );
      }
    }
    return outputs as Tensors;
  }

  async release(): Promise<void> {
    await this.runtime.alone(() => this.session.release());
  }
}

/** ONNX Runtime on one provider. Made by {@link openRuntime}. */
export class Runtime {
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly ort: typeof Ort,
    readonly provider: Provider,
    /** WebAssembly threads. */
    readonly threads: number,
    /** The graphics adapter; empty with WebAssembly. */
    readonly adapter: string,
  ) {}

  /** What runs, for people. */
  get description(): string {
    if (this.provider === "webgpu") {
      return `WebGPU (${this.adapter})`;
    }
    return `WebAssembly (${this.threads} ${this.threads === 1 ? "thread" : "threads"})`;
  }

  /** Version of ONNX Runtime Web. */
  get version(): string {
    return this.ort.env.versions.web ?? this.ort.env.versions.common;
  }

  /** Wait for what runs now, then run something. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    const next = this.last.then(work, work);
    this.last = next.catch(() => undefined);
    return next;
  }

  /**
   * Load a graph.
   *
   * @param keep names of outputs that stay on the device for the next stage.
   * @throws BackendError if ONNX Runtime refuses it.
   */
  async load(graph: Graph, content: Uint8Array, keep: readonly string[]): Promise<Session> {
    const options: Ort.InferenceSession.SessionOptions = {
      executionProviders: [this.provider],
      graphOptimizationLevel: "all",
      logSeverityLevel: 3,
    };
    if (this.provider === "wasm") {
      return new Session(graph, this, await this.create(graph, content, options), true);
    }
    options.preferredOutputLocation = Object.fromEntries(keep.map((name) => [name, "gpu-buffer"]));
    // ONNX Runtime moves operations to the processor without a word. It is asked to refuse first,
    // so that what really runs can be reported.
    const strict = { ...options, logSeverityLevel: 4 as const, extra: { session: { disable_cpu_ep_fallback: "1" } } };
    try {
      return new Session(graph, this, await this.create(graph, content, strict), true);
    } catch {
      return new Session(graph, this, await this.create(graph, content, options), false);
    }
  }

  private create(
    graph: Graph,
    content: Uint8Array,
    options: Ort.InferenceSession.SessionOptions,
  ): Promise<Ort.InferenceSession> {
    return this.alone(async () => {
      try {
        return await this.ort.InferenceSession.create(content, options);
      } catch (error) {
        throw new BackendError(`ONNX Runtime refuses ${graph.path}: ${reason(error)}`);
      }
    });
  }

  float32(data: Float32Array, dims: readonly number[]): Tensor {
    return new this.ort.Tensor("float32", data, dims);
  }

  int32(data: Int32Array, dims: readonly number[]): Tensor {
    return new this.ort.Tensor("int32", data, dims);
  }
}

/**
 * Start ONNX Runtime.
 *
 * @throws BackendError if WebGPU is asked for and the browser offers no adapter.
 */
export async function openRuntime(options: RuntimeOptions = {}): Promise<Runtime> {
  const wanted = options.provider ?? "auto";
  const adapter = wanted === "wasm" ? undefined : await adapterName();
  if (wanted === "webgpu" && adapter === undefined) {
    throw new BackendError("this browser offers no WebGPU adapter; choose WebAssembly");
  }
  const provider: Provider = adapter === undefined ? "wasm" : "webgpu";
  const ort = (
    provider === "webgpu" ? await import("onnxruntime-web/webgpu") : await import("onnxruntime-web/wasm")
  ) as typeof Ort;
  ort.env.logLevel = "error";
  if (options.wasmPaths !== undefined) {
    ort.env.wasm.wasmPaths = options.wasmPaths;
  }
  const threads = threadCount(options.threads ?? 0);
  ort.env.wasm.numThreads = threads;
  return new Runtime(ort, provider, threads, adapter ?? "");
}

function threadCount(asked: number): number {
  const isolated = globalThis.crossOriginIsolated ?? typeof process !== "undefined";
  const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
  return isolated ? asked || Math.min(MOST_THREADS, cores) : 1;
}

interface AdapterInfo {
  readonly vendor?: string;
  readonly architecture?: string;
  readonly description?: string;
}

interface Gpu {
  requestAdapter(): Promise<{ readonly info?: AdapterInfo } | null>;
}

async function adapterName(): Promise<string | undefined> {
  const gpu = (globalThis.navigator as { gpu?: Gpu } | undefined)?.gpu;
  try {
    const adapter = await gpu?.requestAdapter();
    if (adapter === null || adapter === undefined) {
      return undefined;
    }
    const { description, vendor, architecture } = adapter.info ?? {};
    return description || [vendor, architecture].filter(Boolean).join(" ") || "unnamed adapter";
  } catch {
    return undefined;
  }
}

function reason(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split("\n", 1)[0]!;
}
