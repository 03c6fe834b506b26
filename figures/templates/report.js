"use strict";
// Draws the charts of the page's data, and shows how two reward functions differ.

const data = JSON.parse(document.getElementById("data").textContent);
const darkness = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)");
const byId = new Map((data.functions || []).map((each) => [each.id, each]));
const $ = (id) => document.getElementById(id);
const drawn = new Map(); // the figure in each chart, for another theme

// --- charts ----------------------------------------------------------------------------------------------------------

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw(id, figure) {
  if (!figure || !$(id)) return;
  drawn.set(id, figure);
  const layout = structuredClone(figure.layout);
  layout.font = { ...layout.font, family: getComputedStyle(document.body).fontFamily, color: colour("--ink") };
  layout.hoverlabel = { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") } };
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    Object.assign(layout[name], { gridcolor: colour("--grid"), zerolinecolor: colour("--grid"), linecolor: colour("--line") });
  }
  if (touch.matches) layout.dragmode = false; // so that a finger scrolls the page
  Plotly.react(id, structuredClone(figure.data), layout, { responsive: true, displayModeBar: false });
}

function drawAll() {
  for (const [id, figure] of drawn) draw(id, figure);
  showInTree();
}

// --- two functions ---------------------------------------------------------------------------------------------------

let [before, after] = data.shown || [];

function choose(first, second) {
  [before, after] = [first, second];
  $("before").value = before;
  $("after").value = after;
  tell("facts-before", byId.get(before));
  tell("facts-after", byId.get(after));
  showCode(byId.get(before).lines, byId.get(after).lines);
  showComponents(byId.get(before).components, byId.get(after).components);
  showInTree();
}

function tell(place, chosen) {
  const heading = element("h3", `function ${chosen.label}`);
  const facts = chosen.facts.map(([name, text]) => {
    const line = element("p");
    line.append(element("span", `${name}: `), text);
    return line;
  });
  $(place).replaceChildren(heading, ...facts);
}

function showInTree() {
  if (!drawn.has("tree")) return;
  const traces = drawn.get("tree").data;
  const x = [], y = [], waiting = [after], seen = new Set();
  while (waiting.length) {
    const each = byId.get(waiting.pop());
    if (!each || seen.has(each.id)) continue;
    seen.add(each.id);
    for (const parent of each.parents.map((id) => byId.get(id)).filter(Boolean)) {
      x.push(parent.at[0], each.at[0], null);
      y.push(parent.at[1], each.at[1], null);
      waiting.push(parent.id);
    }
  }
  const lineage = traces.findIndex((trace) => trace.meta === "lineage");
  const selection = traces.findIndex((trace) => trace.meta === "selection");
  Plotly.restyle("tree", { x: [x], y: [y], "line.color": colour("--accent") }, [lineage]);
  const chosen = [byId.get(before), byId.get(after)];
  Plotly.restyle("tree", {
    x: [chosen.map((each) => each.at[0])],
    y: [chosen.map((each) => each.at[1])],
    text: [["from", "to"]],
    "marker.color": colour("--accent"),
    "textfont.color": colour("--accent"),
  }, [selection]);
}

// Return the pairs of places [in a, in b] of a longest common subsequence, as keys see it.
function common(a, b) {
  const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const pairs = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) pairs.push([i++, j++]);
    else if (length[i + 1][j] >= length[i][j + 1]) i++;
    else j++;
  }
  return pairs;
}

const textOf = (line) => line.map(([, text]) => text).join("");

function showCode(a, b) {
  const rows = [];
  let i = 0, j = 0;
  for (const [nextI, nextJ] of [...common(a.map(textOf), b.map(textOf)), [a.length, b.length]]) {
    const gone = a.slice(i, nextI), come = b.slice(j, nextJ);
    rows.push(...gone.map((line, place) => row("out", line, come[place])));
    rows.push(...come.map((line, place) => row("in", line, gone[place])));
    if (nextI < a.length) rows.push(row("", a[nextI]));
    [i, j] = [nextI + 1, nextJ + 1];
  }
  if (!rows.some((each) => each.className)) rows.unshift(element("div", a.length ? "The code is the same." : "There is no code."));
  $("code").replaceChildren(...rows);
}

// Return a line of code; what differs from its counterpart is marked.
function row(kind, line, counterpart) {
  const made = element("div", { in: "+ ", out: "− " }[kind] || "  ");
  made.className = kind;
  const kept = counterpart && new Set(common(line.map(([, text]) => text), counterpart.map(([, text]) => text)).map(([i]) => i));
  line.forEach(([style, text], place) => {
    const token = element(kept && !kept.has(place) && text.trim() ? "mark" : "span", text);
    if (style) token.className = style;
    made.append(token);
  });
  return made;
}

function showComponents(a, b) {
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  if (!names.length) {
    $("components").replaceChildren(element("p", "No evaluation has measured the parts of these two yet."));
    return;
  }
  const table = element("table"), head = table.createTHead().insertRow(), body = table.createTBody();
  for (const title of ["part", `mean, ${before}`, "least to most", `mean, ${after}`, "least to most", "change of the mean"]) {
    head.append(element("th", title));
  }
  for (const name of names) {
    const line = body.insertRow();
    line.className = !(name in a) ? "in" : !(name in b) ? "out" : a[name][0] !== b[name][0] ? "changed" : "";
    const cells = [a, b].flatMap((part) => (name in part ? [number(part[name][0]), `${number(part[name][1])} to ${number(part[name][2])}`] : ["", ""]));
    const change = name in a && name in b && a[name][0] !== null && b[name][0] !== null ? number(b[name][0] - a[name][0], true) : "";
    for (const text of [name, ...cells, change]) line.append(element("td", text));
  }
  $("components").replaceChildren(table);
}

function number(value, signed) {
  if (value === null) return "not finite";
  return (signed && value > 0 ? "+" : "") + String(Number(value.toPrecision(3)));
}

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

// --- the page --------------------------------------------------------------------------------------------------------

for (const [id, figure] of Object.entries(data.charts)) draw(id, figure);
if ($("curves")) {
  draw("curves", data.curves[$("quantity").value]);
  $("quantity").addEventListener("change", (event) => draw("curves", data.curves[event.target.value]));
}
if (byId.size) {
  for (const list of [$("before"), $("after")]) {
    list.append(...data.functions.map((each) => Object.assign(element("option", each.label), { value: each.id })));
    list.addEventListener("change", () => choose(Number($("before").value), Number($("after").value)));
  }
  $("swap").addEventListener("click", () => choose(after, before));
  $("parent").addEventListener("click", () => {
    const parent = byId.get(after).parents.find((id) => byId.has(id));
    if (parent !== undefined) choose(parent, after);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-pick]");
    if (!button) return;
    choose(after, Number(button.dataset.pick));
    $("difference").scrollIntoView({ block: "nearest" });
  });
  $("tree").on("plotly_click", ({ points }) => {
    const id = points.find((point) => point.customdata !== undefined)?.customdata;
    if (id !== undefined) choose(after, id);
  });
  choose(before, after);
}
darkness.addEventListener("change", drawAll);
