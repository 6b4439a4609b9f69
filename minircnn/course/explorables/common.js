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
 * Returns { put, stop }; draw() may return what follows from the state, which is stored under "found".
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
  return { put, redraw, stop: () => names.forEach((name) => model.off(`change:${name}`, redraw)) };
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
