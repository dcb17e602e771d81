// Objects of a picture and what one does to them. Pixels of the picture; angles in radians, x towards y.
// An object: { id, cls, x, y, w, h, angle, joints: [[x, y, visible], ...] or null }, x and y its centre.

export const SIZE = 320;
export const SMALLEST = 4;

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// From the object's own axes, with its centre as origin, to the picture, and back.
export function toPicture(object, u, v) {
  const [cos, sin] = [Math.cos(object.angle), Math.sin(object.angle)];
  return [object.x + u * cos - v * sin, object.y + u * sin + v * cos];
}

export function toObject(object, x, y) {
  const [cos, sin] = [Math.cos(object.angle), Math.sin(object.angle)];
  const [dx, dy] = [x - object.x, y - object.y];
  return [dx * cos + dy * sin, dy * cos - dx * sin];
}

export function corners(object) {
  const [u, v] = [object.w / 2, object.h / 2];
  return [[-u, -v], [u, -v], [u, v], [-u, v]].map((corner) => toPicture(object, ...corner));
}

// The smallest object there, so that one within another can be reached.
export function hit(objects, x, y) {
  const inside = objects.filter((object) => {
    const [u, v] = toObject(object, x, y);
    return Math.abs(u) <= object.w / 2 && Math.abs(v) <= object.h / 2;
  });
  return inside.sort((a, b) => a.w * a.h - b.w * b.h)[0] ?? null;
}

export function move(object, dx, dy, oriented) {
  // Upright boxes stay within the picture, turned ones keep their centre there.
  const [u, v] = oriented ? [0, 0] : [object.w / 2, object.h / 2];
  const x = clamp(object.x + dx, u, SIZE - u);
  const y = clamp(object.y + dy, v, SIZE - v);
  object.joints?.forEach((joint) => {
    joint[0] += x - object.x;
    joint[1] += y - object.y;
  });
  [object.x, object.y] = [x, y];
}

// Put the side or corner (u, v), each of -1, 0, 1, at a point; the opposite one stays. Joints go along.
export function resize(object, [u, v], x, y) {
  const before = { ...object };
  const reach = toObject(object, x, y);
  if (u) object.w = clamp(u * reach[0] + before.w / 2, SMALLEST, SIZE);
  if (v) object.h = clamp(v * reach[1] + before.h / 2, SMALLEST, SIZE);
  const shift = [(u * (object.w - before.w)) / 2, (v * (object.h - before.h)) / 2];
  [object.x, object.y] = toPicture(before, ...shift);
  object.joints?.forEach((joint) => {
    joint[0] = object.x + ((joint[0] - before.x) * object.w) / before.w;
    joint[1] = object.y + ((joint[1] - before.y) * object.h) / before.h;
  });
}

// Wider and higher by so many pixels, to the right and to the bottom.
export function grow(object, dw, dh) {
  resize(object, [1, 1], ...toPicture(object, object.w / 2 + dw, object.h / 2 + dh));
}

export function turn(object, angle) {
  object.angle = angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI));
}

export function moveJoint(object, index, x, y) {
  object.joints[index][0] = clamp(x, 0, SIZE);
  object.joints[index][1] = clamp(y, 0, SIZE);
}

// A standing figure, as shares of its box.
const STANDING = [
  [0.5, 0.08], [0.68, 0.24], [0.32, 0.24], [0.8, 0.4], [0.2, 0.4], [0.86, 0.55], [0.14, 0.55],
  [0.61, 0.53], [0.39, 0.53], [0.64, 0.74], [0.36, 0.74], [0.66, 0.94], [0.34, 0.94],
];

let count = 0;

// Numbers, and with them colours, go on after those of these objects; begin anew without any.
export function restart(objects = []) {
  count = Math.max(0, ...objects.map(({ id }) => id));
}

export function make({ cls = 0, x, y, w, h, angle = 0, joints = null }) {
  count += 1;
  return { id: count, cls, x, y, w, h, angle, joints: joints?.map((joint) => [...joint]) ?? null };
}

export function standing({ x, y, w, h }) {
  return STANDING.map(([u, v]) => [x + (u - 0.5) * w, y + (v - 0.5) * h, 1]);
}

export const copy = (objects) =>
  objects.map((object) => ({ ...object, joints: object.joints?.map((joint) => [...joint]) ?? null }));
