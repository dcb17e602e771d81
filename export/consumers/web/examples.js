// A picture to begin with for every task, drawn from the objects themselves, and pictures of the user's own.
import { SIZE, make, restart, standing, toPicture } from "./scene.js";

const INKS = ["#e8694a", "#3f7fc4", "#e3b23c", "#4f9d69", "#8b6bb1", "#d77fa1"];

const SHAPES = [
  { cls: 0, x: 212, y: 116, w: 168, h: 168 },
  { cls: 1, x: 91, y: 215, w: 112, h: 96 },
  { cls: 2, x: 178, y: 232, w: 102, h: 88 },
  { cls: 0, x: 62, y: 74, w: 46, h: 46 },
  { cls: 2, x: 262, y: 270, w: 40, h: 34 },
  { cls: 1, x: 113, y: 124, w: 22, h: 22 },
];

const WAVING = [
  [0.5, 0.14], [0.66, 0.28], [0.36, 0.29], [0.84, 0.2], [0.2, 0.42], [0.93, 0.04], [0.12, 0.56],
  [0.61, 0.55], [0.43, 0.55], [0.66, 0.75], [0.38, 0.75], [0.68, 0.96], [0.34, 0.96],
];
const STRIDING = [
  [0.6, 0.09], [0.66, 0.25], [0.52, 0.25], [0.86, 0.34], [0.28, 0.36], [0.94, 0.22], [0.14, 0.5],
  [0.56, 0.53], [0.46, 0.53], [0.76, 0.68], [0.36, 0.74], [0.72, 0.92], [0.08, 0.88],
];
const FIGURES = [
  { x: 104, y: 176, w: 112, h: 236, pose: WAVING },
  { x: 232, y: 216, w: 118, h: 160, pose: STRIDING },
  { x: 190, y: 112, w: 38, h: 84 },
];

const BOATS = [
  { cls: 0, x: 104, y: 108, w: 190, h: 62, angle: -0.55 },
  { cls: 1, x: 232, y: 204, w: 92, h: 58, angle: 0.42 },
  { cls: 0, x: 108, y: 246, w: 120, h: 40, angle: 0.18 },
  { cls: 0, x: 262, y: 92, w: 78, h: 26, angle: 1.25 },
  { cls: 1, x: 206, y: 284, w: 40, h: 24, angle: -0.3 },
];

// The objects of the picture of a task.
export function objectsOf(task) {
  restart();
  const boxes = { detect: SHAPES, pose: FIGURES, obb: BOATS }[task.name];
  return boxes.map((box) => {
    const joints = box.pose?.map(([u, v]) => [box.x + (u - 0.5) * box.w, box.y + (v - 0.5) * box.h, 1]);
    return make({ ...box, joints: task.keypoints ? (joints ?? standing(box)) : null });
  });
}

function canvas(paint) {
  const found = document.createElement("canvas");
  // Twice the size that the graph sees, so that it is sharp on the page.
  [found.width, found.height] = [2 * SIZE, 2 * SIZE];
  const pen = found.getContext("2d");
  pen.scale(2, 2);
  paint(pen);
  return found;
}

function path(pen, points, ink) {
  pen.beginPath();
  points.forEach(([x, y]) => pen.lineTo(x, y));
  pen.closePath();
  pen.fillStyle = ink;
  pen.fill();
}

function shape(pen, { cls, x, y, w, h }, ink) {
  const [u, v] = [w / 2, h / 2];
  if (cls === 0) {
    pen.beginPath();
    pen.ellipse(x, y, u, v, 0, 0, 2 * Math.PI);
    pen.fillStyle = ink;
    pen.fill();
  } else if (cls === 1) path(pen, [[x - u, y - v], [x + u, y - v], [x + u, y + v], [x - u, y + v]], ink);
  else path(pen, [[x, y - v], [x + u, y + v], [x - u, y + v]], ink);
}

function figure(pen, { joints, h }, ink) {
  const at = (...indices) => indices.map((i) => joints[i]);
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = h * 0.06;
  for (const [limb, colour] of [[at(2, 4, 6), "#3c6f9e"], [at(8, 10, 12), "#2d5580"], [at(1, 3, 5), "#c8633f"], [at(7, 9, 11), "#a24d33"]]) {
    pen.beginPath();
    limb.forEach(([x, y]) => pen.lineTo(x, y));
    pen.strokeStyle = colour;
    pen.stroke();
  }
  path(pen, at(1, 2, 8, 7), ink);
  pen.strokeStyle = ink;
  pen.stroke();
  shape(pen, { cls: 0, x: joints[0][0], y: joints[0][1], w: h * 0.14, h: h * 0.16 }, "#d9a47e");
}

const HULLS = [
  [[-0.5, -0.35], [-0.4, -0.5], [0.1, -0.5], [0.34, -0.3], [0.5, 0], [0.34, 0.3], [0.1, 0.5], [-0.4, 0.5], [-0.5, 0.35]],
  [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]],
];
const DECKS = [
  [[-0.3, -0.3], [0.02, -0.22], [0.02, 0.22], [-0.3, 0.3]],
  [[-0.38, -0.34], [0.38, -0.34], [0.38, 0.34], [-0.38, 0.34]],
];

function boat(pen, object, ink) {
  const placed = (outline) => outline.map(([u, v]) => toPicture(object, u * object.w, v * object.h));
  path(pen, placed(HULLS[object.cls]), ink);
  path(pen, placed(DECKS[object.cls]), "#f3ead8");
}

export function picture(task, objects) {
  const [high, low] = { detect: ["#f1ebdf", "#dfd6c3"], pose: ["#cfe0e6", "#b9c9a4"], obb: ["#8fb7c4", "#6f9fb2"] }[task.name];
  return canvas((pen) => {
    const fill = pen.createLinearGradient(0, 0, 0, SIZE);
    fill.addColorStop(0, high);
    fill.addColorStop(1, low);
    pen.fillStyle = fill;
    pen.fillRect(0, 0, SIZE, SIZE);
    const paint = { detect: shape, pose: figure, obb: boat }[task.name];
    const farFirst = [...objects].sort((a, b) => (task.keypoints ? a.h - b.h : b.w * b.h - a.w * a.h));
    farFirst.forEach((object) => paint(pen, object, INKS[objects.indexOf(object) % INKS.length]));
  });
}

// A picture of the user's own, whole, in the middle of the square.
export async function read(file) {
  const image = await createImageBitmap(file);
  const scale = SIZE / Math.max(image.width, image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  return canvas((pen) => {
    pen.fillStyle = "#808080";
    pen.fillRect(0, 0, SIZE, SIZE);
    pen.drawImage(image, (SIZE - w) / 2, (SIZE - h) / 2, w, h);
  });
}
