// Runs a program on the interpreter that interpreter.mjs made: node run.mjs JOB.json
//
// The job: interpreter (folder), wasm, heap (octets), romfs (file or null), frozen (is it code that
// is in the firmware?), files ({path: file}), path (sys.path), program (text), loops ({name:
// JavaScript}), sessions, exact. What the program reports comes out as one line of JSON.

import { createCipheriv, createDecipheriv, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const job = JSON.parse(readFileSync(process.argv[2]));
const { loadMicroPython } = await import(pathToFileURL(join(job.interpreter, "micropython.mjs")));

// Addresses in the interpreter's state, see interpreter.mjs.
const STATE = 188108, PYSTACK_START = 8, PYSTACK = 16, THRESHOLD = 964;
const BLOCK = 16, NEVER = 0xffffffff, ROM = 1 << 19;
// After so many collections that brought no new peak, one that is higher by SLACK octets at most
// may pass unseen: the inner loops of a key exchange would take minutes otherwise.
const PATIENCE = 500, SLACK = 512;

let exported, numbers, printed;
let wanted = 0; // octets that are being allocated
let quiet = 0; // collections since the last new peak
let most = 0; // octets in use, garbage of the time since the last collection included
const phases = []; // {name, peak, frames}
let phase = null;

const view = () => new DataView(exported.memory.buffer);
const octets = (at, n) => new Uint8Array(exported.memory.buffer, at, n);
const blocks = (n) => Math.ceil(n / BLOCK) * BLOCK;

function used() {
    exported.gc_info(numbers);
    return view().getUint32(numbers + 4, true);
}

// Call frames lie on a stack of their own here; a board has those of large functions on its heap.
function frames() {
    const at = view();
    return at.getUint32(STATE + PYSTACK, true) - at.getUint32(STATE + PYSTACK_START, true);
}

// In exact mode the collector runs before an allocation whenever there could be a new peak: then
// what is used is what is live, and what is `wanted` comes on top.
const hooks = {
    allocating: (n) => {
        wanted = blocks(n);
        most += wanted;
        if (phase && job.exact) {
            const slack = quiet > PATIENCE ? SLACK : 0;
            const due = most + frames() > phase.peak + slack;
            view().setUint32(STATE + THRESHOLD, due ? 0 : NEVER, true);
        }
    },
    collected: () => {
        most = used() + wanted;
        quiet += 1;
        if (phase && job.exact) {
            const deep = frames();
            if (most + deep > phase.peak) {
                Object.assign(phase, { peak: most + deep, frames: deep });
                quiet = 0;
            }
        }
        wanted = 0;
    },
};

const instantiate = WebAssembly.instantiate;
WebAssembly.instantiate = async (_, imports) => {
    Object.assign(imports.env, hooks);
    const made = await instantiate(readFileSync(job.wasm), imports);
    exported = made.instance.exports;
    return made;
};

const mp = await loadMicroPython({
    heapsize: job.heap,
    pystack: 4096,
    romfs: job.romfs ? new Uint8Array(readFileSync(job.romfs)) : undefined,
    stdout: (line) => {
        printed = line;
        process.stderr.write(line + "\n");
    },
    linebuffer: true,
});
if (job.frozen) {
    const rom = (mp._module._malloc(ROM) + 15) & -16;
    octets(rom, ROM - 16).fill(0);
    exported.rom_start.value = exported.rom.value = rom;
}
numbers = mp._module._malloc(64);
const incoming = mp._module._malloc(4096);

function at(address, n) {
    return Buffer.from(octets(address, n)); // a copy
}

const ciphers = [], hashes = [];
const report = {};
let session, step, sent;

// What is a number comes and goes as such: nothing else would leave the heap as it is.
const host = {
    aes(key, size, iv, decrypt) {
        const mode = `aes-${8 * size}-${iv ? "cbc" : "ecb"}`;
        const make = decrypt ? createDecipheriv : createCipheriv;
        const cipher = make(mode, at(key, size), iv ? at(iv, 16) : null);
        cipher.setAutoPadding(false);
        return ciphers.push(cipher) - 1;
    },
    crypt(cipher, from, n, to) {
        octets(to, n).set(ciphers[cipher].update(at(from, n)));
    },
    hash: () => hashes.push(createHash("sha1")) - 1,
    update(hash, from, n) {
        hashes[hash].update(at(from, n));
    },
    digest(hash, to) {
        octets(to, 20).set(hashes[hash].digest());
    },
    phase(name) {
        phases.push((phase = { name, peak: 0, frames: 0 }));
    },
    end() {
        phase = null;
        view().setUint32(STATE + THRESHOLD, NEVER, true);
    },
    note(name, value) {
        report[name] = value;
    },
    used,
    // Of what micropython.qstr_info() just printed.
    names: () => Number(/n_qstr=(\d+)/.exec(printed)[1]),
    // The network: the datagrams of a recorded session, a burst at a time.
    open(n) {
        session = job.sessions[n];
        step = sent = 0;
    },
    sent() {
        sent += 1;
    },
    // How many datagrams come next, when the sensor has sent what they answer; 0 is none yet.
    burst(patient) {
        let at = step, out = 0, n = 0;
        while (at < session.length && session[at] === null) {
            at += 1;
            out += 1;
        }
        if (sent < out && !patient) {
            return 0;
        }
        sent = 0;
        step = at;
        while (step + n < session.length && session[step + n] !== null) {
            n += 1;
        }
        return n;
    },
    // Puts the next one into memory of ours; returns its size.
    next() {
        const datagram = Buffer.from(session[step++], "hex");
        octets(incoming, datagram.length).set(datagram);
        return datagram.length;
    },
    incoming,
};

const loops = {};
const views = () => {
    const buffer = exported.memory.buffer;
    return [new Uint8Array(buffer), new Uint16Array(buffer), new Int32Array(buffer)];
};
for (const [name, text] of Object.entries(job.loops)) {
    loops[name] = new Function("views", `return ${text}`)(views);
}

mp.registerJsModule("_host", host);
mp.registerJsModule("_js_loops", loops);
for (const [path, file] of Object.entries(job.files)) {
    const parts = path.split("/").slice(1, -1);
    parts.forEach((_, n) => {
        const directory = "/" + parts.slice(0, n + 1).join("/");
        if (!mp.FS.analyzePath(directory).exists) {
            mp.FS.mkdir(directory);
        }
    });
    mp.FS.writeFile(path, new Uint8Array(readFileSync(file)));
    mp.FS.chmod(path, 0o600);
}
let error = null;
try {
    mp.runPython(`import sys\nsys.path[:] = ${JSON.stringify(job.path)}
LOOPS = ${JSON.stringify(Object.keys(loops))}
FROZEN = ${job.frozen ? "True" : "False"}`);
    await mp.runPythonAsync(job.program);
} catch (problem) {
    error = `${problem.type || ""} ${problem.message}`;
}
process.stdout.write(JSON.stringify({ ...report, phases, error }) + "\n", () => process.exit(0));
