//! A VM in memory that was made up: what the tests of this folder read. In: functions and calls. Out:
//! bytes where LuaJIT would have them. Never: a process.

use super::capture::{Moment, capture};
use super::layout::{self, Machine};
use super::memory::Memory;
use super::segment::{self, From, Item};
use super::threads::View;
use crate::arch::{REGISTERS, Regs};
use crate::words::StackWords;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Memory by page, and how often it was read.
#[derive(Debug, Default)]
pub struct Synthetic {
    pages: BTreeMap<u64, Vec<u8>>,
    next: u64,
    pub reads: Cell<usize>,
}

impl Memory for Synthetic {
    fn read(&self, address: u64, into: &mut [u8]) -> usize {
        self.reads.set(self.reads.get() + 1);
        for (got, byte) in into.iter_mut().enumerate() {
            let at = address.wrapping_add(got as u64);
            match self.pages.get(&(at >> 12)) {
                Some(page) => *byte = page[(at & 4095) as usize],
                None => return got,
            }
        }
        into.len()
    }
}

/// Where the interpreter's code is said to be.
pub const VM: (u64, u64) = (0x40_0000, 0x40_8000);
/// Code of C.
pub const C_CODE: u64 = 0x41_0000;
/// Compiled code.
pub const MCODE: u64 = 0x60_0000;
const HEAP: u64 = 0x7000_0000_0000;
/// Address of the machine stack.
pub const STACK: u64 = 0x7ffd_0000_0000;

impl Synthetic {
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let at = address + i as u64;
            let page = self.pages.entry(at >> 12).or_insert_with(|| vec![0; 4096]);
            page[(at & 4095) as usize] = *byte;
        }
    }

    pub fn word(&mut self, address: u64, word: u64) {
        self.put(address, &word.to_le_bytes());
    }

    pub fn half(&mut self, address: u64, half: u32) {
        self.put(address, &half.to_le_bytes());
    }

    pub fn room(&mut self, bytes: u64) -> u64 {
        let at = HEAP + self.next;
        self.next += bytes.next_multiple_of(16);
        self.put(at, &vec![0; usize::try_from(bytes).unwrap()]);
        at
    }

    fn object(&mut self, bytes: u64, kind: u8) -> u64 {
        let at = self.room(bytes);
        self.put(at + layout::object::TYPE as u64, &[kind]);
        at
    }

    pub fn string(&mut self, text: &[u8]) -> u64 {
        let at = self.object(
            layout::string::TEXT + text.len() as u64 + 1,
            layout::object::STRING,
        );
        self.half(
            at + layout::string::LENGTH[0] as u64,
            u32::try_from(text.len()).unwrap(),
        );
        self.put(at + layout::string::TEXT, text);
        at
    }

    /// A prototype with 64 instructions, each a call that puts its function at slot 3.
    pub fn prototype(&mut self, chunk: &str, line: u32) -> u64 {
        let chunk = self.string(chunk.as_bytes());
        let at = self.object(
            layout::prototype::BYTES as u64 + 64 * 4,
            layout::object::PROTO,
        );
        self.half(at + layout::prototype::INSTRUCTIONS as u64, 64);
        self.word(at + layout::prototype::CHUNK as u64, chunk);
        self.half(at + layout::prototype::FIRST_LINE as u64, line);
        for i in 0..64 {
            self.put(
                at + layout::prototype::BYTES as u64 + i * 4,
                &[0x42, 3, 1, 2],
            );
        }
        at
    }

    pub fn function(&mut self, kind: u8, pc: u64) -> u64 {
        let at = self.object(layout::function::BYTES as u64, layout::object::FUNCTION);
        self.put(at + layout::function::KIND as u64, &[kind]);
        self.word(at + layout::function::PC as u64, pc);
        at
    }

    /// A function of Lua and its prototype.
    pub fn lua(&mut self, chunk: &str, line: u32) -> (u64, u64) {
        let prototype = self.prototype(chunk, line);
        (
            self.function(0, prototype + layout::prototype::BYTES as u64),
            prototype,
        )
    }

    /// A VM: its `global_State`. The main thread lies before it.
    pub fn vm(&mut self) -> u64 {
        let main = self.object(0x3000, layout::object::THREAD);
        let global = main + 112;
        self.word(main + layout::state::GLOBAL as u64, global);
        let head = 20 << 8 | u32::from(layout::bytecode::FUNCC);
        self.half(global + 360, head);
        self.half(global + 364, head);
        self.thread_at(main, global);
        global
    }

    pub fn main_of(global: u64) -> u64 {
        global - 112
    }

    fn thread_at(&mut self, at: u64, global: u64) {
        let stack = self.room(4096);
        self.word(at + layout::state::GLOBAL as u64, global);
        self.word(at + layout::state::STACK as u64, stack);
        self.word(at + layout::state::BASE as u64, stack + 16);
        self.half(at + layout::state::STACK_SLOTS as u64, 512);
        self.word(stack, 0x1_fff9 << 47 | at);
    }

    pub fn thread(&mut self, global: u64) -> u64 {
        let at = self.object(layout::state::BYTES as u64, layout::object::THREAD);
        self.thread_at(at, global);
        at
    }

    pub fn get(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub fn runs(&mut self, global: u64, state: u64, jit_base: u64) {
        self.word(global + 368, state);
        self.word(global + 376, jit_base);
    }

    /// Pushes a frame for `function` onto the Lua stack of `state`, and stores its base.
    pub fn push(&mut self, state: u64, function: u64, call: Call) -> u64 {
        let at = state + layout::state::BASE as u64;
        let base = self.get(at);
        let down = match call {
            Call::Lua(_) => 5 * 8,
            _ => 6 * 8,
        };
        let new = base + down;
        let link = match call {
            Call::Lua(pc) => pc,
            Call::C => down | 1,
            Call::Protected => down | 5,
            Call::Pcall => down | 6,
            Call::Vararg => down | 3,
        };
        self.word(new - 16, 0x1_fff7 << 47 | function);
        self.word(new - 8, link);
        self.word(at, new);
        new
    }

    /// A trace with this number, whose code is 256 bytes at `code`.
    pub fn trace(&mut self, number: u16, code: u64, prototype: u64) -> u64 {
        let at = self.object(layout::trace::BYTES as u64, layout::object::TRACE);
        self.put(at + layout::trace::NUMBER as u64, &number.to_le_bytes());
        self.word(at + layout::trace::CODE as u64, code);
        self.half(at + layout::trace::CODE_BYTES as u64, 256);
        self.word(at + layout::trace::START_PROTO as u64, prototype);
        at
    }

    /// The trace table of a VM; slot 0 stays empty.
    pub fn traces(&mut self, global: u64, traces: &[u64]) {
        let table = self.room(8 * (traces.len() as u64 + 1));
        for (i, trace) in traces.iter().enumerate() {
            self.word(table + 8 * (i as u64 + 1), *trace);
        }
        self.word(global + 1128, table);
        self.half(global + 1136, 1);
        self.half(global + 1140, u32::try_from(traces.len()).unwrap() + 1);
    }
}

/// How a function was called.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// By Lua, which goes on at this instruction.
    Lua(u64),
    /// By C.
    C,
    /// By C that catches errors, or as a coroutine.
    Protected,
    /// By `pcall`.
    Pcall,
    /// The second frame of a function with variable arguments.
    Vararg,
}

/// A machine stack of 4 KiB.
#[derive(Debug)]
pub struct MachineStack {
    pub bytes: Vec<u8>,
    pub regs: Regs,
    pub machine: Machine,
}

impl MachineStack {
    pub fn new(machine: Machine) -> Self {
        let mut regs = Regs {
            ip: C_CODE + 8,
            r: [0; REGISTERS],
        };
        regs.r[usize::from(crate::arch::SP)] = STACK;
        Self {
            bytes: vec![0; 4096],
            regs,
            machine,
        }
    }

    fn put(&mut self, address: u64, word: u64) {
        let at = usize::try_from(address - STACK).unwrap();
        self.bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    /// The interpreter's frame at `STACK + at`.
    pub fn cframe(&mut self, at: u64, state: u64, previous: u64, results: i32) -> u64 {
        let cframe = STACK + at;
        self.put(cframe + self.machine.results, u64::from(results as u32));
        self.put(cframe + self.machine.state, state);
        self.put(cframe + self.machine.previous, previous);
        self.put(cframe + self.machine.return_address, C_CODE + 16);
        cframe
    }

    pub fn kept(&self, memory: &Synthetic) -> Vec<u64> {
        self.kept_in_time(memory, &|| true)
    }

    /// What is kept as long as there is time.
    pub fn kept_in_time(&self, memory: &Synthetic, in_time: &dyn Fn() -> bool) -> Vec<u64> {
        let view = View {
            interpreters: vec![VM],
            code: vec![VM, (C_CODE, C_CODE + 0x1000)],
        };
        let moment = Moment {
            regs: &self.regs,
            words: StackWords {
                start: STACK,
                copy: &self.bytes,
                extension: &[],
            },
            exclusive: true,
            wants_path: true,
        };
        let mut keep = Vec::with_capacity(512);
        capture(memory, &view, &self.machine, &moment, in_time, &mut keep);
        assert!(keep.capacity() == 512, "grown at real-time priority");
        keep
    }

    /// Cframe, where it begins, and for each item the prototype, or minus the builtin's number.
    pub fn segments(&self, memory: &Synthetic) -> Vec<(u64, From, Vec<i64>)> {
        let number = |item: Item| match item {
            Item::Lua { prototype, .. } => i64::try_from(prototype).unwrap(),
            Item::Builtin(number) => -i64::from(number),
            Item::Joint => JOINT,
            Item::Cut => CUT,
        };
        segment::read(&self.kept(memory))
            .map(|s| (s.cframe, s.from, s.items().map(number).collect()))
            .collect()
    }
}

/// The instruction behind the call `n` of a prototype.
pub fn pc(prototype: u64, n: u64) -> u64 {
    prototype + layout::prototype::BYTES as u64 + 4 * (n + 1)
}

/// A joint among the items of [`MachineStack::segments`].
pub const JOINT: i64 = -1000;
/// A cut among them.
pub const CUT: i64 = -1001;
