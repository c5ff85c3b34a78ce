//! What is read of a target's Lua stacks while it stands still. In: its registers, its machine stack
//! and its memory. Out: segments of Lua frames, by the machine frame that they run in. Never: an
//! allocation, a read without a bound, a name (those are read later, at low priority).
//!
//! The interpreter keeps a frame of fixed shape on the machine stack for each call from C into Lua,
//! compiled code runs above it, and `lua_State.cframe` chains those of one coroutine. So the stack
//! copy is searched for such frames, and what the chain confirms is believed.

use super::callsite;
use super::layout::{Machine, co_context, function, prototype};
use super::memory::{Memory, is_object, word_at};
use super::names;
use super::request;
use super::segment::{self, From, Head, Item};
use super::state::{self, LuaState, Running};
use super::threads::{self, THREADS_MAX, Thread, View};
use super::walk::{self, End, Kind, Level, Window};
use crate::arch::Regs;
use crate::words::StackWords;
use std::cell::RefCell;

/// Functions in one sample.
const FUNCTIONS_MAX: usize = 200;
/// Coroutines that are followed to the one that resumed them.
const HOPS_MAX: usize = 8;
/// A leaf this close below a frame of the interpreter is in code that sets one up or takes it down.
const NEAR_BYTES: u64 = 104;
/// Objects that are read in one go.
const PIECES: usize = 32;

/// One sample's machine state.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Its registers.
    pub regs: &'a Regs,
    /// Its machine stack.
    pub words: StackWords<'a>,
    /// The target stands still until the capture is done.
    pub exclusive: bool,
    /// The path of the request is wanted too.
    pub wants_path: bool,
}

/// Functions that were met, where in `keep` their items are, and where their callers go on.
struct Met {
    functions: [u64; FUNCTIONS_MAX],
    calls: [u64; FUNCTIONS_MAX],
    at: [usize; FUNCTIONS_MAX],
    count: usize,
}

/// Reads the Lua stacks of one sample into `keep`, which must be empty and is never grown. `in_time`
/// says whether there is time left.
pub fn capture(
    memory: &impl Memory,
    view: &View,
    machine: &Machine,
    moment: &Moment<'_>,
    in_time: &dyn Fn() -> bool,
    keep: &mut Vec<u64>,
) {
    if view.interpreters.is_empty() {
        return;
    }
    let mut threads = [None; THREADS_MAX];
    let found = threads::find(memory, view, machine, moment, &mut threads);
    if moment.wants_path {
        keep_path(memory, &threads[..found], keep);
    }
    WINDOW.with_borrow_mut(|window| {
        capture_threads(
            memory,
            view,
            machine,
            moment,
            in_time,
            (&threads[..found], window),
            keep,
        );
    });
}

std::thread_local! {
    /// Kept between samples: to clear it for each would cost more than most Lua stacks take to read. Its slots count only
    /// as far as they were taken.
    static WINDOW: RefCell<Window> = const { RefCell::new(Window::empty()) };
}

/// The segments of the coroutines on a machine stack.
fn capture_threads(
    memory: &impl Memory,
    view: &View,
    machine: &Machine,
    moment: &Moment<'_>,
    in_time: &dyn Fn() -> bool,
    (threads, window): (&[Option<Thread>], &mut Window),
    keep: &mut Vec<u64>,
) {
    let mut met = Met {
        functions: [0; FUNCTIONS_MAX],
        calls: [0; FUNCTIONS_MAX],
        at: [0; FUNCTIONS_MAX],
        count: 0,
    };
    let mut reader = Reader {
        memory,
        view,
        machine,
        moment,
        met: &mut met,
        keep,
    };
    let mut running: Option<(u64, Running)> = None;
    for (depth, thread) in threads.iter().flatten().enumerate() {
        if !in_time() {
            break;
        }
        let global = thread.state.global;
        let now = match running {
            Some((of, now)) if of == global => now,
            _ => state::running(memory, global).unwrap_or_default(),
        };
        running = Some((global, now));
        reader.thread(window, thread, now, depth == 0, in_time);
    }
    resolve(memory, &met, keep);
}

/// The path of the innermost coroutine that works for a request: those of a subrequest have their own.
fn keep_path(memory: &impl Memory, threads: &[Option<Thread>], keep: &mut Vec<u64>) {
    let mut path = [0; request::PATH_BYTES_MAX];
    let mut requests = threads.iter().flatten().map(|t| t.state.request);
    let found = requests.find_map(|at| request::read_path(memory, at, &mut path));
    if let Some(length) = found {
        segment::keep_path(keep, &path[..length]);
    }
}

struct Reader<'a, M> {
    memory: &'a M,
    view: &'a View,
    machine: &'a Machine,
    moment: &'a Moment<'a>,
    met: &'a mut Met,
    keep: &'a mut Vec<u64>,
}

impl<M: Memory> Reader<'_, M> {
    /// The segments of one coroutine, and behind the last what resumed it.
    fn thread(
        &mut self,
        window: &mut Window,
        thread: &Thread,
        now: Running,
        innermost: bool,
        in_time: &dyn Fn() -> bool,
    ) {
        let state = &thread.state;
        let chain = &thread.chain[..thread.length];
        let compiled = now.jit_base != 0 && now.state == state.address;
        let from = if compiled {
            From::Trace
        } else {
            From::Interpreter
        };
        let base = if compiled {
            window.take(self.memory, state, now.jit_base);
            Some(now.jit_base)
        } else {
            self.interpreted_base(window, state, chain, innermost)
        };
        let (end, last) = match base {
            Some(base) => self.segments(window, state, chain, from, base, in_time),
            None => {
                let head = self.begin(state, chain[0], From::Nowhere);
                for &cframe in &chain[1..] {
                    self.begin(state, cframe, From::Nowhere);
                }
                (End::Damaged, head)
            }
        };
        if end == End::Bottom
            && let Some(last) = last
        {
            self.resumed_by(window, state, last, in_time);
        }
    }

    /// Where the uppermost frame is when no trace runs. `BASE` is a register in the interpreter
    /// itself, and stored whenever it calls C.
    fn interpreted_base(
        &self,
        window: &mut Window,
        state: &LuaState,
        chain: &[u64],
        innermost: bool,
    ) -> Option<u64> {
        let regs = self.moment.regs;
        let near = chain[0] >= regs.sp() && chain[0] - regs.sp() <= NEAR_BYTES;
        if !(innermost && near && self.view.is_interpreter(regs.ip)) {
            window.take(self.memory, state, state.base);
            return Some(state.base);
        }
        let base = regs.r[self.machine.base];
        let pc = regs.r[self.machine.pc];
        let plausible = base.is_multiple_of(8) && base > state.stack + 8 && base < state.stack_end;
        let end = if plausible {
            base.max(state.base)
        } else {
            state.base
        };
        window.take(self.memory, state, end);
        let window = &*window;
        let owns = |base| walk::owns(self.memory, window, base, pc) == Some(true);
        if plausible && owns(base) {
            return Some(base);
        }
        if owns(state.base) {
            return Some(state.base);
        }
        walk::owner(self.memory, window, end, pc).or_else(|| {
            // Between instructions: any frame of this stack is better than none.
            let known = |base: u64| walk::owns(self.memory, window, base, pc).is_some();
            [base, state.base]
                .into_iter()
                .find(|b| *b > 16 && known(*b))
        })
    }

    fn begin(&mut self, state: &LuaState, cframe: u64, from: From) -> Option<usize> {
        let at = self.keep.len();
        let head = Head {
            cframe,
            from,
            global: state.global,
            state: state.address,
            racy: !self.moment.exclusive || !self.memory.is_of_sample(state.address),
        };
        segment::begin(self.keep, head).then_some(at)
    }

    /// A C frame without a Lua frame: `lua_cpcall` and the compiler enter the VM so. Their number
    /// of results is the negative height of the stack at that time.
    fn is_bare(&self, state: &LuaState, cframe: u64, link: u64) -> bool {
        let word = self.moment.words.word(cframe + self.machine.results);
        let results = word.map_or(0, |w| i64::from(w as u32 as i32));
        results < 0 && link < state.stack.saturating_add(results.unsigned_abs())
    }

    /// Splits the walk at the borders to C, one C frame of the chain for each part. Returns how it
    /// ended and the head of the last segment.
    fn segments(
        &mut self,
        window: &Window,
        state: &LuaState,
        chain: &[u64],
        from: From,
        base: u64,
        in_time: &dyn Fn() -> bool,
    ) -> (End, Option<usize>) {
        let mut next = 0;
        let mut head = None;
        let mut last = None;
        let mut full = false;
        let mut from = from;
        let memory = self.memory;
        let end = walk::walk(memory, window, state, base, in_time, |level, link| {
            if let Level::Called(pc) = level {
                self.called(pc);
                return true;
            }
            if head.is_none() {
                while next < chain.len() && self.is_bare(state, chain[next], link) {
                    last = self.begin(state, chain[next], From::Interpreter).or(last);
                    next += 1;
                }
                let Some(&cframe) = chain.get(next) else {
                    return false;
                };
                head = self.begin(state, cframe, from);
                from = From::Interpreter;
                next += 1;
            }
            let Some(at) = head else { return false };
            last = head;
            match level {
                Level::Function(function) => {
                    full = !self.function(at, function);
                    !full
                }
                Level::Border => {
                    head = None;
                    true
                }
                Level::Called(_) => true,
            }
        });
        let cut = full || end == End::Cut;
        let mut said = match last {
            Some(head) if cut => self.cut(head),
            Some(head) if end == End::Damaged => {
                segment::fail(self.keep, head);
                true
            }
            _ => !cut,
        };
        // Frames of the chain that the walk did not reach.
        let rest = if cut || end == End::Bottom {
            From::Interpreter
        } else {
            From::Nowhere
        };
        for &cframe in chain.get(next..).unwrap_or_default() {
            let Some(head) = self.begin(state, cframe, rest) else {
                break;
            };
            said = said || segment::add(self.keep, head, Item::Cut);
            last = Some(head);
        }
        (if cut { End::Cut } else { end }, last)
    }

    fn function(&mut self, head: usize, function: u64) -> bool {
        let at = self.keep.len();
        if self.met.count == FUNCTIONS_MAX || !segment::add(self.keep, head, Item::Joint) {
            return false;
        }
        self.met.functions[self.met.count] = function;
        self.met.at[self.met.count] = at;
        self.met.count += 1;
        true
    }

    /// The function that was met last goes back to this instruction of its caller.
    fn called(&mut self, pc: u64) {
        if let Some(last) = self.met.count.checked_sub(1) {
            self.met.calls[last] = pc;
        }
    }

    /// Says in the last segment that there were more frames; where there is no room for that, the
    /// last function gives way.
    fn cut(&mut self, head: usize) -> bool {
        if segment::add(self.keep, head, Item::Cut) {
            return true;
        }
        let Some(count) = self.met.count.checked_sub(1) else {
            return false;
        };
        segment::replace(self.keep, self.met.at[count], Some(Item::Cut));
        self.met.count = count;
        true
    }

    /// ngx_lua's coroutines are resumed by its scheduler and not by each other: who waits for this
    /// one stands in its context.
    fn resumed_by(
        &mut self,
        window: &mut Window,
        state: &LuaState,
        head: usize,
        in_time: &dyn Fn() -> bool,
    ) {
        let mut state = *state;
        for hop in 0..=HOPS_MAX {
            if !is_object(state.context) {
                return;
            }
            let Some(parent) = self.parent_of(&state) else {
                return;
            };
            if hop == HOPS_MAX || !in_time() {
                self.cut(head);
                return;
            }
            window.take(self.memory, &parent, parent.base);
            let (mut joined, mut full) = (false, false);
            let memory = self.memory;
            let end = walk::walk(memory, window, &parent, parent.base, in_time, |level, _| {
                let function = match level {
                    Level::Function(function) => function,
                    Level::Called(pc) => {
                        self.called(pc);
                        return true;
                    }
                    Level::Border => return true,
                };
                if !joined {
                    joined = segment::add(self.keep, head, Item::Joint);
                }
                full = !joined || !self.function(head, function);
                !full
            });
            if full || end == End::Cut {
                self.cut(head);
                return;
            }
            state = parent;
        }
    }

    fn parent_of(&self, state: &LuaState) -> Option<LuaState> {
        let address = state.context.checked_add(co_context::STATE)?;
        let context: [u8; co_context::BYTES] = self.memory.bytes(address)?;
        if word_at(&context, 0) != state.address {
            return None;
        }
        let parent = word_at(&context, co_context::BYTES - 8);
        if !is_object(parent) {
            return None;
        }
        let parent = self.memory.word(parent.checked_add(co_context::STATE)?)?;
        let parent = state::read(self.memory, parent)?;
        (parent.global == state.global && parent.address != state.address).then_some(parent)
    }
}

/// Turns functions into what their names are found by.
fn resolve(memory: &impl Memory, met: &Met, keep: &mut [u64]) {
    let mut from = 0;
    while from < met.count {
        let until = (from + PIECES).min(met.count);
        let functions = &met.functions[from..until];
        let mut bytes = [0; PIECES * function::BYTES];
        let got = memory.read_each(functions, function::BYTES, &mut bytes);
        let mut protos = [0; PIECES];
        let mut places = [0; PIECES];
        let mut count = 0;
        for (index, &at) in met.at[from..until].iter().enumerate() {
            let piece = bytes.get(index * function::BYTES..(index + 1) * function::BYTES);
            let kind = piece.filter(|_| index < got).and_then(walk::kind_of);
            match kind {
                Some(Kind::Lua(prototype)) => {
                    protos[count] = prototype;
                    places[count] = at;
                    count += 1;
                    let item = Item::Lua {
                        prototype,
                        key: 0,
                        call: 0,
                    };
                    segment::replace(keep, at, Some(item));
                }
                Some(Kind::Builtin(number)) => {
                    segment::replace(keep, at, Some(Item::Builtin(number)));
                }
                // The machine's frames show it.
                Some(Kind::C) => segment::replace(keep, at, None),
                None => segment::replace(
                    keep,
                    at,
                    Some(Item::Lua {
                        prototype: 0,
                        key: 0,
                        call: 0,
                    }),
                ),
            }
        }
        let mut heads = [0; PIECES * prototype::HEAD_BYTES];
        let got = memory.read_each(&protos[..count], prototype::HEAD_BYTES, &mut heads);
        for index in 0..got.min(count) {
            let piece = &heads[index * prototype::HEAD_BYTES..(index + 1) * prototype::HEAD_BYTES];
            let item = Item::Lua {
                prototype: protos[index],
                key: names::key(piece),
                call: 0,
            };
            segment::replace(keep, places[index], Some(item));
        }
        from = until;
    }
    calls(met, keep);
}

/// Puts to each function of Lua where the next one called it.
fn calls(met: &Met, keep: &mut [u64]) {
    for index in 0..met.count.saturating_sub(1) {
        let (at, next) = (met.at[index], met.at[index + 1]);
        if met.calls[index] != 0
            && next == at + segment::ITEM_WORDS
            && let Some(Item::Lua { prototype, key, .. }) = segment::item(keep, at)
            && let Some(Item::Lua { prototype: by, .. }) = segment::item(keep, next)
        {
            let call = callsite::instruction(by, met.calls[index]);
            let item = Item::Lua {
                prototype,
                key,
                call,
            };
            segment::replace(keep, at, Some(item));
        }
    }
}
