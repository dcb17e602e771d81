// The objects on the picture, as SVG: drag, resize, turn, move joints, draw new ones. Every object takes the focus.
import { SIZE, clamp, corners, hit, make, move, moveJoint, resize, standing, toObject, toPicture, turn } from "./scene.js";

const SIDES = [[-1, -1], [0, -1], [1, -1], [1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0]];
const KNOB = 18; // pixels from the upper side to the knob that turns
const LEAST_DRAWN = 3;

export const colour = (object) => `var(--object-${(object.id - 1) % 8})`;

export function name(state, object) {
  return `Object ${state.objects.indexOf(object) + 1}, ${state.task.classes[object.cls]}`;
}

function element(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

const list = (points) => points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join(" ");

// `keep` is called before a change of the objects, `changed` after it, `chosen` after another one is selected.
export function editor(svg, state, { keep, changed, chosen }) {
  const groups = new Map();
  let drag = null;

  const selected = () => state.objects.find(({ id }) => id === state.selected);
  const oriented = () => state.task.name === "obb";

  function group(object) {
    const made = element("g", { class: "object", tabindex: "0", role: "button", "data-id": object.id });
    made.addEventListener("focus", () => {
      if (state.selected === object.id) return;
      Object.assign(state, { selected: object.id, joint: null });
      chosen();
    });
    svg.append(made);
    groups.set(object.id, made);
    return made;
  }

  function draw(object, number) {
    const made = groups.get(object.id) ?? group(object);
    const active = object.id === state.selected;
    made.style.setProperty("--ink", colour(object));
    made.classList.toggle("selected", active);
    const { x, y, w, h, angle } = object;
    const turned = oriented() ? `, turned by ${Math.round((angle * 180) / Math.PI)} degrees` : "";
    const where = `centre ${Math.round(x)}, ${Math.round(y)}, ${Math.round(w)} by ${Math.round(h)} pixels${turned}`;
    made.setAttribute("aria-label", `${name(state, object)}: ${where}`);
    made.setAttribute("aria-pressed", active);
    const outline = list(corners(object));
    const parts = ["ring", "halo", "line"].map((kind) => element("polygon", { class: kind, points: outline }));
    if (object.joints) {
      const seen = ([a, b]) => object.joints[a][2] && object.joints[b][2];
      const limbs = state.task.limbs.filter(seen).map(([a, b]) => list([object.joints[a], object.joints[b]]));
      parts.push(...["halo", "limb"].flatMap((kind) => limbs.map((points) => element("polyline", { class: kind, points }))));
    }
    const [tagX, tagY] = toPicture(object, -w / 2, -h / 2);
    const tag = element("text", { class: "tag", x: Math.min(tagX + 4, SIZE - 12), y: Math.max(tagY - 4, 11) });
    tag.textContent = number;
    parts.push(tag);
    if (active) parts.push(...handles(object));
    made.replaceChildren(...parts);
  }

  function handles(object) {
    const at = (u, v) => toPicture(object, (u * object.w) / 2, (v * object.h) / 2);
    const grip = (kind, [cx, cy], data) => [
      element("circle", { class: "grip", cx, cy, "data-kind": kind, ...data }),
      element("circle", { class: `handle ${kind}${data.current ? " current" : ""}`, cx, cy }),
    ];
    const found = SIDES.flatMap(([u, v]) => grip("resize", at(u, v), { "data-u": u, "data-v": v }));
    if (oriented()) {
      const [x1, y1] = at(0, -1);
      const knob = toPicture(object, 0, -object.h / 2 - KNOB);
      found.unshift(element("line", { class: "stem", x1, y1, x2: knob[0], y2: knob[1] }), ...grip("turn", knob, {}));
    }
    object.joints?.forEach(([x, y, seen], j) => {
      const kind = seen ? "joint" : "joint hidden-joint";
      found.push(...grip(kind, [x, y], { "data-joint": j, ...(j === state.joint && { current: 1 }) }));
    });
    return found;
  }

  function render() {
    const alive = new Set(state.objects.map(({ id }) => id));
    groups.forEach((made, id) => alive.has(id) || (made.remove(), groups.delete(id)));
    state.objects.forEach((object, i) => draw(object, i + 1));
  }

  function point(event) {
    const { left, top, width, height } = svg.getBoundingClientRect();
    const shares = [(event.clientX - left) / width, (event.clientY - top) / height];
    return shares.map((share) => clamp(share, 0, 1) * SIZE);
  }

  function start(event) {
    const [x, y] = point(event);
    const { kind, u, v, joint } = event.target.dataset;
    const object = selected();
    if (object && joint) return { act: (px, py) => moveJoint(object, Number(joint), px, py), joint: Number(joint) };
    if (object && kind === "resize") return { act: (px, py) => resize(object, [Number(u), Number(v)], px, py) };
    if (object && kind === "turn") return { act: (px, py) => turn(object, Math.atan2(py - object.y, px - object.x) + Math.PI / 2) };
    const under = hit(state.objects, x, y);
    if (!under) return { act: (px, py) => begin(x, y, px, py) };
    Object.assign(state, { selected: under.id, joint: null });
    const [dx, dy] = [under.x - x, under.y - y];
    return { act: (px, py) => move(under, px + dx - under.x, py + dy - under.y, oriented()) };
  }

  // A new object, once the pointer has gone far enough.
  function begin(x, y, px, py) {
    if (Math.min(Math.abs(px - x), Math.abs(py - y)) < LEAST_DRAWN) return;
    const [u, v] = [Math.sign(px - x), Math.sign(py - y)];
    const [w, h] = [Math.abs(px - x), Math.abs(py - y)];
    const box = { x: (x + px) / 2, y: (y + py) / 2, w, h };
    const object = make({ ...box, joints: state.task.keypoints ? standing(box) : null });
    state.objects.push(object);
    Object.assign(state, { selected: object.id, joint: null });
    drag.act = (qx, qy) => resize(object, [u, v], qx, qy);
  }

  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    svg.setPointerCapture(event.pointerId);
    keep();
    drag = start(event);
    if (drag.joint !== undefined) state.joint = drag.joint;
    chosen();
    groups.get(state.selected)?.focus({ preventScroll: true });
  });
  svg.addEventListener("pointermove", (event) => {
    const [x, y] = point(event);
    if (!drag) return void (svg.style.cursor = hit(state.objects, x, y) ? "move" : "crosshair");
    drag.act(x, y);
    changed();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    svg.addEventListener(end, () => {
      if (drag) groups.get(state.selected)?.focus({ preventScroll: true });
      drag = null;
    });
  }

  // Where nothing is left, the focus goes to what makes something.
  const focus = (id) => (groups.get(id) ?? document.getElementById("add")).focus({ preventScroll: true });
  return { render, focus, selected };
}
