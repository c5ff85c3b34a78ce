//! What a built-in probe prints, while it comes. Pure.
//!
//! ```text
//! ff1                          loaded
//! @MS                          a report's end, by the host's clock; the first is the start
//! +PID COUNT SUM K K|U U       a stack: kernel's and user's addresses, leaf first
//! +PID COUNT SUM !K K|U U      the same of waits for a CPU
//! +PID COUNT SUM ~K K|U U      the same of what waits that are told already took at their end: for a CPU
//! +PID COUNT SUM r|U U         bytes that were read; w: written
//! +PID COUNT SUM R|U U         nanoseconds of the same calls; W: of those that wrote
//! #COUNT                       events of the look before the start
//! -FREED COUNT BYTES           memory that was freed and not seen allocated; allocated, and not followed
//! *      WORDS                 a copied sample, in binary: its process, nine registers, and pieces of memory: address, how
//!                              many words, and they; 0 and 0 at the end. With ? from before the start
//! =ROWS COUNT                  all that was printed: the last line
//! ```
//! In: bytes. Out: stacks, marks, what was no such line. Never: more memory than a line's bound, a number that is
//! believed without a bound, or an end that was not said.

/// Longest line that is kept: the deepest stacks of kernel and user, and the numbers in front.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Addresses of one stack, kernel's and user's each.
const ADDRESSES_MAX: usize = 512;
/// A copied sample begins with `*` or `?` and these, and has then a pid and registers.
const COPIED_BEGINS: &[u8; 7] = b"*      ";
const COPIED_HEAD_BYTES: usize = COPIED_BEGINS.len() + 8 * 10;
/// Lines that were not understood that are kept, and how much of each.
const EXAMPLES_MAX: usize = 3;
const EXAMPLE_CHARS_MAX: usize = 120;

/// What a stack's sum is of; a mark in front of its addresses says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SumOf {
    /// No mark: weights; of waits those for something to happen.
    #[default]
    Plain,
    /// `!`: waits for a CPU.
    Cpu,
    /// `~`: waits for a CPU, after the thread had been blocked: parts of waits that are counted with that.
    CpuAfter,
    /// `r`: bytes that were read.
    Read,
    /// `w`: bytes that were written.
    Written,
    /// `R`: nanoseconds of calls whose bytes `r` has.
    ReadNs,
    /// `W`: nanoseconds of calls whose bytes `w` has.
    WrittenNs,
}

impl SumOf {
    fn of(mark: u8) -> Option<Self> {
        Some(match mark {
            b'!' => Self::Cpu,
            b'~' => Self::CpuAfter,
            b'r' => Self::Read,
            b'w' => Self::Written,
            b'R' => Self::ReadNs,
            b'W' => Self::WrittenNs,
            _ => return None,
        })
    }

    /// Another row counts the same events.
    fn is_again(self) -> bool {
        matches!(self, Self::CpuAfter | Self::ReadNs | Self::WrittenNs)
    }
}

/// One counted stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Whose.
    pub pid: u32,
    /// How many times.
    pub count: u64,
    /// The sum of the weights.
    pub sum: u64,
    /// What the sum is of.
    pub sum_of: SumOf,
    /// The kernel's part, leaf first.
    pub kernel: Vec<u64>,
    /// The user's part, leaf first.
    pub user: Vec<u64>,
}

/// A sample that is unwound by whoever hears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// It is a sample of the capture; else it only shows where the target's VMs are.
    pub counts: bool,
    /// Whose.
    pub pid: u32,
    /// ip, sp, bp, bx, dx, r12 to r15.
    pub registers: [u64; 9],
    /// Pieces of its memory, by address.
    pub memory: Vec<(u64, Vec<u8>)>,
}

/// Memory that is not in the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missed {
    /// Times that something was freed that was not seen allocated.
    pub freed: u64,
    /// Allocations that were not followed, for want of room.
    pub allocated: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Who hears what is read.
pub(super) trait Hears {
    /// The module is loaded.
    fn ready(&mut self) {}
    /// A report has ended, at this time of the host's clock in milliseconds.
    fn mark(&mut self, ms: u64);
    /// One stack.
    fn stack(&mut self, stack: &Counted);
    /// One sample that was copied.
    fn copied(&mut self, _sample: Copied) {}
    /// So many events were seen in the look before the start.
    fn seen(&mut self, _events: u64) {}
    /// Memory was not followed.
    fn missed(&mut self, _missed: Missed) {}
}

/// What came, beside the stacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Stacks' counts that arrived.
    pub samples: u64,
    /// Those of them that other rows count too.
    pub again: u64,
    /// Rows that arrived.
    pub rows: u64,
    /// Rows and samples that were printed, once the last line has said so.
    pub end: Option<(u64, u64)>,
    /// Lines that were not understood.
    pub foreign: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

impl Account {
    /// With what another reader of the same run has got.
    pub(super) fn add(&mut self, more: Self) {
        self.samples = self.samples.saturating_add(more.samples);
        self.again = self.again.saturating_add(more.again);
        self.rows += more.rows;
        self.end = self.end.or(more.end);
        self.foreign += more.foreign;
        self.examples.extend(more.examples);
    }
}

/// Reads one run's output.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    overlong: bool,
    stack: Counted,
    account: Account,
}

impl Reader {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], ear: &mut dyn Hears) {
        while let Some((first, after)) = bytes.split_first() {
            if self.is_copied() {
                bytes = self.append_copied(bytes, ear);
            } else if self.line.len() < COPIED_BEGINS.len() && *first != b'\n' {
                // What a line is, its beginning tells.
                self.append(&bytes[..1]);
                bytes = after;
            } else {
                let at = bytes.iter().position(|b| *b == b'\n');
                let (head, tail) = bytes.split_at(at.unwrap_or(bytes.len()));
                self.append(head);
                if !tail.is_empty() {
                    self.end_line(ear);
                }
                bytes = tail.get(1..).unwrap_or_default();
            }
        }
    }

    /// Whether the last line has come.
    pub(super) fn is_whole(&self) -> bool {
        self.account.end.is_some()
    }

    /// Whether what was begun is a copied sample, in which line feeds mean nothing.
    fn is_copied(&self) -> bool {
        let begins = self.line.get(1..COPIED_BEGINS.len());
        begins == Some(&COPIED_BEGINS[1..]) && matches!(self.line[0], b'*' | b'?') && !self.overlong
    }

    /// Takes what belongs to the copied sample that was begun; gives what is left. One that is none ends where the next line
    /// feed is.
    fn append_copied<'a>(&mut self, bytes: &'a [u8], ear: &mut dyn Hears) -> &'a [u8] {
        let Some(wanted) = copied_bytes(&self.line) else {
            self.overlong = true;
            return bytes;
        };
        let (head, tail) = bytes.split_at(bytes.len().min(wanted - self.line.len()));
        self.line.extend_from_slice(head);
        if self.line.len() == wanted && copied_bytes(&self.line) == Some(wanted) {
            match copied(&self.line) {
                Some(sample) => {
                    self.account.samples += u64::from(sample.counts);
                    self.account.rows += u64::from(sample.counts);
                    ear.copied(sample);
                }
                None => self.foreign(),
            }
            self.line.clear();
        }
        tail
    }

    /// The end of the output: a line without its end is no line.
    pub(super) fn end(mut self) -> Account {
        if !self.line.is_empty() || self.overlong {
            self.foreign();
        }
        self.account
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
        self.overlong |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, ear: &mut dyn Hears) {
        let understood = !self.overlong && self.understand(ear).is_some();
        if !understood && (self.overlong || !self.line.is_empty()) {
            self.foreign();
        }
        self.line.clear();
        self.overlong = false;
    }

    fn understand(&mut self, ear: &mut dyn Hears) -> Option<()> {
        let (kind, rest) = self.line.split_first()?;
        let rest = std::str::from_utf8(rest).ok()?;
        match kind {
            // Lines have spaces behind numbers, or noughts in front, for a message's length (agent/probes/lines.stp).
            b'f' if rest.trim_end() == "f1" => ear.ready(),
            b'@' => ear.mark(rest.trim_end().parse().ok()?),
            b'+' => {
                let mut words = rest.splitn(4, ' ');
                let stack = &mut self.stack;
                stack.pid = words.next()?.parse().ok()?;
                stack.count = words.next()?.parse().ok()?;
                // A sum may be negative only where a script of another kind is taken for ours.
                stack.sum = words.next()?.parse().ok()?;
                let (kernel, user) = words.next()?.split_once('|')?;
                let mark = kernel.as_bytes().first().copied().and_then(SumOf::of);
                let kernel = mark.map_or(kernel, |_| &kernel[1..]);
                stack.sum_of = mark.unwrap_or_default();
                addresses(kernel, &mut stack.kernel)?;
                addresses(user, &mut stack.user)?;
                self.account.samples = self.account.samples.saturating_add(stack.count);
                if stack.sum_of.is_again() {
                    self.account.again = self.account.again.saturating_add(stack.count);
                }
                self.account.rows += 1;
                ear.stack(stack);
            }
            b'#' => ear.seen(rest.trim_end().parse().ok()?),
            b'-' => {
                let mut words = rest.split_ascii_whitespace().map(str::parse);
                let mut next = || words.next()?.ok();
                let missed = Missed {
                    freed: next()?,
                    allocated: next()?,
                    bytes: next()?,
                };
                ear.missed(missed);
            }
            b'=' => {
                let mut words = rest.split_ascii_whitespace();
                let (rows, count) = (words.next()?, words.next()?);
                self.account.end = Some((rows.parse().ok()?, count.parse().ok()?));
                return words.next().is_none().then_some(());
            }
            _ => return None,
        }
        Some(())
    }

    fn foreign(&mut self) {
        self.account.foreign += 1;
        if self.account.examples.len() < EXAMPLES_MAX {
            let text = String::from_utf8_lossy(&self.line);
            let text: String = text.chars().take(EXAMPLE_CHARS_MAX).collect();
            self.account.examples.push(format!("{text:?}"));
        }
    }
}

/// How many bytes a copied sample has, as far as those that are there tell; none when it is none.
fn copied_bytes(line: &[u8]) -> Option<usize> {
    let mut at = COPIED_HEAD_BYTES;
    loop {
        let Some(head) = line.get(at..at + 16) else {
            return Some(at + 16);
        };
        let length = usize::try_from(word(head, 8)).ok()?;
        if word(head, 0) == 0 {
            // And the end of the line.
            return (length == 0).then_some(at + 17);
        }
        at = length.checked_mul(8)?.checked_add(at + 16)?;
        if at > LINE_BYTES_MAX {
            return None;
        }
    }
}

fn copied(line: &[u8]) -> Option<Copied> {
    let (&end, line) = line.split_last()?;
    let mut sample = Copied {
        counts: line.first() == Some(&b'*'),
        pid: u32::try_from(word(line, COPIED_BEGINS.len())).ok()?,
        ..Copied::default()
    };
    for (number, register) in sample.registers.iter_mut().enumerate() {
        *register = word(line, COPIED_BEGINS.len() + 8 + 8 * number);
    }
    let mut rest = line.get(COPIED_HEAD_BYTES..)?;
    while rest.len() > 16 {
        let (head, after) = rest.split_at(16);
        let bytes = after.get(..usize::try_from(word(head, 8)).ok()?.checked_mul(8)?)?;
        sample.memory.push((word(head, 0), bytes.to_vec()));
        rest = &after[bytes.len()..];
    }
    (end == b'\n').then_some(sample)
}

/// The word at an offset; 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|w| w.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

fn addresses(text: &str, into: &mut Vec<u64>) -> Option<()> {
    into.clear();
    for word in text.split_ascii_whitespace() {
        if into.len() >= ADDRESSES_MAX {
            return None;
        }
        into.push(u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()?);
    }
    Some(())
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
