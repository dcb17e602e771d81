// Everything beside the picture that one can set.
import { read } from "./examples.js";
import { add, remove } from "./keys.js";
import { copy } from "./scene.js";

const $ = (id) => document.getElementById(id);

export function controls(state, { begin, show, keep, changed, undo, fail, focus, repaint }) {
  const every = (selector, act) =>
    document.querySelectorAll(selector).forEach((input) => input.addEventListener("change", () => act(input)));

  // A browser may keep what was chosen before a reload.
  document.querySelectorAll("input").forEach((input) => {
    input.checked = input.defaultChecked;
    input.value = input.defaultValue;
  });

  every("[name=task]", ({ value }) => begin(value));
  every("[name=assigner]", ({ value }) => {
    state.assigner = value;
    changed();
  });
  every("[name=mode]", ({ value }) => {
    state.head.mode = value;
    $("error").disabled = $("hold").disabled = value !== "trained";
    changed();
  });
  every("[name=shown]", ({ value, checked }) => {
    state.shown[checked ? "add" : "delete"](Number(value));
    repaint();
  });
  every("#hold", ({ checked }) => {
    state.held = checked ? copy(state.objects) : null;
    changed();
  });
  every("#file", async (input) => {
    await open(input.files[0]);
    input.value = "";
  });
  $("error").addEventListener("input", ({ target }) => {
    state.head.error = Number(target.value) / 100;
    $("error-value").textContent = `${target.value} %`;
    changed();
  });
  $("seed").addEventListener("click", () => {
    state.head.seed += 1;
    changed();
  });
  $("add").addEventListener("click", () => {
    keep();
    add(state);
    changed();
    focus(state.selected);
  });
  $("remove").addEventListener("click", () => {
    keep();
    remove(state);
    changed();
    focus(state.selected);
  });
  $("undo").addEventListener("click", undo);
  $("reset").addEventListener("click", () => {
    keep();
    begin(state.task.name);
  });
  $("stage").addEventListener("dragover", (event) => event.preventDefault());
  $("stage").addEventListener("drop", (event) => {
    event.preventDefault();
    open(event.dataTransfer.files[0]);
  });
  new ResizeObserver(repaint).observe($("levels"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  async function open(file) {
    if (!file) return;
    try {
      const image = await read(file);
      keep();
      show(image, []);
    } catch {
      fail(`${file.name} is not a picture that this browser can read. PNG, JPEG and WebP are.`);
    }
  }
}
