// What a head might predict for a picture, as inputs of the graph: functions of the objects, the seed and the error alone.
import { SIZE, toObject } from "./scene.js";

// Every anchor: its point and stride in pixels, its level, row and column; levels finest first, row by row.
export function anchorsOf(strides) {
  return strides.flatMap((stride, level) => {
    const side = SIZE / stride;
    return Array.from({ length: side * side }, (_, i) => {
      const [row, column] = [Math.floor(i / side), i % side];
      return { x: (column + 0.5) * stride, y: (row + 0.5) * stride, stride, level, row, column };
    });
  });
}

// `count` numbers of a normal distribution; the same for the same seed.
export function normals(seed, count) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  const radius = () => Math.sqrt(-2 * Math.log(uniform()));
  return Float32Array.from({ length: count }, () => radius() * Math.cos(2 * Math.PI * uniform()));
}

// How far out an anchor lies: 0 at the object's centre, 1 on its sides.
function distance(object, anchor) {
  const [u, v] = toObject(object, anchor.x, anchor.y);
  return Math.max(Math.abs(u) / object.w, Math.abs(v) / object.h) * 2;
}

const nearest = (objects, anchor) =>
  objects.reduce((best, object) => {
    const d = distance(object, anchor);
    return best && best.d <= d ? best : { object, d };
  }, null);

// Channels of one anchor; `noise` gives the next normal number. Sides left, top, right, bottom, in cells.
function untrained(task, anchor, noise) {
  return {
    boxes: Array.from({ length: 4 }, () => Math.max(0.25, 3 + 1.5 * noise())),
    scores: task.classes.map(() => noise() - 3),
    angles: [0.8 * noise()],
    keypoints: (task.keypoints ?? []).flatMap(() => [2 * noise(), 2 * noise()]),
  };
}

// The box of the nearest object, every side off by a share of the object's own, more so towards the rim; surest near
// the centre of objects about five cells wide.
function trained(task, anchor, noise, { object, d }, error) {
  const { stride } = anchor;
  const [u, v] = toObject(object, anchor.x, anchor.y);
  const sides = [u + object.w / 2, v + object.h / 2, object.w / 2 - u, object.h / 2 - v];
  const extents = [object.w, object.h, object.w, object.h];
  const misfit = Math.abs(Math.log2(Math.sqrt(object.w * object.h) / (5 * stride)));
  const off = error * (0.4 + Math.min(d, 2));
  const sure = 3 - 3 * Math.min(d, 3) - 1.5 * misfit;
  return {
    boxes: sides.map((side, i) => (side + off * extents[i] * noise()) / stride),
    scores: task.classes.map((_, cls) => (cls === object.cls ? sure : -5) + 0.4 * noise()),
    angles: [object.angle + off * noise()],
    keypoints: (object.joints ?? []).flatMap(([x, y]) => [
      (x - anchor.x + 0.5 * off * object.w * noise()) / stride,
      (y - anchor.y + 0.5 * off * object.h * noise()) / stride,
    ]),
  };
}

// Predictions of every anchor: { pred_boxes: Float32Array, ... }, channel by channel as the graph takes them.
export function predict(task, anchors, objects, { mode, error, seed }) {
  const names = task.inputs.map(({ name }) => name).filter((name) => name.startsWith("pred_"));
  const channels = Object.fromEntries(task.inputs.map(({ name, shape }) => [name, shape[1]]));
  const found = Object.fromEntries(names.map((name) => [name, new Float32Array(channels[name] * anchors.length)]));
  const each = names.reduce((sum, name) => sum + channels[name], 1);
  const drawn = normals(seed, each * anchors.length);
  anchors.forEach((anchor, a) => {
    let next = a * each;
    const noise = () => drawn[next++];
    const aim = mode === "trained" ? nearest(objects, anchor) : null;
    const values = aim ? trained(task, anchor, noise, aim, error) : untrained(task, anchor, noise);
    for (const name of names) {
      values[name.slice("pred_".length)].forEach((value, c) => (found[name][c * anchors.length + a] = value));
    }
  });
  return found;
}

// The objects as flat rows of one image. Without any, one row of padding: onnxruntime-web 1.30 fails on empty tensors.
export function targets(task, objects) {
  if (!objects.length) {
    const joints = task.keypoints?.map(() => [0, 0, 0]);
    const padding = { cls: 0, x: 0, y: 0, w: 0, h: 0, angle: 0, joints };
    return { ...targets(task, [padding]), batch_idx: BigInt64Array.of(-1n) };
  }
  const rows = {
    batch_idx: new BigInt64Array(objects.length),
    cls: BigInt64Array.from(objects, ({ cls }) => BigInt(cls)),
    boxes: Float32Array.from(objects.flatMap(({ x, y, w, h }) => [x / SIZE, y / SIZE, w / SIZE, h / SIZE])),
    angles: Float32Array.from(objects, ({ angle }) => angle),
    keypoints: Float32Array.from(
      objects.flatMap(({ joints }) => (joints ?? []).flatMap(([x, y, seen]) => [x / SIZE, y / SIZE, 2 * seen])),
    ),
  };
  const names = task.inputs.map(({ name }) => name).filter((name) => name in rows);
  return Object.fromEntries(names.map((name) => [name, rows[name]]));
}
