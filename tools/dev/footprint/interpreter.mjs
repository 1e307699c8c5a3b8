// Makes the interpreter that is measured: node interpreter.mjs FROM.wasm TO.wasm
//
// MicroPython's WebAssembly port cannot look for pointers in WebAssembly's own locals. So it
// collects only between two calls from JavaScript, and lets its heap grow meanwhile. A board does
// neither. Here the port becomes like a board: every pointer is also put on the stack in memory
// around each call, the collector runs whenever it is asked to, looks at that stack, and the heap
// stays as large as it was made. Two hooks tell JavaScript of each allocation and collection.

import binaryen from "binaryen";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

const SHA256 = "d5913c9327072e71d3e7a2e9384ea326f7d784bcc2f50a01b602c52bd2bdcafd";

// Places in that file, which has no names: functions by number, addresses in its memory.
const GC_ALLOC = "24", GC_REALLOC = "28", GC_FREE = "26";
const GC_START = "18", GC_MARK = "19", GC_ROOT = "20", GC_END = "21", GC_INFO = "22";
const GC_COLLECT = "1263", GC_MAX_NEW_SPLIT = "1262";
const LOAD_MPY = "318";
const STACK_TOP = 65536;
const STACK_POINTER = "__stack_pointer";

const [from, to] = process.argv.slice(2);
const original = readFileSync(from);
if (createHash("sha256").update(original).digest("hex") !== SHA256) {
    throw new Error(`${from} is not the file whose functions are known here`);
}

// A name section, by which the pass below finds the stack pointer, the first global.
const text = (s) => [s.length, ...Buffer.from(s)];
const names = [1, 0, ...text(STACK_POINTER)];
const section = [...text("name"), 7, names.length, ...names];
const module = binaryen.readBinary(
    Buffer.concat([original, Buffer.from([0, section.length, ...section])]),
);
module.runPasses([
    "flatten", "simplify-locals-nonesting", "reorder-locals", "coalesce-locals", "reorder-locals",
    "spill-pointers",
]);

const { none, i32 } = binaryen;
const number = (value) => module.i32.const(value);
const pointer = () => module.global.get(STACK_POINTER, i32);
const words = (from, to) => module.i32.shr_u(module.i32.sub(to, from), number(2));

module.addFunctionImport("allocating", "env", "allocating", i32, none);
module.addFunctionImport("collected", "env", "collected", none, none);

const { i32: I, local, global } = module;

function replace(name, params, results, body) {
    module.removeFunction(name);
    module.addFunction(name, params, results, [i32], body);
}

// Puts a function in front of another: body(inner) is what it does, and may call inner.
function wrap(name, body) {
    const { params, results, vars, body: old } = binaryen.getFunctionInfo(module.getFunction(name));
    module.addFunction(`inner ${name}`, params, results, vars, old);
    const operands = binaryen.expandType(params).map((type, n) => local.get(n, type));
    replace(name, params, results, body(module.call(`inner ${name}`, operands, results)));
}

const value = (name) => global.get(name, i32);
const given = (n) => local.get(n, i32);

// Once `rom_start` and `rom` are set to where there is room, what loading an .mpy file allocates,
// tables of names included, lies there and not in the heap: it would lie in flash when frozen into
// the firmware. It is never freed; what it refers to stays.
for (const name of ["rom_start", "rom", "loading"]) {
    module.addGlobal(name, i32, true, number(0));
}
module.addGlobalExport("rom_start", "rom_start");
module.addGlobalExport("rom", "rom");
const inRom = () => I.and(
    I.ge_u(given(0), value("rom_start")), I.lt_u(given(0), value("rom")),
);
// Leaves the function with so much of it; `fill` may copy something there first.
const take = (result, size, fill) => module.block(null, [
    local.set(result, value("rom")),
    global.set("rom", I.add(value("rom"), I.and(I.add(size, number(15)), number(-16)))),
    ...fill(given(result)),
    module.return(given(result)),
]);

replace(GC_COLLECT, none, none, module.block(null, [
    module.call(GC_START, [], none),
    module.call(GC_ROOT, [pointer(), words(pointer(), number(STACK_TOP))], none),
    module.call(GC_ROOT, [value("rom_start"), words(value("rom_start"), value("rom"))], none),
    module.call(GC_END, [], none),
    module.call("collected", [], none),
]));
replace(GC_MAX_NEW_SPLIT, none, i32, number(0));

wrap(LOAD_MPY, (inner) => module.block(null, [
    global.set("loading", value("rom")), inner, global.set("loading", number(0)),
]));
wrap(GC_ALLOC, (inner) => module.block(null, [
    module.if(value("loading"), take(2, given(0), () => [])),
    module.call("allocating", [given(0)], none),
    inner,
], i32));
wrap(GC_REALLOC, (inner) => module.block(null, [
    module.if(I.or(inRom(), value("loading")), module.block(null, [
        module.if(I.eqz(given(2)), module.return(number(0))),
        take(3, given(1), (at) => [
            module.if(given(0), module.memory.copy(at, given(0), given(1))),
        ]),
    ])),
    module.call("allocating", [given(1)], none),
    inner,
], i32));
wrap(GC_FREE, (inner) => module.block(null, [module.if(I.eqz(inRom()), inner)]));
module.addFunctionExport(GC_INFO, "gc_info");

module.runPasses(["coalesce-locals", "vacuum"]);
// The collector runs tens of thousands of times.
for (const name of [GC_START, GC_MARK, GC_ROOT, GC_END, GC_INFO]) {
    for (const _ of [1, 2]) {
        module.runPassesOnFunction(name, [
            "ssa-nomerge", "simplify-locals", "vacuum", "precompute-propagate", "optimize-instructions",
            "coalesce-locals", "simplify-locals", "vacuum", "merge-blocks", "remove-unused-brs",
            "reorder-locals", "vacuum",
        ]);
    }
}
if (!module.validate()) {
    throw new Error("what came out is no WebAssembly");
}
writeFileSync(to, module.emitBinary());
