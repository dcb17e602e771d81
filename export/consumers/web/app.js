// The page: its state, and the loop that runs the graph after every change.
import { controls } from "./controls.js";
import { editor } from "./editor.js";
import { objectsOf, picture } from "./examples.js";
import { differing, open, positives } from "./graph.js";
import { history } from "./history.js";
import { listen } from "./keys.js";
import { panels } from "./panels.js";
import { anchorsOf, predict, targets } from "./predictions.js";
import { SIZE, copy, restart } from "./scene.js";
import { sentence, table } from "./table.js";

const $ = (id) => document.getElementById(id);
const state = {
  task: null, assigner: "TaskAligned", anchors: [], objects: [], picture: null, result: null,
  selected: null, joint: null, held: null, shown: new Set([8, 16, 32]),
  head: { mode: "trained", error: 0.12, seed: 1 },
};
const past = history(state);
const { keep } = past;
const edit = editor($("objects"), state, { keep, changed, chosen });
const levels = panels($("levels"), $("overlay"), state, (words) => ($("readout").textContent = words));
const rows = table($("head"), $("body"), state, choose, classify);
const opened = {};
let tasks = [];
let running = null;
let stale = false;
let announcing = 0;

function fail(words, error) {
  $("failure").textContent = `${words} ${error?.message ?? ""}`.trim();
  $("failure").hidden = false;
}

function choose(id) {
  Object.assign(state, { selected: id, joint: null });
  chosen();
  edit.focus(id);
}

function chosen() {
  edit.render();
  $("remove").disabled = !edit.selected();
  $("undo").disabled = !past.some();
  if (!state.result) return;
  rows.render();
  announce();
}

function classify(id, cls) {
  keep();
  state.objects.find((object) => object.id === id).cls = cls;
  changed();
}

// A screen reader hears the end of a movement, not every step of it.
function announce() {
  clearTimeout(announcing);
  announcing = setTimeout(() => state.result && ($("summary").textContent = sentence(state)), 400);
}

// Ask for a run with what the state holds by then; the promise ends when the page shows it.
function changed() {
  edit.render();
  stale = true;
  running ??= run().finally(() => (running = null));
  return running;
}

// The graphs of the chosen assigner, or of both; a task that lacks it shows what it has.
function graphs({ graphs: all }) {
  return state.assigner === "both" ? all : [all.find(({ assigner }) => assigner === state.assigner) ?? all[0]];
}

async function run() {
  try {
    while (stale) {
      stale = false;
      const { task, anchors } = state;
      const objects = copy(state.objects);
      const inputs = { ...predict(task, anchors, state.held ?? objects, state.head), ...targets(task, objects) };
      const answers = [];
      for (const { assigner, file } of graphs(task)) {
        opened[file] ??= open(task, file);
        const { outputs, ms } = await (await opened[file])(inputs);
        answers.push({ assigner, file, outputs, ms, positives: positives(outputs) });
      }
      if (task !== state.task) continue;
      state.result = { objects, inputs, answers, differing: differing(answers) };
      render();
      // Let the browser show it, and take what has happened since.
      await new Promise((done) => setTimeout(done));
    }
    $("failure").hidden = true;
  } catch (error) {
    for (const { file } of state.task.graphs) delete opened[file];
    fail("The graph could not be run. Reload the page; if that does not help, build it again with make explorer.", error);
  }
}

function render() {
  levels.render();
  chosen();
  const { answers, differing } = state.result;
  $("total").textContent = answers.map(({ positives }) => positives.length).join(" / ");
  $("of").textContent = state.anchors.length;
  $("ms").textContent = answers.map(({ ms }) => ms.toFixed(1)).join(" / ");
  $("differ").textContent = differing.size;
  const both = answers.length > 1;
  $("differ").parentElement.hidden = !both;
  $("whose").textContent = both ? `: ${answers.map(({ assigner }) => assigner).join(" / ")}` : "";
  $("empty").hidden = state.objects.length > 0;
}

// Begin with the picture of a task.
function begin(name) {
  if (state.task?.name !== name) past.clear();
  state.task = tasks.find((task) => task.name === name);
  state.anchors = anchorsOf(state.task.strides);
  state.result = null;
  document.body.dataset.task = name;
  $("assigners").hidden = state.task.graphs.length < 2;
  const objects = objectsOf(state.task);
  return show(picture(state.task, objects), objects);
}

function show(image, objects) {
  state.held = null;
  $("hold").checked = false;
  return put({ picture: image, objects, selected: null });
}

function put({ picture: image, objects, selected }) {
  Object.assign(state, { picture: image, objects, selected, joint: null });
  [$("picture").width, $("picture").height] = [2 * SIZE, 2 * SIZE];
  $("picture").getContext("2d").drawImage(image, 0, 0);
  return changed();
}

function undo() {
  const before = past.back();
  if (!before) return;
  restart(before.objects);
  put(before);
  edit.focus(state.selected);
}

// For programs that drive the page: what the graphs were given last, and what they found.
window.explorer = {
  inputs: () => state.result.inputs,
  answers: () => state.result.answers,
  differing: () => [...state.result.differing],
  objects: () => state.result.objects,
  settled: () => running ?? Promise.resolve(),
};

try {
  const answer = await fetch("explorer.json");
  if (!answer.ok) throw new Error(`explorer.json: ${answer.status}`);
  ({ tasks } = await answer.json());
  listen($("objects"), state, edit, { keep, changed, undo });
  const repaint = () => state.result && levels.render();
  controls(state, { begin, show, keep, changed, undo, fail, focus: edit.focus, repaint });
  await begin("detect");
  document.body.dataset.ready = "";
} catch (error) {
  fail("The page could not start; it needs a web server, such as that of make explorer.", error);
}
