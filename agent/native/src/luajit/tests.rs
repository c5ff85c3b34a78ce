//! The whole folder on memory that was made up: what is found, and that damaged memory costs a bounded
//! number of reads.

use super::builtins::Builtins;
use super::layout::{self, AARCH64, Machine, X86_64};
use super::names::{self, Chunk};
use super::segment::From;
use super::snapshot::{Inlined, inlined};
use super::synthetic::{C_CODE, Call, JOINT, MCODE, MachineStack, STACK, Synthetic, VM, pc};
use super::trace::TraceTable;
use proptest::prelude::*;

const MACHINES: [Machine; 2] = [X86_64, AARCH64];

fn id(prototype: u64) -> i64 {
    i64::try_from(prototype).unwrap()
}

#[test]
fn interpreted_frames_are_split_where_c_called_in() {
    for machine in MACHINES {
        let mut m = Synthetic::default();
        let global = m.vm();
        let state = Synthetic::main_of(global);
        let (outer, outer_proto) = m.lua("@/x/outer.lua", 1);
        let (inner, inner_proto) = m.lua("@/x/inner.lua", 7);
        let (varied, varied_proto) = m.lua("@/x/varied.lua", 9);
        let sort = m.function(90, C_CODE);
        let module = m.function(1, C_CODE);
        m.push(state, outer, Call::Protected);
        m.push(state, varied, Call::Lua(pc(outer_proto, 5)));
        m.push(state, varied, Call::Vararg);
        m.push(state, sort, Call::Lua(pc(varied_proto, 2)));
        m.push(state, module, Call::C);
        m.push(state, inner, Call::Pcall);
        let base = m.push(state, inner, Call::Lua(pc(inner_proto, 0)));
        m.runs(global, state, 0);
        let mut stack = MachineStack::new(machine);
        let below = stack.cframe(0, state, STACK + 1024, 0);
        let above = stack.cframe(1024, state, 0, 0);
        m.word(state + layout::state::CFRAME as u64, below);
        stack.regs.ip = VM.0 + 100;
        stack.regs.r[machine.base] = base;
        stack.regs.r[machine.pc] = pc(inner_proto, 3);
        let expected = vec![
            (
                below,
                From::Interpreter,
                vec![id(inner_proto), id(inner_proto)],
            ),
            (
                above,
                From::Interpreter,
                vec![-90, id(varied_proto), id(outer_proto)],
            ),
        ];
        assert_eq!(stack.segments(&m), expected);
        // Half way through a call the register already has the callee's base: who owns the
        // instruction runs.
        stack.regs.r[machine.pc] = pc(varied_proto, 3);
        assert_eq!(stack.segments(&m)[0].2[0], id(varied_proto));
        // In C, memory says where the frame is.
        stack.regs.ip = C_CODE + 4;
        assert_eq!(stack.segments(&m), expected);
    }
}

#[test]
fn a_frame_of_c_without_a_function_takes_no_lua_frames() {
    let mut m = Synthetic::default();
    let global = m.vm();
    let state = Synthetic::main_of(global);
    let (f, prototype) = m.lua("@/x.lua", 1);
    let base = m.push(state, f, Call::Protected);
    m.runs(global, state, 0);
    let lua_stack = m.get(state + layout::state::STACK as u64);
    let height = i32::try_from(base + 64 - lua_stack).unwrap();
    let mut stack = MachineStack::new(X86_64);
    let bare = stack.cframe(512, state, STACK + 1024, -height);
    let above = stack.cframe(1024, state, 0, 0);
    m.word(state + layout::state::CFRAME as u64, bare);
    let expected = vec![
        (bare, From::Interpreter, vec![]),
        (above, From::Interpreter, vec![id(prototype)]),
    ];
    assert_eq!(stack.segments(&m), expected);
}

#[test]
fn two_vms_are_kept_apart_and_coroutines_are_followed_to_who_resumed_them() {
    let mut m = Synthetic::default();
    let (http, stream) = (m.vm(), m.vm());
    let (entry, phase_proto) = m.lua("=access_by_lua(nginx.conf:1)", 0);
    let (plugin, plugin_proto) = m.lua("@/kong/plugins/a/handler.lua", 3);
    let (other, other_proto) = m.lua("@/s.lua", 3);
    let parent = m.thread(http);
    let child = m.thread(http);
    m.push(parent, entry, Call::Protected);
    m.push(child, plugin, Call::Protected);
    let (of_parent, of_child) = (m.room(32), m.room(32));
    m.word(of_parent + layout::co_context::STATE, parent);
    m.word(of_child + layout::co_context::STATE, child);
    m.word(of_child + layout::co_context::PARENT, of_parent);
    m.word(child + layout::state::EXDATA2 as u64, of_child);
    let main = Synthetic::main_of(stream);
    m.push(main, other, Call::C);
    m.runs(http, child, 0);
    m.runs(stream, main, 0);
    let mut stack = MachineStack::new(X86_64);
    let below = stack.cframe(64, child, 0, 0);
    let above = stack.cframe(640, main, 0, 0);
    m.word(child + layout::state::CFRAME as u64, below | 1);
    m.word(main + layout::state::CFRAME as u64, above);
    let expected = vec![
        (
            below,
            From::Interpreter,
            vec![id(plugin_proto), JOINT, id(phase_proto)],
        ),
        (above, From::Interpreter, vec![id(other_proto)]),
    ];
    assert_eq!(stack.segments(&m), expected);
    // A context that is another coroutine's is not believed.
    m.word(of_child + layout::co_context::STATE, parent);
    assert_eq!(stack.segments(&m)[0].2, [id(plugin_proto)]);
    // Nor is a chain of contexts that never ends.
    m.word(of_child + layout::co_context::STATE, child);
    m.word(of_parent + layout::co_context::PARENT, of_child);
    m.word(parent + layout::state::EXDATA2 as u64, of_parent);
    assert!(stack.segments(&m)[0].2.len() < 20);
}

#[test]
fn compiled_code_begins_at_jit_base_and_its_trace_is_found_when_it_comes() {
    let mut m = Synthetic::default();
    let global = m.vm();
    let state = Synthetic::main_of(global);
    let (f, prototype) = m.lua("@/x.lua", 1);
    let base = m.push(state, f, Call::C);
    let stale = m.push(state, f, Call::Lua(0x10));
    m.runs(global, state, base);
    let mut stack = MachineStack::new(X86_64);
    let cframe = stack.cframe(256, state, 0, 0);
    m.word(state + layout::state::CFRAME as u64, cframe);
    assert!(stale > base);
    let expected = vec![(cframe, From::Trace, vec![id(prototype)])];
    assert_eq!(stack.segments(&m), expected);

    let mut table = TraceTable::default();
    table.refresh(&m, global);
    assert!(table.find(MCODE).is_none());
    let (first, second) = (
        m.trace(1, MCODE, prototype),
        m.trace(2, MCODE + 256, prototype),
    );
    m.traces(global, &[first, 0]);
    assert_eq!(table.refresh(&m, global), 1);
    assert_eq!(table.find(MCODE + 255).unwrap().number, 1);
    assert!(table.find(MCODE + 256).is_none());
    m.traces(global, &[first, second]);
    assert_eq!(table.refresh(&m, global), 1, "only what is new is read");
    assert_eq!(table.find(MCODE + 256).unwrap().number, 2);
    assert_eq!(table.refresh(&m, global), 0);
    m.traces(global, &[0, second]);
    table.refresh(&m, global);
    assert!(table.find(MCODE + 4).is_none(), "a flushed trace is gone");
}

#[test]
fn functions_inlined_into_a_trace_are_told_by_its_snapshots() {
    let mut m = Synthetic::default();
    let global = m.vm();
    let (_, outer) = m.lua("@/x.lua", 1);
    let (inner, inner_proto) = m.lua("@/y.lua", 2);
    let trace = m.trace(1, MCODE, outer);
    // IR constants: the function at reference 10, the link at 12.
    let ir = m.room(256);
    m.word(ir + 11 * 8, inner);
    m.word(ir + 13 * 8, pc(outer, 4));
    let (snapshots, map) = (m.room(64), m.room(256));
    m.word(trace + layout::trace::IR as u64, ir);
    m.word(trace + layout::trace::SNAPSHOT as u64, snapshots);
    m.put(
        trace + layout::trace::SNAPSHOTS as u64,
        &2_u16.to_le_bytes(),
    );
    m.word(trace + layout::trace::MAP as u64, map);
    m.half(trace + layout::trace::MAP_WORDS as u64, 16);
    // The first snapshot has nothing inlined; the second a call into slot 3, so its base is 5 higher.
    m.word(map, pc(outer, 4) << 8);
    m.put(snapshots + 12, &2_u32.to_le_bytes());
    m.put(snapshots + 12 + 6, &64_u16.to_le_bytes());
    m.put(snapshots + 12 + 10, &[2]);
    m.half(map + 8, 5 << 24 | 10);
    m.half(map + 12, 6 << 24 | 0x1_0000 | 12);
    m.word(map + 16, pc(inner_proto, 9) << 8 | 5);
    m.traces(global, &[trace]);
    let mut table = TraceTable::default();
    table.refresh(&m, global);
    let trace = *table.find(MCODE).unwrap();
    assert_eq!(inlined(&m, &trace, MCODE + 63), []);
    assert_eq!(
        inlined(&m, &trace, MCODE + 64),
        [Inlined::Proto(inner_proto)]
    );
    assert_eq!(inlined(&m, &trace, MCODE - 1), []);
}

#[test]
fn a_build_without_the_structures_gives_nothing() {
    let mut m = Synthetic::default();
    let global = m.vm();
    let state = Synthetic::main_of(global);
    let (f, _) = m.lua("@/x.lua", 1);
    m.push(state, f, Call::C);
    let mut stack = MachineStack::new(X86_64);
    let cframe = stack.cframe(0, state, 0, 0);
    m.word(state + layout::state::CFRAME as u64, cframe);
    assert_eq!(stack.segments(&m).len(), 1);
    // 32-bit references: where the state should be is something else.
    m.put(state + layout::object::TYPE as u64, &[5]);
    assert_eq!(stack.segments(&m), []);
}

#[test]
fn a_name_is_read_only_from_what_lies_there_still() {
    let mut m = Synthetic::default();
    let prototype = m.prototype("@/usr/share/a.lua", 12);
    let head = |m: &Synthetic| {
        let mut bytes = [0; layout::prototype::HEAD_BYTES];
        super::memory::Memory::read(m, prototype, &mut bytes);
        names::key(&bytes)
    };
    let key = head(&m);
    let place = names::place(&m, prototype, key).unwrap();
    assert_eq!(
        (place.chunk, place.line),
        (Chunk::File("/usr/share/a.lua".into()), 12)
    );
    m.half(prototype + layout::prototype::FIRST_LINE as u64, 13);
    assert_eq!(
        names::place(&m, prototype, key),
        None,
        "reused by another function"
    );
    let huge = m.prototype(&format!("local x = {}", "1".repeat(100_000)), 1);
    let mut bytes = [0; layout::prototype::HEAD_BYTES];
    super::memory::Memory::read(&m, huge, &mut bytes);
    m.reads.set(0);
    let place = names::place(&m, huge, names::key(&bytes)).unwrap();
    assert!(place.chunk.text().len() < 20 && m.reads.get() < 10);
}

#[test]
fn builtins_are_named_by_the_vm_s_own_tables() {
    let mut m = Synthetic::default();
    let global = m.vm();
    let main = Synthetic::main_of(global);
    let table = |m: &mut Synthetic, entries: &[(&str, u64)]| {
        let nodes = m.room(24 * 4);
        for (i, (name, value)) in entries.iter().enumerate() {
            let key = m.string(name.as_bytes());
            m.word(nodes + i as u64 * 24, *value);
            m.word(nodes + i as u64 * 24 + 8, layout::slot::STRING << 47 | key);
        }
        let at = m.room(layout::table::BYTES as u64);
        m.put(at + layout::object::TYPE as u64, &[layout::object::TABLE]);
        m.word(at + layout::table::NODES as u64, nodes);
        m.half(at + layout::table::MASK as u64, 3);
        at
    };
    let tag = |at: u64| layout::slot::FUNCTION << 47 | at;
    let (format, next) = (m.function(80, C_CODE), m.function(7, C_CODE));
    let own = m.function(1, C_CODE);
    let string = table(&mut m, &[("format", tag(format)), ("own", tag(own))]);
    let globals = [
        ("next", tag(next)),
        ("string", layout::slot::TABLE << 47 | string),
    ];
    let globals = table(&mut m, &globals);
    m.word(main + layout::state::ENV as u64, globals);
    let builtins = Builtins::read(&m, global);
    assert_eq!(builtins.name(80), Some("string.format"));
    assert_eq!(builtins.name(7), Some("next"));
    assert_eq!(builtins.name(1), None);
    m.half(globals + layout::table::MASK as u64, u32::MAX);
    m.reads.set(0);
    Builtins::read(&m, global);
    assert!(
        m.reads.get() < 1000,
        "a table of four thousand million nodes"
    );
    // Thousands of libraries of one name, each as large as may be.
    let large = m.room(24 * 4096);
    let (key, string) = (m.string(b"string"), layout::slot::TABLE << 47 | globals);
    for i in 0..4096 {
        m.word(large + i * 24, string);
        m.word(large + i * 24 + 8, layout::slot::STRING << 47 | key);
    }
    m.word(globals + layout::table::NODES as u64, large);
    m.half(globals + layout::table::MASK as u64, 4095);
    m.reads.set(0);
    Builtins::read(&m, global);
    assert!(m.reads.get() < 50_000, "{} reads", m.reads.get());
}

proptest! {
    /// Words of the VM replaced at random: no panic, and a bounded number of reads.
    #[test]
    fn damaged_memory_costs_a_bounded_number_of_reads(
        damage in prop::collection::vec((0_u64..0x4000, any::<u64>(), any::<bool>()), 1..40),
    ) {
        let mut m = Synthetic::default();
        let global = m.vm();
        let state = Synthetic::main_of(global);
        let (f, prototype) = m.lua("@/x.lua", 1);
        m.push(state, f, Call::Protected);
        let base = m.push(state, f, Call::Lua(pc(prototype, 1)));
        m.runs(global, state, base);
        let trace = m.trace(1, MCODE, prototype);
        m.traces(global, &[trace]);
        let mut stack = MachineStack::new(X86_64);
        let cframe = stack.cframe(64, state, 0, 0);
        m.word(state + layout::state::CFRAME as u64, cframe);
        for (at, word, near) in damage {
            // Half of them point into the VM, as a corrupt pointer does.
            let word = if near { state + word % 0x4000 } else { word };
            m.word(state + (at & !7), word);
        }
        m.reads.set(0);
        let _ = stack.segments(&m);
        prop_assert!(m.reads.get() < 2000, "{} reads", m.reads.get());
        let mut table = TraceTable::default();
        table.refresh(&m, global);
        if let Some(trace) = table.find(MCODE) {
            let _ = inlined(&m, trace, MCODE + 8);
        }
        let _ = Builtins::read(&m, global);
    }
}
