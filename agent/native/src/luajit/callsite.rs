//! What its caller calls a function: for functions whose source is not at hand. In: a caller's prototype
//! and the call in it. Out: an identifier. Never: a text that is none (a key of a table may be anything),
//! work without a bound.
//!
//! By the rules of `debug.getinfo` (lj_debug.c): the slot that is called is a local variable of that name,
//! or was loaded last from a global, a field, a method or an upvalue. Builds that strip bytecode keep the
//! names of globals and fields, which are constants of the program.

use super::layout::{bytecode, object, prototype};
use super::memory::{Memory, half_at, is_object, quarter_at, word_at};
use super::names;

/// Copies between slots that are followed: each of them looks through all variables of the function.
const COPIES_MAX: u32 = 8;
/// Instructions before a call that are looked at.
const INSTRUCTIONS_MAX: u32 = 4096;
/// Bytes of the names and ranges of a function's variables that are read.
const NAMES_BYTES_MAX: u64 = 32 << 10;
/// Longest name.
const NAME_BYTES_MAX: usize = 120;
/// Variables of the compiler's own come before this: the control of loops.
const OWN_NAMES: u8 = 7;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The caller's prototype.
    pub prototype: u64,
    /// What tells it from another that lies there later.
    pub key: u64,
    /// The instruction, counted from the head of the function, which is 0.
    pub instruction: u32,
}

/// The number of the call before `pc` in the function with this prototype; 0 when it can be none.
#[must_use]
pub fn instruction(prototype: u64, pc: u64) -> u32 {
    let first = prototype.saturating_add(prototype::BYTES as u64);
    let bytes = pc.saturating_sub(first);
    let number = if bytes.is_multiple_of(4) {
        bytes / 4
    } else {
        0
    };
    u32::try_from(number.saturating_sub(1)).unwrap_or(0)
}

/// What the function is called there; none when the caller does not say, or is another one now.
pub fn name(memory: &impl Memory, call: Call) -> Option<String> {
    if !is_object(call.prototype) {
        return None;
    }
    let head: [u8; prototype::BYTES] = memory.bytes(call.prototype)?;
    let count = half_at(&head, prototype::INSTRUCTIONS);
    let is_it = head[object::TYPE] == object::PROTO && names::key(&head) == call.key;
    if !is_it || call.instruction == 0 || call.instruction >= count {
        return None;
    }
    let from = call.instruction.saturating_sub(INSTRUCTIONS_MAX);
    let mut code = vec![0; 4 * (call.instruction - from + 1) as usize];
    let start = call.prototype + prototype::BYTES as u64 + 4 * u64::from(from);
    if memory.read(start, &mut code) != code.len() {
        return None;
    }
    let caller = Caller {
        memory,
        address: call.prototype,
        head: &head,
        code: &code,
        from,
    };
    let instruction = caller.at(call.instruction)?;
    let slot = match instruction.op {
        bytecode::CALL | bytecode::CALLM => instruction.a,
        bytecode::ITERC | bytecode::ITERN => instruction.a.checked_sub(3)?,
        _ => return None,
    };
    identifier(&caller.name_of_slot(call.instruction, slot)?)
}

fn identifier(bytes: &[u8]) -> Option<String> {
    let is_word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    let fits = (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && bytes.iter().all(is_word)
        && !bytes[0].is_ascii_digit();
    fits.then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[derive(Clone, Copy)]
struct Instruction {
    op: u8,
    a: u8,
    c: u8,
    d: u16,
}

struct Caller<'a, M> {
    memory: &'a M,
    address: u64,
    head: &'a [u8],
    code: &'a [u8],
    /// Number of the first instruction in `code`.
    from: u32,
}

impl<M: Memory> Caller<'_, M> {
    fn at(&self, number: u32) -> Option<Instruction> {
        let at = usize::try_from(number.checked_sub(self.from)?).ok()? * 4;
        let bytes = self.code.get(at..at + 4)?;
        Some(Instruction {
            op: bytes[0],
            a: bytes[1],
            c: bytes[2],
            d: quarter_at(bytes, 2),
        })
    }

    /// Goes back from a call to what was loaded into the slot last.
    fn name_of_slot(&self, call: u32, mut slot: u8) -> Option<Vec<u8>> {
        let variables = self.variables();
        if let Some(local) = local(&variables, call, slot) {
            return Some(local);
        }
        let mut number = call;
        let mut copies = 0;
        loop {
            number = number.checked_sub(1).filter(|n| *n > 0)?;
            let i = self.at(number)?;
            if bytecode::writes_from_a_on(i.op) {
                let touched = slot >= i.a && (i.op != bytecode::KNIL || u16::from(slot) <= i.d);
                if touched {
                    return None;
                }
            } else if bytecode::writes_a(i.op) && i.a == slot {
                match i.op {
                    bytecode::MOV => {
                        copies += 1;
                        if copies > COPIES_MAX {
                            return None;
                        }
                        slot = u8::try_from(i.d).ok()?;
                        if let Some(local) = local(&variables, number, slot) {
                            return Some(local);
                        }
                    }
                    bytecode::GGET => return self.constant(i.d),
                    bytecode::TGETS => return self.constant(u16::from(i.c)),
                    bytecode::UGET => return self.upvalue(i.d),
                    _ => return None,
                }
            }
        }
    }

    /// A string among the constants: they lie before where `k` points, counted downwards.
    fn constant(&self, number: u16) -> Option<Vec<u8>> {
        let k = word_at(self.head, prototype::CONSTANTS);
        let at = k.checked_sub(8 * (u64::from(number) + 1))?;
        let (text, length) = names::text(self.memory, self.memory.word(at)?, NAME_BYTES_MAX)?;
        (length == text.len()).then_some(text)
    }

    fn upvalue(&self, number: u16) -> Option<Vec<u8>> {
        if number >= u16::from(self.head[prototype::UPVALUES]) {
            return None;
        }
        let names = self.debug_bytes(prototype::UPVALUE_NAMES);
        names
            .split(|c| *c == 0)
            .nth(usize::from(number))
            .map(<[u8]>::to_vec)
    }

    fn variables(&self) -> Vec<u8> {
        self.debug_bytes(prototype::VARIABLES)
    }

    /// What lies from a pointer of the prototype on to its end; empty when it was stripped.
    fn debug_bytes(&self, pointer: usize) -> Vec<u8> {
        let at = word_at(self.head, pointer);
        let end = self
            .address
            .saturating_add(u64::from(half_at(self.head, prototype::SIZE)));
        if at < self.address || at >= end {
            return Vec::new();
        }
        let length = (end - at).min(NAMES_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let got = self.memory.read(at, &mut bytes);
        bytes.truncate(got);
        bytes
    }
}

/// The variable that lives in a slot at an instruction. Each is a name, how far after the one before it
/// begins, and how long it lives; numbers are LEB128.
fn local(variables: &[u8], number: u32, slot: u8) -> Option<Vec<u8>> {
    let mut rest = variables;
    let mut begin = 0_u32;
    let mut left = slot;
    loop {
        let first = *rest.first()?;
        let name = match first {
            0 => return None,
            own if own < OWN_NAMES => &rest[..1],
            _ => rest.get(..rest.iter().position(|c| *c == 0)?)?,
        };
        rest = rest.get(if first < OWN_NAMES { 1 } else { name.len() + 1 }..)?;
        begin = begin.saturating_add(leb128(&mut rest)?);
        if begin > number {
            return None;
        }
        let end = begin.saturating_add(leb128(&mut rest)?);
        if number < end {
            if left == 0 {
                return Some(name.to_vec());
            }
            left -= 1;
        }
    }
}

fn leb128(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u32;
    for shift in (0..32).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
#[path = "callsite_tests.rs"]
mod tests;
