"use strict";
// Asks the server what is new and draws it. All that a user or a stranger named goes into text nodes, never into markup.
const EVERY_MS = 2000, SVG = "http://www.w3.org/2000/svg", DASH = "—";
const GROUPS = ["done", "training", "stopped", "sick", "failed", "pending"];
const $ = (id) => document.getElementById(id);
const isNumber = (x) => typeof x === "number" && Number.isFinite(x);

function element(parent, tag, attributes = {}, text) {
  const made = parent.namespaceURI === SVG || tag === "svg" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}
function short(x) {
  if (!isNumber(x)) return DASH;
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e6 || size < 1e-3) return x.toExponential(2).replace("e-", "e−").replace(".00e", "e");
  return size >= 1000 ? String(Math.round(x)) : String(Number(x.toPrecision(4)));
}
const metricName = (name) => ({ nll: "NLL", rmse: "RMSE", accuracy: "accuracy" })[name] || name;
const shown = (run, value) => (run.metric === "accuracy" && isNumber(value) ? `${(100 * value).toFixed(1)} %` : short(value));
const cell = (value) => (value === null || value === undefined ? DASH : isNumber(value) ? short(value) : String(value));
function duration(s) {
  if (!isNumber(s)) return DASH;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  const minutes = Math.round(s / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
const put = (id, text) => { $(id).textContent = text; };
const many = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const tally = (counts) => GROUPS.filter((g) => counts[g]).map((g) => `${counts[g]} ${g}`).join(", ");

// Axes ----------------------------------------------------------------------------------------------------------------
function scale(values, { log = false, robust = false } = {}) {
  const known = values.filter((v) => isNumber(v) && (!log || v > 0)).sort((a, b) => a - b);
  if (!known.length) return null;
  let low = known[0], high = known[known.length - 1];
  if (robust && known.length > 200) high = Math.min(high, known[Math.floor(0.97 * (known.length - 1))]);
  if (low === high) { low -= Math.abs(low) * 0.1 || 1; high += Math.abs(high) * 0.1 || 1; if (log) low = Math.max(low, high / 10); }
  const to = log ? Math.log10 : (x) => x;
  const pad = 0.04 * (to(high) - to(low));
  const a = to(low) - pad, b = to(high) + pad;
  return { log, part: (v) => (to(v) - a) / (b - a), ticks: log ? decades(a, b) : steps(a, b) };
}
function steps(a, b) {
  const raw = (b - a) / 4, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 2.5, 5, 10].find((m) => m * power >= raw) || 10);
  const found = [];
  for (let k = Math.ceil(a / step); k * step <= b; k++) found.push(Number((k * step).toPrecision(10)));
  return found;
}
function decades(a, b) {
  const digits = b - a > 3 ? [1] : b - a > 1.2 ? [1, 3] : [1, 2, 3, 5, 7];
  const found = [];
  for (let p = Math.floor(a); p <= Math.ceil(b); p++) for (const d of digits) { const v = d * 10 ** p, at = Math.log10(v); if (at >= a && at <= b) found.push(Number(v.toPrecision(3))); }
  const skip = Math.ceil(found.length / 6);
  return found.filter((_, k) => k % skip === 0);
}
const spansMuch = (values) => { const v = values.filter(isNumber); return v.length > 1 && Math.min(...v) > 0 && Math.max(...v) / Math.min(...v) > 12; };

function frame(svg, x, y, { width = 520, height = 270, xLabel = "", names = null } = {}) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const box = { left: 54, right: width - 12, top: 10, bottom: height - 36 };
  const at = { x: (v) => box.left + x.part(v) * (box.right - box.left), y: (v) => box.bottom - y.part(v) * (box.bottom - box.top) };
  for (const tick of y.ticks) {
    element(svg, "line", { class: "grid", x1: box.left, x2: box.right, y1: at.y(tick), y2: at.y(tick) });
    element(svg, "text", { x: box.left - 7, y: at.y(tick) + 4, "text-anchor": "end" }, short(tick));
  }
  for (const [k, tick] of (names ? names.map((_, k) => k) : x.ticks).entries())
    element(svg, "text", { x: at.x(tick), y: box.bottom + 16, "text-anchor": "middle" }, names ? String(names[k]).slice(0, 12) : short(tick));
  element(svg, "line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom });
  if (xLabel) element(svg, "text", { x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" }, xLabel);
  const clip = element(element(svg, "defs"), "clipPath", { id: `${svg.id}-clip` });
  element(clip, "rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top });
  return { at, box, pen: element(svg, "g", { "clip-path": `url(#${svg.id}-clip)` }) };
}

// Parts of the page ---------------------------------------------------------------------------------------------------
function drawCurves(svg, run, column, bestIds) {
  const all = run.curves.flatMap((c) => c[column]);
  const y = scale(all, { log: spansMuch(all), robust: !spansMuch(all) });
  const x = scale([0, run.epochs]);
  svg.replaceChildren();
  if (!y) { svg.setAttribute("viewBox", "0 0 520 60"); element(svg, "text", { x: 4, y: 30 }, "no epoch has ended yet"); return; }
  const { at, pen } = frame(svg, { ...x, ticks: steps(0, run.epochs).filter(Number.isInteger) }, y, { xLabel: "epoch" });
  const order = (c) => (bestIds.has(c.id) ? 3 : c.group === "sick" ? 2 : c.group === "training" ? 1 : 0);
  for (const curve of [...run.curves].sort((a, b) => order(a) - order(b))) {
    let path = "", down = false;
    curve.epoch.forEach((epoch, k) => {
      const v = curve[column][k];
      if (!isNumber(v) || (y.log && v <= 0)) { down = false; return; }
      path += `${down ? "L" : "M"}${at.x(epoch).toFixed(1)} ${at.y(v).toFixed(1)}`;
      down = true;
    });
    if (!path) continue;
    const line = element(pen, "path", { d: curve.epoch.length === 1 ? path + "h3" : path, class: `line ${curve.group}${bestIds.has(curve.id) ? " best" : ""}` });
    element(line, "title", {}, `${curve.id}: ${curve.group}, ${short(curve[column].at(-1))} at epoch ${curve.epoch.at(-1)}`);
  }
}
function drawRungs(run) {
  $("rungs-section").hidden = !run.rungs.length;
  const svg = $("rungs-plot"), width = 1100, row = 30;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${row * run.rungs.length + 6}`);
  const most = Math.max(1, ...run.rungs.map((r) => r.came)), left = 90, span = width - left - 240;
  run.rungs.forEach((r, k) => {
    const y = k * row + 6;
    element(svg, "text", { x: left - 10, y: y + 14, "text-anchor": "end" }, `epoch ${r.epoch}`);
    if (!r.came) { element(svg, "rect", { class: "ahead", x: left, y: y + 1, width: 60, height: 17, rx: 3 }); element(svg, "text", { x: left + 70, y: y + 14 }, "not reached yet"); return; }
    element(svg, "rect", { class: "came", x: left, y, width: (span * r.came) / most, height: 19, rx: 3 });
    element(svg, "rect", { class: "went", x: left, y, width: (span * r.went_on) / most, height: 19, rx: 3 });
    element(svg, "text", { x: left + (span * r.came) / most + 10, y: y + 14 }, r.went_on ? `${r.went_on} of ${r.came} went on` : `${r.came} came so far`);
  });
}
function drawKeys(run, column) {
  const folder = $("keys");
  const marks = run.members.filter((m) => isNumber(m[column.value]) && m[column.group] !== "sick");
  $("keys-section").hidden = !run.keys.length || marks.length < 2;
  folder.replaceChildren();
  if ($("keys-section").hidden) return;
  const values = marks.map((m) => m[column.value]);
  const y = scale(values, { log: spansMuch(values) });
  run.keys.forEach((key, k) => {
    const own = marks.filter((m) => m[column.values][k] !== null && m[column.values][k] !== undefined);
    const raw = own.map((m) => m[column.values][k]);
    if (new Set(raw).size < 2) return;
    const names = raw.every(isNumber) ? null : [...new Set(raw.map(String))].sort();
    const place = (v, n) => (names ? names.indexOf(String(v)) + 0.5 * (((n * 0.618) % 1) - 0.5) : v); // names side by side
    const x = names ? scale([-0.5, names.length - 0.5]) : scale(raw, { log: key.log && Math.min(...raw) > 0 });
    const figure = element(folder, "figure");
    element(figure, "h3", {}, key.name);
    const svg = element(figure, "svg", { class: "plot", id: `key-${k}` });
    const { at, pen } = frame(svg, x, y, { width: 350, height: 230, names });
    const rank = (m) => (m[column.chosen] ? 2 : m[column.group] === "stopped" ? 0 : 1);
    for (const m of own.sort((a, b) => rank(a) - rank(b))) {
      const kind = m[column.chosen] ? "chosen" : m[column.group];
      const dot = element(pen, "circle", { class: `mark ${kind}`, cx: at.x(place(m[column.values][k], m[column.number])).toFixed(1), cy: at.y(m[column.value]).toFixed(1), r: m[column.chosen] ? 4.5 : 3 });
      element(dot, "title", {}, `${run.noun} ${m[column.number]}: ${cell(m[column.values][k])}, ${shown(run, m[column.value])} (${m[column.group]})`);
    }
  });
}
function fill(body, rows) {
  body.replaceChildren();
  for (const { cells, kind = "" } of rows) {
    const row = element(body, "tr", kind ? { class: kind } : {});
    for (const given of cells) {
      const one = typeof given === "object" ? given : { text: String(given) };
      const box = element(row, "td", one.kind ? { class: one.kind } : {}, one.link ? undefined : one.text);
      if (one.link) element(box, "a", { href: one.link }, one.text);
      if (one.tip) box.title = one.tip;
    }
  }
}
function drawPacks(run) {
  fill($("packs").tBodies[0], run.packs.map((p) => ({ cells: [
    p.node || DASH, { text: p.id, kind: "words" }, { text: p.state, kind: `group-${p.state}` }, p.members,
    `${p.held} ${p.unit}${p.held === 1 ? "" : "s"}${p.device && p.device !== "cpu" ? ` (${p.device})` : ""}`, `${p.epoch} of ${p.epochs}`, p.seconds ? duration(p.seconds) : DASH] })));
}
function drawMembers(run, column) {
  const head = $("members").tHead;
  head.replaceChildren();
  const titles = element(head, "tr"), isSearch = run.noun === "trial";
  for (const name of ["Member", ...(isSearch ? ["Trial"] : []), "Status", "Epoch", "Training loss", `Validation ${metricName(run.metric)}`, ...run.keys.map((k) => k.name), "Node"])
    element(titles, "th", { title: name }, name.split(".").slice(-1)[0]);
  const sign = run.higher ? -1 : 1;
  const worth = (m) => (isNumber(m[column.value]) && !["sick", "failed"].includes(m[column.group]) ? sign * m[column.value] : Infinity);
  const sorted = [...run.members].sort((a, b) => (worth(a) === worth(b) ? 0 : worth(a) - worth(b)));
  const visible = sorted.slice(0, 200), hidden = run.hidden + sorted.length - visible.length;
  fill($("members").tBodies[0], visible.map((m) => ({ kind: m[column.chosen] ? "chosen" : "", cells: [
    m[column.id], ...(isSearch ? [m[column.number]] : []), { text: m[column.group], kind: `group-${m[column.group]}`, tip: m[column.why] },
    m[column.epoch] || DASH, short(m[column.loss]), shown(run, m[column.value]), ...m[column.values].map((v) => ({ text: cell(v), tip: cell(v) })), m[column.node] || DASH] })));
  put("members-note", hidden > 0 ? `The best ${visible.length} of ${visible.length + hidden}.` : "");
}
function drawTiles(run) {
  const total = GROUPS.reduce((sum, g) => sum + run.counts[g], 0), over = total - run.counts.pending - run.counts.training;
  document.title = `${run.name}: ${run.state}`;
  put("name", run.name);
  put("state", run.state);
  $("state").className = `badge ${run.state}`;
  put("facts", `began ${new Date(1000 * run.began).toLocaleString()}, ${duration((run.state === "running" ? run.now : run.ended || run.changed) - run.began)} ${run.state === "running" ? "ago" : "in all"}${run.retries ? `; ${many(run.retries, "slot")} started again` : ""}`);
  put("members-number", `${over} of ${total}`);
  put("members-below", tally(run.counts));
  $("bar").replaceChildren();
  let x = 0;
  for (const group of GROUPS) { const w = (300 * run.counts[group]) / Math.max(1, total); element($("bar"), "rect", { class: `part-${group}`, x, y: 0, width: w, height: 10 }); x += w; }
  put("best-label", `Best so far: validation ${metricName(run.metric)}`);
  put("best-number", run.best ? shown(run, run.best.value) : DASH);
  put("best-below", run.best ? [`${run.noun} ${run.best.number} at epoch ${run.best.epoch}`, ...Object.entries(run.best.values).slice(0, 6).map(([k, v]) => `${k.split(".").slice(-1)[0]} ${cell(v)}`)].join(" · ") : "");
  put("epoch-number", run.epoch || DASH);
  put("epoch-below", `of ${run.epochs}`);
  put("left-number", run.state === "finished" ? "0" : run.left_s === null ? DASH : duration(run.left_s));
  put("left-below", run.state === "finished" ? "all is done" : run.state === "stopped" ? "nobody drives the run; its command goes on with it" : "of training, at the pace so far");
  put("hours-number", short(run.device_hours));
  put("hours-below", "of cores, or of GPUs");
}
function drawRun(run) {
  const column = Object.fromEntries(run.columns.map((name, k) => [name, k]));
  const bestIds = new Set(run.best ? run.members.filter((m) => m[column.number] === run.best.number).map((m) => m[column.id]) : []);
  drawTiles(run);
  $("warnings").hidden = !run.warnings.length;
  $("warnings").querySelector("ul").replaceChildren();
  for (const words of run.warnings) element($("warnings").querySelector("ul"), "li", {}, words);
  put("value-title", `Validation ${metricName(run.metric)}`);
  drawCurves($("value-plot"), run, "value", bestIds);
  drawCurves($("loss-plot"), run, "loss", bestIds);
  const total = run.members.length + run.hidden;
  put("curves-note", run.curves.length < total ? `${run.curves.length} of ${total} members: the best ones, and others evenly.` : "");
  drawRungs(run);
  drawKeys(run, column);
  drawPacks(run);
  drawMembers(run, column);
  $("run").hidden = false;
}
function drawRuns(found) {
  $("runs").hidden = found.runs.length < 2 && !found.unread.length;
  fill($("runs").querySelector("tbody"), found.runs.map((r) => ({ cells: [
    { text: r.run, link: `#${encodeURIComponent(r.run)}` }, { text: r.state, kind: `group-${r.state}` }, r.counts.done, r.counts.training, r.counts.pending, r.counts.stopped,
    r.counts.sick + r.counts.failed, `${r.epoch} of ${r.epochs}`, r.best ? `${metricName(r.metric)} ${shown(r, r.best.value)}` : DASH, duration(r.left_s), short(r.device_hours)] })));
  put("more-runs", [...(found.hidden ? [`and ${many(found.hidden, "run")} more`] : []), ...found.unread].join("; "));
}

// The loop ------------------------------------------------------------------------------------------------------------
let drawn = "";
async function ask(address) {
  try {
    const answer = await fetch(address, { cache: "no-store" });
    return answer.ok ? await answer.json() : null;
  } catch (lost) {
    return null;
  }
}
async function look() {
  const found = await ask("/api/runs");
  $("lost").hidden = found !== null;
  if (found === null) return;
  drawRuns(found);
  const asked = decodeURIComponent(location.hash.slice(1)), known = found.runs.map((r) => r.run);
  const name = known.includes(asked) ? asked : known[0];
  const run = name === undefined ? null : await ask(`/api/run?name=${encodeURIComponent(name)}`);
  if (run === null) return;
  const state = JSON.stringify({ ...run, now: 0, left_s: 0, device_hours: 0, packs: run.packs.map((p) => ({ ...p, seconds: 0 })) });
  if (state !== drawn) drawRun(run);
  else { drawTiles(run); drawPacks(run); }
  drawn = state;
}
async function loop() {
  try {
    if (!document.hidden) await look();
  } finally {
    setTimeout(loop, EVERY_MS);
  }
}
addEventListener("hashchange", () => { drawn = ""; look(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
loop();
