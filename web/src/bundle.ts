/** Opening a bundle: a folder or a zip archive over HTTP, every file checked against its hash. */
import { unzipSync, type UnzipFileInfo } from "fflate";

import { ArtifactError, BackendError } from "./errors.js";
import { checkedPath, parseManifest, type Graph, type Manifest } from "./manifest.js";

const LARGEST_MANIFEST = 16 << 20;
const LARGEST_ARCHIVE = 1 << 30;

/** Reads a file of a bundle by its relative path; refuses more than `most` bytes. */
export type ReadFile = (path: string, most: number) => Promise<Uint8Array>;

/** An opened bundle. Files are read and checked when they are asked for. */
export class Bundle {
  constructor(
    readonly manifest: Manifest,
    private readonly read: ReadFile,
  ) {}

  /** The ONNX graph of a stage, or undefined if the bundle has none. */
  graph(stage: string, precision: string): Graph | undefined {
    return this.manifest.graphs.find((g) => g.stage === stage && g.precision === precision);
  }

  /** Precisions of the staged ONNX graphs, in the order of the manifest. */
  precisions(): string[] {
    const staged = this.manifest.graphs.filter((g) => g.stage === "encode");
    return [...new Set(staged.map((g) => g.precision))];
  }

  /**
   * Content of a listed file.
   *
   * @throws ArtifactError if it is not listed, or its size or SHA-256 is not the listed one.
   */
  async file(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.manifest.files.get(path);
    if (entry === undefined) {
      throw new ArtifactError(`${path} is not listed in the manifest; export the bundle again`);
    }
    const content = new Uint8Array(await this.read(path, entry.bytes));
    if (content.length !== entry.bytes || (await sha256(content)) !== entry.sha256) {
      throw new ArtifactError(`${path} is not the file of the manifest; download the bundle again`);
    }
    return content;
  }
}

/**
 * Open a bundle.
 *
 * @param source address of a bundle folder or of a `.zip` of one, or a function that reads its files.
 * @throws ArtifactError if it is damaged or not a bundle.
 */
export async function openBundle(source: string | URL | ReadFile): Promise<Bundle> {
  const read = typeof source === "function" ? source : await readerOf(String(source));
  const text = new TextDecoder().decode(await read("manifest.json", LARGEST_MANIFEST));
  return new Bundle(parseManifest(text), read);
}

async function readerOf(address: string): Promise<ReadFile> {
  const path = address.split(/[?#]/, 1)[0]!;
  if (path.toLowerCase().endsWith(".zip")) {
    return zipReader(await download(address, LARGEST_ARCHIVE));
  }
  const folder = path.endsWith("/") ? path : `${path}/`;
  return (name, most) => download(folder + checkedPath(name), most);
}

/**
 * A reader of a zip archive in memory: of a bundle's files, or of the one folder that holds them.
 *
 * @throws ArtifactError if it is not an archive or holds no manifest.
 */
export function zipReader(archive: Uint8Array): ReadFile {
  const names: string[] = [];
  unpack(archive, (info) => {
    names.push(info.name);
    return false;
  });
  const manifests = names.filter((name) => /^([^/]+\/)?manifest\.json$/.test(name));
  if (manifests.length !== 1) {
    throw new ArtifactError("the archive must hold one bundle; pack the bundle's folder alone");
  }
  const folder = manifests[0]!.slice(0, -"manifest.json".length);
  return async (path, most) => {
    const name = folder + checkedPath(path);
    const found = unpack(archive, (info) => info.name === name && info.originalSize <= most)[name];
    if (found === undefined) {
      throw new ArtifactError(`the archive lacks ${path}, or holds more of it than is listed`);
    }
    return found;
  };
}

function unpack(archive: Uint8Array, filter: (info: UnzipFileInfo) => boolean): Record<string, Uint8Array> {
  try {
    return unzipSync(archive, { filter });
  } catch (error) {
    throw new ArtifactError(`the archive cannot be read (${(error as Error).message}); download it again`);
  }
}

async function download(address: string, most: number): Promise<Uint8Array> {
  let response: Response;
  try {
    response = await fetch(address);
  } catch (error) {
    throw new ArtifactError(`cannot load ${address}: ${(error as Error).message}`);
  }
  if (!response.ok || response.body === null) {
    throw new ArtifactError(`cannot load ${address}: the server answered ${response.status}`);
  }
  const pieces: Uint8Array[] = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    pieces.push(value);
    size += value.length;
    if (size > most) {
      await reader.cancel();
      throw new ArtifactError(`${address} is larger than the ${most} bytes that are allowed`);
    }
  }
  const content = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    content.set(piece, at);
    at += piece.length;
  }
  return content;
}

async function sha256(content: Uint8Array<ArrayBuffer>): Promise<string> {
  if (globalThis.crypto?.subtle === undefined) {
    throw new BackendError("hashes cannot be checked on this page; serve it over https or from localhost");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
