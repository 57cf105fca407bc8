// Uses the page as a person would, in Chromium: `node test/page.mjs SITE PHOTO OUT [PROVIDER]`.
// Writes screenshots and the downloaded picture to OUT and prints what it found as JSON.
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { openBrowser, serve } from "./browser.mjs";

const [site, photo, out, provider = "wasm"] = process.argv.slice(2);
const TIMEOUT = 200_000;
const DESKTOP = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };

/** Wait until nothing is missing; returns the times that the page measured. */
async function rendered(page) {
  await page.waitForFunction(
    () => {
      const { rendered, last } = document.body.dataset;
      return rendered !== undefined && last !== undefined && !document.body.classList.contains("busy");
    },
    null,
    { timeout: TIMEOUT },
  );
  return page.evaluate(() => {
    const { first, last, encoded } = document.body.dataset;
    const { scale, top, left } = document.getElementById("canvas").dataset;
    return Object.fromEntries(
      Object.entries({ first, last, encoded, scale, top, left }).map(([key, value]) => [key, Number(value)]),
    );
  });
}

async function zoomTo(page, scale) {
  await page.evaluate(() => delete document.body.dataset.rendered);
  await page.fill("#factor", String(scale));
  await page.press("#factor", "Enter");
  return rendered(page);
}

/** How often the picture still changed after the page had said that all was rendered. */
async function unfinished(page, times) {
  const picture = () => page.evaluate(() => document.getElementById("canvas").toDataURL());
  let count = 0;
  for (let i = 0; i < times; i++) {
    // The page looks for missing parts some time after a change: zoom at every moment of that time.
    await page.keyboard.press("ArrowRight");
    await page.waitForTimeout(5 * i);
    await zoomTo(page, 2 + i / 20);
    const said = await picture();
    await page.waitForTimeout(500);
    count += said !== (await picture());
    await page.focus("#handle");
  }
  return count;
}

async function choose(page, path) {
  await page.evaluate(() => delete document.body.dataset.rendered);
  await page.setInputFiles("#file", path);
  return rendered(page);
}

async function violations(page) {
  const source = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  // The page's policy allows no foreign scripts; the debugger's evaluation is not bound by it.
  await page.evaluate(source);
  const { violations: found } = await page.evaluate(() => globalThis.axe.run(document));
  return found.map(({ id, help, nodes }) => `${id}: ${help} (${nodes.map(({ target }) => target).join("; ")})`);
}

async function shot(page, name) {
  await page.screenshot({ path: join(out, `${name}.png`) });
}

const { server, address } = await serve({ "/": site });
const found = { provider, errors: [], requests: [] };
const browser = await openBrowser({ gpu: provider === "webgpu", viewport: DESKTOP, acceptDownloads: true });
const note = (page) => {
  page.on("pageerror", (error) => found.errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && found.errors.push(message.text()));
};
try {
  const page = await browser.context.newPage();
  note(page);
  browser.context.on("request", (request) => found.requests.push(`${request.method()} ${request.url()}`));
  await page.goto(`${address}/?provider=${provider}`);
  await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("Ready"), null, {
    timeout: TIMEOUT,
  });
  found.ready = await page.textContent("#status");
  found.isolated = await page.evaluate(() => crossOriginIsolated);
  found.welcomeViolations = await violations(page);
  await shot(page, "desktop-welcome");

  found.opened = await choose(page, photo);
  await shot(page, "desktop-open");
  found.violations = await violations(page);
  found.x27 = await zoomTo(page, 2.7);
  found.x53 = await zoomTo(page, 5.3);
  found.status = await page.textContent("#status");

  // The divider by the keyboard: the whole stage shows the network.
  await page.focus("#handle");
  await page.keyboard.press("Home");
  found.divider = await page.getAttribute("#handle", "aria-valuenow");
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const canvas = await page.evaluate(() => {
    const element = document.getElementById("canvas");
    return { url: element.toDataURL("image/png"), ...element.dataset };
  });
  await writeFile(join(out, "x53-stage.png"), Buffer.from(canvas.url.split(",")[1], "base64"));
  await page.keyboard.press("End");
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const other = await page.evaluate(() => document.getElementById("canvas").toDataURL("image/png"));
  await writeFile(join(out, "x53-bicubic.png"), Buffer.from(other.split(",")[1], "base64"));
  await page.evaluate(() => document.getElementById("handle").focus());
  for (let i = 0; i < 5; i++) {
    await page.keyboard.press("Shift+ArrowLeft");
  }
  await shot(page, "desktop-x53");

  // The stage by the keyboard and the wheel.
  await page.focus("#stage");
  await page.evaluate(() => delete document.body.dataset.rendered);
  await page.keyboard.press("ArrowRight");
  found.moved = await rendered(page);
  await page.evaluate(() => delete document.body.dataset.rendered);
  await page.mouse.move(640, 400);
  await page.mouse.wheel(0, 200);
  found.wheeled = await rendered(page);

  await zoomTo(page, 2.7);
  const [download] = await Promise.all([page.waitForEvent("download", { timeout: TIMEOUT }), page.click("#save")]);
  found.downloadName = download.suggestedFilename();
  await download.saveAs(join(out, "x27-download.png"));

  const broken = join(out, "broken.jpg");
  await writeFile(broken, "not a picture");
  await page.setInputFiles("#file", broken);
  await page.waitForFunction(() => document.getElementById("error").textContent !== "");
  found.brokenMessage = await page.textContent("#error");

  // Loaded once, it works without a network.
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  const offline = await browser.context.newPage();
  note(offline);
  await offline.goto(`${address}/?provider=${provider}`);
  found.offline = await choose(offline, photo);

  await offline.setViewportSize(PHONE);
  await offline.evaluate(() => delete document.body.dataset.rendered);
  await offline.focus("#stage");
  await offline.keyboard.press("+");
  await rendered(offline);
  await shot(offline, "phone-open");
  found.overflow = await offline.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await offline.selectOption("#model", { index: 1 });
  await offline.evaluate(() => delete document.body.dataset.rendered);
  found.second = await rendered(offline);
  await offline.focus("#handle");
  found.unfinished = await unfinished(offline, 16);
  const fresh = await browser.context.newPage();
  await fresh.setViewportSize(PHONE);
  await fresh.goto(`${address}/?provider=${provider}`);
  await fresh.waitForFunction(() => document.getElementById("status").textContent.startsWith("Ready"), null, {
    timeout: TIMEOUT,
  });
  await shot(fresh, "phone-welcome");
} finally {
  await browser.close();
  server.close();
}
const origin = new URL(address).origin;
const local = (line) => line.startsWith(`GET ${origin}/`) || /^GET (blob|data):/.test(line);
found.foreign = found.requests.filter((line) => !local(line));
delete found.requests;
console.log(JSON.stringify(found, null, 1));
