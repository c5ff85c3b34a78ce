//! Functions that were inlined into a trace. In: a trace and an address of its code. Out: their
//! prototypes, leaf first. Never: the function that the trace begins in (the Lua stack has it).
//!
//! For each place where a trace may be left, a snapshot says which values the interpreter's stack must
//! get: among them functions and links of the frames that the trace never made. The last snapshot whose
//! code begins at or before an address tells what was inlined there.

use super::layout::{function, slot, snapshot};
use super::memory::{Memory, half_at, is_object, quarter_at, word_at};
use super::trace::Trace;
use super::walk::{Kind, kind_of};

/// Snapshots of one trace that are looked at.
const SNAPSHOTS_MAX: usize = 4096;
/// Words of the map that belong to one snapshot: entries, program counter and base.
const ENTRIES_MAX: usize = 256;
/// Frames that are inlined into each other.
const DEPTH_MAX: usize = 32;
/// Bytes of one instruction of the IR; a constant of 64 bits takes the next one.
const IR_BYTES: u64 = 8;

/// What is inlined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inlined {
    /// A function, by its prototype.
    Proto(u64),
    /// One that is only known by an instruction of its own.
    Owner(u64),
}

/// Prototypes of what is inlined at `address`, leaf first; empty when nothing is, or when the build
/// does not say.
pub fn inlined(memory: &impl Memory, trace: &Trace, address: u64) -> Vec<Inlined> {
    frames(memory, trace, address).unwrap_or_default()
}

fn frames(memory: &impl Memory, trace: &Trace, address: u64) -> Option<Vec<Inlined>> {
    let at = address.checked_sub(trace.code)?;
    let count = usize::from(trace.snapshots.1).min(SNAPSHOTS_MAX);
    let mut bytes = vec![0; count * snapshot::BYTES];
    let got = read_all(memory, trace.snapshots.0, &mut bytes);
    // Builds before 2023 leave all of them at 0, and the last would be taken for any address.
    let begins = |s: &[u8]| u64::from(quarter_at(s, snapshot::CODE_AT));
    let all = || bytes[..got].chunks_exact(snapshot::BYTES);
    if all().skip(1).all(|s| begins(s) == 0) {
        return None;
    }
    let chosen = all().rfind(|s| begins(s) <= at)?;
    let entries = usize::from(*chosen.get(snapshot::ENTRIES)?).min(ENTRIES_MAX);
    let map_at = half_at(chosen, snapshot::MAP_AT);
    if u64::from(map_at) + entries as u64 + 2 > u64::from(trace.map.1) {
        return None;
    }
    let mut map = vec![0; (entries + 2) * 4];
    let start = trace.map.0.checked_add(u64::from(map_at) * 4)?;
    if read_all(memory, start, &mut map) != map.len() {
        return None;
    }
    let constant = |wanted: u64| {
        let entry = map[..entries * 4]
            .chunks_exact(4)
            .map(|e| half_at(e, 0))
            .find(|e| u64::from(e >> 24) == wanted)?;
        let ir = trace
            .ir
            .checked_add((u64::from(entry & 0xffff) + 1) * IR_BYTES)?;
        memory.word(ir)
    };
    let behind = word_at(&map, entries * 4);
    // Slots are numbered from the function slot of the frame that the trace begins with: its base is 2.
    let (mut pc, mut base) = (behind >> 8, (behind & 0xff) + 2);
    let mut found = Vec::new();
    let mut twin = false;
    while base > 2 && found.len() < DEPTH_MAX {
        if !twin {
            let known = constant(base - 2).and_then(|w| prototype(memory, w));
            found.push(known.unwrap_or(Inlined::Owner(pc)));
        }
        let Some(link) = constant(base - 1) else {
            break;
        };
        twin = link & 7 == 3;
        let down = if link & 3 == 0 {
            pc = link;
            match pc.checked_sub(4).and_then(|at| memory.bytes::<4>(at)) {
                Some(call) => 2 + u64::from(call[1]),
                None => break,
            }
        } else {
            (link & !7) / 8
        };
        base = base.saturating_sub(down.max(1));
    }
    Some(found)
}

fn prototype(memory: &impl Memory, word: u64) -> Option<Inlined> {
    let address = word & ((1 << slot::ADDRESS_BITS) - 1);
    if !is_object(address) {
        return None;
    }
    let bytes: [u8; function::BYTES] = memory.bytes(address)?;
    match kind_of(&bytes)? {
        Kind::Lua(prototype) => Some(Inlined::Proto(prototype)),
        Kind::C | Kind::Builtin(_) => None,
    }
}

fn read_all(memory: &impl Memory, address: u64, into: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < into.len() {
        let got = memory.read(address.saturating_add(filled as u64), &mut into[filled..]);
        if got == 0 {
            break;
        }
        filled += got;
    }
    filled
}
