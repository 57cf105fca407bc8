// Builds: `node build.mjs lib` the package, `node build.mjs test` the tests for Node and a browser,
// `node build.mjs site FOLDER` the page without its models.
import { execFileSync } from "node:child_process";
import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const RUNTIME = ["ort-wasm-simd-threaded", "ort-wasm-simd-threaded.asyncify"];

const browser = {
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  splitting: true,
  minify: true,
  // ONNX Runtime's WebAssembly stays in files of its own, which are only loaded when needed.
  conditions: ["onnxruntime-web-use-extern-wasm"],
  chunkNames: "code/[name]-[hash]",
  logLevel: "warning",
};

async function copyRuntime(folder) {
  await mkdir(folder, { recursive: true });
  const source = join(here, "node_modules/onnxruntime-web/dist");
  for (const name of RUNTIME) {
    for (const ending of ["mjs", "wasm"]) {
      await cp(join(source, `${name}.${ending}`), join(folder, `${name}.${ending}`));
    }
  }
}

async function lib() {
  execFileSync(join(here, "node_modules/.bin/tsc"), ["-p", "tsconfig.lib.json"], { cwd: here, stdio: "inherit" });
}

async function tests() {
  const out = join(here, "build/test");
  await build({
    entryPoints: [join(here, "test/node.test.ts")],
    outfile: join(out, "node.test.mjs"),
    bundle: true,
    format: "esm",
    platform: "node",
    packages: "external",
    logLevel: "warning",
  });
  await build({ ...browser, entryPoints: [join(here, "test/browser-cases.ts")], outdir: join(out, "browser") });
  await copyRuntime(join(out, "browser/ort"));
  await writeFile(
    join(out, "browser/index.html"),
    '<!doctype html><meta charset="utf-8"><title>cases</title><script type="module" src="browser-cases.js"></script>\n',
  );
}

async function filesOf(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  return files.map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)).replaceAll("\\", "/")).sort();
}

async function site(folder) {
  await build({
    ...browser,
    entryPoints: [join(here, "site/app.ts"), join(here, "site/worker.ts")],
    outdir: folder,
  });
  await copyRuntime(join(folder, "ort"));
  for (const name of ["index.html", "style.css", "icon.svg", "site.webmanifest"]) {
    await cp(join(here, "site", name), join(folder, name));
  }
  await cp(join(here, "../examples/sample.png"), join(folder, "sample.png"));
  // The service worker keeps exactly the files of this build, models included.
  const files = (await filesOf(folder)).filter((name) => name !== "sw.js");
  const hash = createHash("sha256");
  for (const name of files) {
    hash.update(name).update(await readFile(join(folder, name)));
  }
  await build({
    ...browser,
    splitting: false,
    entryPoints: [join(here, "site/sw.ts")],
    outfile: join(folder, "sw.js"),
    format: "iife",
    define: { FILES: JSON.stringify(files), VERSION: JSON.stringify(hash.digest("hex").slice(0, 16)) },
  });
}

const [what, ...rest] = process.argv.slice(2);
const kinds = { lib, test: tests, site };
if (!(what in kinds)) {
  throw new Error(`build what? ${Object.keys(kinds).join(", ")}`);
}
await kinds[what](...rest);
