/** The manifest of a bundle, checked before anything in it is used. */
import { ArtifactError } from "./errors.js";
import { SIZE_RULE } from "./grid.js";

const FORMAT_VERSION = 1;
const LARGEST_FILE = 2 ** 32;
const MOST_FILES = 10_000;

/** A port of a graph; dimensions are numbers or names such as `H` and `Wo`. */
export interface Port {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly (number | string)[];
}

/** One ONNX graph. */
export interface Graph {
  readonly path: string;
  readonly stage: string;
  readonly precision: string;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

/** Size and SHA-256 of a file, lower-case hexadecimal. */
export interface FileEntry {
  readonly sha256: string;
  readonly bytes: number;
}

/** What the runtime reads of a manifest; `docs/bundle.md` describes all of it. */
export interface Manifest {
  readonly name: string;
  readonly family: "query" | "lattice";
  readonly scale: { readonly min: number; readonly max: number; readonly native: readonly number[] };
  readonly height: { readonly max: number };
  readonly width: { readonly max: number };
  readonly receptiveField: number;
  readonly tiling: "exact" | "approximate" | "not-allowed";
  readonly parameters: number;
  readonly graphs: readonly Graph[];
  readonly files: ReadonlyMap<string, FileEntry>;
}

type Fields = Record<string, unknown>;

/**
 * Read a manifest.
 *
 * @throws ArtifactError if it is not JSON, of another version, or a field that the runtime needs is
 * missing or of another type.
 */
export function parseManifest(text: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ArtifactError("manifest.json is not JSON; export the bundle again");
  }
  const top = fields(value, "manifest");
  if (top["format_version"] !== FORMAT_VERSION) {
    throw new ArtifactError(
      `the bundle has format ${String(top["format_version"])}, this runtime reads ${FORMAT_VERSION}`,
    );
  }
  if (top["size_rule"] !== SIZE_RULE) {
    throw new ArtifactError(`unknown size rule ${String(top["size_rule"])}; update the runtime`);
  }
  const scale = fields(top["scale"], "scale");
  const files = Object.entries(fields(top["files"], "files"));
  if (files.length > MOST_FILES) {
    throw new ArtifactError(`the bundle lists more than ${MOST_FILES} files`);
  }
  const native = list(scale["native"], "scale.native").map((n) => whole(n, "scale.native"));
  const family = oneOf(top["family"], ["query", "lattice"] as const, "family");
  if (family === "lattice" && native.length === 0) {
    throw new ArtifactError("the lattice model has no native scale");
  }
  const graphs = fields(top["graphs"], "graphs")["onnx"] ?? [];
  return {
    name: string(top["name"], "name"),
    family,
    scale: { min: positive(scale["min"], "scale.min"), max: positive(scale["max"], "scale.max"), native },
    height: { max: whole(fields(top["height"], "height")["max"], "height.max") },
    width: { max: whole(fields(top["width"], "width")["max"], "width.max") },
    receptiveField: whole(top["receptive_field"], "receptive_field", 0),
    tiling: oneOf(top["tiling"], ["exact", "approximate", "not-allowed"] as const, "tiling"),
    parameters: whole(top["parameters"], "parameters", 0),
    graphs: list(graphs, "graphs.onnx").map(graph),
    files: new Map(files.map(([path, entry]) => [checkedPath(path), fileEntry(entry, path)])),
  };
}

/** A path that stays inside the bundle; throws ArtifactError of another. */
export function checkedPath(path: string): string {
  const parts = path.split("/");
  const odd = parts.some((part) => part === "" || part === "." || part === ".." || /[. ]$/.test(part));
  if (odd || parts.length > 16 || path.length > 512 || /[\\:?#%\u0000-\u001f\u007f]/.test(path)) {
    throw new ArtifactError(`the bundle names a file outside of it: ${JSON.stringify(path)}`);
  }
  return path;
}

function graph(value: unknown): Graph {
  const found = fields(value, "graph");
  const ports = (key: string): Port[] => list(found[key], key).map(port);
  return {
    path: checkedPath(string(found["path"], "graph.path")),
    stage: string(found["stage"], "graph.stage"),
    precision: string(found["precision"], "graph.precision"),
    inputs: ports("inputs"),
    outputs: ports("outputs"),
  };
}

function port(value: unknown): Port {
  const found = fields(value, "port");
  const shape = list(found["shape"], "port.shape").map((d) =>
    typeof d === "string" ? d : whole(d, "port.shape", 0),
  );
  return { name: string(found["name"], "port.name"), dtype: string(found["dtype"], "port.dtype"), shape };
}

function fileEntry(value: unknown, path: string): FileEntry {
  const found = fields(value, path);
  const sha256 = string(found["sha256"], `${path}.sha256`);
  const bytes = whole(found["bytes"], `${path}.bytes`, 0);
  if (!/^[0-9a-f]{64}$/.test(sha256) || bytes > LARGEST_FILE) {
    throw new ArtifactError(`the manifest's entry of ${path} is damaged; export the bundle again`);
  }
  return { sha256, bytes };
}

function fields(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw wrong(what, "an object");
  }
  return value as Fields;
}

function list(value: unknown, what: string): unknown[] {
  if (!Array.isArray(value)) {
    throw wrong(what, "a list");
  }
  return value;
}

function string(value: unknown, what: string): string {
  if (typeof value !== "string") {
    throw wrong(what, "text");
  }
  return value;
}

function positive(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
    throw wrong(what, "a number above 0");
  }
  return value;
}

function whole(value: unknown, what: string, least = 1): number {
  if (!Number.isSafeInteger(value) || (value as number) < least) {
    throw wrong(what, `a whole number of at least ${least}`);
  }
  return value as number;
}

function oneOf<T extends string>(value: unknown, known: readonly T[], what: string): T {
  const found = known.find((name) => name === value);
  if (found === undefined) {
    throw wrong(what, `one of ${known.join(", ")}`);
  }
  return found;
}

function wrong(what: string, expected: string): ArtifactError {
  return new ArtifactError(`manifest.json: ${what} must be ${expected}; export the bundle again`);
}
