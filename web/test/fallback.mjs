// Opens the page where WebGPU has a software adapter: `node test/fallback.mjs SITE PHOTO`.
// Prints what it says it uses, and whether it renders a photograph, as one line of JSON.
import { openBrowser, serve } from "./browser.mjs";

const [site, photo] = process.argv.slice(2);
const timeout = 200_000;
const { server, address } = await serve({ "/": site });
const browser = await openBrowser({ gpu: true });
const found = { errors: [] };
try {
  const page = await browser.context.newPage();
  page.on("pageerror", (error) => found.errors.push(String(error)));
  await page.goto(`${address}/?provider=webgpu`);
  const said = () => /^(Ready|WebGPU is not used)/.test(document.getElementById("status").textContent);
  await page.waitForFunction(said, null, { timeout });
  found.said = await page.textContent("#status");
  await page.setInputFiles("#file", photo);
  await page.waitForFunction(() => document.body.dataset.rendered !== undefined, null, { timeout });
  found.status = await page.textContent("#status");
} finally {
  await browser.close();
  server.close();
}
console.log(JSON.stringify(found));
