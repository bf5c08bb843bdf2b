for (const box of document.querySelectorAll("input[data-table]")) box.addEventListener("input", () => {
  for (const row of document.querySelectorAll("#" + box.dataset.table + " tbody tr"))
    row.hidden = !row.textContent.toUpperCase().includes(box.value.toUpperCase());
});
const chooser = document.getElementById("chooser");
if (chooser) {
  const all = JSON.parse(document.getElementById("recent").textContent);
  const draw = () => {
    const one = all[chooser.value], n = one.expected.length, known = one.actual.filter(v => v !== null);
    const most = Math.max(2, ...one.high, ...known), least = Math.min(-2, ...one.low, ...known);
    const x = i => 34 + 320 * i / Math.max(n - 1, 1), y = v => 8 + 150 * (most - v) / (most - least);
    const path = list => list.map((v, i) => v === null ? "" : (i && list[i - 1] !== null ? "L" : "M") +
      x(i).toFixed(1) + " " + y(v).toFixed(1)).join("");
    const back = [...one.low].reverse().map((v, i) => "L" + x(n - 1 - i).toFixed(1) + " " + y(v).toFixed(1)).join("");
    const rule = v => `<path d="M34 ${y(v)}H354" stroke="${v ? "#dfe3e7" : "#222"}"/><text x="30" y="${y(v) + 3}"
      text-anchor="end">${v > 0 ? "+" : ""}${v}</text>`;
    const step = most - least > 40 ? 20 : most - least > 16 ? 10 : 5, rules = [];
    for (let v = step * Math.ceil(least / step); v <= most; v += step) rules.push(rule(v));
    document.getElementById("drawing").innerHTML = `<path d="${path(one.high)}${back}Z" fill="#0072B2" opacity=".16"/>
      ${rules.join("")}<path d="${path(one.actual)}" fill="none" stroke="#D55E00" stroke-width="1.6"/>
      <path d="${path(one.expected)}" fill="none" stroke="#0072B2" stroke-width="1.8"/>
      <text x="34" y="172">${one.first}</text><text x="354" y="172" text-anchor="end">${one.last}</text>`;
    document.getElementById("about").textContent = one.about;
  };
  chooser.addEventListener("change", draw);
  draw();
}
