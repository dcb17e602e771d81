// What the keys do to the object that has the focus. Letters work there alone, so that they disturb nothing else.
import { SIZE, grow, make, move, moveJoint, standing, turn } from "./scene.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SIDES = { a: [-1, 0], d: [1, 0], w: [0, -1], s: [0, 1] };
const DEGREE = Math.PI / 180;

// A new object in the middle, beside those that stand there already.
export function add(state) {
  const offset = (state.objects.length % 7) * 9.5;
  const box = { x: SIZE / 2 - 30 + offset, y: SIZE / 2 - 30 + offset, w: 72, h: state.task.keypoints ? 120 : 72 };
  const object = make({ ...box, joints: state.task.keypoints ? standing(box) : null });
  state.objects.push(object);
  Object.assign(state, { selected: object.id, joint: null });
}

export function remove(state) {
  const at = state.objects.findIndex(({ id }) => id === state.selected);
  if (at < 0) return;
  state.objects.splice(at, 1);
  const next = state.objects[Math.min(at, state.objects.length - 1)];
  Object.assign(state, { selected: next?.id ?? null, joint: null });
}

// Whether the key meant something.
export function press(state, object, key, shift) {
  const step = shift ? 10 : 2;
  const letter = key.toLowerCase();
  const joint = object.joints?.[state.joint];
  const oriented = state.task.name === "obb";
  if (key in ARROWS) {
    const [dx, dy] = ARROWS[key].map((direction) => direction * step);
    if (joint) moveJoint(object, state.joint, joint[0] + dx, joint[1] + dy);
    else move(object, dx, dy, oriented);
  } else if (letter in SIDES) {
    grow(object, ...SIDES[letter].map((direction) => direction * step));
    move(object, 0, 0, oriented);
  } else if ("[]{}".includes(key) && oriented) {
    turn(object, object.angle + ("[{".includes(key) ? -1 : 1) * ("[]".includes(key) ? 3 : 15) * DEGREE);
  } else if (key === "Delete" || key === "Backspace") remove(state);
  else if (letter === "n") add(state);
  else if (letter === "c") object.cls = (object.cls + 1) % state.task.classes.length;
  else if (letter === "k" && object.joints) state.joint = ((state.joint ?? -1) + 1) % object.joints.length;
  else if (letter === "v" && joint) joint[2] = 1 - joint[2];
  else if (key === "Escape") state.joint = null;
  else return false;
  return true;
}

// `keep` is called before a change of the objects, `changed` after it.
export function listen(svg, state, edit, { keep, changed, undo }) {
  svg.addEventListener("keydown", (event) => {
    const object = edit.selected();
    if (event.ctrlKey || event.altKey || event.metaKey || !event.target.closest(".object") || !object) return;
    keep();
    if (!press(state, object, event.key, event.shiftKey)) return;
    event.preventDefault();
    changed();
    edit.focus(state.selected);
  });
  document.addEventListener("keydown", (event) => {
    const command = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
    if (!command || event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    undo();
  });
}
