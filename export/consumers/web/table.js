// The numbers: positives of every object on every level, and the assignment in one sentence.
import { colour, name } from "./editor.js";

const most = (values) => values.reduce((a, b) => Math.max(a, b), 0);

// For every object the positives of each level and the largest target score, as one answer has them.
function counts(state, { positives }) {
  return state.result.objects.map((object, row) => {
    const own = positives.filter((positive) => positive.row === row);
    const levels = state.task.strides.map((s) => own.filter((p) => state.anchors[p.anchor].stride === s).length);
    return { object, levels, all: own.length, best: most(own.map(({ weight }) => weight)) };
  });
}

function words(state, answer) {
  const { objects } = state.result;
  const total = `${answer.positives.length} of ${state.anchors.length} anchors are positive.`;
  const one = counts(state, answer).find(({ object }) => object.id === state.selected);
  if (!objects.length) return `No objects. ${total}`;
  if (!one) return total;
  return `${name({ ...state, objects }, one.object)}: ${one.all} anchors, largest target score ${one.best.toFixed(2)}. ${total}`;
}

// The assignment in words, of every answer shown.
export function sentence(state) {
  const { answers, differing } = state.result;
  if (answers.length === 1) return words(state, answers[0]);
  const each = answers.map((answer) => `${answer.assigner}: ${words(state, answer)}`);
  return `${each.join(" ")} ${differing.size} anchors differ.`;
}

function cell(tag, text, title) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (title) made.title = title;
  return made;
}

// `choose(id)` selects an object, `classify(id, cls)` changes its class.
export function table(head, body, state, choose, classify) {
  function label(object) {
    const made = document.createElement("th");
    made.scope = "row";
    const button = cell("button", state.result.objects.indexOf(object) + 1, "Select this object");
    button.type = "button";
    button.className = "pick";
    button.style.setProperty("--ink", colour(object));
    button.addEventListener("click", () => choose(object.id));
    made.append(button, state.task.classes.length > 1 ? classes(object) : cell("span", state.task.classes[0]));
    return made;
  }

  function classes(object) {
    const made = document.createElement("select");
    made.setAttribute("aria-label", `Class of object ${state.result.objects.indexOf(object) + 1}`);
    state.task.classes.forEach((text, cls) => made.add(new Option(text, cls)));
    made.addEventListener("change", () => classify(object.id, Number(made.value)));
    return made;
  }

  let drawn = "";
  function render() {
    const strides = state.task.strides;
    const columns = state.result.answers.map((answer) => counts(state, answer));
    // With two answers every cell has both numbers, as in "12 / 9".
    const rows = columns[0].map(({ object }, i) => {
      const own = columns.map((column) => column[i]);
      const values = own.map(({ levels, all, best }) => [...levels, all, best.toFixed(2)]);
      const cells = values[0].map((_, j) => values.map((column) => column[j]).join(" / "));
      return { object, cells, without: own.some(({ all }) => all === 0) };
    });
    // The lines stay as long as the objects do: something in them may have the focus.
    const key = JSON.stringify([state.task.name, rows.map(({ object }) => object.id)]);
    if (key !== drawn) {
      drawn = key;
      const titles = strides.map((stride) => cell("th", stride, `Positives of stride ${stride}`));
      titles.push(cell("th", "all", "Positives of all levels"), cell("th", "best", "Largest target score"));
      head.replaceChildren(cell("th", "object"), ...titles);
      body.replaceChildren(
        ...rows.map(({ object }) => {
          const line = document.createElement("tr");
          line.append(label(object), ...strides.map(() => cell("td", "")), cell("td", ""), cell("td", ""));
          return line;
        }),
      );
    }
    rows.forEach(({ object, cells, without }, i) => {
      const line = body.rows[i];
      const select = line.querySelector("select");
      if (select) select.value = object.cls;
      const words = name({ ...state, objects: state.result.objects }, object);
      line.querySelector("button").setAttribute("aria-label", `Select ${words}`);
      line.classList.toggle("selected", object.id === state.selected);
      cells.forEach((value, j) => (line.cells[j + 1].textContent = value));
      line.classList.toggle("without", without);
    });
  }
  return { render };
}
