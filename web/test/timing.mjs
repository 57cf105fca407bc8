// How long the page takes: `node test/timing.mjs SITE PHOTO [PROVIDER] [RUNS] [PICTURE]`.
//
// "anew": the photograph is opened, encoded and rendered. "zoom": another scale of the same
// photograph, which renders only. Milliseconds to the first pixels of the network and to all that is
// visible, at 1280x800; the least of the runs, because other programs only add. With PICTURE, the
// page is also photographed at x4.
import { openBrowser, serve } from "./browser.mjs";

const [site, photo, provider = "wasm", runs = "5", picture] = process.argv.slice(2);

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
    await page.selectOption("#model", { index });
    const anew = await least(page, () => page.setInputFiles("#file", photo));
    const zoom = await least(page, async (i) => {
      await page.fill("#factor", String(2.7 + i / 20));
      await page.press("#factor", "Enter");
    });
    found[name] = { anew, zoom };
    if (picture && index === 0) {
      await page.evaluate(() => delete document.body.dataset.rendered);
      await page.fill("#factor", "4");
      await page.press("#factor", "Enter");
      await rendered(page);
      await page.screenshot({ path: picture });
    }
  }
  found.status = await page.textContent("#status");
} finally {
  await browser.close();
  server.close();
}
console.log(JSON.stringify(found, null, 1));
