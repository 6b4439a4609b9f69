// Selective search: the two most similar neighbors merge, again and again, and every region proposes its box.
//
// State, as in Python: step (merges done), weights (0 or 1 for color, texture, size, fill), regions (sizes, boxes,
// neighbors; histograms as float32 in base64), labels (a byte a pixel, in base64), objects (boxes), image, image_size.

// ---------------------------------------------------------------------------------------------------- mathematics

const single = Math.fround; // all of it in single precision and in the package's order, so that ties are the same

/** The sum of values from start on, in the order in which NumPy adds: eight at a time, halves apart if there are many. */
function pairwise(values, start, count) {
  if (count > 128) {
    const half = (count >> 1) - ((count >> 1) % 8);
    return single(pairwise(values, start, half) + pairwise(values, start + half, count - half));
  }
  let [total, k] = [0, 0];
  if (count >= 8) {
    const r = Float32Array.from(values.subarray(start, start + 8));
    for (k = 8; k < count - (count % 8); k += 8) for (let j = 0; j < 8; j++) r[j] += values[start + k + j];
    const two = [0, 2, 4, 6].map((j) => single(r[j] + r[j + 1]));
    total = single(single(two[0] + two[1]) + single(two[2] + two[3]));
  }
  for (; k < count; k++) total = single(total + values[start + k]);
  return total;
}

/** What two histograms share. */
function intersection(a, b) {
  const least = new Float32Array(a.length);
  for (let k = 0; k < a.length; k++) least[k] = a[k] < b[k] ? a[k] : b[k];
  return pairwise(least, 0, a.length);
}

const around = (a, b) => [0, 1, 2, 3].map((k) => (k < 2 ? Math.min(a[k], b[k]) : Math.max(a[k], b[k])));
const sizeSimilarity = (a, b, area) => single(1 - single(single(a.size + b.size) / area));
function fillSimilarity(a, b, area) {
  const [x1, y1, x2, y2] = around(a.box, b.box);
  const empty = single(single(single((x2 - x1) * (y2 - y1)) - a.size) - b.size);
  return single(1 - single(empty / area));
}

/** All merges: nodes (first regions, then what each merge made), children and similarity of each merge. */
function mergeAll({ sizes, boxes, histograms, neighbors, area }, [useSize, useFill]) {
  const nodes = sizes.map((size, k) => ({ size, box: boxes[k], histogram: histograms[k] }));
  const similarity = (a, b) => {
    let total = intersection(a.histogram, b.histogram);
    if (useSize) total = single(total + sizeSimilarity(a, b, area));
    if (useFill) total = single(total + fillSimilarity(a, b, area));
    return total;
  };
  let pairs = neighbors.map(([a, b]) => [a, b, similarity(nodes[a], nodes[b])]);
  const merges = [];
  const before = (p, q) => p[2] > q[2] || (p[2] === q[2] && (p[0] < q[0] || (p[0] === q[0] && p[1] < q[1])));
  while (pairs.length) {
    const best = pairs.reduce((p, q) => (before(q, p) ? q : p));
    const [a, b] = best;
    const [one, two, size] = [nodes[a], nodes[b], single(nodes[a].size + nodes[b].size)];
    const histogram = one.histogram.map((value, k) =>
      single(single(single(one.size * value) + single(two.size * two.histogram[k])) / size),
    );
    const made = nodes.push({ size, box: around(one.box, two.box), histogram }) - 1;
    merges.push(best);
    const gone = (k) => k === a || k === b;
    const others = new Set(pairs.filter((p) => gone(p[0]) !== gone(p[1])).map((p) => (gone(p[0]) ? p[1] : p[0])));
    pairs = pairs.filter((p) => !gone(p[0]) && !gone(p[1]));
    for (const k of others) pairs.push([k, made, similarity(nodes[k], nodes[made])]);
  }
  return { nodes, merges };
}

/** From how many merges on each object has a box with this IoU; Infinity: never. */
function reachedAfter(objects, nodes, first, threshold = 0.5) {
  return objects.map((object) => {
    const found = nodes.findIndex(({ box }) => boxIou(object, box) >= threshold);
    return found < 0 ? Infinity : Math.max(found - first + 1, 0);
  });
}

export const math = { pairwise, mergeAll, reachedAfter };

// ---------------------------------------------------------------------------------------------------- the figure

const SIDE = 320;
const NAMES = ["step", "weights"];
const KINDS = ["color", "texture", "size", "fill"];

const floats = (text, width) => {
  const values = new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  return range(values.length / width).map((row) => values.slice(row * width, (row + 1) * width));
};

/** Red, green, blue of a region: hues a golden angle apart. */
function hue(number) {
  const wave = (k) => 150 + 95 * Math.cos(2.39996 * number + (k * 2 * Math.PI) / 3) - 25 * (number % 3);
  return [0, 1, 2].map(wave);
}

function render({ model, el }) {
  const get = (name) => model.get(name);
  const { root, stage, controls, result } = frame(el, "selective search: merging");
  const [left, right] = ["Regions", "Boxes proposed so far"].map((title) => panel(stage, title, SIDE, SIDE));
  const curve = panel(stage, "Recall of the objects at IoU 0.5", SIDE, 150).svg;
  const given = get("regions");
  const first = given.sizes.length;
  const [height, width] = get("image_size");
  const pixel = SIDE / Math.max(height, width);
  const labels = bytes(get("labels"), width).flat();
  const [color, texture] = [floats(given.color, given.color_bins), floats(given.texture, given.texture_bins)];
  const size = { width: width * pixel, height: height * pixel };
  const shown = make("image", { ...size, preserveAspectRatio: "none" }, left.svg);
  make("image", { ...size, href: get("image"), opacity: 0.75, preserveAspectRatio: "none" }, right.svg);
  const pair = make("g", { fill: "none", stroke: "#fff", "stroke-width": 2 }, left.svg);
  const boxes = make("path", { fill: "none", stroke: "var(--pooled)", opacity: 0.6 }, right.svg);
  const objects = make("g", { fill: "none" }, right.svg);
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);

  let tree = null;
  function treeNow() {
    const key = `${get("weights")}`;
    if (tree?.key === key) return tree;
    const [useColor, useTexture, ...others] = get("weights");
    const histograms = range(first).map((k) =>
      Float32Array.from([...(useColor ? color[k] : []), ...(useTexture ? texture[k] : [])]),
    );
    tree = { key, ...mergeAll({ ...given, histograms, area: width * height }, others) };
    // The four similarities of each pair need both histograms of every node; a merge's color is its larger part's.
    tree.parts = range(first).map((k) => ({ color: color[k], texture: texture[k], hue: k }));
    for (const [a, b] of tree.merges) {
      const [one, two] = [tree.nodes[a].size, tree.nodes[b].size];
      const mix = (name) =>
        tree.parts[a][name].map((value, k) => (one * value + two * tree.parts[b][name][k]) / (one + two));
      const larger = tree.parts[one >= two ? a : b].hue;
      tree.parts.push({ color: mix("color"), texture: mix("texture"), hue: larger });
    }
    tree.reached = reachedAfter(get("objects"), tree.nodes, first);
    return tree;
  }

  const last = first - 1;
  const at = (step) => 12 + (step / last) * (SIDE - 24);
  const go = (step) => state.put({ step: clamp(Math.round(step), 0, last) });
  const line = make("path", { fill: "none", stroke: "var(--nearest)", "stroke-width": 2.5 }, curve);
  make("path", { d: `M12 15V125H${SIDE - 12}`, fill: "none", stroke: "var(--line)" }, curve);
  for (const [x, y, text] of [[14, 12, "1"], [2, 128, "0"], [SIDE - 110, 143, `merges, 0 to ${last}`]]) {
    make("text", { x, y, text }, curve);
  }
  const mark = make("circle", { r: 8, fill: "var(--exact)", stroke: "var(--paper)", "stroke-width": 2 }, curve);
  set(mark, { role: "slider", "aria-label": "merges on the curve", "aria-valuemin": 0, "aria-valuemax": last });
  draggable(
    mark,
    curve,
    ([x]) => go(((x - 12) / (SIDE - 24)) * last),
    (x, y) => go(get("step") + Math.sign(x - y)),
  );
  const showStep = control(controls, "merges", { min: 0, max: last, step: 1 }, go);
  const showKinds = KINDS.map((name, k) =>
    control(controls, name, { kind: "checkbox" }, (on) => {
      const weights = get("weights").map((old, other) => (other === k ? Number(on) : old));
      state.put({ weights: weights.some(Boolean) ? weights : get("weights") }); // the last one stays
    }),
  );
  button(controls, "Next merge", () => go(get("step") + 1));
  const next = make("p", { "aria-live": "polite" }, result);
  const said = make("p", {}, result);
  make("p", { text: "Step through the merges, then switch similarities off and see which objects are still found." }, result);

  function drawRegions({ merges, parts, nodes }, step) {
    const node = range(nodes.length);
    for (let k = step - 1; k >= 0; k--) for (const child of merges[k].slice(0, 2)) node[child] = node[first + k];
    const colors = node.map((k) => hue(parts[k].hue));
    labels.forEach((label, k) => pixels.data.set([...colors[label], 255], 4 * k));
    context.putImageData(pixels, 0, 0);
    set(shown, { href: canvas.toDataURL() });
    const coming = step < last ? merges[step].slice(0, 2) : [];
    repeat(pair, "rect", coming.map((k, n) => ({ ...boxRectangle(nodes[k].box, pixel), "stroke-dasharray": n ? "5 3" : "" })));
    left.caption.textContent = `Regions: ${first - step}`;
  }

  function drawBoxes({ nodes, reached }, step) {
    const outline = ([x1, y1, x2, y2]) => `M${x1} ${y1}H${x2}V${y2}H${x1}z`;
    const proposed = nodes.slice(0, first + step).map(({ box }) => outline(box.map((value) => value * pixel)));
    set(boxes, { d: proposed.join("") });
    const looks = (k) => ({ stroke: reached[k] <= step ? "#5fd39a" : "#ff9f4a", "stroke-dasharray": reached[k] <= step ? "" : "7 4" });
    repeat(objects, "rect", get("objects").map((box, k) => ({ ...boxRectangle(box, pixel), "stroke-width": 3, ...looks(k) })));
    right.caption.textContent = `Boxes proposed so far: ${first + step}`;
  }

  function drawCurve({ reached }, step) {
    const recall = (k) => reached.filter((value) => value <= k).length / reached.length;
    const y = (k) => 125 - 110 * recall(k);
    set(line, { d: range(first).map((k) => `${k ? `H${at(k)}V` : `M${at(0)} `}${y(k)}`).join("") });
    const text = `${step} merges, recall ${recall(step).toFixed(2)}`;
    set(mark, { cx: at(step), cy: y(step), "aria-valuenow": step, "aria-valuetext": text });
    const count = reached.filter((value) => value <= step).length;
    said.textContent = `After ${step} merges, ${count} of ${reached.length} objects have a box with an IoU of at least 0.5 (solid green; the others are dashed).`;
    return recall(step);
  }

  function drawPair({ nodes, merges, parts }, step) {
    if (step === last) return (next.textContent = "One region is left: the whole image.");
    const [a, b, total] = merges[step];
    const [one, two, area] = [nodes[a], nodes[b], width * height];
    const of = (name) => intersection(parts[a][name], parts[b][name]);
    const values = [of("color"), of("texture"), sizeSimilarity(one, two, area), fillSimilarity(one, two, area)];
    const terms = KINDS.map((name, k) => `${name} ${values[k].toFixed(3)}${get("weights")[k] ? "" : " (off)"}`);
    next.textContent = `Next pair (white boxes): ${terms.join(" + ")} → ${total.toFixed(3)}`;
  }

  function draw() {
    const [now, step] = [treeNow(), clamp(get("step"), 0, last)];
    drawRegions(now, step);
    drawBoxes(now, step);
    drawPair(now, step);
    const recall = drawCurve(now, step);
    showStep(step);
    showKinds.forEach((show, k) => show(Boolean(get("weights")[k])));
    const boxesSoFar = now.nodes.slice(0, first + step).map(({ box }) => box);
    return { children: now.merges.map((merge) => merge.slice(0, 2)), boxes: boxesSoFar, recall };
  }

  const state = tie(model, NAMES, draw);
  state.redraw();
  return () => {
    state.stop();
    root.remove();
  };
}

export default { render };
