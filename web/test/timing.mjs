// How long the page takes: `node web/test/timing.mjs [--site FOLDER] [--photo FILE] [--provider wasm]
// [--runs 5] [--picture PNG --zoom 4] [--json]`, after `make web`. Prints a table in Markdown.
//
// "anew": the photograph is opened, encoded and rendered to fit. "zoom": another scale near x2.7 of the
// same photograph, which renders only. Milliseconds to the first pixels of the network and to all that is
// visible, at 1280x800; the least of the runs, because other programs only add. With --picture, the
// page is also photographed at the scale --zoom.
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openBrowser, serve } from "./browser.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { values } = parseArgs({
  options: {
    site: { type: "string", default: here("../build/site") },
    photo: { type: "string", default: here("../../examples/astronaut.jpg") },
    provider: { type: "string", default: "wasm" },
    runs: { type: "string", default: "5" },
    picture: { type: "string" },
    zoom: { type: "string", default: "4" },
    json: { type: "boolean", default: false },
  },
});
const { site, photo, provider, runs, picture } = values;

const { server, address } = await serve({ "/": site });
const browser = await openBrowser({
  gpu: provider === "webgpu",
  viewport: { width: 1280, height: picture ? 720 : 800 },
});

async function rendered(page) {
  await page.waitForFunction(
    () => document.body.dataset.rendered !== undefined && !document.body.classList.contains("busy"),
    null,
    { timeout: 300_000 },
  );
  return page.evaluate(() => [Number(document.body.dataset.first), Number(document.body.dataset.last)]);
}

async function least(page, act) {
  const times = [];
  for (let i = 0; i < Number(runs); i++) {
    await page.evaluate(() => delete document.body.dataset.rendered);
    await act(i);
    times.push(await rendered(page));
  }
  return { first: Math.min(...times.map(([a]) => a)), all: Math.min(...times.map(([, b]) => b)) };
}

const found = {};
try {
  const page = await browser.context.newPage();
  await page.goto(`${address}/?provider=${provider}`);
  await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("Ready"), null, {
    timeout: 300_000,
  });
  await page.setInputFiles("#file", photo);
  await rendered(page);
  for (const [index, name] of (await page.$$eval("#model option", (all) => all.map((o) => o.value))).entries()) {
    await page.evaluate(() => delete document.body.dataset.rendered);
    await page.selectOption("#model", { index });
    if (index > 0) {
      await rendered(page);
    }
    const anew = await least(page, () => page.setInputFiles("#file", photo));
    const zoom = await least(page, async (i) => {
      await page.fill("#factor", String(2.7 + i / 20));
      await page.press("#factor", "Enter");
    });
    found[name] = { anew, zoom };
    if (picture && index === 0) {
      await page.evaluate(() => delete document.body.dataset.rendered);
      await page.fill("#factor", values.zoom);
      await page.press("#factor", "Enter");
      await rendered(page);
      await page.waitForTimeout(1000); // the bar of the progress fades
      await page.screenshot({ path: picture });
    }
  }
  found.status = await page.textContent("#status");
  found.browser = `Chromium ${browser.context.browser()?.version() ?? ""}`.trim();
} finally {
  await browser.close();
  server.close();
}
if (values.json) {
  console.log(JSON.stringify(found, null, 1));
} else {
  const { status, browser: name, ...models } = found;
  console.log("| | anew: first pixels, ms | anew: all, ms | zoom: first pixels, ms | zoom: all, ms |");
  console.log("|---|---|---|---|---|");
  for (const [model, { anew, zoom }] of Object.entries(models)) {
    const cells = [anew.first, anew.all, zoom.first, zoom.all].map((time) => Math.round(time));
    console.log(`| ${model} | ${cells.join(" | ")} |`);
  }
  console.log(`\n${name}, ${cpus().length} x ${cpus()[0]?.model ?? "processor"}; the page said: ${status}`);
}
