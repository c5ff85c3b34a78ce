//! LuaJIT's structures as the sampler reads them of a target: a VM that was made up, with words of it
//! replaced by the fuzzer. Nothing panics, what is kept never outgrows its room, and each sample costs
//! a bounded number of reads whatever links, sizes and lengths say.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the sampler's own files are compiled in; not all of them is called"
)]

#[path = "../../../agent/native/src/arch.rs"]
mod arch;
#[path = "../../../agent/native/src/words.rs"]
mod words;

#[path = "native_lua/luajit.rs"]
mod luajit;

use fleetflame_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use luajit::builtins::Builtins;
use luajit::callsite;
use luajit::layout;
use luajit::names;
use luajit::segment::{self, Item};
use luajit::snapshot::inlined;
use luajit::source::SourceNames;
use luajit::synthetic::{Call, MCODE, MachineStack, STACK, Synthetic, VM};
use luajit::trace::TraceTable;

/// Reads that one sample may cost.
const READS_MAX: usize = 2500;
/// Bytes of the VM that may be replaced.
const SPAN: u64 = 0x8000;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    if input.byte() == 0 {
        // Source files are the target's too.
        let source = SourceNames::parse(input.rest(), 1000);
        for line in 0..64 {
            if let Some(name) = source.name(line, 0) {
                let identifier = |c: u8| c.is_ascii_alphanumeric() || b"_.:".contains(&c);
                assert!(name.bytes().all(identifier), "text of a program in a name");
            }
        }
        return;
    }
    let (mut memory, mut stack, global) = vm();
    let main = Synthetic::main_of(global);
    let choices = input.byte();
    let mut rest = input.rest();
    while let [how, a, b, word @ ..] = rest
        && let Some((word, after)) = word.split_first_chunk::<8>()
    {
        rest = after;
        let at = u64::from(u16::from_le_bytes([*a, *b]));
        let word = u64::from_le_bytes(*word);
        // Half of them point into the VM, as corrupt pointers do.
        let word = if how & 1 == 0 { word } else { main + word % SPAN };
        match how >> 1 & 3 {
            0 => memory.word(main + (at % SPAN & !7), word),
            1 => memory.half(main + (at % SPAN & !3), word as u32),
            2 => {
                let at = usize::from(u16::from_le_bytes([*a, *b])) % (stack.bytes.len() - 8) & !7;
                stack.bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
            _ => stack.regs.r[usize::from(*a) % 32] = word,
        }
    }
    stack.regs.r[usize::from(arch::SP)] = STACK;
    stack.regs.ip = if choices & 1 == 0 { VM.0 + 64 } else { MCODE + 8 };
    memory.reads.set(0);
    let kept = stack.kept(&memory);
    assert!(memory.reads.get() < READS_MAX, "{} reads", memory.reads.get());
    for item in segment::read(&kept).flat_map(|s| s.items().collect::<Vec<_>>()) {
        if let Item::Lua { prototype, key, .. } = item
            && let Some(place) = names::place(&memory, prototype, key)
        {
            assert!(place.chunk.text().len() < 700, "a chunk's name is bounded");
            for instruction in 1..8 {
                let call = callsite::Call {
                    prototype,
                    key,
                    instruction,
                };
                let identifier = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
                let name = callsite::name(&memory, call).unwrap_or_default();
                assert!(name.bytes().all(identifier), "text of a program in a name");
            }
        }
    }
    let mut table = TraceTable::default();
    table.refresh(&memory, global);
    table.refresh(&memory, global);
    for address in (MCODE..MCODE + 512).step_by(64) {
        if let Some(trace) = table.find(address) {
            assert!(address >= trace.code && address < trace.code_end);
            assert!(inlined(&memory, trace, address).len() <= 32);
        }
    }
    if choices & 2 != 0 {
        let _ = Builtins::read(&memory, global);
    }
});

/// Two coroutines, one resumed by the other, over a trace.
fn vm() -> (Synthetic, MachineStack, u64) {
    let mut m = Synthetic::default();
    let global = m.vm();
    let (outer, inner) = (Synthetic::main_of(global), m.thread(global));
    let (f, proto) = m.lua("@/usr/share/lua/5.1/kong/plugins/a/handler.lua", 3);
    let (g, other) = m.lua("=access_by_lua(nginx.conf:5)", 0);
    let after = |proto: u64| proto + layout::prototype::BYTES as u64 + 8;
    m.push(outer, g, Call::C);
    m.push(inner, f, Call::Protected);
    m.push(inner, g, Call::Lua(after(proto)));
    m.push(inner, f, Call::Vararg);
    let base = m.push(inner, f, Call::Pcall);
    m.runs(global, inner, base);
    let (of_outer, of_inner) = (m.room(32), m.room(32));
    m.word(of_outer + layout::co_context::STATE, outer);
    m.word(of_inner + layout::co_context::STATE, inner);
    m.word(of_inner + layout::co_context::PARENT, of_outer);
    m.word(inner + layout::state::EXDATA2 as u64, of_inner);
    let (first, second) = (m.trace(1, MCODE, proto), m.trace(2, MCODE + 256, other));
    let (snapshots, map, ir) = (m.room(64), m.room(256), m.room(256));
    m.word(first + layout::trace::IR as u64, ir);
    m.word(first + layout::trace::SNAPSHOT as u64, snapshots);
    m.put(first + layout::trace::SNAPSHOTS as u64, &2_u16.to_le_bytes());
    m.word(first + layout::trace::MAP as u64, map);
    m.half(first + layout::trace::MAP_WORDS as u64, 16);
    m.put(snapshots + 12 + 6, &4_u16.to_le_bytes());
    m.traces(global, &[first, second]);
    let mut stack = MachineStack::new(layout::X86_64);
    let below = stack.cframe(64, inner, 0, 0);
    let above = stack.cframe(640, outer, 0, 0);
    m.word(inner + layout::state::CFRAME as u64, below | 1);
    m.word(outer + layout::state::CFRAME as u64, above);
    (m, stack, global)
}
