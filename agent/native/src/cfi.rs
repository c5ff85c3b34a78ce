//! Call frame information: function starts and how to find the caller. In: `.eh_frame`. Out: for
//! an address its function's start, for registers the caller's registers. Never: work without a
//! bound (tables come from files of the target).
//!
//! gimli decodes, the stepping is ours: all callee-saved registers are followed (assembler in
//! libcrypto and signal frames need more than three), expressions have a bound of iterations, and
//! one cache of rows serves all processes with the same module.

use crate::arch::{self, REGISTERS, Regs};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, Evaluation, EvaluationResult,
    Expression, LittleEndian, Location, Register, RegisterRule, UnwindContext, UnwindExpression,
    UnwindSection, UnwindTableRow, Value,
};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Most functions that are kept of one module.
const FDES_MAX: usize = 4 << 20;
/// Longest run of instructions of one function that is executed.
const INSTRUCTION_BYTES_MAX: usize = 64 << 10;
/// Large functions of one module that are looked at for a fixed frame.
const LARGE_MAX: usize = 10_000;
/// Bytes of instructions that are executed to find a function with a fixed frame in one module.
const SEARCH_BYTES_MAX: usize = 8 << 20;
/// Most steps of one DWARF expression. Those of procedure linkage tables have ten.
const ITERATIONS_MAX: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fde {
    start: u64,
    length: u64,
    offset: usize,
}

/// The call frame information of one module; addresses are ELF virtual addresses.
#[derive(Debug, Default)]
pub struct CfiTable {
    eh_frame: Vec<u8>,
    bases: BaseAddresses,
    fdes: Vec<Fde>,
}

/// Where the caller's value of a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It was not changed.
    Same,
    /// In memory at CFA plus this.
    AtCfa(i64),
    /// It is CFA plus this.
    IsCfa(i64),
    /// There is none: the stack ends here.
    Undefined,
}

/// How to unwind at one address, small enough to be cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    cfa_register: u16,
    cfa_offset: i64,
    return_address: Place,
    kept: [Place; arch::KEPT.len()],
}

/// How to unwind at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The outermost frame.
    End,
    /// By offsets.
    Row(Row),
    /// By expressions; [`CfiTable::step_by_expressions`] evaluates them each time.
    Expressions,
    /// Nothing is known about this address.
    Unknown,
}

/// The caller, as a step found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one step")]
pub enum Step {
    /// The caller's registers. After a signal frame they are the interrupted code's own, so that
    /// `ip` is not a return address.
    Caller {
        /// Registers.
        regs: Regs,
        /// Whether `ip` was interrupted rather than left by a call.
        interrupted: bool,
    },
    /// There is no caller.
    End,
    /// The stack could not be read at this address.
    Unreadable(u64),
    /// The tables do not say, or say something impossible.
    Failed,
}

impl CfiTable {
    /// Reads the table of functions. `address`, `text` and `got` are the ELF addresses of the
    /// sections. What cannot be decoded is left out.
    #[must_use]
    pub fn parse(eh_frame: Vec<u8>, address: u64, text: u64, got: u64) -> Self {
        let bases = BaseAddresses::default()
            .set_eh_frame(address)
            .set_text(text)
            .set_got(got);
        let mut fdes = Vec::new();
        {
            let section = section(&eh_frame);
            let mut entries = section.entries(&bases);
            let mut cie = None;
            while fdes.len() < FDES_MAX
                && let Ok(Some(entry)) = entries.next()
            {
                let CieOrFde::Fde(partial) = entry else {
                    continue;
                };
                let parsed = partial.parse(|section, bases, offset| {
                    if let Some((at, known)) = &cie
                        && *at == offset
                    {
                        return Ok(gimli::CommonInformationEntry::clone(known));
                    }
                    let new = section.cie_from_offset(bases, offset)?;
                    cie = Some((offset, new.clone()));
                    Ok(new)
                });
                if let Ok(fde) = parsed
                    && fde.len() > 0
                    && fde.initial_address() != 0
                {
                    let (start, length) = (fde.initial_address(), fde.len());
                    fdes.push(Fde {
                        start,
                        length,
                        offset: fde.offset(),
                    });
                }
            }
        }
        fdes.sort_by_key(|f| f.start);
        fdes.dedup_by_key(|f| f.start);
        Self {
            eh_frame,
            bases,
            fdes,
        }
    }

    fn fde(&self, address: u64) -> Option<&Fde> {
        let after = self.fdes.partition_point(|f| f.start <= address);
        let fde = self.fdes.get(after.checked_sub(1)?)?;
        (address - fde.start < fde.length).then_some(fde)
    }

    /// Start of the function that contains `address`.
    #[must_use]
    pub fn function_start(&self, address: u64) -> Option<u64> {
        self.fde(address).map(|f| f.start)
    }

    /// Start and length of the function, at least `bytes_min` long, whose rows at its start and at
    /// its end are the same, compute the CFA in one of these ways, and save these registers at
    /// these offsets from it: assembler with one frame for all of it. Compilers write none.
    #[must_use]
    pub fn function_with_fixed_frame(
        &self,
        bytes_min: u64,
        cfa: &[(u16, i64)],
        saved: &[(u16, i64)],
    ) -> Option<(u64, u64)> {
        let mut context = UnwindContext::new();
        let mut left = SEARCH_BYTES_MAX;
        let large = self.fdes.iter().filter(|f| f.length >= bytes_min);
        large.take(LARGE_MAX).find_map(|fde| {
            let end = fde.start.checked_add(fde.length - 1)?;
            let first = self.rule(fde.start, &mut context, &mut left);
            let last = self.rule(end, &mut context, &mut left);
            let Rule::Row(row) = first else { return None };
            let fits = first == last
                && cfa.contains(&(row.cfa_register, row.cfa_offset))
                && saved.iter().all(|&(register, at)| {
                    let kept = arch::KEPT.iter().zip(&row.kept);
                    let mut all = kept
                        .map(|(number, place)| (*number, *place))
                        .chain([(arch::RA, row.return_address)]);
                    all.any(|(number, place)| number == register && place == Place::AtCfa(at))
                });
            fits.then_some((fde.start, fde.length))
        })
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.eh_frame.len() + self.fdes.len() * size_of::<Fde>()
    }

    /// How many functions are known.
    #[cfg(test)]
    #[must_use]
    pub fn functions(&self) -> usize {
        self.fdes.len()
    }

    fn with_row<T>(
        &self,
        address: u64,
        context: &mut UnwindContext<usize>,
        left: &mut usize,
        then: impl FnOnce(&UnwindTableRow<usize>, gimli::Encoding, bool) -> T,
    ) -> Option<T> {
        let section = section(&self.eh_frame);
        let offset = gimli::EhFrameOffset(self.fde(address)?.offset);
        let fde = section
            .fde_from_offset(&self.bases, offset, EhFrame::cie_from_offset)
            .ok()?;
        if fde.entry_len() > INSTRUCTION_BYTES_MAX || fde.cie().entry_len() > INSTRUCTION_BYTES_MAX
        {
            return None;
        }
        let cost = fde.entry_len() + fde.cie().entry_len();
        if cost > *left {
            *left = 0;
            return None;
        }
        *left -= cost;
        let encoding = fde.cie().encoding();
        let row = fde
            .unwind_info_for_address(&section, &self.bases, context, address)
            .ok()?;
        Some(then(row, encoding, fde.is_signal_trampoline()))
    }

    /// The rule at `address`. `left` is how many bytes of instructions may still be executed; where they
    /// are not enough it is set to 0, and nothing is known.
    #[must_use]
    pub fn rule(&self, address: u64, context: &mut UnwindContext<usize>, left: &mut usize) -> Rule {
        self.with_row(address, context, left, |row, _, signal| {
            if signal {
                return Rule::Expressions;
            }
            match row_of(row) {
                Some(row) if row.return_address == Place::Undefined => Rule::End,
                Some(row) => Rule::Row(row),
                None => Rule::Expressions,
            }
        })
        .unwrap_or(Rule::Unknown)
    }

    /// The caller by evaluating every expression of the row at `address`. `bias` is run-time minus
    /// ELF address; `left` is as for [`CfiTable::rule`].
    pub fn step_by_expressions(
        &self,
        address: u64,
        bias: u64,
        regs: &Regs,
        context: &mut UnwindContext<usize>,
        left: &mut usize,
        read: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Step {
        self.with_row(address, context, left, |row, encoding, signal| {
            let mut machine = Machine {
                section: section(&self.eh_frame),
                encoding,
                bias,
                regs,
                read,
            };
            let Some(cfa) = machine.cfa(row.cfa()) else {
                return Step::Failed;
            };
            let mut caller = *regs;
            caller.r[arch::SP as usize] = cfa;
            let mut ip = None;
            for &(register, ref rule) in row.registers() {
                let number = usize::from(register.0);
                if register.0 == arch::RA && matches!(rule, RegisterRule::Undefined) {
                    return Step::End;
                }
                let Some(value) = machine.register(register, rule.clone(), cfa) else {
                    continue;
                };
                if register.0 == arch::RA {
                    ip = Some(value);
                }
                if number < REGISTERS {
                    caller.r[number] = value;
                }
            }
            let Some(ip) = ip else { return Step::Failed };
            caller.ip = ip;
            finish(regs, caller, signal)
        })
        .unwrap_or(Step::Failed)
    }
}

fn section(eh_frame: &[u8]) -> EhFrame<Bytes<'_>> {
    let mut section = EhFrame::new(eh_frame, LittleEndian);
    section.set_address_size(8);
    section
}

/// A row of plain offsets, or none when an expression or an odd register is in it.
fn row_of(row: &UnwindTableRow<usize>) -> Option<Row> {
    let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
        return None;
    };
    if usize::from(register.0) >= REGISTERS {
        return None;
    }
    let place = |number: u16, default: Place| {
        Some(match row.register(Register(number)) {
            None => default,
            Some(RegisterRule::Undefined) => Place::Undefined,
            Some(RegisterRule::SameValue) => Place::Same,
            Some(RegisterRule::Offset(by)) => Place::AtCfa(by),
            Some(RegisterRule::ValOffset(by)) => Place::IsCfa(by),
            Some(_) => return None,
        })
    };
    // On x86-64 the return address is always in memory; a row without it ends the stack. On
    // aarch64 it stays in the link register until it is saved.
    let default = if arch::RA == 30 {
        Place::Same
    } else {
        Place::Undefined
    };
    let return_address = place(arch::RA, default)?;
    let mut kept = [Place::Same; arch::KEPT.len()];
    for (to, &number) in kept.iter_mut().zip(&arch::KEPT) {
        *to = place(number, Place::Same)?;
    }
    Some(Row {
        cfa_register: register.0,
        cfa_offset: *offset,
        return_address,
        kept,
    })
}

impl Row {
    /// The caller's registers.
    pub fn step(&self, regs: &Regs, read: &mut dyn FnMut(u64) -> Option<u64>) -> Step {
        let Some(base) = regs.r.get(usize::from(self.cfa_register)) else {
            return Step::Failed;
        };
        let cfa = base.wrapping_add_signed(self.cfa_offset);
        let mut caller = *regs;
        for (&place, &number) in self.kept.iter().zip(&arch::KEPT) {
            let slot = &mut caller.r[usize::from(number)];
            match place {
                Place::Same | Place::Undefined => {}
                Place::IsCfa(by) => *slot = cfa.wrapping_add_signed(by),
                Place::AtCfa(by) => {
                    // Below the stack pointer nothing was sampled; in an epilogue the register
                    // that was popped from there still holds its value.
                    if let Some(value) = read(cfa.wrapping_add_signed(by)) {
                        *slot = value;
                    }
                }
            }
        }
        caller.r[arch::SP as usize] = cfa;
        caller.ip = match self.return_address {
            Place::Same => regs.r[usize::from(arch::RA) % REGISTERS],
            Place::IsCfa(by) => cfa.wrapping_add_signed(by),
            Place::Undefined => return Step::End,
            Place::AtCfa(by) => {
                let at = cfa.wrapping_add_signed(by);
                match read(at) {
                    Some(value) => value,
                    None if at >= regs.sp() => return Step::Unreadable(at),
                    None => return Step::Failed,
                }
            }
        };
        finish(regs, caller, false)
    }
}

fn finish(regs: &Regs, caller: Regs, interrupted: bool) -> Step {
    let moved = caller.sp() > regs.sp() || (caller.sp() == regs.sp() && caller.ip != regs.ip);
    if caller.ip == 0 {
        Step::End
    } else if moved || interrupted {
        Step::Caller {
            regs: caller,
            interrupted,
        }
    } else {
        Step::Failed
    }
}

struct Machine<'a, 'r> {
    section: EhFrame<Bytes<'a>>,
    encoding: gimli::Encoding,
    bias: u64,
    regs: &'r Regs,
    read: &'r mut dyn FnMut(u64) -> Option<u64>,
}

impl Machine<'_, '_> {
    fn value(&self, register: Register) -> Option<u64> {
        if register.0 == arch::RA && arch::RA == 16 {
            return Some(self.regs.ip);
        }
        self.regs.r.get(usize::from(register.0)).copied()
    }

    fn cfa(&mut self, rule: &CfaRule<usize>) -> Option<u64> {
        match rule {
            CfaRule::RegisterAndOffset { register, offset } => {
                Some(self.value(*register)?.wrapping_add_signed(*offset))
            }
            CfaRule::Expression(expression) => self.evaluate(*expression, None),
        }
    }

    fn register(&mut self, register: Register, rule: RegisterRule<usize>, cfa: u64) -> Option<u64> {
        match rule {
            RegisterRule::SameValue => self.value(register),
            RegisterRule::Offset(by) => (self.read)(cfa.wrapping_add_signed(by)),
            RegisterRule::ValOffset(by) => Some(cfa.wrapping_add_signed(by)),
            RegisterRule::Register(other) => self.value(other),
            RegisterRule::Expression(expression) => {
                let at = self.evaluate(expression, Some(cfa))?;
                (self.read)(at)
            }
            RegisterRule::ValExpression(expression) => self.evaluate(expression, Some(cfa)),
            _ => None,
        }
    }

    fn evaluate(&mut self, at: UnwindExpression<usize>, initial: Option<u64>) -> Option<u64> {
        let Expression(bytes) = at.get(&self.section).ok()?;
        let mut evaluation: Evaluation<Bytes<'_>> = Evaluation::new(bytes, self.encoding);
        evaluation.set_max_iterations(ITERATIONS_MAX);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate().ok()?;
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = Value::Generic(self.value(register)?);
                    evaluation.resume_with_register(value).ok()?
                }
                EvaluationResult::RequiresMemory {
                    address, size: 8, ..
                } => {
                    let value = Value::Generic((self.read)(address)?);
                    evaluation.resume_with_memory(value).ok()?
                }
                EvaluationResult::RequiresRelocatedAddress(address) => {
                    let address = address.wrapping_add(self.bias);
                    evaluation.resume_with_relocated_address(address).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.as_result().last()?.location {
            Location::Address { address } => Some(address),
            Location::Value {
                value: Value::Generic(value),
            } => Some(value),
            _ => None,
        }
    }
}
