//! How samples are taken, from best to worst. In: what the kernel permits. Out: a word for the
//! series and what it means. Never: a weaker mode without saying so.

use std::fmt;

/// How samples are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// One event a CPU that sees all tasks; else events of single threads.
    pub cpu_wide: bool,
    /// How the sampler threads are scheduled.
    pub priority: Priority,
    /// Kernel frames are sampled.
    pub kernel: bool,
}

/// How a sampler thread is scheduled; the better comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// `SCHED_FIFO` 1: the target stands still while its memory is read.
    Fifo,
    /// Nice -20: it nearly always does.
    Nice,
    /// Nice 0: it may run on; what is read after the sample may be torn.
    Plain,
}

impl Mode {
    /// Whether stack words above the kernel's copy may be torn.
    #[must_use]
    pub fn is_racy(self) -> bool {
        self.priority == Priority::Plain
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.cpu_wide { "cpu-wide" } else { "task" })?;
        f.write_str(match self.priority {
            Priority::Fifo => "/fifo",
            Priority::Nice => "/nice",
            Priority::Plain => "/racy",
        })?;
        f.write_str(if self.kernel { "" } else { "/user" })
    }
}
