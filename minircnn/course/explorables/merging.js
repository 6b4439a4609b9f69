// Merging: selective search joins the two most similar neighbors, again and again, and proposes a box for each region.
//
// State, as in Python: step (merges that are done), similarities (names of those that are added up), image_size (height,
// width), image (PNG in a data URI), objects (rows of x1, y1, x2, y2 in pixels); of the n first regions: labels (a byte a
// pixel, in base64), sizes (in pixels), boxes, neighbors (pairs), histograms (of color, then of texture: rows of floats
// of 4 bytes, in base64) and color_bins (how many of a row are of color).

// ---------------------------------------------------------------------------------------------------- mathematics

/** What two histograms share in some bins: the smaller values, added in the order in which NumPy adds. */
function intersection(a, b, first = 0, count = a.length) {
  if (count > 128) {
    const half = Math.floor(count / 2);
    const even = half - (half % 8);
    return intersection(a, b, first, even) + intersection(a, b, first + even, count - even);
  }
  const smaller = (k) => (a[k] < b[k] ? a[k] : b[k]);
  const sums = new Float64Array(8);
  const whole = first + count - (count % 8);
  for (let k = first; k < whole; k++) sums[(k - first) % 8] += smaller(k);
  let total = sums[0] + sums[1] + (sums[2] + sums[3]) + (sums[4] + sums[5] + (sums[6] + sums[7]));
  for (let k = whole; k < first + count; k++) total += smaller(k);
  return total;
}

/** Which bins are added up, first and how many: those of color stand first, then those of texture. */
function binsOf(chosen, colors, all) {
  const [color, texture] = ["color", "texture"].map((name) => chosen.includes(name));
  return [color ? 0 : colors, (color ? colors : 0) + (texture ? all - colors : 0)];
}

const sizeSimilarity = (a, b, area) => 1 - (a.size + b.size) / area;

/** How little of the box around both is left empty. */
function fillSimilarity(a, b, area) {
  const [x1, y1, x2, y2] = boxAround(a.box, b.box);
  return 1 - ((x2 - x1) * (y2 - y1) - a.size - b.size) / area;
}

const boxAround = (a, b) => a.map((value, edge) => (edge < 2 ? Math.min(value, b[edge]) : Math.max(value, b[edge])));

/** Two regions as one, without a look at pixels. */
function union(a, b) {
  const size = a.size + b.size;
  const histogram = a.histogram.map((value, k) => (a.size * value + b.size * b.histogram[k]) / size);
  return { size, box: boxAround(a.box, b.box), histogram };
}

/** Which of two pairs merges first: the more similar one, then the one with the lower numbers. */
const before = (p, q) => p.value > q.value || (p.value === q.value && (p.a < q.a || (p.a === q.a && p.b < q.b)));

/** All merges: every region that ever exists, the n first ones first, and for each merge its pair and the next best. */
function grouping(first, neighbors, area, chosen, colors) {
  const nodes = [...first];
  const bins = binsOf(chosen, colors, first[0].histogram.length);
  const [size, fill] = ["size", "fill"].map((name) => chosen.includes(name));
  const similarity = (a, b) => {
    let total = intersection(a.histogram, b.histogram, ...bins);
    if (size) total += sizeSimilarity(a, b, area);
    if (fill) total += fillSimilarity(a, b, area);
    return total;
  };
  const pair = (a, b) => ({ a, b, value: similarity(nodes[a], nodes[b]) });
  let pairs = neighbors.map(([a, b]) => pair(a, b));
  const merges = [];
  while (pairs.length) {
    let [best, next] = [null, null];
    for (const one of pairs) {
      if (!best || before(one, best)) [best, next] = [one, best];
      else if (!next || before(one, next)) next = one;
    }
    const { a, b } = best;
    merges.push({ best, next });
    const around = new Set();
    const left = pairs.filter((one) => {
      const touches = [one.a, one.b].some((node) => node === a || node === b);
      if (touches) around.add(one.a).add(one.b);
      return !touches;
    });
    nodes.push(union(nodes[a], nodes[b]));
    const others = [...around].filter((node) => node !== a && node !== b);
    pairs = left.concat(others.map((node) => pair(node, nodes.length - 1)));
  }
  return { nodes, merges };
}

/** For each first region the node that it belongs to after so many merges. */
function rootsAfter(merges, count, step) {
  const parent = new Map();
  merges.slice(0, step).forEach(({ best }, k) => [best.a, best.b].forEach((child) => parent.set(child, count + k)));
  const root = (node) => (parent.has(node) ? root(parent.get(node)) : node);
  return range(count).map(root);
}

/** The largest IoU of each object with the boxes so far, after each merge: [[number of box, IoU], …] for each object. */
function coverage(objects, boxes, count) {
  return objects.map((object) => {
    let best = [-1, -1];
    const after = [];
    boxes.forEach((box, node) => {
      const value = boxIou(object, box);
      if (value > best[1]) best = [node, value];
      if (node >= count - 1) after.push(best);
    });
    return after;
  });
}

/** Rows of floats of 4 bytes, out of the text in base64 that Python writes. */
function floats(text, rows) {
  const data = new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  const width = data.length / rows;
  return range(rows).map((row) => Float64Array.from(data.subarray(row * width, (row + 1) * width)));
}

export const math = { intersection, sizeSimilarity, fillSimilarity, union, grouping, rootsAfter, coverage, floats };

// ---------------------------------------------------------------------------------------------------- the figure

const KINDS = ["color", "texture", "size", "fill"];
const NAMES = ["step", "similarities", "image", "image_size", "objects"];
const COVERED = 0.5; // the IoU from which on a box covers an object
const SIDE = 320; // of a panel, in the units of its view box
const PLOT = { left: 30, right: 304, top: 14, bottom: 274 };
const LINES = ["pooled", "exact", "down", "nearest", "soft"].map((name) => `var(--${name})`);
const DASHES = ["", "7 3", "2 3", "10 3 2 3", "4 2"];
const HALO = "stroke: var(--paper); stroke-width: 3; paint-order: stroke";
const digits = (value) => value.toFixed(2);
const letter = (object) => String.fromCharCode(65 + object);
const layer = (parent) => make("g", { fill: "none", style: "pointer-events: none" }, parent);

/** A color for each first region, far from those before it: red, green, blue, opacity. */
function colorOf(region) {
  const hue = (region * 137.508) % 360;
  const light = 0.5 + 0.14 * ((region % 3) - 1);
  const channel = (shift) => {
    const k = (shift + hue / 30) % 12;
    return 255 * (light - 0.62 * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1)));
  };
  return [channel(0), channel(8), channel(4), 255];
}

function render({ model, el }) {
  const get = (name) => model.get(name);
  const start = { step: get("step"), similarities: get("similarities") };
  const [height, width] = get("image_size");
  const scale = SIDE / Math.max(height, width);
  const labels = bytes(get("labels"), width);
  const count = get("sizes").length; // of first regions
  const [sizes, around] = [get("sizes"), get("boxes")];
  const rows = floats(get("histograms"), count);
  const first = rows.map((histogram, region) => ({ size: sizes[region], box: around[region], histogram }));
  const last = count - 1;
  const { root, stage, controls, result } = frame(el, "Selective search: merging");
  stage.classList.add("queried");
  const two = make("div", { class: "two" }, stage); // side by side even where it is narrow
  const [regions, proposals] = ["Regions", "Boxes"].map((title) => panel(two, title, width * scale, height * scale));
  const plot = panel(stage, "Best IoU, recall (shaded)", SIDE, SIDE).svg;
  for (const { svg } of [regions, proposals]) {
    make("image", { href: get("image"), width: width * scale, height: height * scale }, svg);
  }

  // Regions: a color for each, their borders, and the pair that merges next.
  const colors = make("image", { width: width * scale, height: height * scale, opacity: 0.72 }, regions.svg);
  const inPixels = { transform: `scale(${scale})` };
  const drawn = set(layer(regions.svg), inPixels);
  const line = (stroke, width, more = {}) =>
    make("path", { stroke, "stroke-width": width, "vector-effect": "non-scaling-stroke", ...more }, drawn);
  const borders = line("var(--paper)", 0.8);
  const under = line("var(--paper)", 6);
  const pair = ["", "5 3"].map((dashes) => line("var(--ink)", 3, { "stroke-dasharray": dashes }));

  // Boxes: all so far, the best of each object, the objects.
  const boxes = set(layer(proposals.svg), { stroke: "#ffffff", "stroke-width": 1, opacity: 0.7 });
  const every = make("path", {}, boxes);
  const halos = layer(proposals.svg);
  const outlines = layer(proposals.svg);
  const names = layer(proposals.svg);

  // The curves: axes once, the rest at each change.
  const across = (step) => PLOT.left + (step / Math.max(last, 1)) * (PLOT.right - PLOT.left);
  const up = (value) => PLOT.bottom - value * (PLOT.bottom - PLOT.top);
  const axes = layer(plot);
  const text = (x, y, anchor, words) => {
    make("text", { x, y, "text-anchor": anchor, text: words, style: "font-size: 12px" }, axes);
  };
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    const looks = value === COVERED ? { stroke: "var(--ink)", "stroke-dasharray": "2 3" } : { stroke: "var(--line)" };
    make("line", { x1: across(0), x2: across(last), y1: up(value), y2: up(value), ...looks }, axes);
    text(across(0) - 4, up(value) + 3, "end", value);
  }
  const ticks = range(5).map((k) => Math.round((k * last) / 4));
  for (const step of new Set(ticks)) text(across(step), up(0) + 20, "middle", step);
  text(across(last / 2), up(0) + 36, "middle", "merges");
  const surface = make("path", { fill: "var(--ink)", "fill-opacity": 0.12 }, plot);
  const curves = set(layer(plot), { "stroke-width": 2 });
  const cursor = make("line", { y1: PLOT.top, y2: PLOT.bottom, stroke: "var(--ink)", "stroke-width": 1.5 }, plot);
  const dots = layer(plot);
  const dotNames = layer(plot);
  const moveTo = (step) => state.put({ step: clamp(Math.round(step), 0, last) });
  const follow = ([x]) => moveTo(((x - PLOT.left) / (PLOT.right - PLOT.left)) * last);
  const field = { x: PLOT.left, y: PLOT.top, width: PLOT.right - PLOT.left, height: PLOT.bottom - PLOT.top };
  const ground = make("rect", { ...field, fill: "transparent" }, plot);
  ground.addEventListener("pointerdown", (event) => {
    ground.setPointerCapture(event.pointerId);
    follow(place(plot, event));
  });
  ground.addEventListener("pointermove", (event) => event.buttons && follow(place(plot, event)));
  const knob = make("circle", { r: 8, cy: PLOT.bottom, fill: "var(--exact)", "stroke-width": 2 }, plot);
  set(knob, { stroke: "var(--paper)", role: "slider", "aria-label": "merges", "aria-valuemin": 0, "aria-valuemax": last });
  draggable(knob, plot, follow, (x, y) => moveTo(get("step") + Math.sign(x - y)));

  // Controls, and what they show.
  const shows = { step: control(controls, "merges", { min: 0, max: last, step: 1 }, moveTo) };
  button(controls, "Back", () => moveTo(get("step") - 1));
  button(controls, "Merge", () => moveTo(get("step") + 1));
  make("span", { text: "Add up:" }, controls);
  for (const kind of KINDS) {
    shows[kind] = control(controls, kind, { kind: "checkbox" }, (on) => {
      const left = KINDS.filter((other) => (other === kind ? on : get("similarities").includes(other)));
      state.put({ similarities: left.length ? left : [kind] }); // the last one stays
    });
  }
  button(controls, "Start over", () => state.put(start));
  const said = make("p", { "aria-live": "polite" }, result);
  const table = make("table", {}, make("div", { class: "wide" }, result));
  const head = make("tr", {}, make("thead", {}, table));
  for (const name of ["most similar neighbors", ...KINDS, "sum"]) make("th", { scope: "col", text: name }, head);
  const lines = [0, 1].map(() => {
    const row = make("tr", {}, table);
    return [make("th", { scope: "row" }, row), ...range(5).map(() => make("td", {}, row))];
  });
  const reached = make("p", {}, result);
  make("p", { text: "Drag the knob below the curves, and see which objects are missed if only color is added up." }, result);

  let tree = null;
  function treeNow() {
    const key = `${get("similarities")} ${get("objects")}`;
    if (tree?.key === key) return tree;
    const found = grouping(first, get("neighbors"), height * width, get("similarities"), get("color_bins"));
    const tones = range(count).map(colorOf);
    found.merges.forEach(({ best: { a, b } }) => {
      tones.push(tones[found.nodes[a].size >= found.nodes[b].size ? a : b]); // the larger region keeps its color
    });
    const best = coverage(get("objects"), found.nodes.map(({ box }) => box), count);
    const share = (step) => sum(best.map((line) => Number(line[step][1] >= COVERED))) / best.length;
    tree = { key, ...found, tones, best, recall: range(count).map(share) };
    drawCurves(tree);
    return tree;
  }

  function drawCurves({ best, recall }) {
    const stairs = (values) => values.map((value, step) => `${step ? `H${across(step)}V` : ""}${up(value)}`).join("");
    const path = (values) => `M${across(0)} ${stairs(values)}`;
    const looks = (object) => ({ stroke: LINES[object], "stroke-dasharray": DASHES[object] });
    repeat(curves, "path", best.map((line, object) => ({ d: path(line.map(([, value]) => value)), ...looks(object) })));
    set(surface, { d: `${path(recall)}V${up(0)}H${across(0)}Z` });
  }

  function drawRegions({ nodes, merges, tones }, step) {
    const roots = rootsAfter(merges, count, step);
    const map = labels.map((row) => row.map((label) => roots[label]));
    set(colors, { href: raster(map, (node) => tones[node]) });
    set(borders, { d: contours(map, -1) });
    regions.caption.textContent = `Regions: ${count - step}`;
    const next = merges[step]?.best;
    const mark = (node) => contours(map.map((row) => row.map((other) => Number(other === node))));
    const marks = next ? [mark(next.a), mark(next.b)] : ["", ""];
    marks.forEach((d, k) => set(pair[k], { d }));
    set(under, { d: marks.join("") });
    proposals.caption.textContent = `Boxes proposed: ${count + step}`;
    set(every, { d: nodes.slice(0, count + step).map(({ box }) => boxPath(box)).join("") });
  }

  const boxPath = (box) => {
    const [x1, y1, x2, y2] = box.map((value) => value * scale);
    return `M${x1} ${y1}H${x2}V${y2}H${x1}Z`;
  };

  function drawObjects({ nodes, best }, step) {
    const objects = get("objects");
    const lines = objects.flatMap((object, k) => [
      { d: boxPath(object), stroke: LINES[k], "stroke-dasharray": "6 4", "stroke-width": 2 },
      { d: boxPath(nodes[best[k][step][0]].box), stroke: LINES[k], "stroke-dasharray": "", "stroke-width": 2.5 },
    ]);
    repeat(halos, "path", lines.map((line) => ({ d: line.d, stroke: "var(--paper)", "stroke-width": 4.5 })));
    repeat(outlines, "path", lines);
    const style = (k) => `fill: ${LINES[k]}; font-size: 20px; font-weight: 800; text-anchor: middle; ${HALO}`;
    const low = ([x1, , x2, y2]) => ({ x: ((x1 + x2) / 2) * scale, y: y2 * scale - 6 });
    repeat(names, "text", objects.map((object, k) => ({ ...low(object), style: style(k), text: letter(k) })));
    set(cursor, { x1: across(step), x2: across(step) });
    const values = best.map((line) => line[step][1]);
    repeat(dots, "circle", values.map((value, k) => ({ cx: across(step), cy: up(value), r: 4, fill: LINES[k] })));
    const side = step > last / 2 ? [-7, "end"] : [7, "start"];
    const tag = (k) => `fill: ${LINES[k]}; font-size: 12px; font-weight: 700; text-anchor: ${side[1]}; ${HALO}`;
    const beside = (value) => ({ x: across(step) + side[0], y: up(value) - 4 });
    repeat(dotNames, "text", values.map((value, k) => ({ ...beside(value), style: tag(k), text: letter(k) })));
  }

  function drawWords({ nodes, merges, best, recall }, step) {
    const chosen = get("similarities");
    const next = merges[step];
    const covered = best.filter((line) => line[step][1] >= COVERED).length;
    const left = count - step === 1 ? "1 region is" : `${count - step} regions are`;
    said.textContent =
      `After ${step} of ${last} merges: ${left} left, ${count + step} boxes are proposed, and ${covered} of ${best.length} objects ` +
      `are covered: recall ${digits(recall[step])}. ` +
      (next ? `Next, regions ${next.best.a} (solid) and ${next.best.b} (dashed) merge.` : "");
    [next?.best, next?.next].forEach((one, k) => {
      const words = one ? `${k ? "second" : "next"}: ${one.a} and ${one.b}` : "–";
      const numbers = one ? [...parts(nodes[one.a], nodes[one.b]), one.value].map(digits) : Array(5).fill("–");
      [words, ...numbers].forEach((text, column) => {
        const idle = column > 0 && column < 5 && !chosen.includes(KINDS[column - 1]);
        set(lines[k][column], { text, style: idle ? "color: var(--soft); text-decoration: line-through" : "" });
      });
    });
    const since = (line) => line.findIndex(([, value]) => value >= COVERED);
    const late = (merge) => (merge ? `covered from merge ${merge} on` : "covered before any merge");
    const when = (merge) => (merge < 0 ? "never covered" : late(merge));
    const entry = (line, k) => `${letter(k)}: IoU ${digits(line[step][1])}, ${when(since(line))}`;
    const looks = (k) => `color: ${LINES[k]}; font-weight: 600; display: inline-block; margin-right: 1.4em`;
    const entries = best.map((line, k) => ({ text: entry(line, k), style: looks(k) }));
    repeat(reached, "span", [{ text: "Dashed: object; solid: its best box. ", style: "" }, ...entries]);
  }

  /** The four similarities of two regions, whether they are added up or not. */
  function parts(a, b) {
    const area = height * width;
    const bins = (name) => binsOf([name], get("color_bins"), a.histogram.length);
    const shared = ["color", "texture"].map((name) => intersection(a.histogram, b.histogram, ...bins(name)));
    return [...shared, sizeSimilarity(a, b, area), fillSimilarity(a, b, area)];
  }

  function draw() {
    const now = treeNow();
    const step = Math.min(get("step"), last);
    drawRegions(now, step);
    drawObjects(now, step);
    drawWords(now, step);
    set(knob, { cx: across(step), "aria-valuenow": step });
    set(knob, { "aria-valuetext": `${step} merges, recall ${digits(now.recall[step])}` });
    shows.step(step, `${step} of ${last}`);
    for (const kind of KINDS) shows[kind](get("similarities").includes(kind));
    return {
      merges: now.merges.map(({ best }) => [best.a, best.b]),
      similarity: now.merges.map(({ best }) => best.value),
      best_iou: now.best.map((line) => line[step][1]),
      recall: now.recall[step],
    };
  }

  const state = tie(model, NAMES, draw);
  return state.start(root);
}

export default { render };
