//! What is read of a target while it stands still: the rest of a long stack, and what an interposed unwinder needs. In: a
//! sample. Out: bytes beside it. Never: an allocation, a read without a bound in bytes and time.

use crate::capture::{Shared, Slot};
use crate::interpose::CaptureContext;
use crate::record::{self, Record};
use crate::sys;
use crate::words::StackWords;

/// Processes whose stack's top is remembered; of those that share a place the last one.
const TOPS: usize = 32;
/// How long nothing is looked for above a top, in nanoseconds: a mapping may come to lie there.
const TOP_NS: u64 = 1_000_000_000;

/// Where stacks end. Most stacks are shorter than what the kernel copies, and their copy ends where a stack with a page
/// that was never touched would end it too; to ask each time costs a system call a sample.
#[derive(Debug, Default)]
pub struct StackTops {
    /// Process, address and event time at which nothing was there.
    tops: [(u32, u64, u64); TOPS],
}

impl StackTops {
    fn place(pid: u32, at: u64) -> usize {
        (u64::from(pid) ^ (at >> 12)) as usize % TOPS
    }

    /// Whether there was nothing at `at` a moment before `time`.
    fn is_known(&self, pid: u32, at: u64, time: u64) -> bool {
        let (of, top, seen) = self.tops[Self::place(pid, at)];
        (of, top) == (pid, at) && time.saturating_sub(seen) < TOP_NS
    }

    fn keep(&mut self, pid: u32, at: u64, time: u64) {
        self.tops[Self::place(pid, at)] = (pid, at, time);
    }
}

/// Bytes of stack that are read in one step.
const EXTENSION_STEP: usize = 32 << 10;
/// Bytes that are read behind a page that the kernel could not copy. PCRE's JIT keeps a buffer of
/// 32 KiB on the stack, most of which is never touched.
const HOLE_EXTENSION_MAX: usize = 64 << 10;

/// Reads what must be read while the target stands still: the rest of a long stack, and whatever
/// an interposed unwinder needs.
pub(crate) fn read_live(
    shared: &Shared,
    tops: &mut StackTops,
    slot: &mut Slot,
    deadline: u64,
    exclusive: bool,
) {
    let Slot {
        record,
        length,
        extension,
        extension_length,
        interposed,
        ..
    } = slot;
    let Record::Sample(sample) = record::parse(&record[..*length]) else {
        return;
    };
    let Some(regs) = sample.regs else { return };
    let more = if sample.stack_is_full() {
        usize::MAX
    } else if sample.stack_ends_at_page() {
        HOLE_EXTENSION_MAX
    } else {
        0
    };
    let mut at = regs.sp().wrapping_add(sample.stack.len() as u64);
    if more > 0
        && !tops.is_known(sample.pid, at, sample.time)
        && let Some(mut buffer) = shared.extensions.pop()
    {
        let more = more.min(buffer.len());
        let mut filled = 0;
        while filled < more && shared.event_now() < deadline {
            let step_end = (filled + EXTENSION_STEP).min(more);
            let wanted = step_end - filled;
            let got = sys::read_process(sample.pid, at, &mut buffer[filled..step_end]);
            if got == 0 && filled == 0 {
                tops.keep(sample.pid, at, sample.time);
            }
            filled += got;
            at = at.wrapping_add(got as u64);
            if got < wanted {
                break;
            }
        }
        if filled > 0 {
            *extension_length = filled;
            *extension = Some(buffer);
        } else {
            let _ = shared.extensions.push(buffer);
        }
    }
    if let Some(unwinder) = &shared.interposed {
        let context = CaptureContext {
            pid: sample.pid,
            regs: &regs,
            words: StackWords {
                start: regs.sp(),
                copy: sample.stack,
                extension: extension
                    .as_deref()
                    .and_then(|e| e.get(..*extension_length))
                    .unwrap_or_default(),
            },
            exclusive,
            now: &|| shared.event_now(),
            deadline,
        };
        unwinder.capture(&context, interposed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_top_is_believed_for_its_own_process_and_for_a_second() {
        let mut tops = StackTops::default();
        assert!(!tops.is_known(7, 0x7000, 0));
        tops.keep(7, 0x7000, 5);
        assert!(tops.is_known(7, 0x7000, 5 + TOP_NS - 1));
        assert!(!tops.is_known(7, 0x7000, 5 + TOP_NS));
        assert!(!tops.is_known(7, 0x8000, 5));
        assert!(!tops.is_known(8, 0x7000, 5));
        // What shares its place takes it.
        tops.keep(7 + TOPS as u32, 0x7000, 5);
        assert!(!tops.is_known(7, 0x7000, 5));
    }
}
