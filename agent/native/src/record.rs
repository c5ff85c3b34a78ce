//! The records of a perf ring. In: one record's bytes. Out: what it says, borrowed. Never: trust
//! in a size or count that the bytes state (a damaged record is `Damaged`, not a panic).
//!
//! Numbers and layouts: include/uapi/linux/perf_event.h, `enum perf_event_type`.

use crate::arch::{self, Regs, SAMPLED_COUNT};

/// A record's header: type, flags, size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `PERF_RECORD_*`.
    pub kind: u32,
    /// `PERF_RECORD_MISC_*`.
    pub misc: u16,
    /// Bytes of the whole record, header included.
    pub size: u16,
}

/// Bytes of a header.
pub const HEADER_BYTES: usize = 8;

impl Header {
    /// From the first eight bytes of a record.
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        let b = word.to_ne_bytes();
        Self {
            kind: u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            misc: u16::from_ne_bytes([b[4], b[5]]),
            size: u16::from_ne_bytes([b[6], b[7]]),
        }
    }
}

pub(crate) const LOST: u32 = 2;
pub(crate) const COMM: u32 = 3;
pub(crate) const EXIT: u32 = 4;
pub(crate) const THROTTLE: u32 = 5;
pub(crate) const FORK: u32 = 7;
pub(crate) const SAMPLE: u32 = 9;
pub(crate) const MMAP: u32 = 1;
pub(crate) const MMAP2: u32 = 10;
pub(crate) const SWITCH: u32 = 14;
/// `PERF_RECORD_MISC_SWITCH_OUT`: the thread leaves its CPU.
const MISC_SWITCH_OUT: u16 = 1 << 13;
/// `PERF_RECORD_MISC_SWITCH_OUT_PREEMPT` (4.17): and could have gone on.
const MISC_SWITCH_OUT_PREEMPT: u16 = 1 << 14;
/// `PERF_RECORD_MISC_COMM_EXEC`: the new name comes from an exec.
const MISC_COMM_EXEC: u16 = 1 << 13;

/// Callchain entries from here up are context markers, not addresses (`PERF_CONTEXT_MAX`, -4095).
pub const CONTEXT_MARKERS: u64 = (-4095_i64).cast_unsigned();

/// One sample, borrowed from the record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Where the CPU was.
    pub ip: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The event's clock, in nanoseconds.
    pub time: u64,
    /// User registers; none for a thread without user space or in 32-bit mode.
    pub regs: Option<Regs>,
    /// The user stack from the stack pointer up, as far as it could be copied.
    pub stack: &'a [u8],
    /// Bytes of stack that the kernel tried to copy: equal to `stack.len()` when there is more.
    pub stack_asked: u64,
    chain: &'a [u8],
}

impl Sample<'_> {
    /// Kernel callchain, leaf first, context markers left out.
    pub fn kernel_chain(&self) -> impl Iterator<Item = u64> + '_ {
        self.chain
            .chunks_exact(8)
            .filter_map(|c| c.try_into().ok().map(u64::from_ne_bytes))
            .filter(|&address| address < CONTEXT_MARKERS)
    }

    /// Whether the kernel copied as much as it was asked, so that there is more.
    #[must_use]
    pub fn stack_is_full(&self) -> bool {
        self.stack_asked > 0 && self.stack.len() as u64 == self.stack_asked
    }

    /// Whether the copy ended at a page border before it was full: at the top of the stack, or at
    /// a page that was never touched (inside a large local buffer), which the kernel cannot fault
    /// in while it samples.
    #[must_use]
    pub fn stack_ends_at_page(&self) -> bool {
        let end = self
            .regs
            .map_or(1, |r| r.sp().wrapping_add(self.stack.len() as u64));
        !self.stack_is_full() && self.stack_asked > 0 && end.is_multiple_of(4096)
    }
}

/// What a record says.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack while it is handled"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A stack.
    Sample(Sample<'a>),
    /// A process mapped executable memory.
    Mapped {
        /// The process.
        pid: u32,
    },
    /// A thread has a new name.
    Named {
        /// The process.
        pid: u32,
        /// The thread.
        tid: u32,
        /// Whether it runs a new program.
        exec: bool,
        /// The event's clock.
        time: u64,
    },
    /// A thread or process began.
    Forked {
        /// Its process.
        pid: u32,
        /// The process that made it; the same for a thread.
        parent: u32,
        /// Its id.
        tid: u32,
        /// The event's clock.
        time: u64,
    },
    /// A thread left its CPU or got one.
    Switched {
        /// Its process.
        pid: u32,
        /// Its id.
        tid: u32,
        /// Whether it left, and then whether it could have gone on.
        out: Option<bool>,
        /// The event's clock.
        time: u64,
    },
    /// A thread ended.
    Exited {
        /// Its process.
        pid: u32,
        /// Its id.
        tid: u32,
        /// The event's clock.
        time: u64,
    },
    /// So many records did not fit.
    Lost(u64),
    /// The kernel found the rate too high and paused the event.
    Throttled,
    /// A record that is not of interest.
    Other,
    /// The bytes are not a record of the kind that they claim.
    Damaged,
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*head))
    }

    fn u32_pair(&mut self) -> Option<(u32, u32)> {
        let b = self.u64()?.to_ne_bytes();
        let low = u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
        Some((low, u32::from_ne_bytes([b[4], b[5], b[6], b[7]])))
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(head)
    }
}

/// Reads one record (with its header) of an event whose sample type is
/// `IP | TID | TIME | (PERIOD or ADDR) | CALLCHAIN | REGS_USER | STACK_USER` with `sample_id_all`.
#[must_use]
pub fn parse(bytes: &[u8]) -> Record<'_> {
    parse_checked(bytes).unwrap_or(Record::Damaged)
}

fn parse_checked(bytes: &[u8]) -> Option<Record<'_>> {
    let mut cursor = Cursor(bytes);
    let header = Header::from_word(cursor.u64()?);
    if usize::from(header.size) != bytes.len() {
        return None;
    }
    Some(match header.kind {
        SAMPLE => Record::Sample(sample(cursor)?),
        MMAP | MMAP2 => Record::Mapped {
            pid: cursor.u32_pair()?.0,
        },
        COMM => {
            let (pid, tid) = cursor.u32_pair()?;
            let exec = header.misc & MISC_COMM_EXEC != 0;
            // The trailer of sample_id_all ends the record: pid, tid, time.
            let time = u64::from_ne_bytes(*bytes.last_chunk::<8>()?);
            Record::Named {
                pid,
                tid,
                exec,
                time,
            }
        }
        FORK | EXIT => {
            let (pid, parent) = cursor.u32_pair()?;
            let (tid, _) = cursor.u32_pair()?;
            let time = cursor.u64()?;
            if header.kind == FORK {
                Record::Forked {
                    pid,
                    parent,
                    tid,
                    time,
                }
            } else {
                Record::Exited { pid, tid, time }
            }
        }
        LOST => {
            cursor.u64()?;
            Record::Lost(cursor.u64()?)
        }
        SWITCH => {
            // The whole record is the trailer of sample_id_all.
            let (pid, tid) = cursor.u32_pair()?;
            let time = cursor.u64()?;
            let out = (header.misc & MISC_SWITCH_OUT != 0)
                .then_some(header.misc & MISC_SWITCH_OUT_PREEMPT != 0);
            Record::Switched {
                pid,
                tid,
                out,
                time,
            }
        }
        THROTTLE => Record::Throttled,
        _ => Record::Other,
    })
}

fn sample(mut cursor: Cursor<'_>) -> Option<Sample<'_>> {
    let ip = cursor.u64()?;
    let (pid, tid) = cursor.u32_pair()?;
    let time = cursor.u64()?;
    let _period = cursor.u64()?;
    let entries = usize::try_from(cursor.u64()?).ok()?;
    let chain = cursor.take(entries.checked_mul(8)?)?;
    let abi = cursor.u64()?;
    let mut regs = None;
    if abi != 0 {
        let mut words = [0; SAMPLED_COUNT];
        for word in &mut words {
            *word = cursor.u64()?;
        }
        // PERF_SAMPLE_REGS_ABI_64 is 2; 32-bit programs are not unwound.
        if abi == 2 {
            regs = Some(arch::regs_from_words(&words));
        }
    }
    let stack_asked = cursor.u64()?;
    let mut stack: &[u8] = &[];
    if stack_asked > 0 {
        let data = cursor.take(usize::try_from(stack_asked).ok()?)?;
        let copied = usize::try_from(cursor.u64()?).ok()?;
        stack = data.get(..copied)?;
    }
    Some(Sample {
        ip,
        pid,
        tid,
        time,
        regs,
        stack,
        stack_asked,
        chain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u32, misc: u16, words: &[u64]) -> Vec<u8> {
        let size = u16::try_from(8 + words.len() * 8).expect("small");
        let mut out = kind.to_ne_bytes().to_vec();
        out.extend(misc.to_ne_bytes());
        out.extend(size.to_ne_bytes());
        out.extend(words.iter().flat_map(|w| w.to_ne_bytes()));
        out
    }

    fn a_sample() -> Vec<u8> {
        let mut words = vec![0xffff_8000_0000_1000, (8 << 32) | 7, 123, 1_000_000];
        words.extend([
            3,
            (-128_i64).cast_unsigned(),
            0xffff_8000_0000_1000,
            0xffff_8000_0000_2000,
        ]);
        words.push(2);
        words.extend((0..SAMPLED_COUNT as u64).map(|i| 0x1000 + i));
        words.extend([16, 0xaa, 0xbb, 16]);
        record(SAMPLE, 0, &words)
    }

    #[test]
    fn a_sample_gives_its_chain_registers_and_stack() {
        let bytes = a_sample();
        let Record::Sample(s) = parse(&bytes) else {
            panic!("not a sample")
        };
        assert_eq!((s.pid, s.tid, s.time), (7, 8, 123));
        assert_eq!(
            s.kernel_chain().collect::<Vec<_>>(),
            [0xffff_8000_0000_1000, 0xffff_8000_0000_2000]
        );
        assert!(s.stack_is_full());
        assert_eq!(s.stack.len(), 16);
        #[cfg(target_arch = "x86_64")]
        {
            let regs = s.regs.expect("regs");
            assert_eq!((regs.ip, regs.sp(), regs.fp()), (0x1008, 0x1007, 0x1006));
            assert_eq!(regs.r[3], 0x1001, "rbx is DWARF register 3");
        }
    }

    #[test]
    fn side_band_records_give_their_process_and_time() {
        let comm = record(
            COMM,
            MISC_COMM_EXEC,
            &[(6 << 32) | 5, 0x6161, (6 << 32) | 5, 99],
        );
        assert_eq!(
            parse(&comm),
            Record::Named {
                pid: 5,
                tid: 6,
                exec: true,
                time: 99
            }
        );
        let fork = record(FORK, 0, &[(1 << 32) | 2, (1 << 32) | 2, 77, 0, 77]);
        assert_eq!(
            parse(&fork),
            Record::Forked {
                pid: 2,
                parent: 1,
                tid: 2,
                time: 77
            }
        );
        for (misc, out) in [
            (0, None),
            (MISC_SWITCH_OUT, Some(false)),
            (MISC_SWITCH_OUT | MISC_SWITCH_OUT_PREEMPT, Some(true)),
        ] {
            let switch = record(SWITCH, misc, &[(8 << 32) | 7, 55]);
            let (pid, tid, time) = (7, 8, 55);
            let expected = Record::Switched {
                pid,
                tid,
                out,
                time,
            };
            assert_eq!(parse(&switch), expected);
        }
        assert_eq!(parse(&record(LOST, 0, &[1, 42])), Record::Lost(42));
    }

    #[test]
    fn a_record_cut_anywhere_is_damaged() {
        let bytes = a_sample();
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Record::Damaged, "cut at {cut}");
            let mut stated = bytes[..cut].to_vec();
            if cut >= 8 {
                stated[6..8].copy_from_slice(&u16::try_from(cut).expect("small").to_ne_bytes());
                assert_eq!(parse(&stated), Record::Damaged, "size says {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(
            flips in prop::collection::vec((0_usize..4096, any::<u8>()), 1..20),
            kind in 0_u32..20,
        ) {
            let mut bytes = a_sample();
            bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            for (at, value) in flips {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Record::Sample(s) = parse(&bytes) {
                prop_assert!(s.stack.len() <= bytes.len());
                prop_assert!(s.kernel_chain().count() <= bytes.len() / 8);
            }
        }

        #[test]
        fn noise_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            if bytes.len() >= 8 {
                let size = u16::try_from(bytes.len()).expect("small");
                bytes[..4].copy_from_slice(&SAMPLE.to_ne_bytes());
                bytes[6..8].copy_from_slice(&size.to_ne_bytes());
                let _ = parse(&bytes);
            }
        }
    }
}
