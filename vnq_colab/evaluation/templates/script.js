for (const box of document.querySelectorAll("input[data-table]")) box.addEventListener("input", () => {
  for (const row of document.getElementById(box.dataset.table).tBodies[0].rows)
    row.hidden = !row.textContent.toUpperCase().includes(box.value.toUpperCase());
});
for (const table of document.querySelectorAll(".scroll table:not(.orders)")) {
  const rows = [...table.tBodies[0].rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => {
    const text = row => row.cells[i].textContent.trim().split("\n")[0], value = row => parseFloat(text(row).replace(/,/g, ""));
    const isNumber = rows.every(row => /^(–|[-+]?[\d.,]+%?( to .*)?)$/.test(text(row)));
    const ways = isNumber ? ["descending", "ascending"] : ["ascending", "descending"];
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = ways[+(head.getAttribute("aria-sort") === ways[0])], sign = way === "ascending" ? 1 : -1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way);
      table.tBodies[0].append(...rows.sort((a, b) => (text(a) === "–") - (text(b) === "–") ||
        sign * (isNumber ? value(a) - value(b) : text(a).localeCompare(text(b)))));
    });
  });
}
const chooser = document.getElementById("chooser"), symbols = document.getElementById("symbols");
const {days, of, stocks} = JSON.parse(document.getElementById("recent").textContent), last = days.length - 1, ahead = 5;
const x = i => 46 + 300 * i / (last + ahead);
const points = (list, y) => list.map((v, i) => v === null ? null : [x(i).toFixed(1), y(v).toFixed(1)]);
const line = (kind, list, y) => `<path class="${kind}" d="${points(list, y).map((p, i, all) =>
  p ? (all[i - 1] ? "L" : "M") + p : "").join("")}"/>`;
const area = (opacity, corners) => `<path class="rise" opacity="${opacity}" d="M${corners.filter(p => p).join("L")}Z"/>`;
function draw() {
  const one = stocks[chooser.value], price = one.price[last];
  const fan = price === null || one.low[last] === null ? [] :
    [one.low, one.expected, one.high].map(list => price * (1 + list[last] / 100));
  let html = "";
  const panel = (top, title, values, shown, marks = []) => {
    const known = values.filter(v => v !== null), most = Math.max(...known), least = Math.min(...known);
    const y = v => top + 104 * (most - v) / (most - least || 1);
    html += `<text x="0" y="${top - 10}">${title}</text>` + (known.length ? [least, most, ...marks] : []).map(v => `<path class="faint"
      d="M46 ${y(v)}H346"/><text x="42" y="${y(v) + 5}" text-anchor="end">${shown(v)}</text>`).join("");
    return y;
  };
  let y = panel(26, "Close, adjusted [thousand VND]", [...one.price, ...fan], v => +v.toPrecision(4));
  for (const share of fan.length ? [1, 0.41] : []) html += area(0.25, [[x(last), y(price)], ...[fan[2], fan[0]].map(v =>
    [x(last + ahead), y(fan[1] + share * (v - fan[1]))])]);
  html += line("real", one.price, y);
  for (const [i, side] of one.fills) if (one.price[i] !== null) html += `<path class="${side > 0 ? "rise" : "fall"}"
    d="M${x(i)} ${y(one.price[i]) + 2 * side}l5 ${9 * side}h-10Z"/>`;
  y = panel(172, `Rank [1 best of ${of}]`, [-1, -of], v => -v);
  html += line("ours", one.rank.map(v => v && -v), y);
  y = panel(318, "5-day price change [%]", [...one.low, ...one.high, ...one.actual], Math.round, [0]);
  html += area(0.16, [...points(one.high, y), ...points(one.low, y).reverse()]) + line("real", one.actual, y) +
    line("ours", one.expected, y) + `<text x="46" y="444">${days[0]}</text>
    <text x="${x(last)}" y="444" text-anchor="end">${days[last]}</text>`;
  document.getElementById("drawing").innerHTML = html;
  const row = [...symbols.tBodies[0].rows].find(row => row.cells[0].textContent === chooser.value);
  document.getElementById("about").innerHTML = [...row.cells].slice(1).map((cell, i) =>
    `<dt>${symbols.tHead.rows[0].cells[i + 1].textContent}</dt><dd class="${cell.className}">${cell.innerHTML || "–"}</dd>`).join("");
}
chooser.addEventListener("change", draw);
symbols.addEventListener("click", ({target}) => {
  if (target.cellIndex !== 0 || !(target.textContent in stocks)) return;
  chooser.value = target.textContent;
  draw();
  location.hash = "stock";
});
draw();
