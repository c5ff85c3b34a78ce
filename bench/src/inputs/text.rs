//! Tracers' text. In: a kind, a size, a seed. Out: what SystemTap's sample-bt or `perf script` would
//! print, byte for byte the same each time. Never: more in memory than one block.
//!
//! The forms of lines are those of SystemTap 4 (`runtime/sym.c`, `runtime/unwind.c` with
//! `-DDEBUG_UNWIND`) and of perf 6 (`perf script` without options).

use super::functions::{Function, KERNEL, LIBC, LUAJIT, NGINX, OPENSSL, functions};
use super::random::{Random, mix};
use super::stacks::{Pool, Stack};
use std::io::{self, Write};

/// What a text is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SystemTap, 20,000 stacks, few of them often.
    StapDup,
    /// SystemTap, mostly distinct stacks, 3 % of the frames without a symbol.
    StapUniq,
    /// SystemTap with the unwinder's debug output before 0.9 MB of stacks: the field report's case.
    StapDbg,
    /// `perf script`, the stacks of `StapDup`.
    PerfDup,
    /// `perf script`, the stacks of `StapUniq`.
    PerfUniq,
}

impl Kind {
    /// Its name, also of its file.
    pub fn word(self) -> &'static str {
        match self {
            Self::StapDup => "stap-dup",
            Self::StapUniq => "stap-uniq",
            Self::StapDbg => "stap-dbg",
            Self::PerfDup => "perf-dup",
            Self::PerfUniq => "perf-uniq",
        }
    }

    fn is_stap(self) -> bool {
        matches!(self, Self::StapDup | Self::StapUniq | Self::StapDbg)
    }

    fn is_unique(self) -> bool {
        matches!(self, Self::StapUniq | Self::PerfUniq)
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes in all.
    pub bytes: u64,
    /// Blocks of a stack and its count, or samples.
    pub blocks: u64,
    /// Lines that are no part of a stack.
    pub foreign_lines: u64,
    /// Their bytes; they stand before all stacks.
    pub foreign_bytes: u64,
}

/// Bytes of stacks behind the debug output.
const CLEAN_BYTES: u64 = 900_000;
const FUNCTIONS: usize = 6_000;
pub const FUNCTIONS_SEED: u64 = 42;

/// The functions that all inputs share.
pub fn gateway() -> Vec<Function> {
    functions(FUNCTIONS, FUNCTIONS_SEED)
}

/// Writes at least `bytes` bytes of `kind`.
pub fn write(sink: &mut dyn Write, kind: Kind, bytes: u64, seed: u64) -> io::Result<Written> {
    let mut random = Random(seed);
    let functions = gateway();
    let count = if kind.is_unique() { 200_000 } else { 20_000 };
    let pool = Pool::grow(&mut random, &functions, count, 20..60);
    let mut done = Written::default();
    if kind == Kind::StapDbg {
        while done.bytes < bytes.saturating_sub(CLEAN_BYTES) {
            let text = unwinder_debug(&mut random);
            sink.write_all(text.as_bytes())?;
            done.bytes += text.len() as u64;
            done.foreign_lines += text.lines().count() as u64;
        }
        done.foreign_bytes = done.bytes;
    }
    let mut text = Vec::with_capacity(1 << 16);
    let mut clock_us = 7_628_263_042_515_u64;
    while done.bytes < bytes {
        text.clear();
        let stack = choose(&mut random, &pool, &functions, kind);
        if kind.is_stap() {
            done.blocks += 1;
            stap_block(
                &mut text,
                &mut random,
                &functions,
                &stack,
                kind,
                done.blocks,
            );
        } else {
            clock_us += 10_000 + random.below(100);
            done.blocks += 1;
            perf_sample(&mut text, &mut random, &functions, &stack, kind, clock_us);
        }
        sink.write_all(&text)?;
        done.bytes += text.len() as u64;
    }
    sink.flush()?;
    Ok(done)
}

fn choose(random: &mut Random, pool: &Pool, functions: &[Function], kind: Kind) -> Stack {
    let count = pool.stacks.len() as u64;
    if !kind.is_unique() {
        return pool.stacks[random.rank_below(count) as usize].clone();
    }
    let from = random.below(count) as usize;
    if random.below(3) == 0 {
        pool.branch(random, functions, from)
    } else {
        pool.stacks[from].clone()
    }
}

/// In the mostly distinct kinds these functions have no symbol.
fn is_nameless(kind: Kind, function: u16) -> bool {
    kind.is_unique() && function > 9 && function % 29 == 3
}

fn stap_block(
    text: &mut Vec<u8>,
    random: &mut Random,
    functions: &[Function],
    stack: &Stack,
    kind: Kind,
    block: u64,
) {
    // Writing to memory does not fail.
    for &number in stack.iter().rev() {
        let f = &functions[usize::from(number)];
        if is_nameless(kind, number) {
            if number % 2 == 1 {
                let _ = writeln!(text, " {:#x}", jit_address(random));
            } else {
                let offset = random.rank_below(1 << 14) * 6;
                let (at, module) = (f.start + offset, f.module);
                let _ = writeln!(text, " {at:#x} [{module}+{offset:#x}/{:#x}]", 1 << 21);
            }
            continue;
        }
        let returns = if kind.is_unique() { 16 } else { 6 };
        let offset = offset(random, number, returns, f);
        let Function {
            name,
            module,
            start,
            size,
        } = f;
        let at = start + offset;
        let _ = writeln!(text, " {at:#x} : {name}+{offset:#x}/{size:#x} [{module}]");
    }
    let count = (4_000.0 / block as f64) as u64 + 1 + random.below(2);
    let _ = writeln!(text, "\t{count}");
}

fn perf_sample(
    text: &mut Vec<u8>,
    random: &mut Random,
    functions: &[Function],
    stack: &Stack,
    kind: Kind,
    clock_us: u64,
) {
    let pid = 17_816 + random.below(8);
    let (seconds, micros) = (clock_us / 1_000_000, clock_us % 1_000_000);
    let cpu = random.below(16);
    let _ = writeln!(
        text,
        "nginx {pid:>5}/{pid:<5} [{cpu:03}] {seconds}.{micros:06}:   10101010 cpu-clock: "
    );
    for &number in stack.iter().rev() {
        let f = &functions[usize::from(number)];
        let offset = offset(random, number, 6, f);
        let (at, name, module) = (f.start + offset, &f.name, f.module);
        if is_nameless(kind, number) {
            let at = jit_address(random);
            let _ = writeln!(text, "\t{at:>16x} [unknown] (/tmp/perf-17816.map)");
        } else if f.is_kernel() {
            let _ = writeln!(text, "\t{at:x} {name}+{offset:#x} ([kernel.kallsyms])");
        } else {
            let _ = writeln!(text, "\t{at:>16x} {name}+{offset:#x} ({module})");
        }
    }
    text.push(b'\n');
}

/// Where in a function a call returns to; a function has few such places.
fn offset(random: &mut Random, function: u16, returns: u64, f: &Function) -> u64 {
    (mix(u64::from(function), random.below(returns)) % f.size) & !1
}

fn jit_address(random: &mut Random) -> u64 {
    0x4000_0000 + random.rank_below(1 << 18) * 4
}

/// What one unwound stack leaves in the data stream under `-DDEBUG_UNWIND`. The unwinder names its
/// lines `function:line:`; the values are made up.
fn unwinder_debug(random: &mut Random) -> String {
    use std::fmt::Write as _;
    const MODULES: [&str; 5] = [NGINX, LUAJIT, OPENSSL, LIBC, KERNEL];
    let mut text = String::new();
    let mut pc = 0x7f00_0000_0000 + random.below(1 << 28);
    for _ in 0..8 + random.below(20) {
        let module = MODULES[random.below(5) as usize];
        let cie = 0xffff_ffff_a000_0000 + random.below(1 << 24);
        let fde = cie + random.below(1 << 16);
        let (start, offset) = (pc & !0xfff, fde & 0xffff);
        let end = start + 0x300;
        let _ = write!(
            text,
            "unwind:1490: pc={pc:x}, {pc:x}\n\
             _stp_search_unwind_hdr:787: binary search for {pc:x}\n\
             _stp_search_unwind_hdr:852: fde off={offset:x}\n\
             _stp_search_unwind_hdr:862: returning fde={fde:x} startLoc={start:x}\n\
             unwind_frame:1207: {module}: fde={fde:x}\n\
             unwind_frame:1275: cie={cie:x} fde={fde:x} startLoc={start:x} endLoc={end:x}, pc={pc:x}\n\
             unwind_frame:1296: processCFI for CIE\n\
             processCFI:523: DW_CFA_def_cfa reg=7\n\
             set_rule:249: reg=10, where=1\n\
             processCFI:629: map DW_CFA_offset value 16 to reg_info idx 16\n\
             unwind_frame:1304: processCFI for FDE\n"
        );
        for _ in 0..random.below(9) {
            let (cfa, register) = (8 * (1 + random.below(20)), random.below(16));
            let _ = write!(
                text,
                "processCFI:624: DW_CFA_advance_loc\n\
                 processCFI:656: targetLoc={pc:x} state->loc={start:x}\n\
                 processCFI:537: DW_CFA_def_cfa_offset offs={cfa:x}\n\
                 set_rule:249: reg={register:x}, where=1\n"
            );
        }
        let cfa = 0x7ffc_0000_0000_u64 + random.below(1 << 20);
        let _ = write!(
            text,
            "unwind_frame:1328: cfa={cfa:x} startLoc={start:x}, endLoc={end:x}\n\
             unwind_frame:1447: set register 16 to {pc:x}\n\
             unwind_frame:1458: returning 0 ({pc:x})\n"
        );
        pc = 0x7f00_0000_0000 + random.below(1 << 28);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, bytes: u64, seed: u64) -> (Vec<u8>, Written) {
        let mut out = Vec::new();
        let written = write(&mut out, kind, bytes, seed).unwrap();
        (out, written)
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_everywhere() {
        for (kind, hash) in [
            (Kind::StapDup, "a117a17ef3685a22"),
            (Kind::StapUniq, "cafe5c6e4e532b22"),
            (Kind::StapDbg, "e100076c27c76b44"),
            (Kind::PerfDup, "a176e2888a63a699"),
            (Kind::PerfUniq, "95415fd85fc965f3"),
        ] {
            let (out, written) = text(kind, 1_500_000, 7);
            assert_eq!(written.bytes, out.len() as u64);
            let found = blake3::hash(&out).to_hex();
            assert_eq!(&found[..16], hash, "{}", kind.word());
        }
        let of_seed = |seed| text(Kind::StapDup, 100_000, seed).0;
        assert_ne!(of_seed(7), of_seed(8));
    }

    #[test]
    fn the_debug_output_stands_before_the_stacks_and_is_counted() {
        let (out, written) = text(Kind::StapDbg, 1_500_000, 7);
        let (foreign, clean) = out.split_at(written.foreign_bytes as usize);
        assert_eq!(bytecount(foreign, b'\n') as u64, written.foreign_lines);
        assert!(!foreign.windows(4).any(|w| w == b"\n 0x"));
        assert_eq!(clean.first(), Some(&b' '));
        let counts = clean
            .split(|b| *b == b'\n')
            .filter(|l| l.first() == Some(&b'\t'));
        assert_eq!(counts.count() as u64, written.blocks);
    }

    fn bytecount(text: &[u8], byte: u8) -> usize {
        text.iter().filter(|b| **b == byte).count()
    }
}
