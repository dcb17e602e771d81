// The exported graph, run by onnxruntime-web.
import * as ort from "./ort/ort.wasm.min.mjs";

// One thread: more need headers that cut the page off from others, and this graph is small.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

// A graph of a task as a function from { name: typed array } of one image to { outputs: { name: { data, dims } }, ms }.
export async function open(task, file) {
  const session = await ort.InferenceSession.create(new URL(file, import.meta.url).href, {
    executionProviders: ["wasm"],
  });
  const feed = (inputs) => {
    const sizes = { B: 1, N: inputs.batch_idx.length };
    const tensor = ({ name, shape, dtype }) => new ort.Tensor(dtype, inputs[name], shape.map((size) => sizes[size] ?? size));
    return Object.fromEntries(task.inputs.map((input) => [input.name, tensor(input)]));
  };
  // The first run makes the browser compile: it is not one to be timed.
  await session.run(feed(blank(task)));
  return async (inputs) => {
    const feeds = feed(inputs);
    const begin = performance.now();
    const found = await session.run(feeds);
    const ms = performance.now() - begin;
    return { outputs: Object.fromEntries(Object.entries(found).map(([k, { data, dims }]) => [k, { data, dims }])), ms };
  };
}

// Inputs of zeros, with one row.
function blank(task) {
  const size = (shape) => shape.reduce((product, n) => product * ({ B: 1, N: 1 }[n] ?? n), 1);
  const make = ({ name, shape, dtype }) => [name, new (dtype === "int64" ? BigInt64Array : Float32Array)(size(shape))];
  return Object.fromEntries(task.inputs.map(make));
}

// The slots that hold a positive: { row, anchor (its index), weight }.
export function positives({ valid, row, anchor, weight }) {
  const slots = Array.from(valid.data, Boolean).flatMap((held, i) => (held ? [i] : []));
  return slots.map((i) => ({ row: Number(row.data[i]), anchor: Number(anchor.data[i]), weight: weight.data[i] }));
}

// The anchors that not all answers give to the same object, or to the background.
export function differing(answers) {
  const owners = answers.map(({ positives }) => new Map(positives.map(({ anchor, row }) => [anchor, row])));
  const taken = new Set(owners.flatMap((owner) => [...owner.keys()]));
  return new Set([...taken].filter((anchor) => owners.some((owner) => owner.get(anchor) !== owners[0].get(anchor))));
}
