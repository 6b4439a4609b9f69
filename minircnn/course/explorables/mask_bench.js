// The mask bench: an object's mask is cut out by a box into a grid of m × m cells, and pasted back into the image.
//
// State, as in Python: box (x1, y1, x2, y2 in pixels), m (cells a side), threshold (above which a pixel belongs to the
// object), aligned (whether the first pixel is centered at 1/2, and not at 0), image_size (height, width), image (PNG in
// a data URI), mask (a byte a pixel, 0 or 1, in base64).

// ---------------------------------------------------------------------------------------------------- mathematics

const single = Math.fround; // places in the image are in single precision, in the package and in torchvision

/** RoIAlign along an axis: for each of m bins the pixels that count in it, and how much: [[[pixel, weight], …], …]. */
function bins(low, high, m, pixels, aligned) {
  const start = low - (aligned ? 0.5 : 0);
  const side = high - (aligned ? 0.5 : 0) - start;
  const length = (aligned ? side : Math.max(side, 1)) / m; // of a bin
  const count = Math.max(Math.ceil(length), 0); // of its points
  return range(m).map((bin) => {
    const weights = new Map();
    for (let k = 0; k < count; k++) {
      const at = start + bin * length + ((k + 0.5) * length) / count;
      if (at < -1 || at > pixels) continue;
      const inside = clamp(at, 0, pixels - 1);
      const first = Math.floor(inside);
      for (const [pixel, weight] of [[first, 1 - (inside - first)], [first + 1, inside - first]]) {
        if (weight > 0) weights.set(pixel, (weights.get(pixel) ?? 0) + weight / count);
      }
    }
    return [...weights];
  });
}

/** The sum of some rows, each as often as it counts. */
function mix(rows, weights) {
  const total = new Float64Array(rows[0].length);
  for (const [row, weight] of weights) rows[row].forEach((value, column) => (total[column] += weight * value));
  return total;
}

/** Weights for rows and for columns applied to a map: rows of numbers. */
function resample(map, rows, columns) {
  return rows.map((weights) => {
    const line = mix(map, weights);
    return columns.map((terms) => terms.reduce((total, [column, weight]) => total + weight * line[column], 0));
  });
}

/** The part of a mask that lies in a box, as m × m shares: the target of the mask branch. */
function project(mask, [x1, y1, x2, y2], m, aligned) {
  return resample(mask, bins(y1, y2, m, mask.length, aligned), bins(x1, x2, m, mask[0].length, aligned));
}

/** For each pixel of an axis the cells that it is interpolated from, where the mask lies exactly on its box. */
function onBox(low, high, m, pixels) {
  const cell = single(Math.max(high - low, 1e-6) / m);
  return range(pixels).map((pixel) => {
    const at = single(single(single(pixel + 0.5 - single(low)) / cell) - 0.5); // cell k has its value at k
    const first = Math.floor(at);
    const near = [first, first + 1].filter((k) => k >= 0 && k < m);
    return near.map((k) => [k, Math.max(single(1 - Math.abs(single(at - k))), 0)]);
  });
}

/** Where torchvision stretches m cells and one of zeros on each side: first pixel, number of pixels. */
function wholePixels(low, high, m) {
  const half = single(single(single(single(high) - single(low)) * 0.5) * single((m + 2) / m));
  const center = single(single(single(high) + single(low)) * 0.5);
  const [first, last] = [center - half, center + half].map((value) => Math.trunc(single(value)));
  return { first, count: Math.max(last - first + 1, 1) };
}

/** The same as onBox over those whole pixels. */
function onPixels(low, high, m, pixels) {
  const { first, count } = wholePixels(low, high, m);
  return range(pixels).map((pixel) => {
    if (pixel < first || pixel >= first + count) return [];
    const at = Math.max(((m + 2) / count) * (pixel - first + 0.5) - 0.5, 0);
    const cell = Math.min(Math.floor(at), m + 1);
    const near = [[cell - 1, 1 - (at - cell)], [cell, at - cell]]; // cells of the mask start behind one of zeros
    return near.filter(([k, weight]) => k >= 0 && k < m && weight > 0);
  });
}

/** A grid stretched over its box, in an image of (height, width): probabilities, 0 beyond. */
function paste(grid, [x1, y1, x2, y2], [height, width], aligned) {
  const stretch = aligned ? onBox : onPixels;
  return resample(grid, stretch(y1, y2, grid.length, height), stretch(x1, x2, grid.length, width));
}

/** Which values exceed a threshold; less than a billionth is rounding, and does not. */
function above(values, threshold) {
  const billions = (value) => Math.round(1e9 * value);
  return values.map((row) => row.map((value) => Number(billions(value) > billions(threshold))));
}

/** How two masks agree, all over or among pixels whose center lies in a box; the IoU of nothing is 0. */
function agreement(mask, truth, [x1, y1, x2, y2] = [0, 0, Infinity, Infinity]) {
  const found = { shared: 0, lost: 0, gained: 0 };
  truth.forEach((row, y) => {
    if (y + 0.5 < y1 || y + 0.5 > y2) return;
    row.forEach((value, x) => {
      if ((!value && !mask[y][x]) || x + 0.5 < x1 || x + 0.5 > x2) return;
      found[value && mask[y][x] ? "shared" : value ? "lost" : "gained"] += 1;
    });
  });
  const union = found.shared + found.lost + found.gained;
  return { ...found, iou: union ? found.shared / union : 0 };
}

/** All of it: there and back. */
function thereAndBack(truth, { box, m, threshold, aligned }) {
  const target = project(truth, box, m, aligned);
  const pasted = above(paste(target, box, [truth.length, truth[0].length], aligned), threshold);
  return { target, pasted, whole: agreement(pasted, truth), inside: agreement(pasted, truth, box) };
}

export const math = { bins, project, onBox, onPixels, paste, above, agreement, thereAndBack, bytes };

// ---------------------------------------------------------------------------------------------------- the figure

const CHOICES = ["box", "m", "threshold", "aligned"];
const NAMES = [...CHOICES, "image", "image_size", "mask"];
const SIDE = 320; // of a panel, in the units of its view box
const NUMBERED = 12; // up to so many cells a side their numbers can be read
const COLORS = ["nearest", "pooled", "exact", "down"].map((name) => `var(--${name})`);
const [TRUE, PASTED, BOX, LOST] = COLORS;
const LEGEND = [["— true mask", TRUE], ["- - pasted mask", PASTED], ["■ lost", LOST], ["■ gained", PASTED]];
const SHIFTED = "Not aligned: the target is cut out half a pixel too far right and down, and pasted over the dotted box.";
const two = (value) => value.toFixed(2);
const short = (value) => String(Number(value.toFixed(1)));
const layer = (svg) => make("g", { fill: "none", style: "pointer-events: none" }, svg);

/** The smallest box around a mask. */
function around(mask) {
  const filled = (lines) => lines.map((line, k) => (line.some(Boolean) ? k : -1)).filter((k) => k >= 0);
  const [down, across] = [mask, mask[0].map((_, x) => mask.map((row) => row[x]))].map(filled);
  return [across[0], down[0], across.at(-1) + 1, down.at(-1) + 1];
}

/** The pixels of a mask as a path of whole runs. */
function area(mask, wanted) {
  let d = "";
  mask.forEach((row, y) => {
    let start = -1;
    for (let x = 0; x <= row.length; x++) {
      const inside = x < row.length && wanted(row[x], x, y);
      if (inside && start < 0) start = x;
      if (!inside && start >= 0) {
        d += `M${start} ${y}H${x}V${y + 1}H${start}Z`;
        start = -1;
      }
    }
  });
  return d;
}

function render({ model, el }) {
  const get = (name) => model.get(name);
  const first = Object.fromEntries(CHOICES.map((name) => [name, get(name)]));
  const truth = bytes(get("mask"), get("image_size")[1]);
  const [rows, columns] = [truth.length, truth[0].length];
  const { root, stage, controls, result } = frame(el, "Mask there and back");
  const scene = panel(stage, "The mask, a box, and what comes back", SIDE, (SIDE * rows) / Math.max(rows, columns)).svg;
  const target = panel(stage, "The target", SIDE, SIDE);
  const scale = () => SIDE / Math.max(rows, columns);

  // In pixels of the image: what differs, and two outlines.
  make("image", { href: get("image"), width: columns * scale(), height: rows * scale() }, scene);
  const drawn = set(layer(scene), { transform: `scale(${scale()})` });
  const [lost, gained] = [LOST, PASTED].map((fill) => make("path", { fill, "fill-opacity": 0.75 }, drawn));
  const looks = { "vector-effect": "non-scaling-stroke" };
  const line = (stroke, width, dash = "") =>
    make("path", { ...looks, stroke, "stroke-width": width, "stroke-dasharray": dash }, drawn);
  set(line("var(--paper)", 4), { d: contours(truth), opacity: 0.6 });
  const halo = set(line("var(--paper)", 4), { opacity: 0.6 });
  set(line(TRUE, 2), { d: contours(truth) });
  const found = line(PASTED, 2, "5 3");
  const cells = set(line(BOX, 0.6), { opacity: 0.6 });

  // Handles: the box and its corners.
  const move = (box, x, y) => state.put({ box: boxMoved(box, x, y, [rows, columns]) });
  let from = null;
  const body = make("rect", { role: "button", fill: "transparent", stroke: BOX, "stroke-width": 2.5 }, scene);
  body.addEventListener("pointerdown", () => (from = get("box")));
  draggable(
    body,
    scene,
    (at, start) => move(from, ...[0, 1].map((k) => Math.round((at[k] - start[k]) / scale()))),
    (x, y) => move(get("box"), x, y),
  );
  const dots = { stroke: PASTED, "stroke-width": 2, "stroke-dasharray": "2 4", transform: `scale(${scale()})` };
  const stretched = make("path", { ...looks, ...dots, fill: "none", style: "pointer-events: none" }, scene);
  const corners = make("g", {}, scene);
  const size = () => [rows, columns];
  const placeCorners = boxCorners(scene, corners, scale, size, () => get("box"), (box) => state.put({ box }));

  const grid = make("image", { preserveAspectRatio: "none", width: SIDE, height: SIDE }, target.svg);
  const numbers = layer(target.svg);

  // Controls, and what they show.
  const shows = {
    m: control(controls, "m, cells a side", { min: 5, max: 56, step: 1 }, (m) => state.put({ m })),
    threshold: control(controls, "threshold", { min: 0.05, max: 0.95, step: 0.05 }, (threshold) =>
      state.put({ threshold }),
    ),
    aligned: control(controls, "aligned", { kind: "checkbox" }, (aligned) => state.put({ aligned })),
  };
  button(controls, "Fit the box", () => state.put({ box: around(truth) }));
  button(controls, "Start over", () => state.put(first));
  const legend = make("p", {}, result);
  for (const [text, color] of LEGEND) {
    const looks = `color: ${color}; font-weight: 600; margin-right: 1.2em; display: inline-block`;
    make("span", { text, style: looks }, legend);
  }
  const table = make("table", {}, make("div", { class: "wide" }, result));
  const head = make("tr", {}, make("thead", {}, table));
  for (const text of ["", "both", "lost", "gained", "IoU"]) {
    const color = { lost: LOST, gained: PASTED }[text];
    make(text ? "th" : "td", { scope: "col", text, style: color ? `color: ${color}` : "" }, head);
  }
  const lines = ["whole mask", "part in the box"].map((text) => {
    const row = make("tr", {}, table);
    make("th", { scope: "row", text }, row);
    return range(4).map(() => make("td", {}, row));
  });
  const said = make("p", { "aria-live": "polite" }, result);
  make("p", { text: "Fit the box to the cat, and then make m so small that the legs are lost." }, result);

  function drawScene({ box, m, aligned }, { pasted }) {
    const [x1, y1, x2, y2] = box;
    set(lost, { d: area(truth, (value, x, y) => value && !pasted[y][x]) });
    set(gained, { d: area(pasted, (value, x, y) => value && !truth[y][x]) });
    const d = contours(pasted);
    for (const path of [halo, found]) set(path, { d });
    const [wide, high] = [(x2 - x1) / m, (y2 - y1) / m]; // of a cell
    const readable = Math.min(wide, high) * scale() > 5;
    const inner = readable ? range(m - 1).map((k) => k + 1) : [];
    const lines = inner.map((k) => `M${x1 + k * wide} ${y1}V${y2}M${x1} ${y1 + k * high}H${x2}`);
    set(cells, { d: lines.join("") });
    const [across, down] = [wholePixels(x1, x2, m), wholePixels(y1, y2, m)].map(({ first, count }) =>
      [1, m + 1].map((cell) => first + (cell * count) / (m + 2)),
    );
    const over = `M${across[0]} ${down[0]}H${across[1]}V${down[1]}H${across[0]}Z`;
    set(stretched, { d: aligned ? "" : over });
    set(body, { ...boxRectangle(box, scale()), "aria-label": `the box, at ${box.join(", ")}` });
    placeCorners(BOX, "the box");
  }

  function drawTarget({ m }, { target: values }) {
    target.caption.textContent = `The target: ${m} × ${m} cells, ${m > NUMBERED ? "white: the object" : "in percent"}`;
    set(grid, { href: raster(values.map((row) => row.map((value) => 255 * value))) });
    const cell = SIDE / m;
    const digits = (value, i, j) => ({
      x: (j + 0.5) * cell,
      y: (i + 0.5) * cell + 4,
      "text-anchor": "middle",
      style: `fill: ${value > 0.46 ? "#000" : "#fff"}; font-size: 11px`,
      text: Math.round(100 * value),
    });
    repeat(numbers, "text", m > NUMBERED ? [] : values.flatMap((row, i) => row.map((value, j) => digits(value, i, j))));
  }

  function drawWords({ box, m, aligned }, { whole, inside }) {
    [whole, inside].forEach(({ shared, lost, gained, iou }, k) => {
      [shared, lost, gained, two(iou)].forEach((text, column) => (lines[k][column].textContent = text));
    });
    const [wide, high] = [box[2] - box[0], box[3] - box[1]].map((side) => short(side / m));
    const { shared, lost, gained, iou } = whole;
    const beyond = lost - inside.lost;
    const outside = beyond ? ` Of the lost pixels ${beyond} lie outside of the box.` : "";
    said.textContent =
      `A cell has ${wide} × ${high} pixels. IoU = both / (both + lost + gained) = ` +
      `${shared} / ${shared + lost + gained} = ${two(iou)}.${outside}${aligned ? "" : ` ${SHIFTED}`}`;
  }

  function draw() {
    const now = Object.fromEntries(CHOICES.map((name) => [name, get(name)]));
    const found = thereAndBack(truth, now);
    drawScene(now, found);
    drawTarget(now, found);
    drawWords(now, found);
    shows.m(now.m);
    shows.threshold(now.threshold, two(now.threshold));
    shows.aligned(now.aligned);
    const { shared, lost, gained, iou } = found.whole;
    const target = found.target.map((row) => row.map((value) => Math.round(1e6 * value) / 1e6));
    return { target, shared, lost, gained, iou, iou_in_box: found.inside.iou };
  }

  const state = tie(model, NAMES, draw);
  return state.start(root);
}

export default { render };
