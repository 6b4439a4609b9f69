// The pooling bench: a region of an image on its feature map, as four ways of rounding and RoIAlign see it.
//
// State, as in Python: region (x1, y1, x2, y2 in pixels), image_size and feature_size (height, width), output_size (bins
// a side), sampling_ratio (points of a bin a side), aligned, point (x, y in cells), window (side in pixels of the upper
// left part that is shown), image (PNG in a data URI), brightness (bytes of its pixels in base64).

// ---------------------------------------------------------------------------------------------------- mathematics

/** To the nearest whole number, halves away from 0, as C rounds. (Adding 1/2 would itself round 0.49999999999999994.) */
const whole = (value) => Math.trunc(value) + Math.sign(value) * (Math.abs(value % 1) >= 0.5);

/** A region in cells: exact, and rounded in three ways. Each is x1, y1, x2, y2; whole cells are half open. */
function roundings(region, [height, width], [rows, columns]) {
  const scale = [columns / width, rows / height, columns / width, rows / height];
  const exact = region.map((value, axis) => value * scale[axis]);
  const nearest = exact.map(whole);
  const last = [0, 1].map((axis) => Math.max(nearest[axis + 2], nearest[axis]) + 1); // the last cell counts in
  return { exact, rounded_down: exact.map(Math.floor), nearest, pooled: [nearest[0], nearest[1], ...last] };
}

/** Start and end of each bin along an axis, rounded outwards and cut off at the map's edge. */
function binsOfPool(first, last, count, size) {
  const edge = (value) => clamp(first + value, 0, size);
  const length = last - first;
  return range(count).map((k) => [
    edge(Math.floor((k * length) / count)),
    edge(Math.ceil(((k + 1) * length) / count)),
  ]);
}

/** RoIPool: the largest value of each bin, 0 where a bin has no cell. */
function pool(map, [x1, y1, x2, y2], count) {
  const rows = binsOfPool(y1, y2, count, map.length);
  const columns = binsOfPool(x1, x2, count, map[0].length);
  const largest = ([top, bottom], [left, right]) =>
    top < bottom && left < right ? Math.max(...map.slice(top, bottom).flatMap((row) => row.slice(left, right))) : 0;
  return rows.map((row) => columns.map((column) => largest(row, column)));
}

/** The cells that count at a point, in cells, and how much: [[row, column, weight], …], none more than a cell outside. */
function neighbors(x, y, [rows, columns], aligned) {
  const [u, v] = aligned ? [x - 0.5, y - 0.5] : [x, y];
  if (u < -1 || v < -1 || u > columns || v > rows) return [];
  const along = (value, size) => {
    const inside = clamp(value, 0, size - 1);
    const first = Math.min(Math.floor(inside), Math.max(size - 2, 0));
    return [[first, 1 - (inside - first)], [Math.min(first + 1, size - 1), inside - first]];
  };
  return along(v, rows).flatMap(([row, a]) => along(u, columns).map(([column, b]) => [row, column, a * b]));
}

const interpolate = (map, cells) => sum(cells.map(([row, column, weight]) => weight * map[row][column]));

/** RoIAlign's points, in cells, for each bin: [[[[x, y], …], …], …], rows of bins first. */
function pointsOf([x1, y1, x2, y2], count, ratio, aligned) {
  const [width, height] = [x2 - x1, y2 - y1].map((side) => (aligned ? side : Math.max(side, 1)));
  const along = (start, length, bin) => range(ratio).map((k) => start + ((bin + (k + 0.5) / ratio) * length) / count);
  return range(count).map((i) =>
    range(count).map((j) => along(y1, height, i).flatMap((y) => along(x1, width, j).map((x) => [x, y]))),
  );
}

/** RoIAlign: the mean over the points of each bin. */
function align(map, exact, count, ratio, aligned) {
  const size = [map.length, map[0].length];
  const value = ([x, y]) => interpolate(map, neighbors(x, y, size, aligned));
  return pointsOf(exact, count, ratio, aligned).map((row) => row.map((points) => sum(points.map(value)) / ratio ** 2));
}

/** A map whose cells are the means of the pixels below them; cells share pixels where they do not fit. */
function means(pixels, [rows, columns]) {
  const part = (k, count, size) => [Math.floor((k * size) / count), Math.ceil(((k + 1) * size) / count)];
  return range(rows).map((i) => {
    const [top, bottom] = part(i, rows, pixels.length);
    return range(columns).map((j) => {
      const [left, right] = part(j, columns, pixels[0].length);
      const total = sum(pixels.slice(top, bottom).map((row) => sum(row.slice(left, right))));
      return total / ((bottom - top) * (right - left));
    });
  });
}

export const math = { roundings, binsOfPool, pool, neighbors, interpolate, pointsOf, align, means, bytes };

// ---------------------------------------------------------------------------------------------------- the figure

const WAYS = [
  ["exact", "exact (RoIAlign)", ""],
  ["rounded_down", "down (the story)", "6 4"],
  ["nearest", "nearest (the paper)", "2 3"],
  ["pooled", "published RoIPool", "9 3"],
];
const COLORS = { exact: "exact", rounded_down: "down", nearest: "nearest", pooled: "pooled" };
const EDGES = ["left", "top", "right", "bottom"];
const SIDE = 320; // of a panel, in the units of its view box
const STORY = { region: [0, 0, 15, 15], feature_size: [25, 25], output_size: 2, sampling_ratio: 2, window: 36 };
const NAMES = ["region", "feature_size", "output_size", "sampling_ratio", "aligned", "point", "window", "image"];

/** What lies in pixels of the image in a panel: a group whose lines keep their width. */
function layer(svg) {
  return make("g", { fill: "none", style: "pointer-events: none" }, svg);
}

function render({ model, el }) {
  const get = (name) => model.get(name);
  const { root, stage, controls, result } = frame(el, "Pooling bench");
  const [left, right] = ["On the image, in pixels", "On the feature map, in cells"].map((title) => {
    const { svg } = panel(stage, title, SIDE, SIDE);
    const picture = make("image", { preserveAspectRatio: "none", x: 0, y: 0 }, svg);
    const parts = ["lines", "cells", "numbers", "bins", "boxes", "points"].map((name) => [name, layer(svg)]);
    return { svg, picture, ...Object.fromEntries(parts) };
  });
  const pixels = bytes(get("brightness"), get("image_size")[1]);
  let map = null;

  const limit = (region) => {
    const [height, width] = get("image_size");
    return region.map((value, axis) => clamp(Math.round(value * 10) / 10, 0, axis % 2 ? height : width));
  };
  const scale = () => SIDE / get("window");

  // Handles: the region itself, its four edges, and the point on the map at which RoIAlign's value is shown.
  const moveEdge = (axis, value) => {
    const region = limit(get("region").map((old, other) => (other === axis ? value : old)));
    const [low, high] = axis < 2 ? [0, region[axis + 2] - 1] : [region[axis - 2] + 1, Infinity];
    region[axis] = clamp(region[axis], low, high);
    state.put({ region });
  };
  const moveBy = (from, x, y) => {
    const [height, width] = get("image_size");
    const dx = clamp(x, -from[0], width - from[2]);
    const dy = clamp(y, -from[1], height - from[3]);
    state.put({ region: limit([from[0] + dx, from[1] + dy, from[2] + dx, from[3] + dy]) });
  };
  let from = null;
  const body = make("rect", { fill: "transparent", role: "button", "aria-label": "the region: move it" }, left.svg);
  body.addEventListener("pointerdown", () => (from = get("region")));
  draggable(
    body,
    left.svg,
    ([x, y], [x0, y0]) => moveBy(from, (x - x0) / scale(), (y - y0) / scale()),
    (x, y) => moveBy(get("region"), x, y),
  );
  const handles = EDGES.map((name, axis) => {
    const node = make("circle", { r: 8, fill: "var(--exact)", stroke: "var(--paper)", "stroke-width": 2 }, left.svg);
    set(node, { role: "slider", "aria-label": `${name} edge`, "aria-valuemin": 0 });
    set(node, { "aria-valuemax": get("image_size")[1 - (axis % 2)] });
    draggable(
      node,
      left.svg,
      (at) => moveEdge(axis, at[axis % 2] / scale()),
      (x, y) => moveEdge(axis, get("region")[axis] + (axis % 2 ? y : x)),
    );
    return node;
  });
  const strides = () => [1, 0].map((axis) => get("image_size")[axis] / get("feature_size")[axis]); // x, y
  const onMap = (point) => point.map((value, axis) => value / scale() / strides()[axis]);
  const moveTo = (x, y) => {
    const [rows, columns] = get("feature_size");
    state.put({ point: [clamp(x, 0, columns), clamp(y, 0, rows)] });
  };
  const surface = make("rect", { width: SIDE, height: SIDE, fill: "transparent" }, right.svg);
  const follow = (event) => moveTo(...onMap(place(right.svg, event)));
  surface.addEventListener("pointermove", follow);
  surface.addEventListener("pointerdown", follow);
  const probe = make("circle", { r: 6, fill: "none", stroke: "var(--exact)", "stroke-width": 3 }, right.svg);
  set(probe, { role: "slider", "aria-label": "point on the map", "aria-valuemin": 0 });
  draggable(
    probe,
    right.svg,
    (at) => moveTo(...onMap(at)),
    (x, y) => moveTo(get("point")[0] + x / 4, get("point")[1] + y / 4),
  );

  // Controls, and what they show.
  const shows = {
    cells: control(controls, "cells a side", { min: 4, max: 32, step: 1 }, (n) => state.put({ feature_size: [n, n] })),
    bins: control(controls, "bins a side", { min: 1, max: 7, step: 1 }, (n) => state.put({ output_size: n })),
    points: control(controls, "points of a bin", { min: 1, max: 4, step: 1 }, (n) => state.put({ sampling_ratio: n })),
    zoom: control(controls, "pixels in sight", { min: 16, max: get("image_size")[1], step: 4 }, (n) =>
      state.put({ window: n }),
    ),
    aligned: control(controls, "aligned", { kind: "checkbox" }, (aligned) => state.put({ aligned })),
  };
  button(controls, "2.93: the story’s 15 pixels", () => state.put(STORY));
  const table = make("table", {}, make("div", { class: "wide" }, result));
  const head = make("tr", {}, make("thead", {}, table));
  for (const text of ["cells", ...EDGES, "ends at pixel", "off by"]) make("th", { scope: "col", text }, head);
  const rows = WAYS.map(([key, name]) => {
    const row = make("tr", {}, table);
    make("th", { scope: "row", text: name, style: `color: var(--${COLORS[key]})` }, row);
    return range(6).map(() => make("td", {}, row));
  });
  const said = make("p", { "aria-live": "polite" }, result);
  const bins = make("p", {}, result);

  function drawMap() {
    const key = `${get("feature_size")}`;
    if (map?.key === key) return;
    map = means(pixels, get("feature_size"));
    map.key = key;
    right.picture.setAttribute("href", raster(map));
  }

  function drawStill(pixel) {
    const [height, width] = get("image_size");
    const [rowCount, columns] = get("feature_size");
    const [wide, high] = strides().map((value) => value * pixel);
    set(left.picture, { href: get("image"), width: width * pixel, height: height * pixel });
    set(right.picture, { width: width * pixel, height: height * pixel });
    const lines = [
      ...range(Math.floor(SIDE / wide) + 1).map((k) => ({ x1: k * wide, x2: k * wide, y1: 0, y2: SIDE })),
      ...range(Math.floor(SIDE / high) + 1).map((k) => ({ x1: 0, x2: SIDE, y1: k * high, y2: k * high })),
    ];
    for (const side of [left, right]) {
      repeat(side.lines, "line", lines.map((line) => ({ ...line, stroke: "#ffffff", "stroke-width": 0.7, opacity: 0.5 })));
    }
    const inSight = (count, cell) => (Math.min(wide, high) > 24 ? range(Math.min(Math.ceil(SIDE / cell), count)) : []);
    const numbers = inSight(rowCount, high).flatMap((i) =>
      inSight(columns, wide).map((j) => ({
        x: (j + 0.5) * wide,
        y: (i + 0.92) * high,
        "text-anchor": "middle",
        style: `fill: ${map[i][j] > 140 ? "#000" : "#fff"}`,
        text: map[i][j].toFixed(0),
      })),
    );
    repeat(right.numbers, "text", numbers);
  }

  function drawRegions(found, pixel) {
    const cell = strides().map((value) => value * pixel);
    const boxes = WAYS.map(([key, , dashes]) => {
      const [x1, y1, x2, y2] = found[key].map((value, axis) => value * cell[axis % 2]);
      const style = { stroke: `var(--${COLORS[key]})`, "stroke-dasharray": dashes, "stroke-width": key === "exact" ? 3 : 2 };
      return { x: x1, y: y1, width: x2 - x1, height: y2 - y1, ...style };
    });
    for (const side of [left, right]) repeat(side.boxes, "rect", boxes);
    const [x1, y1, x2, y2] = get("region").map((value) => value * pixel);
    set(body, { x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
    const middle = [(x1 + x2) / 2, (y1 + y2) / 2];
    [[x1, middle[1]], [middle[0], y1], [x2, middle[1]], [middle[0], y2]].forEach(([x, y], axis) => {
      const value = get("region")[axis];
      set(handles[axis], { cx: clamp(x, 0, SIDE), cy: clamp(y, 0, SIDE), "aria-valuenow": value });
      set(handles[axis], { "aria-valuetext": `${value} pixels, ${found.exact[axis].toFixed(2)} cells` });
    });
  }

  function drawBins(found, pixel) {
    const [wide, high] = strides().map((value) => value * pixel);
    const count = get("output_size");
    const [x1, y1, x2, y2] = found.pooled;
    const [rowsOf, columnsOf] = [binsOfPool(y1, y2, count, map.length), binsOfPool(x1, x2, count, map[0].length)];
    const whole = rowsOf.flatMap(([top, bottom], i) =>
      columnsOf.map(([start, end], j) => {
        const inset = 2 + 2 * ((i + j) % 2); // bins that share cells stay apart to the eye
        const [width, height] = [(end - start) * wide, (bottom - top) * high].map((side) => Math.max(side - 2 * inset, 0));
        return { x: start * wide + inset, y: top * high + inset, width, height, stroke: "var(--pooled)" };
      }),
    );
    repeat(right.bins, "rect", whole.map((bin) => ({ ...bin, "stroke-dasharray": "2 2", "stroke-width": 1.2 })));
    const points = pointsOf(found.exact, count, get("sampling_ratio"), get("aligned")).flat(2);
    repeat(
      right.points,
      "circle",
      points.map(([x, y]) => ({ cx: x * wide, cy: y * high, r: 2.5, fill: "#fff", stroke: "#000", "stroke-width": 1 })),
    );
  }

  function drawPoint(pixel) {
    const [wide, high] = strides().map((value) => value * pixel);
    const [x, y] = get("point");
    const four = neighbors(x, y, get("feature_size"), get("aligned"));
    const marks = four.map(([row, column, weight]) => {
      const at = { x: column * wide, y: row * high, width: wide, height: high };
      return { ...at, fill: "var(--exact)", "fill-opacity": 0.75 * weight };
    });
    repeat(right.cells, "rect", marks);
    set(probe, { cx: clamp(x * wide, 0, SIDE), cy: clamp(y * high, 0, SIDE), "aria-valuenow": x.toFixed(2) });
    const value = interpolate(map, four);
    const terms = four.map(([row, column, weight]) => `${weight.toFixed(2)} · ${map[row][column].toFixed(0)}`);
    const text = `At x ${x.toFixed(2)}, y ${y.toFixed(2)}: ${terms.join(" + ") || "outside"} = ${value.toFixed(1)}`;
    set(probe, { "aria-valuetext": text });
    said.textContent = text;
    return { cells: four, value };
  }

  function drawTable(found, pooled, aligned) {
    const end = get("region")[2];
    WAYS.forEach(([key], number) => {
      const right = found[key][2] * strides()[0];
      const cells = found[key].map((value) => (key === "exact" ? value.toFixed(2) : String(value)));
      [...cells, right.toFixed(2), signed(right - end)].forEach((text, k) => (rows[number][k].textContent = text));
    });
    const list = (values) => values.map((row) => row.map((value) => value.toFixed(0)).join(" ")).join(" | ");
    bins.textContent = `Bins, row by row: RoIPool ${list(pooled)}; RoIAlign ${list(aligned)}`;
  }

  function draw() {
    drawMap();
    const found = roundings(get("region"), get("image_size"), get("feature_size"));
    const pixel = scale();
    drawStill(pixel);
    drawRegions(found, pixel);
    drawBins(found, pixel);
    const point = drawPoint(pixel);
    const pooled = pool(map, found.pooled, get("output_size"));
    const aligned = align(map, found.exact, get("output_size"), get("sampling_ratio"), get("aligned"));
    drawTable(found, pooled, aligned);
    shows.cells(get("feature_size")[1]);
    shows.bins(get("output_size"));
    shows.points(get("sampling_ratio"), `${get("sampling_ratio")}×${get("sampling_ratio")}`);
    shows.zoom(get("window"));
    shows.aligned(get("aligned"));
    return { ...found, roi_pool: pooled, roi_align: aligned, point };
  }

  const state = tie(model, NAMES, draw);
  return state.start(root);
}

export default { render };
