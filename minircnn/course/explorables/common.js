// What all explorables share: drawing, handles that are dragged or moved by keys, controls, and the tie to the state.
//
// This text is put in front of each module, which makes one ES module of the two: it has no imports, so that the same
// file runs in a notebook (where anywidget hands over the model), on a page of the site and in a test.

const SVG = "http://www.w3.org/2000/svg";

/** A new element; attributes that start with "on" are listeners, "text" is its content. */
function make(name, attributes = {}, parent = null) {
  const inSvg = parent?.namespaceURI === SVG || name === "svg";
  const node = inSvg ? document.createElementNS(SVG, name) : document.createElement(name);
  set(node, attributes);
  parent?.append(node);
  return node;
}

function set(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  return node;
}

/** As many elements of a kind as there are rows of attributes; those of the last time are used again. */
function repeat(parent, name, rows) {
  while (parent.childElementCount > rows.length) parent.lastElementChild.remove();
  while (parent.childElementCount < rows.length) make(name, {}, parent);
  rows.forEach((attributes, number) => set(parent.children[number], attributes));
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const range = (count) => Array.from({ length: count }, (_, number) => number);
const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

/** Where a pointer is, in the units of an SVG's view box. */
function place(svg, event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [point.x, point.y];
}

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Let a node of an SVG be dragged by mouse, pen or finger, and be moved by the arrow keys (with Shift in steps of a tenth).
 *
 * drag(point, start) gets where the pointer is and where it went down; step(x, y) gets how far to go.
 */
function draggable(node, svg, drag, step) {
  let start = null;
  node.classList.add("handle");
  // Inside of an SVG, touch-action is not heeded: the page would scroll under the finger and take the pointer away.
  node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  set(node, {
    tabindex: 0,
    onpointerdown: (event) => {
      start = place(svg, event);
      node.setPointerCapture(event.pointerId);
      node.focus({ preventScroll: true });
      event.preventDefault();
    },
    onpointermove: (event) => start && drag(place(svg, event), start),
    onpointerup: () => (start = null),
    onpointercancel: () => (start = null),
    onkeydown: (event) => {
      const direction = KEYS[event.key];
      if (!direction) return;
      event.preventDefault();
      step(...direction.map((value) => (event.shiftKey ? value / 10 : value)));
    },
  });
}

/** A labeled control; kinds are "range", "checkbox" and "select" (with options). Returns what shows a value in it. */
function control(parent, label, { kind = "range", options = [], ...attributes }, change) {
  const box = make("label", { class: "control" }, parent);
  make("span", { text: label }, box);
  const input = kind === "select" ? make("select", {}, box) : make("input", { type: kind, ...attributes }, box);
  for (const [value, text] of options) make("option", { value, text }, input);
  const output = kind === "range" ? make("output", {}, box) : null;
  const read = () => (kind === "checkbox" ? input.checked : kind === "range" ? Number(input.value) : input.value);
  input.addEventListener("input", () => change(read()));
  return (value, text = String(value)) => {
    if (kind === "checkbox") input.checked = value;
    else input.value = value;
    if (output) output.textContent = text;
  };
}

function button(parent, text, press) {
  return make("button", { type: "button", text, onclick: press }, parent);
}

/** Tie a figure to its state: put() writes names and values, and every change, from whichever side, draws once.
 *
 * Returns { put, start }: start() draws for the first time and returns what takes the figure away again. draw() may
 * return what follows from the state, which is stored under "found".
 */
function tie(model, names, draw) {
  let writing = false;
  const redraw = () => {
    if (writing) return;
    const found = draw();
    if (found === undefined) return;
    writing = true;
    model.set("found", found);
    model.save_changes();
    writing = false;
  };
  const put = (values) => {
    writing = true;
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    writing = false;
    redraw();
  };
  for (const name of names) model.on(`change:${name}`, redraw);
  const start = (root) => {
    redraw();
    return () => {
      names.forEach((name) => model.off(`change:${name}`, redraw));
      root.remove();
    };
  };
  return { put, start };
}

/** The frame of an explorable: what is drawn, controls below it, a line that is read aloud. */
function frame(el, label) {
  const root = make("div", { class: "explorable", role: "group", "aria-label": label }, el);
  const [stage, controls, result] = ["stage", "controls", "result"].map((name) => make("div", { class: name }, root));
  return { root, stage, controls, result };
}

/** A panel with a title in the stage; its SVG has a view box of this width and height. */
function panel(stage, title, width, height) {
  const figure = make("figure", {}, stage);
  make("figcaption", { text: title }, figure);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title }, figure);
  return { svg, caption: figure.firstElementChild };
}

/** Numbers of bytes, rows of a map, out of the text in base64 that Python writes. */
function bytes(text, width) {
  const values = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return range(values.length / width).map((row) => Array.from(values.subarray(row * width, (row + 1) * width)));
}

// Boxes, rows of x1, y1, x2, y2 in pixels: their overlap, and how one takes hold of them.

const boxArea = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);

/** What two boxes share and what they cover together, in square pixels. */
function boxOverlap(a, b) {
  const width = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const height = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const intersection = width * height;
  return { intersection, union: boxArea(a) + boxArea(b) - intersection };
}

/** Intersection over union: NaN where neither box has an area. */
function boxIou(a, b) {
  const { intersection, union } = boxOverlap(a, b);
  return intersection / union;
}

/** Attributes of the rectangle of a box; a pixel is so many units of the view box. */
function boxRectangle([x1, y1, x2, y2], pixel) {
  return { x: x1 * pixel, y: y1 * pixel, width: Math.max(x2 - x1, 0) * pixel, height: Math.max(y2 - y1, 0) * pixel };
}

/** A box moved by x, y, but not out of an image of (height, width), in tenths of a pixel. */
function boxMoved([x1, y1, x2, y2], x, y, [height, width]) {
  const [dx, dy] = [clamp(x, -x1, width - x2), clamp(y, -y1, height - y2)];
  return [x1 + dx, y1 + dy, x2 + dx, y2 + dy].map((value) => Math.round(10 * value) / 10);
}

/** Four handles at the corners of a box: read() gives it, write(box) gets it anew. Returns what puts them in their place. */
function boxCorners(svg, parent, scale, size, read, write) {
  const moved = (right, low, x, y) => {
    const [[x1, y1, x2, y2], [height, width]] = [read(), size()];
    const [u, v] = [x, y].map((value) => Math.round(10 * value) / 10);
    const across = right ? [x1, clamp(u, x1 + 1, width)] : [clamp(u, 0, x2 - 1), x2];
    const down = low ? [y1, clamp(v, y1 + 1, height)] : [clamp(v, 0, y2 - 1), y2];
    write([across[0], down[0], across[1], down[1]]);
  };
  const corners = [[false, false], [true, false], [true, true], [false, true]].map(([right, low]) => {
    const node = make("circle", { r: 7, stroke: "var(--paper)", "stroke-width": 2, role: "slider" }, parent);
    set(node, { "aria-label": `${low ? "lower" : "upper"} ${right ? "right" : "left"} corner`, "aria-valuemin": 0 });
    const at = () => [read()[right ? 2 : 0], read()[low ? 3 : 1]];
    draggable(
      node,
      svg,
      (point) => moved(right, low, ...point.map((value) => Math.round(value / scale()))),
      (x, y) => moved(right, low, at()[0] + x, at()[1] + y),
    );
    return { node, at };
  });
  return (fill, name) => {
    for (const { node, at } of corners) {
      const [x, y] = at();
      set(node, { cx: x * scale(), cy: y * scale(), fill, "aria-valuemax": size()[1] });
      set(node, { "aria-valuenow": x, "aria-valuetext": `x ${x}, y ${y} of ${name}` });
    }
  };
}

/** A small image, one pixel a cell, of rows of values; color(value) is red, green, blue and opacity, 0 to 255. */
function raster(rows, color = (value) => [value, value, value, 255]) {
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = [rows.length, rows[0].length];
  const data = new ImageData(canvas.width, canvas.height);
  let at = 0;
  for (const row of rows) {
    for (const value of row) {
      const channels = color(value);
      for (let k = 0; k < 4; k++) data.data[at++] = channels[k];
    }
  }
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas.toDataURL();
}

/** The edges between pixels of different values as a path, whole runs at once; what lies outside has a value, too. */
function contours(rows, outside = 0) {
  const [height, width] = [rows.length, rows[0].length];
  const wide = width + 2; // with a border
  const values = new Float64Array((height + 2) * wide).fill(outside);
  rows.forEach((row, y) => values.set(row, (y + 1) * wide + 1));
  let d = "";
  const follow = (lines, length, across, along, start, step) => {
    for (let line = 0; line <= lines; line++) {
      let from = -1;
      for (let k = 0, at = (line + 1) * across + along; k <= length; k++, at += along) {
        const edge = k < length && values[at] !== values[at - across];
        if (edge && from < 0) from = k;
        if (edge || from < 0) continue;
        d += start(from, line) + step + k;
        from = -1;
      }
    }
  };
  follow(height, width, wide, 1, (x, y) => `M${x} ${y}`, "H");
  follow(width, height, 1, wide, (y, x) => `M${x} ${y}`, "V");
  return d;
}
