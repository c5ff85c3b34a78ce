//! Lua stacks and traces of hostile memory: each costs a bounded number of reads, and what was left out is
//! said.

use super::layout::{self, X86_64};
use super::segment::{self, From, Item};
use super::synthetic::{CUT, Call, MCODE, MachineStack, STACK, Synthetic, pc};
use super::trace::TraceTable;

#[test]
fn a_corrupt_lua_stack_is_bounded_and_marked() {
    let corrupt = |links: &dyn Fn(&mut Synthetic, u64, u64)| {
        let mut m = Synthetic::default();
        let global = m.vm();
        let state = Synthetic::main_of(global);
        let (f, prototype) = m.lua("@/x.lua", 1);
        m.push(state, f, Call::Protected);
        let base = m.push(state, f, Call::Lua(pc(prototype, 1)));
        m.runs(global, state, 0);
        let mut stack = MachineStack::new(X86_64);
        let cframe = stack.cframe(0, state, 0, 0);
        m.word(state + layout::state::CFRAME as u64, cframe);
        links(&mut m, state, base);
        m.reads.set(0);
        let segments = stack.segments(&m);
        (segments, m.reads.get())
    };
    let failed = |case: &str, links: &dyn Fn(&mut Synthetic, u64, u64)| {
        let (segments, reads) = corrupt(links);
        assert!(reads < 100, "{case}: {reads} reads");
        let fails = segments.iter().all(|s| s.1 == From::Nowhere);
        assert!(fails, "{case}: {segments:?}");
    };
    failed("a link to itself", &|m, _, base| m.word(base - 8, 2));
    failed("a link upwards", &|m, _, base| {
        m.word(base - 8, 0xffff_ffff_ffff_fff6)
    });
    failed("a link below the stack", &|m, _, base| {
        m.word(base - 8, 1 << 40 | 6)
    });
    failed("a program counter nowhere", &|m, _, base| {
        m.word(base - 8, 0x4444_0000)
    });
    let (segments, _) = corrupt(&|m, state, _| {
        m.half(state + layout::state::STACK_SLOTS as u64, u32::MAX);
    });
    assert_eq!(segments, [], "a stack of 32 GiB");
    let (segments, _) = corrupt(&|m, state, _| m.word(state + layout::state::STACK as u64, 3));
    assert_eq!(segments, []);
}

#[test]
fn a_stack_deeper_than_there_is_room_for_says_so() {
    let mut m = Synthetic::default();
    let global = m.vm();
    let state = Synthetic::main_of(global);
    let stack_at = m.room(64 << 10);
    m.word(state + layout::state::STACK as u64, stack_at);
    m.word(state + layout::state::BASE as u64, stack_at + 16);
    m.half(state + layout::state::STACK_SLOTS as u64, 8192);
    let (f, prototype) = m.lua("@/x.lua", 1);
    m.push(state, f, Call::Protected);
    for _ in 0..500 {
        m.push(state, f, Call::Lua(pc(prototype, 1)));
    }
    m.runs(global, state, 0);
    let mut stack = MachineStack::new(X86_64);
    let cframe = stack.cframe(0, state, 0, 0);
    m.word(state + layout::state::CFRAME as u64, cframe);
    let segments = stack.segments(&m);
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].1, From::Interpreter);
    assert!(segments[0].2.len() > 150 && segments[0].2.last() == Some(&CUT));
}

/// A coroutine with a Lua stack of 64 KiB, on which frames lie this many bytes above each other.
fn deep(down: u64, frames: u64, is_function: bool) -> (Synthetic, MachineStack) {
    let mut m = Synthetic::default();
    let global = m.vm();
    let state = Synthetic::main_of(global);
    let lua_stack = m.room(64 << 10);
    let (f, _) = m.lua("@/x.lua", 1);
    m.word(state + layout::state::STACK as u64, lua_stack);
    m.half(state + layout::state::STACK_SLOTS as u64, 8192);
    for i in 1..=frames {
        let base = lua_stack + 16 + i * down;
        let tag = if is_function {
            layout::slot::FUNCTION
        } else {
            0x1_fffb
        };
        m.word(base - 16, tag << layout::slot::ADDRESS_BITS | f);
        m.word(base - 8, down | 6);
        m.word(state + layout::state::BASE as u64, base);
    }
    m.runs(global, state, 0);
    let mut stack = MachineStack::new(X86_64);
    let cframe = stack.cframe(0, state, 0, 0);
    m.word(state + layout::state::CFRAME as u64, cframe);
    m.reads.set(0);
    (m, stack)
}

#[test]
fn frames_below_what_is_read_of_a_lua_stack_are_said_to_be_cut_and_not_to_have_failed() {
    let (m, stack) = deep(2048, 30, true);
    let segments = stack.segments(&m);
    assert_eq!(segments[0].1, From::Interpreter);
    assert!(segments[0].2.len() > 10 && segments[0].2.last() == Some(&CUT));
    let (m, stack) = deep(2048, 10, true);
    assert_eq!(stack.segments(&m)[0].2.len(), 10, "whole where it fits");
}

#[test]
fn frames_that_are_no_functions_cost_a_bounded_number_of_steps() {
    let (m, stack) = deep(16, 1400, false);
    let segments = stack.segments(&m);
    assert_eq!(segments, [(STACK, From::Interpreter, vec![CUT])]);
}

#[test]
fn a_walk_ends_with_its_time_and_says_so() {
    let (m, stack) = deep(64, 150, true);
    assert_eq!(stack.segments(&m)[0].2.len(), 150);
    let asked = std::cell::Cell::new(0);
    let keep = stack.kept_in_time(&m, &|| {
        asked.set(asked.get() + 1);
        asked.get() < 4
    });
    let items: Vec<_> = segment::read(&keep)
        .flat_map(|s| s.items().collect::<Vec<_>>())
        .collect();
    assert_eq!(items.last(), Some(&Item::Cut));
    assert!((16..64).contains(&items.len()), "{}", items.len());
}

#[test]
fn a_table_of_traces_is_searched_for_within_bounds() {
    let mut m = Synthetic::default();
    let global = m.vm();
    let (_, prototype) = m.lua("@/x.lua", 1);
    let traces: Vec<u64> = (1..=100)
        .map(|number| m.trace(number, MCODE + u64::from(number) * 256, prototype))
        .collect();
    // Each word of the VM leads to a hundred traces and one that is none.
    let table = m.room(8 * 128);
    for (i, trace) in traces.iter().enumerate() {
        m.word(table + 8 * (i as u64 + 1), *trace);
    }
    m.word(table + 8 * 120, prototype);
    for at in (0x200..0x1800).step_by(16) {
        m.word(global + at, table);
        m.half(global + at + 8, 1);
        m.half(global + at + 12, 128);
    }
    m.reads.set(0);
    let mut found = TraceTable::default();
    assert_eq!(found.refresh(&m, global), 0);
    assert!(
        !found.is_known() && m.reads.get() < 1100,
        "{} reads",
        m.reads.get()
    );
}

#[test]
fn more_traces_than_are_read_at_once_come_with_the_next_refreshments() {
    let mut m = Synthetic::default();
    let global = m.vm();
    let (_, prototype) = m.lua("@/x.lua", 1);
    let traces: Vec<u64> = (1..=5000)
        .map(|number| m.trace(number, MCODE + u64::from(number) * 256, prototype))
        .collect();
    m.traces(global, &traces);
    let mut table = TraceTable::default();
    let read: Vec<usize> = (0..3).map(|_| table.refresh(&m, global)).collect();
    assert_eq!(read, [4096, 904, 0]);
    assert_eq!(table.find(MCODE + 5000 * 256).unwrap().number, 5000);
}
