// Anchors: which boxes of a grid are positive, negative or ignored, and how far the best of them is from its object.
//
// State, as in Python: objects (one or two rows of x1, y1, x2, y2 in pixels), selected (one of them), image_size
// (height, width), stride (pixels from cell to cell), sizes (square roots of areas, in pixels), aspect_ratios (height /
// width), offset (of an anchor's center in its cell, in strides), positive and negative (thresholds of IoU), shown
// (which anchors are drawn as boxes), image (PNG in a data URI).

// ---------------------------------------------------------------------------------------------------- mathematics

const single = Math.fround; // the package's anchors are in single precision

/** To the nearest whole number, halves to the even one, as torch rounds. */
function halfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

/** The anchors of one cell, around the origin: all sizes of the first aspect ratio, then those of the next. */
function baseAnchors(sizes, ratios) {
  return ratios.flatMap((ratio) => {
    const tall = single(Math.sqrt(single(ratio)));
    return sizes.map((size) => {
      const sides = [single(single(1 / tall) * single(size)), single(tall * single(size))]; // width, height
      return [-1, 1].flatMap((sign) => sides.map((side) => halfToEven((sign * side) / 2)));
    });
  });
}

/** The anchors of all cells, row by row, those of a cell side by side. */
function gridAnchors([rows, columns], stride, sizes, ratios, offset) {
  const base = baseAnchors(sizes, ratios);
  const at = (cell) => single(single(cell + single(offset)) * stride);
  return range(rows).flatMap((row) =>
    range(columns).flatMap((column) => {
      const [x, y] = [at(column), at(row)];
      return base.map(([x1, y1, x2, y2]) => [x + x1, y + y1, x + x2, y + y2].map(single));
    }),
  );
}

/** Each anchor's object (that it overlaps most) and label: 1 positive, 0 negative, -1 ignored; and each object's best.
 *
 * The anchors that overlap an object most are positive at any IoU above 0.
 */
function labelAnchors(objects, anchors, high, low) {
  const overlaps = objects.map((object) => anchors.map((anchor) => boxIou(object, anchor)));
  const best_iou = overlaps.map((row) => row.reduce((best, value) => Math.max(best, value), 0));
  const best = overlaps.map((row, object) => row.indexOf(best_iou[object]));
  const better = (n) => (top, row, object) => (row[n] > overlaps[top][n] ? object : top);
  const matched = anchors.map((_, n) => overlaps.reduce(better(n), 0));
  const most = anchors.map((_, n) => overlaps[matched[n]]?.[n] ?? -1); // without objects all are negative
  const label = most.map((value, n) => {
    if (value >= high || overlaps.some((row, object) => row[n] === best_iou[object] && row[n] > 0)) return 1;
    return value < low ? 0 : -1;
  });
  const low_quality = label.filter((value, n) => value === 1 && most[n] < high).length;
  return { matched, label, best, best_iou, low_quality };
}

/** The regression targets from one box to another: dx, dy, dw, dh. */
function encode(from, to) {
  const [[w, h], [width, height]] = [from, to].map(([x1, y1, x2, y2]) => [x2 - x1, y2 - y1]);
  const x = (to[0] + 0.5 * width - (from[0] + 0.5 * w)) / w;
  const y = (to[1] + 0.5 * height - (from[1] + 0.5 * h)) / h;
  return [x, y, Math.log(width / w), Math.log(height / h)];
}

export const math = { halfToEven, baseAnchors, gridAnchors, labelAnchors, encode };

// ---------------------------------------------------------------------------------------------------- the figure

const GRID = ["image_size", "stride", "sizes", "aspect_ratios", "offset"];
const NAMES = [...GRID, "objects", "selected", "positive", "negative", "shown", "image"];
const SHOWN = [["positive", "positive"], ["ignored", "ignored"], ["best", "best only"]];
const [STRIDES, SIZES, RATIOS] = [[4, 8, 16, 32], [16, 32, 64, 96], [0.5, 1, 2, 4]];
const REACHED = 0.5; // the IoU from which on an object counts as reached
const SIDE = 320; // of a panel, in the units of its view box
const COLORS = ["nearest", "pooled", "exact", "soft", "down"].map((name) => `var(--${name})`);
const [GREEN, BLUE, ORANGE, SOFT, BEST] = COLORS; // objects; positive, ignored and negative anchors; the best ones
const HALO = "stroke: var(--paper); stroke-width: 3; paint-order: stroke";
const letter = (object) => String.fromCharCode(65 + object);
const middle = ([x1, y1, x2, y2]) => [(x1 + x2) / 2, (y1 + y2) / 2];
const short = (value) => String(Number(value.toFixed(2)));
const layer = (svg) => make("g", { fill: "none", style: "pointer-events: none" }, svg);
const outline = ([x1, y1, x2, y2]) => `M${x1} ${y1}H${x2}V${y2}H${x1}Z`;

/** An arrow as a path; its head is never longer than half of it. */
function arrow([x1, y1], [x2, y2]) {
  const length = Math.hypot(x2 - x1, y2 - y1);
  if (length < 0.5) return "";
  const size = Math.min(8, length / 2);
  const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
  const wing = (side) => `${x2 - size * (ux - side * 0.6 * uy)} ${y2 - size * (uy + side * 0.6 * ux)}`;
  return `M${x1} ${y1}L${x2} ${y2}M${wing(1)}L${x2} ${y2}L${wing(-1)}`;
}

function render({ model, el }) {
  const get = (name) => model.get(name);
  const chosen = () => Math.min(get("selected"), get("objects").length - 1);
  const first = Object.fromEntries(NAMES.map((name) => [name, get(name)]));
  const { root, stage, controls, result } = frame(el, "Anchors");
  const scene = panel(stage, "Cells, anchors and objects A, B", SIDE, SIDE).svg;
  const near = panel(stage, "From the best anchor to its object", SIDE, SIDE);
  const picture = make("image", { preserveAspectRatio: "none", x: 0, y: 0 }, scene);
  const marks = layer(scene);
  const [negatives, ignored, positives] = [[SOFT, 3], [ORANGE, 5.5], [BLUE, 8]].map(([stroke, width]) => {
    const path = (color) => make("path", { stroke: color, "stroke-linecap": "round" }, marks);
    return { paths: ["var(--paper)", stroke].map(path), width };
  });
  const boxes = make("path", { "stroke-width": 1.5, "stroke-opacity": 0.9 }, marks);
  const outlines = layer(scene);
  const bests = layer(scene);
  const scale = () => SIDE / Math.max(...get("image_size"));

  // Handles: the objects, and the corners of the selected one.
  const replace = (index, box) => {
    state.put({ selected: index, objects: get("objects").map((old, other) => (other === index ? box : old)) });
  };
  const moveBy = (index, box, x, y) => replace(index, boxMoved(box, x, y, get("image_size")));
  let from = null;
  const [areas, corners] = [0, 1].map(() => make("g", {}, scene));
  const bodies = [0, 1].map((index) => {
    const body = make("rect", { fill: "transparent", role: "button" }, areas);
    draggable(
      body,
      scene,
      (at, start) => moveBy(index, from, ...[0, 1].map((k) => Math.round((at[k] - start[k]) / scale()))),
      (x, y) => moveBy(index, get("objects")[index], x, y),
    );
    body.addEventListener("pointerdown", () => {
      from = get("objects")[index];
      state.put({ selected: index });
    });
    body.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      state.put({ selected: index });
    });
    return body;
  });
  const selected = () => get("objects")[chosen()];
  const resized = (box) => replace(chosen(), box);
  const placeCorners = boxCorners(scene, corners, scale, () => get("image_size"), selected, resized);
  const letters = layer(scene);

  // Controls, and what they show.
  const [height, width] = first.image_size;
  const spare = first.objects[1] ?? [0.55 * width, 0.55 * height, 0.85 * width, 0.85 * height].map(Math.round);
  const known = (values, more) => [...new Set([...values, ...more])].sort((a, b) => a - b);
  const strides = known(STRIDES, [first.stride]).map((value) => [value, `${value} px`]);
  const shows = {};
  shows.stride = control(controls, "stride", { kind: "select", options: strides }, (stride) =>
    state.put({ stride: Number(stride) }),
  );
  const choice = (name, text, values) =>
    known(values, first[name]).map((value) => {
      const show = control(controls, text(value), { kind: "checkbox" }, (on) => {
        const left = known(get(name), on ? [value] : []).filter((other) => on || other !== value);
        state.put({ [name]: left.length ? left : get(name) }); // the last one stays
      });
      return () => show(get(name).includes(value));
    });
  const boxesOf = [
    ...choice("sizes", (value) => `size ${value}`, SIZES),
    ...choice("aspect_ratios", (value) => `ratio ${value}`, RATIOS),
  ];
  const share = { min: 0, max: 1, step: 0.01 };
  shows.positive = control(controls, "positive from IoU", share, (value) =>
    state.put({ positive: value, negative: Math.min(value, get("negative")) }),
  );
  shows.negative = control(controls, "negative below", share, (value) =>
    state.put({ negative: value, positive: Math.max(value, get("positive")) }),
  );
  shows.shown = control(controls, "draw boxes", { kind: "select", options: SHOWN }, (shown) => state.put({ shown }));
  shows.second = control(controls, "two objects", { kind: "checkbox" }, (on) =>
    state.put({ objects: on ? [get("objects")[0], spare] : get("objects").slice(0, 1), selected: 0 }),
  );
  button(controls, "Start over", () => state.put(first));
  const counts = make("p", { "aria-live": "polite" }, result);
  const table = make("table", {}, make("div", { class: "wide" }, result));
  const head = make("tr", {}, make("thead", {}, table));
  make("td", {}, head);
  for (const text of ["best anchor", "IoU", "positive", "dx", "dy", "dw", "dh"]) make("th", { scope: "col", text }, head);
  const rows = make("tbody", {}, table);
  const formulas = make("p", {}, result);
  make("p", { text: "Drag an object or a corner, and look for strides, sizes and ratios that reach it." }, result);

  // The second panel: the image around the anchor and its object, and four arrows.
  const around = make("image", { preserveAspectRatio: "none", opacity: 0.3 }, near.svg);
  const lines = [["2 3", BEST, 1.5], ["9 4", BEST, 3], ["", GREEN, 3]];
  const [moved, anchorBox, objectBox] = lines.map(([dash, stroke, width]) =>
    make("path", { fill: "none", stroke, "stroke-width": width, "stroke-dasharray": dash }, near.svg),
  );
  const arrows = make("path", { fill: "none", stroke: "var(--ink)", "stroke-width": 2.5 }, near.svg);
  const arrowTexts = layer(near.svg);
  const legend = "dashed: anchor · dotted: anchor moved by dx, dy · solid: object";
  make("text", { x: SIDE / 2, y: SIDE - 6, "text-anchor": "middle", style: HALO, text: legend }, near.svg);

  let grid = null;
  function anchorsNow() {
    const key = JSON.stringify(GRID.map(get));
    if (grid?.key === key) return grid;
    const cells = get("image_size").map((side) => Math.max(Math.floor(side / get("stride")), 1));
    const anchors = gridAnchors(cells, get("stride"), get("sizes"), get("aspect_ratios"), get("offset"));
    grid = { key, cells, anchors, perCell: get("sizes").length * get("aspect_ratios").length };
    return grid;
  }

  /** A dot for each cell, by the best that is among its anchors; boxes of those that are asked for. */
  function drawAnchors({ anchors, perCell }, { label, best, best_iou }) {
    const pixel = scale();
    const dots = { 1: "", "-1": "", 0: "" };
    for (let n = 0; n < anchors.length; n += perCell) {
      const [x, y] = middle(anchors[n]).map((value) => value * pixel);
      const labels = label.slice(n, n + perCell);
      dots[labels.includes(1) ? 1 : labels.includes(-1) ? -1 : 0] += `M${x} ${y}h0`;
    }
    const size = clamp((get("stride") * pixel) / 24, 0.4, 1); // smaller where cells are close together
    [[negatives, 0], [ignored, -1], [positives, 1]].forEach(([{ paths, width }, value]) => {
      paths.forEach((path, k) => set(path, { d: dots[value], "stroke-width": size * (width + 2 - 2 * k) }));
    });
    const wanted = { positive: 1, ignored: -1 }[get("shown")];
    const asked = anchors.filter((_, n) => label[n] === wanted);
    const lines = asked.map((box) => outline(box.map((value) => value * pixel))).join("");
    set(boxes, { d: lines, stroke: wanted === 1 ? BLUE : ORANGE });
    const looks = { stroke: BEST, "stroke-dasharray": "9 4", "stroke-width": 3 };
    const drawn = best.map((n, object) => ({
      ...boxRectangle(anchors[n], pixel),
      ...looks,
      opacity: best_iou[object] === 0 ? 0 : object === chosen() ? 1 : 0.6,
    }));
    repeat(bests, "rect", drawn);
  }

  function drawObjects({ best_iou }) {
    const pixel = scale();
    const objects = get("objects");
    set(picture, { href: get("image"), width: get("image_size")[1] * pixel, height: get("image_size")[0] * pixel });
    const line = (index) => ({ stroke: GREEN, "stroke-width": index === chosen() ? 3.5 : 2 });
    repeat(outlines, "rect", objects.map((box, index) => ({ ...boxRectangle(box, pixel), ...line(index) })));
    const style = `fill: ${GREEN}; font-size: 15px; font-weight: 800; text-anchor: middle; ${HALO}`;
    const name = (box, index) => ({ x: middle(box)[0] * pixel, y: box[3] * pixel - 6, style, text: letter(index) });
    repeat(letters, "text", objects.map(name));
    bodies.forEach((body, index) => {
      const box = objects[index];
      set(body, { style: box ? "" : "display: none" });
      if (!box) return;
      const best = `its best anchor has an IoU of ${best_iou[index].toFixed(2)}`;
      const text = `object ${letter(index)}, at ${box.join(", ")}; ${best}`;
      set(body, { ...boxRectangle(box, pixel), "aria-pressed": index === chosen(), "aria-label": text });
    });
    placeCorners(GREEN, `object ${letter(chosen())}`);
  }

  /** The way from the best anchor to the selected object: center across and down, then half of what the sides grow. */
  function drawDeltas(anchor, deltas) {
    const object = selected();
    near.caption.textContent = `From the best anchor to object ${letter(chosen())}`;
    const ends = (axis) => [Math.min(anchor[axis], object[axis]), Math.max(anchor[axis + 2], object[axis + 2])];
    const all = [0, 1].map(ends);
    const pixel = (0.68 * SIDE) / Math.max(...all.map(([low, high]) => high - low));
    const at = ([x, y]) => [x, y].map((value, axis) => SIDE / 2 + (value - sum(all[axis]) / 2) * pixel);
    const onPanel = ([x1, y1, x2, y2]) => [...at([x1, y1]), ...at([x2, y2])];
    const [height, width] = get("image_size");
    const [left, top] = at([0, 0]);
    set(around, { href: get("image"), x: left, y: top, width: width * pixel, height: height * pixel });
    const [[xa, ya], [xo, yo]] = [middle(anchor), middle(object)];
    const shifted = [anchor[0] + xo - xa, anchor[1] + yo - ya, anchor[2] + xo - xa, anchor[3] + yo - ya];
    const outlines = [[moved, shifted], [anchorBox, anchor], [objectBox, object]];
    for (const [node, box] of outlines) set(node, { d: outline(onPanel(box)) });
    const low = yo + 0.3 * Math.min(anchor[3] - anchor[1], object[3] - object[1]); // away from the centers
    const ways = [
      [[xa, ya], [xo, ya]],
      [[xo, ya], [xo, yo]],
      [[shifted[2], low], [object[2], low]],
      [[xo, shifted[3]], [xo, object[3]]],
    ].map((ends) => ends.map(at));
    const dot = at([xa, ya]);
    set(arrows, { d: `M${dot[0] - 3} ${dot[1]}h6m-3 -3v6${ways.map(([start, end]) => arrow(start, end)).join("")}` });
    const below = yo < ya ? 14 : -8; // dx is written where dy is not
    const [dx, dy, dw, dh] = ways.map(([start, end]) => [(start[0] + end[0]) / 2, (start[1] + end[1]) / 2]);
    const places = [
      [dx[0], dx[1] + below, xo < xa ? "start" : "end"],
      [dy[0] + 7, dy[1] + 4, "start"],
      [Math.max(ways[2][0][0], ways[2][1][0]) + 6, dw[1] + 4, "start"],
      [dh[0], Math.max(ways[3][0][1], ways[3][1][1]) + 15, "middle"],
    ];
    const text = (k) => `${["dx", "dy", "dw", "dh"][k]} ${signed(deltas[k])}`;
    const style = (anchor) => `font-size: 12px; font-weight: 700; text-anchor: ${anchor}; ${HALO}`;
    repeat(arrowTexts, "text", places.map(([x, y, side], k) => ({ x, y, style: style(side), text: text(k) })));
  }

  function drawWords({ anchors, perCell }, { label, matched, low_quality, best, best_iou }, found) {
    const [positive, ignored, negative] = found.counts;
    const said = [
      [`${anchors.length} anchors: `, ""],
      [`● ${positive} positive`, BLUE],
      [` (${low_quality} of them below the threshold: an object’s best), `, ""],
      [`● ${ignored} ignored`, ORANGE],
      [", ", ""],
      [`● ${negative} negative`, SOFT],
      [`. Objects that no anchor reaches at IoU ${REACHED}: ${found.unreached} of ${found.deltas.length}.`, ""],
    ];
    const looks = (color) => (color ? `color: ${color}; font-weight: 700` : "");
    repeat(counts, "span", said.map(([text, color]) => ({ text, style: looks(color) })));
    const base = get("aspect_ratios").flatMap((ratio) => get("sizes").map((size) => `${size} px, ratio ${ratio}`));
    const name = `color: ${GREEN}; text-align: left`;
    repeat(rows, "tr", found.deltas.map(() => ({})));
    found.deltas.forEach((deltas, object) => {
      const reached = best_iou[object] > 0;
      const mine = label.filter((value, n) => value === 1 && matched[n] === object).length;
      const values = reached ? deltas.map((value) => signed(value)) : ["–", "–", "–", "–"];
      const anchor = reached ? base[best[object] % perCell] : "none";
      const texts = [letter(object), anchor, best_iou[object].toFixed(2), mine, ...values];
      const bold = object === chosen() ? "font-weight: 700" : "";
      repeat(rows.children[object], "td", texts.map((text, k) => ({ text, style: k ? bold : `${name}; ${bold}` })));
    });
    const object = chosen();
    const [anchor, box] = [anchors[best[object]], selected()];
    const [[xa, ya], [xo, yo]] = [anchor, box].map((one) => middle(one).map(short));
    const [wa, ha, wo, ho] = [anchor, box].flatMap(([x1, y1, x2, y2]) => [short(x2 - x1), short(y2 - y1)]);
    const [dx, dy, dw, dh] = found.deltas[object].map((value) => signed(value));
    const terms = [
      `${letter(object)}: dx = (${xo} − ${xa}) / ${wa} = ${dx}`,
      `dy = (${yo} − ${ya}) / ${ha} = ${dy}`,
      `dw = ln(${wo} / ${wa}) = ${dw}`,
      `dh = ln(${ho} / ${ha}) = ${dh}`,
    ];
    repeat(formulas, "span", terms.map((text) => ({ text, style: "display: inline-block; margin-right: 1.2em" })));
  }

  function draw() {
    const now = anchorsNow();
    const labels = labelAnchors(get("objects"), now.anchors, get("positive"), get("negative"));
    const deltas = get("objects").map((object, index) => encode(now.anchors[labels.best[index]], object));
    const count = (value) => labels.label.filter((other) => other === value).length;
    const { best, best_iou, low_quality } = labels;
    const found = {
      counts: [1, -1, 0].map(count), // positive, ignored, negative
      positives: range(now.anchors.length).filter((n) => labels.label[n] === 1),
      ...{ low_quality, best, best_iou, deltas },
      unreached: best_iou.filter((value) => value < REACHED).length,
    };
    drawAnchors(now, labels);
    drawObjects(labels);
    drawDeltas(now.anchors[best[chosen()]], deltas[chosen()]);
    drawWords(now, labels, found);
    for (const name of ["positive", "negative"]) shows[name](get(name), get(name).toFixed(2));
    for (const name of ["stride", "shown"]) shows[name](get(name));
    shows.second(get("objects").length > 1);
    for (const show of boxesOf) show();
    return found;
  }

  const state = tie(model, NAMES, draw);
  return state.start(root);
}

export default { render };
