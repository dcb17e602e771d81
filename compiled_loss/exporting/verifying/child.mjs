// Runs an exported file in a runtime of Node.js, batch after batch, with the same requests and answers as child.py.
//
//     node child.mjs RUNTIME FILE FOLDER
//
// FOLDER has the node_modules with the runtime: onnxruntime-web or onnxruntime-node.

import { readFileSync, writeFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const KINDS = {
    F32: ["float32", Float32Array],
    F64: ["float64", Float64Array],
    I64: ["int64", BigInt64Array],
    I32: ["int32", Int32Array],
    BOOL: ["bool", Uint8Array],
};

function read(path, Tensor) {
    const data = readFileSync(path);
    const begin = 8 + Number(data.readBigUInt64LE(0));
    const found = {};
    for (const [name, x] of Object.entries(JSON.parse(data.toString("utf8", 8, begin)))) {
        const [type, Numbers] = KINDS[x.dtype];
        const [from, to] = x.data_offsets.map((offset) => data.byteOffset + begin + offset);
        found[name] = new Tensor(type, new Numbers(data.buffer.slice(from, to)), x.shape);
    }
    return found;
}

function write(path, tensors) {
    const header = {}, parts = [];
    let end = 0;
    for (const [name, x] of Object.entries(tensors)) {
        const [dtype] = Object.entries(KINDS).find(([, [type]]) => type === x.type);
        const part = Buffer.from(x.data.buffer, x.data.byteOffset, x.data.byteLength);
        header[name] = { dtype, shape: [...x.dims], data_offsets: [end, (end += part.length)] };
        parts.push(part);
    }
    const text = Buffer.from(JSON.stringify(header)), length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(path, Buffer.concat([length, text, ...parts]));
}

const answer = (values) => writeSync(1, `${JSON.stringify(values)}\n`);
const reason = (error) => `${error?.name ?? "Error"}: ${String(error?.message ?? error).replace(/\s+/g, " ").slice(0, 500)}`;

async function open(runtime, file, folder) {
    const home = resolve(folder, "package.json");
    let ort;
    try {
        ort = await import(pathToFileURL(createRequire(home).resolve(runtime)));
        ort = ort.InferenceSession ? ort : ort.default;
        answer({ version: JSON.parse(readFileSync(resolve(folder, "node_modules", runtime, "package.json"))).version });
    } catch (error) {
        return answer({ missing: reason(error) });
    }
    if (ort.env?.wasm) ort.env.wasm.numThreads = 1;
    try {
        const options = { executionProviders: [runtime.endsWith("web") ? "wasm" : "cpu"], logSeverityLevel: 3 };
        const session = await ort.InferenceSession.create(readFileSync(file), options);
        answer({});
        return async (request) => write(request.outputs, await session.run(read(request.inputs, ort.Tensor)));
    } catch (error) {
        return answer({ refused: reason(error) });
    }
}

console.log = console.info = console.error; // what a runtime prints must not come between the answers
const run = await open(...process.argv.slice(2));
if (run) {
    for await (const line of createInterface({ input: process.stdin })) {
        try {
            await run(JSON.parse(line));
            answer({});
        } catch (error) {
            answer({ refused: reason(error) });
        }
    }
}
process.exit(0);
