//! What a built-in probe prints, while it comes. Pure.
//!
//! ```text
//! ff1                          loaded
//! @MS                          a report's end, by the host's clock; the first is the start
//! +PID COUNT SUM K K|U U       a stack: kernel's and user's addresses, leaf first
//! +PID COUNT SUM !K K|U U      the same of waits for a CPU
//! +PID COUNT SUM ~K K|U U      the same of what waits that are told already took at their end: for a CPU
//! =ROWS COUNT                  all that was printed: the last line
//! ```
//! In: bytes. Out: stacks, marks, what was no such line. Never: more memory than a line's bound, a number that is
//! believed without a bound, or an end that was not said.

/// Longest line that is kept: the deepest stacks of kernel and user, and the numbers in front.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Addresses of one stack, kernel's and user's each.
const ADDRESSES_MAX: usize = 512;
/// Lines that were not understood that are kept, and how much of each.
const EXAMPLES_MAX: usize = 3;
const EXAMPLE_CHARS_MAX: usize = 120;

/// What a thread waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// For something to happen: it was blocked.
    #[default]
    Event,
    /// For a CPU.
    Cpu,
    /// For a CPU, after it had been blocked: a part of a wait that is counted with that.
    CpuAfter,
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
    /// Of waits: what for.
    pub wait: WaitFor,
    /// The kernel's part, leaf first.
    pub kernel: Vec<u64>,
    /// The user's part, leaf first.
    pub user: Vec<u64>,
}

/// Who hears what is read.
pub(super) trait Hears {
    /// The module is loaded.
    fn ready(&mut self) {}
    /// A report has ended, at this time of the host's clock in milliseconds.
    fn mark(&mut self, ms: u64);
    /// One stack.
    fn stack(&mut self, stack: &Counted);
}

/// What came, beside the stacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Stacks' counts that arrived.
    pub samples: u64,
    /// Rows that arrived.
    pub rows: u64,
    /// Rows and samples that were printed, once the last line has said so.
    pub end: Option<(u64, u64)>,
    /// Lines that were not understood.
    pub foreign: u64,
    /// The first of them.
    pub examples: Vec<String>,
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
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            let (head, tail) = bytes.split_at(at);
            self.append(head);
            self.end_line(ear);
            bytes = &tail[1..];
        }
        self.append(bytes);
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
            b'f' if rest == "f1" => ear.ready(),
            b'@' => ear.mark(rest.parse().ok()?),
            b'+' => {
                let mut words = rest.splitn(4, ' ');
                let stack = &mut self.stack;
                stack.pid = words.next()?.parse().ok()?;
                stack.count = words.next()?.parse().ok()?;
                // A sum may be negative only where a script of another kind is taken for ours.
                stack.sum = words.next()?.parse().ok()?;
                let (kernel, user) = words.next()?.split_once('|')?;
                let (wait, kernel) = match kernel.as_bytes().first() {
                    Some(b'!') => (WaitFor::Cpu, &kernel[1..]),
                    Some(b'~') => (WaitFor::CpuAfter, &kernel[1..]),
                    _ => (WaitFor::Event, kernel),
                };
                stack.wait = wait;
                addresses(kernel, &mut stack.kernel)?;
                addresses(user, &mut stack.user)?;
                self.account.samples = self.account.samples.saturating_add(stack.count);
                self.account.rows += 1;
                ear.stack(stack);
            }
            b'=' => {
                let (rows, count) = rest.split_once(' ')?;
                self.account.end = Some((rows.parse().ok()?, count.parse().ok()?));
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
