// The anchors of every level: positives as discs in the colour of their object, larger and denser with the target score.
// Of two answers each has its own panels, where frames mark what differs; on the picture each has one half of a disc.
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

const WHOLE = [0, 2 * Math.PI];
const HALVES = [[0.5 * Math.PI, 1.5 * Math.PI], [-0.5 * Math.PI, 0.5 * Math.PI]];

function disc(ink, x, y, radius, part = WHOLE) {
  ink.beginPath();
  ink.arc(x, y, radius, ...part);
}

function paintPositive(ink, state, { anchor, row, weight }, part) {
  const { x, y, stride } = state.anchors[anchor];
  const object = state.result.objects[row];
  ink.fillStyle = css(ink.canvas, `--object-${(object.id - 1) % 8}`);
  ink.globalAlpha = 0.4 + 0.6 * Math.min(weight, 1);
  disc(ink, x, y, stride * (0.22 + 0.26 * Math.min(weight, 1)), part);
  ink.fill();
  ink.globalAlpha = 1;
}

// An anchor in words, by every answer shown.
function describe(state, anchor) {
  const { answers, objects } = state.result;
  const { stride, row: line, column } = state.anchors[anchor];
  const each = answers.map(({ assigner, positives }) => {
    const held = positives.find((positive) => positive.anchor === anchor);
    const what = held
      ? `${name({ ...state, objects }, objects[held.row])}, target score ${held.weight.toFixed(3)}`
      : "background";
    return answers.length > 1 ? `${assigner} ${what}` : what;
  });
  return `stride ${stride}, anchor ${anchor} (row ${line + 1}, column ${column + 1}): ${each.join("; ")}`;
}

// Panels into `place`, and positives over the picture on `overlay`. `say` shows the words for an anchor.
export function panels(place, overlay, state, say) {
  let made = [];
  let drawn = ""; // what they are of
  let at = null; // the anchor that is pointed at

  function title(index) {
    const found = document.createElement("h2");
    found.textContent = `${state.result.answers[index].assigner}, ${["left", "right"][index]} halves on the picture`;
    return found;
  }

  // Of one stride of the answer with this index.
  function panel(index, stride) {
    const figure = document.createElement("figure");
    const side = SIZE / stride;
    figure.innerHTML = `<figcaption><b>Stride ${stride}</b> <output></output></figcaption>
      <canvas tabindex="0" role="img"></canvas>`;
    const canvas = figure.querySelector("canvas");
    const found = { index, stride, figure, canvas, count: figure.querySelector("output") };
    canvas.addEventListener("pointermove", (event) => {
      const { left, top, width } = canvas.getBoundingClientRect();
      const cell = (offset) => Math.min(side - 1, Math.max(0, Math.floor((offset / width) * side)));
      const [line, column] = [cell(event.clientY - top), cell(event.clientX - left)];
      show(state.anchors.findIndex((a) => a.stride === stride && a.row === line && a.column === column));
    });
    canvas.addEventListener("pointerleave", () => show(null));
    canvas.addEventListener("blur", () => show(null));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!state.result) return;
      const held = of(found).map(({ anchor }) => anchor).sort((a, b) => a - b);
      if (!step || !held.length || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const now = held.indexOf(at);
      show(held[now < 0 ? (step > 0 ? 0 : held.length - 1) : (now + step + held.length) % held.length]);
    });
    return found;
  }

  // The positives of a panel.
  function of({ index, stride }) {
    const { positives } = state.result.answers[index];
    return positives.filter(({ anchor }) => state.anchors[anchor].stride === stride);
  }

  function show(anchor) {
    if (at === anchor || !state.result) return;
    at = anchor;
    say(anchor === null ? "" : describe(state, anchor));
    made.forEach(paint);
  }

  function paint(found) {
    const { stride, canvas } = found;
    const ink = pen(canvas);
    ink.fillStyle = css(canvas, "--surface");
    ink.fillRect(0, 0, SIZE, SIZE);
    ink.globalAlpha = 0.22;
    ink.drawImage(state.picture, 0, 0, SIZE, SIZE);
    ink.globalAlpha = 1;
    ink.fillStyle = css(canvas, "--dot");
    const held = of(found);
    const taken = new Set(held.map(({ anchor }) => anchor));
    state.anchors.forEach(({ x, y, stride: own }, i) => {
      if (own !== stride || taken.has(i)) return;
      disc(ink, x, y, 0.9 + stride * 0.03);
      ink.fill();
    });
    held.forEach((positive) => paintPositive(ink, state, positive));
    ink.strokeStyle = css(canvas, "--text");
    ink.lineWidth = 0.5 + stride / 32;
    for (const anchor of state.result.differing) {
      const { x, y, stride: own } = state.anchors[anchor];
      if (own === stride) ink.strokeRect(x - stride / 2, y - stride / 2, stride, stride);
    }
    if (at === null || state.anchors[at]?.stride !== stride) return;
    ink.lineWidth = 2;
    disc(ink, state.anchors[at].x, state.anchors[at].y, stride * 0.5 + 2);
    ink.stroke();
  }

  function render() {
    const { answers } = state.result;
    const { strides } = state.task;
    // The panels stay as long as they can: one of them may have the focus.
    const key = [...strides, ...answers.map(({ assigner }) => assigner)].join();
    if (key !== drawn) {
      drawn = key;
      show(null);
      const rows = answers.map((_, index) => strides.map((stride) => panel(index, stride)));
      made = rows.flat();
      const figures = rows.map((row) => row.map(({ figure }) => figure));
      place.replaceChildren(...(answers.length > 1 ? figures.flatMap((row, i) => [title(i), ...row]) : figures.flat()));
      place.classList.toggle("both", answers.length > 1);
    }
    for (const found of made) {
      const held = of(found);
      found.count.textContent = `${held.length} of ${(SIZE / found.stride) ** 2}`;
      const keys = held.length ? "; arrow keys step through them" : "";
      const whose = answers.length > 1 ? `${answers[found.index].assigner}, anchors` : "Anchors";
      found.canvas.setAttribute("aria-label", `${whose} of stride ${found.stride}: ${held.length} positive${keys}`);
      paint(found);
    }
    const ink = pen(overlay);
    answers.forEach(({ positives }, index) => {
      const part = answers.length > 1 ? HALVES[index] : WHOLE;
      for (const positive of positives) {
        if (!state.shown.has(state.anchors[positive.anchor].stride)) continue;
        paintPositive(ink, state, positive, part);
        ink.lineWidth = 1;
        ink.strokeStyle = "#fff";
        ink.stroke();
      }
    });
  }

  return { render };
}
