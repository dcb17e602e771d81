// The anchors of every level: positives as discs in the colour of their object, larger and denser with the target score.
import { SIZE } from "./scene.js";
import { name } from "./editor.js";

const css = (element, property) => getComputedStyle(element).getPropertyValue(property).trim();

// A canvas as sharp as the screen, with a pen in pixels of the picture.
function pen(canvas) {
  const side = Math.round(canvas.clientWidth * devicePixelRatio) || SIZE;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const found = canvas.getContext("2d");
  found.setTransform(side / SIZE, 0, 0, side / SIZE, 0, 0);
  found.clearRect(0, 0, SIZE, SIZE);
  return found;
}

function disc(ink, x, y, radius) {
  ink.beginPath();
  ink.arc(x, y, radius, 0, 2 * Math.PI);
}

function paintPositive(ink, state, { anchor, row, weight }) {
  const { x, y, stride } = state.anchors[anchor];
  const object = state.result.objects[row];
  ink.fillStyle = css(ink.canvas, `--object-${(object.id - 1) % 8}`);
  ink.globalAlpha = 0.4 + 0.6 * Math.min(weight, 1);
  disc(ink, x, y, stride * (0.22 + 0.26 * Math.min(weight, 1)));
  ink.fill();
  ink.globalAlpha = 1;
}

export function describe(state, { anchor, row, weight }) {
  const { stride, row: line, column } = state.anchors[anchor];
  const place = `stride ${stride}, anchor ${anchor} (row ${line + 1}, column ${column + 1})`;
  if (row === undefined) return `${place}: background`;
  const object = state.result.objects[row];
  return `${place}: ${name({ ...state, objects: state.result.objects }, object)}, target score ${weight.toFixed(3)}`;
}

// Panels into `place`, and positives over the picture on `overlay`. `say` shows the words for an anchor.
export function panels(place, overlay, state, say) {
  let made = [];

  function panel(stride) {
    const figure = document.createElement("figure");
    const side = SIZE / stride;
    figure.innerHTML = `<figcaption><b>Stride ${stride}</b> <output></output></figcaption>
      <canvas tabindex="0" role="img"></canvas>`;
    const canvas = figure.querySelector("canvas");
    const found = { stride, figure, canvas, count: figure.querySelector("output"), at: null };
    canvas.addEventListener("pointermove", (event) => {
      const { left, top, width } = canvas.getBoundingClientRect();
      const cell = (offset) => Math.min(side - 1, Math.max(0, Math.floor((offset / width) * side)));
      const [line, column] = [cell(event.clientY - top), cell(event.clientX - left)];
      show(found, state.anchors.findIndex((a) => a.stride === stride && a.row === line && a.column === column));
    });
    canvas.addEventListener("pointerleave", () => show(found, null));
    canvas.addEventListener("blur", () => show(found, null));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const held = of(stride).map(({ anchor }) => anchor).sort((a, b) => a - b);
      if (!step || !held.length || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const now = held.indexOf(found.at);
      show(found, held[now < 0 ? (step > 0 ? 0 : held.length - 1) : (now + step + held.length) % held.length]);
    });
    return found;
  }

  const of = (stride) => state.result?.positives.filter(({ anchor }) => state.anchors[anchor].stride === stride) ?? [];

  function show(found, anchor) {
    if (found.at === anchor) return;
    found.at = anchor;
    say(anchor === null ? "" : describe(state, state.result.positives.find((p) => p.anchor === anchor) ?? { anchor }));
    paint(found);
  }

  function paint(found) {
    const { stride, canvas, at } = found;
    const ink = pen(canvas);
    ink.fillStyle = css(canvas, "--surface");
    ink.fillRect(0, 0, SIZE, SIZE);
    ink.globalAlpha = 0.22;
    ink.drawImage(state.picture, 0, 0, SIZE, SIZE);
    ink.globalAlpha = 1;
    ink.fillStyle = css(canvas, "--dot");
    const held = of(stride);
    const taken = new Set(held.map(({ anchor }) => anchor));
    state.anchors.forEach(({ x, y, stride: own }, i) => {
      if (own !== stride || taken.has(i)) return;
      disc(ink, x, y, 0.9 + stride * 0.03);
      ink.fill();
    });
    held.forEach((positive) => paintPositive(ink, state, positive));
    if (at === null || state.anchors[at]?.stride !== stride) return;
    ink.strokeStyle = css(canvas, "--text");
    ink.lineWidth = 2;
    disc(ink, state.anchors[at].x, state.anchors[at].y, stride * 0.5 + 2);
    ink.stroke();
  }

  function render() {
    const strides = state.task.arguments.strides;
    if (made.map(({ stride }) => stride).join() !== strides.join()) {
      made = strides.map(panel);
      place.replaceChildren(...made.map(({ figure }) => figure));
    }
    for (const found of made) {
      const held = of(found.stride);
      found.count.textContent = `${held.length} of ${(SIZE / found.stride) ** 2}`;
      const keys = held.length ? "; arrow keys step through them" : "";
      found.canvas.setAttribute("aria-label", `Anchors of stride ${found.stride}: ${held.length} positive${keys}`);
      paint(found);
    }
    const ink = pen(overlay);
    for (const positive of state.result?.positives ?? []) {
      if (!state.shown.has(state.anchors[positive.anchor].stride)) continue;
      paintPositive(ink, state, positive);
      ink.lineWidth = 1;
      ink.strokeStyle = "#fff";
      ink.stroke();
    }
  }

  return { render };
}
