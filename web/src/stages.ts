/** The graphs of one bundle on one runtime, loaded when first needed. */
import type { Bundle } from "./bundle.js";
import { ArtifactError, BackendError } from "./errors.js";
import { subpixelCentres, type Grid } from "./grid.js";
import type { Planes } from "./resample.js";
import type { Runtime, Session, Tensor, Tensors } from "./runtime.js";

const CONSTANTS_KEPT = 8;

export class Stages {
  private readonly sessions = new Map<string, Promise<Session>>();
  private readonly constants = new Map<string, Tensors>();

  constructor(
    readonly bundle: Bundle,
    readonly runtime: Runtime,
    readonly precision: string,
  ) {}

  has(stage: string): boolean {
    return this.bundle.graph(stage, this.precision) !== undefined;
  }

  /** The session of a stage; throws ArtifactError or BackendError. */
  session(stage: string): Promise<Session> {
    let found = this.sessions.get(stage);
    if (found === undefined) {
      found = this.open(stage);
      this.sessions.set(stage, found);
      // A download that failed may work the next time.
      found.catch(() => this.sessions.delete(stage));
    }
    return found;
  }

  private async open(stage: string): Promise<Session> {
    const graph = this.bundle.graph(stage, this.precision);
    if (graph === undefined) {
      throw new ArtifactError(`the bundle has no ONNX graph ${stage} in ${this.precision}; export it`);
    }
    const content = await this.bundle.file(graph.path);
    const keep = graph.outputs.map((port) => port.name).filter((name) => name !== "upscaled");
    return this.runtime.load(graph, content, keep);
  }

  /** What really runs the graphs that are loaded. */
  async provider(): Promise<string> {
    const sessions = await Promise.all(this.sessions.values());
    const divided = sessions.filter((session) => !session.undivided).map((session) => session.graph.stage);
    const rest = divided.length > 0 ? `; parts of ${divided.join(", ")} on WebAssembly` : "";
    return this.runtime.description + rest;
  }

  private async run(stage: string, feeds: Tensors): Promise<Tensors> {
    const session = await this.session(stage);
    const wanted: Tensors = {};
    for (const { name } of session.graph.inputs) {
      const value = feeds[name];
      if (value === undefined) {
        throw new ArtifactError(`stage ${stage} asks for ${name}, which this runtime does not make`);
      }
      wanted[name] = value;
    }
    return session.run(wanted);
  }

  /** Features of planes [count, 3, height, width] in [0, 1], on the device. */
  async encode(image: Planes, modulation: Tensors = {}): Promise<Tensors> {
    const { count, height, width, data } = image;
    const tensor = this.runtime.float32(data, [count / 3, 3, height, width]);
    return this.run("encode", { image: tensor, ...modulation });
  }

  /** Planes at an integer scale. */
  async renderLattice(features: Tensors, scale: number): Promise<Planes> {
    const bound = `render_x${scale}`;
    if (this.has(bound)) {
      return planes(await this.run(bound, features));
    }
    const constants = await this.prepared(`x${scale}`, {
      subpixel: this.runtime.float32(subpixelCentres(scale), [scale]),
      scale: this.runtime.float32(new Float32Array([scale, scale]), [2]),
    });
    return planes(await this.run("render", { ...features, ...constants }));
  }

  /** Planes of a region of the grid, from a query model. */
  async renderQuery(features: Tensors, { rows, cols }: Grid): Promise<Planes> {
    return planes(
      await this.run("render", {
        ...features,
        row_index: this.runtime.int32(rows.index(), [rows.length]),
        row_offset: this.runtime.float32(rows.offset(), [rows.length]),
        col_index: this.runtime.int32(cols.index(), [cols.length]),
        col_offset: this.runtime.float32(cols.offset(), [cols.length]),
        scale: this.runtime.float32(new Float32Array([rows.scale, cols.scale]), [2]),
      }),
    );
  }

  /** What `prepare` of a query model makes of an output size: inputs of `encode`. */
  async modulation({ rows, cols }: Grid): Promise<Tensors> {
    return this.prepared(`${rows.n}>${rows.N},${cols.n}>${cols.N}`, {
      scale: this.runtime.float32(new Float32Array([rows.scale, cols.scale]), [2]),
      cell: this.runtime.float32(new Float32Array([2 / rows.N, 2 / cols.N]), [2]),
    });
  }

  private async prepared(key: string, feeds: Tensors): Promise<Tensors> {
    let found = this.constants.get(key);
    if (found === undefined) {
      found = await this.run("prepare", feeds);
      const [oldest] = this.constants.keys();
      if (this.constants.size >= CONSTANTS_KEPT && oldest !== undefined) {
        dispose(this.constants.get(oldest)!);
        this.constants.delete(oldest);
      }
      this.constants.set(key, found);
    }
    return found;
  }

  /** Free every session and constant. */
  async release(): Promise<void> {
    this.constants.forEach(dispose);
    this.constants.clear();
    const sessions = await Promise.allSettled(this.sessions.values());
    this.sessions.clear();
    for (const session of sessions) {
      if (session.status === "fulfilled") {
        await session.value.release();
      }
    }
  }
}

/** Bytes of tensors, wherever they are. */
export function bytesOf(tensors: Tensors): number {
  return Object.values(tensors).reduce((sum, tensor) => sum + 4 * tensor.size, 0);
}

/** Free tensors, on the device too. */
export function dispose(tensors: Tensors): void {
  Object.values(tensors).forEach((tensor) => tensor.dispose());
}

function planes(outputs: Tensors): Planes {
  const tensor = outputs["upscaled"] as Tensor;
  const data = tensor.data as Float32Array<ArrayBuffer>;
  // A sum is NaN or infinite if any element is.
  let total = 0;
  for (let i = 0; i < data.length; i++) {
    total += data[i]!;
  }
  if (!Number.isFinite(total)) {
    throw new BackendError("the network returned NaN or infinity; choose precision fp32");
  }
  const [batch, , height, width] = tensor.dims as [number, number, number, number];
  return { data, count: batch * 3, height, width };
}
