// The page: its state, and the loop that runs the graph after every change.
import { controls } from "./controls.js";
import { editor } from "./editor.js";
import { objectsOf, picture } from "./examples.js";
import { open, positives } from "./graph.js";
import { listen } from "./keys.js";
import { panels } from "./panels.js";
import { anchorsOf, predict, targets } from "./predictions.js";
import { SIZE, copy } from "./scene.js";
import { sentence, table } from "./table.js";

const $ = (id) => document.getElementById(id);
const state = {
  task: null, anchors: [], objects: [], picture: null, result: null,
  selected: null, joint: null, held: null, shown: new Set([8, 16, 32]),
  head: { mode: "trained", error: 0.12, seed: 1 },
};
const edit = editor($("objects"), state, changed, chosen);
const levels = panels($("levels"), $("overlay"), state, (words) => ($("readout").textContent = words));
const rows = table($("head"), $("body"), state, choose, classify);
const graphs = {};
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
  if (!state.result) return;
  rows.render();
  announce();
}

function classify(id, cls) {
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

async function run() {
  try {
    while (stale) {
      stale = false;
      const { task, anchors } = state;
      const objects = copy(state.objects);
      graphs[task.name] ??= open(task);
      const graph = await graphs[task.name];
      if (task !== state.task) continue;
      const inputs = { ...predict(task, anchors, state.held ?? objects, state.head), ...targets(task, objects) };
      const { outputs, ms } = await graph(inputs);
      if (task !== state.task) continue;
      state.result = { objects, inputs, outputs, ms, positives: positives(outputs) };
      render();
      // Let the browser show it, and take what has happened since.
      await new Promise((done) => setTimeout(done));
    }
    $("failure").hidden = true;
  } catch (error) {
    delete graphs[state.task.name];
    fail("The graph could not be run. Reload the page; if that does not help, build it again with make explorer.", error);
  }
}

function render() {
  levels.render();
  chosen();
  $("total").textContent = state.result.positives.length;
  $("of").textContent = state.anchors.length;
  $("ms").textContent = state.result.ms.toFixed(1);
  $("empty").hidden = state.objects.length > 0;
}

// Begin with the picture of a task.
function begin(name) {
  state.task = tasks.find((task) => task.name === name);
  state.anchors = anchorsOf(state.task.arguments.strides);
  state.result = null;
  document.body.dataset.task = name;
  const objects = objectsOf(state.task);
  return show(picture(state.task, objects), objects);
}

function show(image, objects) {
  Object.assign(state, { picture: image, objects, selected: null, joint: null, held: null });
  $("hold").checked = false;
  [$("picture").width, $("picture").height] = [2 * SIZE, 2 * SIZE];
  $("picture").getContext("2d").drawImage(image, 0, 0);
  return changed();
}

// For programs that drive the page: what the graph was given last, and what it found.
window.explorer = {
  inputs: () => state.result.inputs,
  outputs: () => state.result.outputs,
  objects: () => state.result.objects,
  settled: () => running ?? Promise.resolve(),
};

try {
  const answer = await fetch("explorer.json");
  if (!answer.ok) throw new Error(`explorer.json: ${answer.status}`);
  ({ tasks } = await answer.json());
  listen($("objects"), state, edit, changed);
  controls(state, { begin, show, changed, fail, focus: edit.focus, repaint: () => state.result && levels.render() });
  await begin("detect");
  document.body.dataset.ready = "";
} catch (error) {
  fail("The page could not start; it needs a web server, such as that of make explorer.", error);
}
