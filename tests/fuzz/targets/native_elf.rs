//! Files that a target has mapped, as the sampler reads them for names and unwinding: damaged and
//! hostile ones never panic it, never hold it up, and give no function outside of what they state.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the sampler's own files are compiled in; not all of them is called"
)]

#[path = "../../../agent/native/src/arch.rs"]
mod arch;
#[path = "../../../agent/native/src/cfi.rs"]
mod cfi;
#[path = "../../../agent/native/src/elf.rs"]
mod elf;
#[path = "../../../agent/native/src/file.rs"]
mod file;
#[path = "../../../agent/native/src/symbols.rs"]
mod symbols;
#[path = "../../../agent/native/src/sys.rs"]
mod sys;

use arch::{REGISTERS, Regs};
use cfi::{CfiTable, Rule};
use elf::Want;
use fleetflame_fuzz::Input;
use gimli::UnwindContext;
use libfuzzer_sys::fuzz_target;

/// Addresses that are looked up in each file.
const LOOKUPS: u64 = 64;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 2 {
        0 => image(input.rest()),
        _ => unwind(&CfiTable::parse(
            input.rest().to_vec(),
            0x1000,
            0x2000,
            0x3000,
        )),
    }
});

fn image(bytes: &[u8]) {
    let image = bytes.to_vec();
    let _ = elf::parse(&image, Want::Identity);
    let _ = elf::parse(&image, Want::Symbols);
    let Ok(elf) = elf::parse(&image, Want::All) else {
        return;
    };
    for address in (0..LOOKUPS).chain(elf.entry..elf.entry.saturating_add(LOOKUPS)) {
        let function = elf.function(address);
        assert!(
            function.start <= address,
            "a function begins behind its address"
        );
        if let Some(name) = function.name {
            let _ = model::demangle::demangle(name);
        }
        let _ = elf.bias(address, 0, 4096);
    }
    unwind(&elf.cfi);
}

fn unwind(table: &CfiTable) {
    // As the sampler looks for LuaJIT's interpreter, but in functions of any length.
    let _ = table.function_with_fixed_frame(1, &[(7, 80), (7, 96)], &[(6, -16), (3, -24)]);
    let mut context = UnwindContext::new();
    let mut left = usize::MAX;
    let regs = Regs {
        ip: 0x1010,
        r: std::array::from_fn::<_, REGISTERS, _>(|i| 0x7000 + i as u64 * 8),
    };
    let mut read = |at: u64| (at >= 0x7000).then_some(at.wrapping_mul(31));
    for address in (0..LOOKUPS).chain((0x1000..0x1000 + LOOKUPS * 16).step_by(16)) {
        match table.rule(address, &mut context, &mut left) {
            Rule::Row(row) => drop(row.step(&regs, &mut read)),
            Rule::Expressions => {
                let context = &mut context;
                let _ = table.step_by_expressions(address, 0, &regs, context, &mut left, &mut read);
            }
            Rule::End | Rule::Unknown => {}
        }
    }
}
