// Opens Chromium on a folder served here: `node test/browser.mjs cases VECTORS [PROVIDER]` runs the
// comparisons, `node test/browser.mjs page SITE PHOTO OUT` the page. Prints one line of JSON.
import { createServer } from "node:http";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".wasm": "application/wasm",
  ".svg": "image/svg+xml",
  ".json": "application/json",
  ".webmanifest": "application/manifest+json",
};

const QUIET = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The installed browser; this never downloads one. */
export function browserPath() {
  const given = process.env.SCALEPORT_CHROMIUM;
  const known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  const found = (given ? [given] : known).find((path) => existsSync(path));
  if (found === undefined) {
    throw new Error("no Chromium; install it or set SCALEPORT_CHROMIUM");
  }
  return found;
}

/** Start a browser with an empty profile; with `gpu`, one that offers a software WebGPU adapter. */
export async function openBrowser({ gpu = false, ...context } = {}) {
  const profile = await mkdtemp(join(tmpdir(), "scaleport-chromium-"));
  const extra = gpu
    ? ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
    : [];
  const args = gpu ? QUIET.filter((flag) => flag !== "--disable-gpu") : QUIET;
  const opened = await chromium.launchPersistentContext(profile, {
    executablePath: browserPath(),
    headless: true,
    args: [...args, ...extra],
    ...context,
  });
  return {
    context: opened,
    async close() {
      await opened.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

/** Serve folders, by the first part of the path; `isolated` allows threads. */
export async function serve(folders, isolated = true) {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
    const prefix = Object.keys(folders).find((key) => path.startsWith(key));
    try {
      let file = join(folders[prefix], path.slice(prefix.length));
      file = path.endsWith("/") ? join(file, "index.html") : file;
      const content = await readFile(file);
      response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
      if (isolated) {
        response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
        response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
      }
      response.end(content);
    } catch {
      response.statusCode = 404;
      response.end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, address: `http://127.0.0.1:${server.address().port}` };
}

async function cases(vectors, provider = "wasm", only = "") {
  const built = fileURLToPath(new URL("../build/test/browser", import.meta.url));
  const { server, address } = await serve({ "/vectors/": vectors, "/": built });
  const browser = await openBrowser({ gpu: provider === "webgpu" });
  try {
    const page = await browser.context.newPage();
    page.on("console", (message) => process.env.VERBOSE && console.error(message.text()));
    await page.goto(`${address}/`);
    await page.waitForFunction(() => "runCases" in globalThis);
    return await page.evaluate(([p, o]) => globalThis.runCases(p, o), [provider, only]);
  } finally {
    await browser.close();
    server.close();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [what, ...rest] = process.argv.slice(2);
  const kinds = { cases };
  console.log(JSON.stringify(await kinds[what](...rest)));
}
