//! From registers and stack words to a list of frames. In: one sample and its process's code.
//! Out: frames, leaf first, and whether the root was reached. Never: a read of live memory, a walk
//! without a bound.

use crate::arch::Regs;
use crate::cfi::{Rule, Step};
use crate::interpose::{InterposedUnwinder, Outcome, StepContext};
use crate::modules::Module;
use crate::space::{Code, Space};
use crate::words::StackWords;
use foldhash::HashMap;
use gimli::UnwindContext;
use model::profile::Frame;
use std::sync::Arc;

/// Deepest stack that is kept.
pub const DEPTH_MAX: usize = 1024;
/// Rows that are cached before the cache is emptied.
const CACHE_MAX: usize = 1 << 18;
/// Words of stack that are looked at for a way across code without tables.
const SCAN_WORDS: usize = 512;
/// Ways that are tried.
const CANDIDATES_MAX: usize = 32;
/// Bytes of unwind instructions that are executed for one stack, beyond what is cached. A new function
/// takes a hundred; only made-up tables take more than a few thousand.
const INSTRUCTION_BYTES_MAX: usize = 256 << 10;
/// Such crossings in one stack.
const CROSSINGS_MAX: usize = 8;

/// One frame.
#[derive(Clone, Debug)]
pub enum Pc {
    /// Code of an image at this ELF address.
    Module(Arc<Module>, u64),
    /// Code of a file that could not be used.
    File(Arc<str>),
    /// Code made at run time.
    Jit,
    /// An address where nothing executable is mapped.
    Unknown,
    /// What an interposed unwinder found.
    Given(Box<Frame>),
}

/// An unwound stack.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    /// Frames, leaf first.
    pub frames: Vec<Pc>,
    /// The outermost frame said that it has no caller.
    pub rooted: bool,
    /// The words of the stack did not reach far enough.
    pub truncated: bool,
    /// How the interposed unwinder's segments came out.
    pub segments: Vec<Outcome>,
}

/// Unwinds; keeps rules between samples.
#[derive(Debug)]
pub struct Unwinder {
    rules: HashMap<(u32, u64), Rule>,
    context: UnwindContext<usize>,
    /// Bytes of instructions that this stack may still cost.
    left: usize,
    interposed: Option<Arc<dyn InterposedUnwinder>>,
}

/// Where a walk stopped.
enum Stop {
    Root,
    NoTables,
    Truncated,
    Failed,
}

impl Unwinder {
    /// An unwinder; `interposed` is asked first where there are no tables.
    #[must_use]
    pub fn new(interposed: Option<Arc<dyn InterposedUnwinder>>) -> Self {
        Self {
            rules: HashMap::default(),
            context: UnwindContext::new(),
            left: 0,
            interposed,
        }
    }

    /// The stack of one sample.
    pub fn unwind(
        &mut self,
        pid: u32,
        space: &Space,
        regs: Regs,
        words: StackWords<'_>,
        captured: &[u64],
    ) -> Stack {
        let mut stack = Stack::default();
        self.left = INSTRUCTION_BYTES_MAX;
        // Whether `ip` is where the code was interrupted, not where a call returns to.
        let mut at = (regs, true);
        for _ in 0..=CROSSINGS_MAX {
            match self.walk(pid, space, &mut at, words, captured, &mut stack) {
                Stop::Root => {
                    stack.rooted = true;
                    break;
                }
                Stop::Truncated => {
                    stack.truncated = true;
                    break;
                }
                Stop::Failed => break,
                Stop::NoTables => match self.cross(space, &at, words) {
                    Some(next) => at = (next, false),
                    None => break,
                },
            }
        }
        stack
    }

    /// Walks until the tables end; adds a frame for each level, and leaves the registers of the
    /// last one in `at`.
    fn walk(
        &mut self,
        pid: u32,
        space: &Space,
        at: &mut (Regs, bool),
        words: StackWords<'_>,
        captured: &[u64],
        stack: &mut Stack,
    ) -> Stop {
        while stack.frames.len() < DEPTH_MAX {
            let (regs, interrupted) = *at;
            let address = if interrupted {
                regs.ip
            } else {
                regs.ip.wrapping_sub(1)
            };
            let code = space.find(address);
            let unwinder = self.interposed.as_ref();
            let is_claimed = unwinder.is_some_and(|u| claimed(&**u, code, address));
            if let Some(unwinder) = unwinder
                && (matches!(code, Some(Code::Anonymous)) || is_claimed)
            {
                let on_top = words.word(regs.sp()).map(|back| back.wrapping_sub(1));
                let caller = on_top.and_then(|back| space.find(back));
                let context = StepContext {
                    pid,
                    captured,
                    regs: &regs,
                    address,
                    words,
                    is_leaf: stack.frames.is_empty(),
                    is_anonymous: matches!(code, Some(Code::Anonymous)),
                    is_called_by_anonymous: matches!(caller, Some(Code::Anonymous)),
                };
                if let Some(found) = unwinder.step(&context) {
                    let frames = found.frames.into_iter();
                    stack.frames.extend(frames.map(|f| Pc::Given(Box::new(f))));
                    stack.segments.extend(found.outcome);
                    match found.resume {
                        // An unwinder that stands still would be asked for ever.
                        Some(next) if next.sp() > regs.sp() => {
                            *at = (next, false);
                            continue;
                        }
                        _ => {}
                    }
                }
            }
            stack.frames.push(match code {
                Some(Code::Module { module, bias }) => {
                    Pc::Module(module.clone(), address.wrapping_sub(*bias))
                }
                Some(Code::File(name)) => Pc::File(name.clone()),
                Some(Code::Anonymous) => Pc::Jit,
                None => Pc::Unknown,
            });
            let step = self.step(code, address, &regs, words);
            // Where it was interrupted, tables may not hold: an interpreter's state one frame for all of its code.
            let is_lost = match step {
                Some(Step::Caller { regs, .. }) => space.find(regs.ip.wrapping_sub(1)).is_none(),
                _ => is_claimed && step == Some(Step::End),
            };
            if interrupted && is_lost && !is_entry(code, address) {
                return Stop::NoTables;
            }
            if let Some(Step::Caller { regs, interrupted }) = step {
                *at = (regs, interrupted);
                continue;
            }
            // Not every `_start` says by its tables that nobody called it.
            if step == Some(Step::End) || is_entry(code, address) {
                return Stop::Root;
            }
            return match step {
                None => Stop::NoTables,
                Some(Step::Unreadable(at)) if at >= words.end() => Stop::Truncated,
                Some(_) => Stop::Failed,
            };
        }
        Stop::Truncated
    }

    /// One step by the tables; none where there are none.
    fn step(
        &mut self,
        code: Option<&Code>,
        address: u64,
        regs: &Regs,
        words: StackWords<'_>,
    ) -> Option<Step> {
        let Some(Code::Module { module, bias }) = code else {
            return None;
        };
        let elf_address = address.wrapping_sub(*bias);
        let cfi = &module.elf.cfi;
        let key = (module.id, elf_address);
        let rule = match self.rules.get(&key) {
            Some(rule) => *rule,
            None => {
                let rule = cfi.rule(elf_address, &mut self.context, &mut self.left);
                if self.rules.len() >= CACHE_MAX {
                    self.rules.clear();
                }
                // What was not found out for want of time is not what there is.
                if self.left > 0 {
                    self.rules.insert(key, rule);
                }
                rule
            }
        };
        let mut read = |address| words.word(address);
        match rule {
            Rule::End => Some(Step::End),
            Rule::Row(row) => Some(row.step(regs, &mut read)),
            Rule::Expressions => {
                let (context, left) = (&mut self.context, &mut self.left);
                Some(cfi.step_by_expressions(elf_address, *bias, regs, context, left, &mut read))
            }
            Rule::Unknown => None,
        }
    }

    /// A way across code without tables: the return address on top of the stack, the frame
    /// pointer, or the first word that leads to the root (or to more code without tables).
    fn cross(&mut self, space: &Space, at: &(Regs, bool), words: StackWords<'_>) -> Option<Regs> {
        let regs = at.0;
        let caller = |ip_at: u64, fp: u64| {
            let mut next = regs;
            next.ip = words.word(ip_at)?;
            next.r[crate::arch::SP as usize] = ip_at.checked_add(8)?;
            next.r[crate::arch::FP as usize] = fp;
            Some(next)
        };
        let mut tried = 0;
        let by_frame_pointer = (regs.fp() >= regs.sp())
            .then(|| caller(regs.fp().checked_add(8)?, words.word(regs.fp())?))
            .flatten();
        let top = regs.sp();
        let scanned = (0..SCAN_WORDS as u64)
            .map(|i| top.wrapping_add(i * 8))
            .take_while(|&a| a >= words.start && a < words.end())
            .filter_map(|a| caller(a, regs.fp()));
        let first = if at.1 { caller(top, regs.fp()) } else { None };
        for next in first.into_iter().chain(by_frame_pointer).chain(scanned) {
            if tried == CANDIDATES_MAX {
                break;
            }
            if !is_after_code(space, next.ip) {
                continue;
            }
            tried += 1;
            if self.leads_on(space, next, words) {
                return Some(next);
            }
        }
        None
    }

    fn leads_on(&mut self, space: &Space, mut regs: Regs, words: StackWords<'_>) -> bool {
        let mut interrupted = false;
        for depth in 0..DEPTH_MAX / 4 {
            let address = if interrupted {
                regs.ip
            } else {
                regs.ip.wrapping_sub(1)
            };
            let code = space.find(address);
            match self.step(code, address, &regs, words) {
                Some(Step::Caller {
                    regs: next,
                    interrupted: i,
                }) => {
                    regs = next;
                    interrupted = i;
                }
                Some(Step::End) => return true,
                None => return depth >= 2 && matches!(code, Some(Code::Anonymous)),
                Some(Step::Unreadable(at)) => return depth >= 4 && at >= words.end(),
                Some(Step::Failed) => return false,
            }
        }
        false
    }
}

fn claimed(unwinder: &dyn InterposedUnwinder, code: Option<&Code>, address: u64) -> bool {
    match code {
        Some(Code::Module { module, bias }) => unwinder.claims(module, address.wrapping_sub(*bias)),
        _ => false,
    }
}

/// Whether the address is in the function that the image begins at.
fn is_entry(code: Option<&Code>, address: u64) -> bool {
    match code {
        Some(Code::Module { module, bias }) => {
            let entry = module.elf.entry;
            entry != 0 && module.elf.function(address.wrapping_sub(*bias)).start == entry
        }
        _ => false,
    }
}

/// Whether the word before this address is code of a known function.
fn is_after_code(space: &Space, address: u64) -> bool {
    let before = address.wrapping_sub(1);
    match space.find(before) {
        Some(Code::Module { module, bias }) => module
            .elf
            .cfi
            .function_start(before.wrapping_sub(*bias))
            .is_some(),
        _ => false,
    }
}
