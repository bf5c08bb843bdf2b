// node report_page.js BROWSER FOLDER PAGE: what a person meets on the page, by width and theme, as JSON.
const puppeteer = require("puppeteer-core"), fs = require("fs");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

function measure() {
  const small = new Set(), texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const {data, parentElement: parent} = texts.currentNode;
    if (!data.trim() || ["SCRIPT", "STYLE"].includes(parent.tagName) || !parent.getClientRects().length) continue;
    const scale = parent.closest("svg") ? parent.getScreenCTM().a : 1;
    const size = scale * parseFloat(getComputedStyle(parent).fontSize);
    if (size < 13.99) small.add(`${data.trim().slice(0, 40)} ${size.toFixed(1)}`);
  }
  const wide = [...document.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth + 1);
  return {small: [...small], wide: wide.map(box => box.querySelector("table").id), width: document.documentElement.scrollWidth,
    first: document.querySelector(".first").getBoundingClientRect().bottom,
    alone: [...document.images].filter(image => image.alt.length < 20).length};
}

function use() {
  const table = document.getElementById("symbols"), names = () => [...table.tBodies[0].rows].filter(row => !row.hidden)
    .map(row => row.cells[0].textContent), head = [...table.querySelectorAll("th button")].find(button =>
    button.textContent.startsWith("Accuracy"));
  const before = names();
  head.click();
  const down = names();
  head.click();
  const up = names(), box = document.querySelector("input[data-table=symbols]");
  box.value = before[1].toLowerCase();
  box.dispatchEvent(new Event("input"));
  const found = names();
  table.tBodies[0].querySelector("tr:not([hidden]) td").click();
  const chooser = document.getElementById("chooser"), drawing = document.getElementById("drawing");
  const used = {before, down, up, found, chosen: chooser.value, said: document.getElementById("about").textContent,
    drawn: drawing.querySelectorAll("path").length};
  chooser.value = before[before.length - 1];
  chooser.dispatchEvent(new Event("change"));
  return {...used, vanished: drawing.innerHTML};
}

(async () => {
  const [,, executablePath, folder, page] = process.argv, result = {};
  const browser = await puppeteer.launch({executablePath, userDataDir: folder, args: ["--no-sandbox", "--disable-gpu",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]});
  for (const [width, height] of [[1280, 900], [390, 844]]) for (const theme of ["light", "dark"]) {
    const tab = await browser.newPage(), errors = [];
    tab.on("pageerror", error => errors.push(error.message));
    await tab.setViewport({width, height, isMobile: width < 500, hasTouch: width < 500});
    await tab.emulateMediaFeatures([{name: "prefers-color-scheme", value: theme}]);
    await tab.goto("file://" + page);
    const {first} = await tab.evaluate(measure);
    await tab.evaluate(() => document.querySelectorAll("details").forEach(part => { part.open = true; }));
    const facts = await tab.evaluate(measure);
    await tab.evaluate(axe);
    const findings = await tab.evaluate(async () => (await axe.run()).violations.filter(found => ["serious", "critical"]
      .includes(found.impact)).map(found => `${found.id}: ${found.nodes[0].target}: ${found.nodes[0].failureSummary}`));
    result[`${width} ${theme}`] = {...facts, first, findings, errors, used: await tab.evaluate(use)};
    await tab.close();
  }
  await browser.close();
  console.log(JSON.stringify(result));
})();
