// Overlaps: detections of one class in an image, what NMS leaves of them, and their precision-recall curve.
//
// State, as in Python: truths, boxes (rows of x1, y1, x2, y2 in pixels), scores (one for each box), nms_threshold,
// iou_threshold (that a true positive needs), counted (how many boxes, by score, take part), selected (one of the
// boxes), image_size (height, width), image (PNG in a data URI).

// ---------------------------------------------------------------------------------------------------- mathematics

const pairs = (rows, columns) => rows.map((a) => columns.map((b) => boxIou(a, b)));

/** Indices, best score first; of equal scores the first. */
const ranked = (scores) => range(scores.length).sort((a, b) => scores[b] - scores[a]);

/** Greedy NMS: which boxes are kept, best first, and for each box which one suppresses it, or -1. */
function nms(boxes, scores, threshold) {
  const kept = [];
  const by = boxes.map(() => -1);
  for (const box of ranked(scores)) {
    const better = kept.find((other) => boxIou(boxes[other], boxes[box]) > threshold); // NaN suppresses nothing
    if (better === undefined) kept.push(box);
    else by[box] = better;
  }
  return { kept, by };
}

/** COCO's matching, best first: each takes the free object that it overlaps most, of equals the last; -1 if none. */
function match(overlaps, threshold) {
  const taken = new Set();
  const enough = Math.min(threshold, 1 - 1e-10);
  return overlaps.map((row) => {
    let best = -1;
    row.forEach((value, object) => {
      if (value >= enough && !taken.has(object) && (best < 0 || value >= row[best])) best = object;
    });
    if (best >= 0) taken.add(best);
    return best;
  });
}

/** Precision and recall after each detection of a ranked list. */
function precisionRecall(right, objects) {
  let found = 0;
  const counts = right.map((one) => (found += one ? 1 : 0));
  return { precision: counts.map((n, k) => n / (k + 1)), recall: counts.map((n) => n / objects) };
}

/** The best precision at this recall or any higher one, as a curve over the same detections. */
function interpolated(precision) {
  let best = 0;
  return precision.map((_, k) => (best = Math.max(best, precision[precision.length - 1 - k]))).reverse();
}

/** COCO's average: the mean of the interpolated precision at 101 recalls, 0 where a recall is not reached. */
function averagePrecision(precision, recall) {
  const heights = interpolated(precision);
  const points = range(101).map((k) => (k < 100 ? k * 0.01 : 1)); // some of them are a hair above their two decimals
  return sum(points.map((point) => heights[recall.findIndex((value) => value >= point)] ?? 0)) / 101;
}

/** All of it: NMS among the best boxes, matching of those that are left, the curve and its average. */
function evaluate({ truths, boxes, scores, nms_threshold, iou_threshold, counted }) {
  const order = ranked(scores);
  const best = order.slice(0, counted);
  const left = nms(best.map((d) => boxes[d]), best.map((d) => scores[d]), nms_threshold);
  const suppressed_by = boxes.map(() => -1);
  left.by.forEach((other, k) => (suppressed_by[best[k]] = other < 0 ? -1 : best[other]));
  const kept = left.kept.map((k) => best[k]);
  const overlaps = pairs(boxes, truths);
  const matched = match(kept.map((d) => overlaps[d]), iou_threshold);
  const true_positive = matched.map((object) => object >= 0);
  const curve = precisionRecall(true_positive, truths.length);
  const average_precision = truths.length ? averagePrecision(curve.precision, curve.recall) : NaN;
  return { order, iou: overlaps, kept, suppressed_by, matched, true_positive, ...curve, average_precision };
}

export const math = { pairs, ranked, nms, match, precisionRecall, interpolated, averagePrecision, evaluate };

// ---------------------------------------------------------------------------------------------------- the figure

const THRESHOLDS = ["nms_threshold", "iou_threshold", "counted"];
const NAMES = ["truths", "boxes", "scores", ...THRESHOLDS, "selected", "image", "image_size"];
const LOOKS = {
  right: { color: "var(--pooled)", dash: "", opacity: 1 },
  wrong: { color: "var(--exact)", dash: "8 3", opacity: 1 },
  suppressed: { color: "var(--down)", dash: "2 3", opacity: 1 },
  left_out: { color: "var(--soft)", dash: "2 3", opacity: 0.45 },
};
const SIDE = 320; // of a panel, in the units of its view box
const PLOT = { left: 34, right: 308, top: 14, bottom: 284 };
const TAG = 14;
const NUMBER = "fill: var(--paper); font-weight: 700; text-anchor: middle";
const letter = (object) => String.fromCharCode(65 + object);
const two = (value) => value.toFixed(2);
const short = (value) => String(Number(value.toFixed(2))); // of an area
const largest = (row) => row.reduce((best, value, k) => (value > row[best] ? k : best), 0);
const layer = (svg) => make("g", { fill: "none", style: "pointer-events: none" }, svg);

/** What has become of a detection: how it looks, and in a few words. */
function verdict(state, found, box) {
  const object = found.matched[found.kept.indexOf(box)];
  const closest = largest(found.iou[box]);
  const by = found.suppressed_by[box];
  const said = (look, text) => ({ look, text });
  if (found.order.indexOf(box) >= state.counted) return said("left_out", "not counted");
  if (by >= 0) return said("suppressed", `suppressed by ${by}, IoU ${two(boxIou(state.boxes[by], state.boxes[box]))}`);
  if (object >= 0) return said("right", `true positive: ${letter(object)}`);
  const taken = found.iou[box][closest] >= state.iou_threshold;
  const why = taken ? `${letter(closest)} is already found` : `IoU < ${two(state.iou_threshold)}`;
  return said("wrong", `false positive: ${why}`);
}

function render({ model, el }) {
  const get = (name) => model.get(name);
  const chosen = () => Math.min(get("selected"), get("boxes").length - 1);
  const all = () => ({ ...Object.fromEntries(NAMES.map((name) => [name, get(name)])), selected: chosen() });
  const first = all();
  const { root, stage, controls, result } = frame(el, "Overlap, NMS and average precision");
  const scene = panel(stage, "Objects A, B … and detections 0, 1 …", SIDE, SIDE).svg;
  const plot = panel(stage, "Precision and recall", SIDE, SIDE);
  const picture = make("image", { preserveAspectRatio: "none", x: 0, y: 0 }, scene);
  const [shared, halos, outlines] = range(3).map(() => layer(scene));
  const scale = () => SIDE / Math.max(...get("image_size"));

  // Handles: each detection by its area and by its tag, and the corners of the selected one.
  const replaceBox = (index, box) => {
    state.put({ selected: index, boxes: get("boxes").map((old, other) => (other === index ? box : old)) });
  };
  const moveBy = (index, box, x, y) => replaceBox(index, boxMoved(box, x, y, get("image_size")));
  /** The detection that a pointer means: the selected one where it is hit, else the smallest. */
  const under = (event) => {
    const [x, y] = place(scene, event).map((value) => value / scale());
    const hit = ([x1, y1, x2, y2]) => x1 <= x && x <= x2 && y1 <= y && y <= y2;
    const boxes = get("boxes");
    const rank = (index) => (!hit(boxes[index]) ? Infinity : index === chosen() ? 0 : boxArea(boxes[index]));
    return range(boxes.length).reduce((best, index) => (rank(index) < rank(best) ? index : best));
  };
  let held = null; // which detection moves, and from where
  const handleOf = (index, parent) => {
    const node = make("g", { role: "button" }, parent);
    draggable(
      node,
      scene,
      (at, start) => moveBy(held.index, held.box, ...[0, 1].map((k) => Math.round((at[k] - start[k]) / scale()))),
      (x, y) => moveBy(index, get("boxes")[index], x, y),
    );
    return node;
  };
  const hold = (index) => {
    held = { index, box: get("boxes")[index] };
    state.put({ selected: index });
    bodies[index].focus({ preventScroll: true });
  };
  const [areas, corners, tags] = [0, 1, 2].map(() => make("g", {}, scene));
  const [bodies, labels] = [[], []];
  const addHandles = () => {
    const index = bodies.length;
    const body = handleOf(index, areas);
    make("rect", { fill: "transparent" }, body);
    body.addEventListener("pointerdown", (event) => hold(under(event)));
    body.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      state.put({ selected: index });
    });
    const tag = set(handleOf(index, tags), { "aria-hidden": true }); // the same as the body, for pointers
    tag.removeAttribute("tabindex");
    tag.addEventListener("pointerdown", () => hold(index));
    make("rect", { width: TAG, height: TAG, rx: 3 }, tag);
    make("text", { x: TAG / 2, y: TAG - 3.5, style: NUMBER, text: index }, tag);
    bodies.push(body);
    labels.push(tag);
  };
  const selected = () => get("boxes")[chosen()];
  const resized = (box) => replaceBox(chosen(), box);
  const placeCorners = boxCorners(scene, corners, scale, () => get("image_size"), selected, resized);
  const letters = layer(scene);

  // Controls, and what they show.
  const share = { min: 0, max: 1, step: 0.01 };
  const shows = {
    nms: control(controls, "NMS threshold", share, (nms_threshold) => state.put({ nms_threshold })),
    iou: control(controls, "IoU for a true positive", { ...share, min: 0.05 }, (v) => state.put({ iou_threshold: v })),
    counted: control(controls, "detections counted", { min: 0, step: 1 }, (counted) => state.put({ counted })),
    score: control(controls, "score", share, (value) =>
      state.put({ scores: get("scores").map((old, index) => (index === chosen() ? value : old)) }),
    ),
  };
  const [counter, scorer] = [...controls.querySelectorAll("input")].slice(2);
  button(controls, "Start over", () => state.put(first));
  const said = make("p", { "aria-live": "polite" }, result);
  const table = make("table", {}, make("div", { class: "wide" }, result));
  const head = make("tr", {}, make("thead", {}, table));
  for (const text of ["box", "score", "best IoU", "result", "precision", "recall"]) {
    make("th", { scope: "col", text, style: text === "result" ? "text-align: left" : "" }, head);
  }
  const body = make("tbody", {}, table);
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) state.put({ selected: Number(row.dataset.box) });
  });
  const hint = "Drag a box, and try NMS thresholds: a low one loses objects that stand close together, ";
  make("p", { text: `${hint}a high one keeps duplicates.` }, result);

  // The curve: axes once, the rest at each change.
  const across = (recall) => PLOT.left + recall * (PLOT.right - PLOT.left);
  const up = (precision) => PLOT.bottom - precision * (PLOT.bottom - PLOT.top);
  const axes = layer(plot.svg);
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    const line = { stroke: "var(--line)", "stroke-width": 1 };
    make("line", { x1: across(value), x2: across(value), y1: up(0), y2: up(1), ...line }, axes);
    make("line", { x1: across(0), x2: across(1), y1: up(value), y2: up(value), ...line }, axes);
    make("text", { x: across(value), y: up(0) + 14, "text-anchor": "middle", text: value }, axes);
    make("text", { x: across(0) - 5, y: up(value) + 3, "text-anchor": "end", text: value }, axes);
  }
  make("text", { x: across(0.5), y: up(0) + 29, "text-anchor": "middle", text: "recall" }, axes);
  make("text", { transform: `translate(9 ${up(0.5)}) rotate(-90)`, "text-anchor": "middle", text: "precision" }, axes);
  const line = { stroke: "var(--pooled)", "stroke-width": 2 };
  const surface = make("path", { fill: "var(--pooled)", "fill-opacity": 0.22, ...line }, plot.svg);
  const steps = make("path", { fill: "none", stroke: "var(--ink)", "stroke-dasharray": "4 3" }, plot.svg);
  const dots = layer(plot.svg);
  const dotNumbers = layer(plot.svg);
  const average = make("text", { x: across(0.04), y: up(0.12), style: "font-size: 15px; font-weight: 700" }, plot.svg);
  make("text", { x: across(0.04), y: up(0.05), text: "mean height of the shaded area at 101 recalls" }, plot.svg);

  function drawScene(now, looks) {
    const pixel = scale();
    const [height, width] = now.image_size;
    set(picture, { href: now.image, width: width * pixel, height: height * pixel });
    const plain = { stroke: "var(--nearest)", "stroke-dasharray": "14 4", "stroke-width": 2, opacity: 1 };
    const truths = now.truths.map((box) => ({ ...boxRectangle(box, pixel), ...plain }));
    const found = now.boxes.map((box, index) => {
      const { color, dash, opacity } = looks[index];
      const width = index === now.selected ? 3.5 : 2;
      return { ...boxRectangle(box, pixel), stroke: color, "stroke-dasharray": dash, opacity, "stroke-width": width };
    });
    const lines = [...truths, ...found];
    const below = lines.map((line) => {
      const wider = { "stroke-width": line["stroke-width"] + 2, opacity: 0.5 * line.opacity };
      return { ...line, stroke: "var(--paper)", "stroke-dasharray": "", ...wider };
    });
    repeat(halos, "rect", below);
    repeat(outlines, "rect", lines);
    const halo = "stroke: var(--paper); stroke-width: 3; paint-order: stroke";
    const style = `fill: var(--nearest); font-size: 14px; font-weight: 800; text-anchor: middle; ${halo}`;
    const mark = ([x1, , x2, y2]) => ({ x: ((x1 + x2) / 2) * pixel, y: y2 * pixel - 5, style });
    repeat(letters, "text", now.truths.map((box, object) => ({ ...mark(box), text: letter(object) })));
  }

  function drawShared(now, closest) {
    const pixel = scale();
    const [a, b] = [now.boxes[now.selected], now.truths[closest]];
    const both = [Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])];
    const fills = [[a, 0.18], [b, 0.18], [both, 0.3]];
    const filled = ([box, opacity]) => ({ ...boxRectangle(box, pixel), fill: "var(--nearest)", "fill-opacity": opacity });
    repeat(shared, "rect", fills.map(filled));
  }

  function drawHandles(now, found, verdicts, looks) {
    const pixel = scale();
    while (bodies.length < now.boxes.length) addHandles();
    bodies.forEach((node, index) => {
      const box = now.boxes[index];
      const display = box ? "" : "display: none";
      for (const part of [node, labels[index]]) set(part, { style: display });
      if (!box) return;
      set(node.firstElementChild, boxRectangle(box, pixel));
      set(node, { "aria-pressed": index === now.selected });
      const text = `detection ${index}, score ${two(now.scores[index])}, at ${box.join(", ")}; ${verdicts[index].text}`;
      set(node, { "aria-label": text });
      set(labels[index], { transform: `translate(${box[0] * pixel + 6} ${box[1] * pixel + 6})` });
      set(labels[index].firstElementChild, { fill: looks[index].color, stroke: "var(--paper)", "stroke-width": 1 });
    });
    placeCorners(looks[now.selected].color, `detection ${now.selected}`);
  }

  function drawCurve(found, looks) {
    const { precision, recall, kept } = found;
    const points = recall.map((value, k) => [across(value), up(precision[k])]);
    const heights = interpolated(precision);
    const stairs = recall.map((value, k) => `V${up(heights[k])} H${across(value)}`).join(" ");
    set(surface, { d: recall.length ? `M${across(0)} ${up(0)} ${stairs} V${up(0)} Z` : "" });
    set(steps, { d: points.length ? `M${points.map((point) => point.join(" ")).join(" L")}` : "" });
    const dot = { r: 8, stroke: "var(--paper)" };
    repeat(dots, "circle", points.map(([cx, cy], k) => ({ cx, cy, ...dot, fill: looks[kept[k]].color })));
    repeat(dotNumbers, "text", points.map(([x, y], k) => ({ x, y: y + 3.5, style: NUMBER, text: kept[k] })));
    average.textContent = `AP = ${found.average_precision.toFixed(3)}`;
  }

  function drawTable(now, found, verdicts, looks) {
    const marked = "background: color-mix(in srgb, var(--focus) 16%, transparent)";
    repeat(body, "tr", found.order.map((box) => ({ "data-box": box, style: box === now.selected ? marked : "" })));
    found.order.forEach((box, line) => {
      const place = found.kept.indexOf(box);
      const at = (values) => (place < 0 ? "–" : two(values[place]));
      const closest = largest(found.iou[box]);
      const best = found.iou[box][closest];
      const name = { style: `color: ${looks[box].color}; text-align: left; font-weight: 600` };
      const cells = [
        { text: box, ...name },
        { text: two(now.scores[box]), style: "" },
        { text: best > 0 ? `${two(best)} ${letter(closest)}` : "0.00", style: "white-space: nowrap" },
        { text: verdicts[box].text, ...name },
        { text: at(found.precision), style: "" },
        { text: at(found.recall), style: "" },
      ];
      repeat(body.children[line], "td", cells);
    });
  }

  function drawWords(now, closest, text) {
    const { intersection, union } = boxOverlap(now.boxes[now.selected], now.truths[closest]);
    const fraction = `${short(intersection)} / ${short(union)} px² = IoU ${two(intersection / union)}`;
    const verb = /positive/.test(text) ? "is a" : "is";
    said.textContent =
      `Detection ${now.selected} and object ${letter(closest)}: intersection / union = ${fraction}. ` +
      `Detection ${now.selected} ${verb} ${text}.`;
  }

  function draw() {
    const now = all();
    if (now.boxes.length !== now.scores.length) return undefined; // the other half is on its way
    const found = evaluate(now);
    const verdicts = now.boxes.map((_, box) => verdict(now, found, box));
    const looks = verdicts.map(({ look }) => LOOKS[look]);
    const closest = largest(found.iou[now.selected]);
    drawShared(now, closest);
    drawScene(now, looks);
    drawHandles(now, found, verdicts, looks);
    drawCurve(found, looks);
    drawTable(now, found, verdicts, looks);
    drawWords(now, closest, verdicts[now.selected].text);
    shows.nms(now.nms_threshold, two(now.nms_threshold));
    shows.iou(now.iou_threshold, two(now.iou_threshold));
    counter.max = now.boxes.length;
    shows.counted(now.counted, `${Math.min(now.counted, now.boxes.length)} of ${now.boxes.length}`);
    shows.score(now.scores[now.selected], two(now.scores[now.selected]));
    scorer.previousSibling.textContent = `score of box ${now.selected}`;
    return found;
  }

  const state = tie(model, NAMES, draw);
  return state.start(root);
}

export default { render };
