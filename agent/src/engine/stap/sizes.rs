//! How large SystemTap's tables and buffers are. Pure.
//!
//! In: an order, the machine's CPUs, how many threads can run at once. Out: numbers for -D and -b. Never: more memory
//! than the order's budget allows, or a stack that is cut in the middle of an address.
//!
//! SystemTap allocates an array when the module is loaded: its rows for each CPU and once more for the sum, each row with
//! room for the longest string. Two arrays alternate (agent/probes/report.stp), and one holds a slice of time.

use model::CaptureOrder;
use serde::{Deserialize, Serialize};

/// Bytes of an address as SystemTap prints it, with the space behind it: `0xffffffff81000000 `.
const ADDRESS_BYTES: u64 = 19;
/// What a row takes beside its string: links, the pid, the statistics (runtime/map-gen.c, runtime/stat.c).
const ROW_BYTES: u64 = 64;
/// Frames that are kept of the kernel's and of the user's stack, the deepest that fits first.
const DEPTHS: [u64; 5] = [128, 96, 64, 48, 32];
/// Lengths of a slice in milliseconds, the longest that fits first.
const SLICES_MS: [u64; 4] = [1_000, 500, 250, 100];
/// Part of the memory budget that the arrays may take; the rest is for buffers and the agent's own tables.
const ARRAYS_SHARE: u64 = 2;
/// And the buffers.
const BUFFERS_SHARE: u64 = 8;
/// Times as many rows as samples that a slice can have: a report may come late.
const SPARE: u64 = 2;
/// Statements that a report takes for one row, and for the rest (translate.cxx counts one for each).
const ACTIONS_A_ROW: u64 = 24;
/// A copied sample: its bytes, the seconds of them that a CPU's buffer holds until they are read, the statements that it takes,
/// generously (agent/probes/lua.stp).
const COPY_BYTES: u64 = 8 << 10;
const COPIES_S: u64 = 2;
const COPY_ACTIONS: u64 = 4_000;
/// The interval in which the runtime looks at a probe's cost, in cycles (STP_OVERLOAD_INTERVAL).
const OVERLOAD_INTERVAL: u64 = 1_000_000_000;
/// Times the CPU budget that probes may take within it: a third of a second is not a whole capture, and its first stacks
/// cost most.
const BURST: u64 = 4;
/// The runtime's own limit within it, which is never exceeded here.
const OVERLOAD_DEFAULT: u64 = 500_000_000;
/// What a report takes for one row, in cycles, generously: 4 to 20 thousand were seen.
const REPORT_ROW_CYCLES: u64 = 40_000;
/// Largest MAXSKIPPED, whatever was expected: a minute of 256 CPUs at the highest rate, and then a retry's four times.
const SKIPPED_MAX: u64 = 1_000_000;
/// Largest `staprun -b`, in MiB for each CPU.
const BUFFER_MB_MAX: u64 = 64;

/// The numbers. They stand in a module's manifest by these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sizes {
    /// Milliseconds of a slice.
    pub slice_ms: u64,
    /// MAXMAPENTRIES.
    pub rows: u64,
    /// MAXBACKTRACE.
    pub depth: u64,
    /// MAXSTRINGLEN.
    pub string_bytes: u64,
    /// MAXACTION.
    pub actions: u64,
    /// MAXSKIPPED.
    pub skipped_max: u64,
    /// STP_OVERLOAD_THRESHOLD.
    pub overload_cycles: u64,
    /// `staprun -b`, in MiB for each CPU.
    pub buffer_mb: u64,
}

/// What the numbers depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Samples or events a second on one CPU.
    pub per_second: u64,
    /// Milliseconds of the whole capture.
    pub duration_ms: u64,
    /// CPUs of the machine.
    pub cpus: u64,
    /// Threads that can be sampled at once.
    pub running: u64,
    /// Kernel stacks are in the string too.
    pub kernel: bool,
    /// Waits are measured: one more array has the stack of every thread that waits.
    pub waits: bool,
    /// Samples are copied and printed one by one: no array holds them.
    pub copies: bool,
    /// MiB that may be used.
    pub memory_mb: u64,
    /// CPU that may be used, in percent of one core.
    pub cpu_pct: u64,
}

/// What sizes must keep to because an earlier run with others was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Least rows.
    pub rows_min: u64,
    /// Least statements.
    pub actions_min: u64,
    /// Least samples that may be skipped.
    pub skipped_min: u64,
}

impl Bounds {
    /// None: a first try.
    pub(super) const NONE: Self = Self {
        rows_min: 0,
        actions_min: 0,
        skipped_min: 0,
    };

    /// Whether they hold for `sizes`.
    ///
    /// # Errors
    /// Which does not.
    pub(super) fn hold(&self, sizes: &Sizes) -> Result<(), String> {
        let at_least = [
            ("rows", sizes.rows, self.rows_min),
            ("statements", sizes.actions, self.actions_min),
            ("skipped samples", sizes.skipped_max, self.skipped_min),
        ];
        for (what, has, least) in at_least {
            if has < least {
                return Err(format!("it is for {has} {what}, and {least} are needed"));
            }
        }
        Ok(())
    }
}

impl Demand {
    /// Of an on-CPU order.
    pub(super) fn of(order: &CaptureOrder, cpus: usize, threads: usize) -> Self {
        let cpus = cpus.max(1) as u64;
        Self {
            per_second: u64::from(order.sample_hz),
            duration_ms: order.duration_ms,
            cpus,
            running: cpus.min(threads.max(1) as u64),
            kernel: order.kernel,
            waits: false,
            copies: false,
            memory_mb: u64::from(order.budgets.memory_mb_max),
            cpu_pct: u64::from(order.budgets.cpu_pct_max),
        }
    }

    /// Bytes that the arrays take.
    pub(super) fn array_bytes(&self, rows: u64, string_bytes: u64) -> u64 {
        if self.copies {
            return 0;
        }
        // The numbers may be those of a file.
        let row = string_bytes.saturating_add(ROW_BYTES);
        let one = rows.saturating_mul(row);
        let both = one.saturating_mul(2).saturating_mul(self.cpus + 1);
        both.saturating_add(if self.waits { one } else { 0 })
    }

    /// Percent of a CPU that probes may take within the guard's interval.
    pub(super) fn probes_pct_max(&self) -> u64 {
        let most = OVERLOAD_DEFAULT * 100 / OVERLOAD_INTERVAL;
        self.cpu_pct.saturating_mul(BURST).min(most)
    }

    /// What they may take.
    fn array_bytes_max(&self) -> u64 {
        (self.memory_mb << 20) / ARRAYS_SHARE
    }

    /// Most MiB for each CPU's buffer.
    fn buffer_mb_max(&self) -> u64 {
        (self.memory_mb / BUFFERS_SHARE / self.cpus).clamp(1, BUFFER_MB_MAX)
    }

    /// Whether a module of these sizes, which may have been built for another machine, keeps to this one's budgets: the
    /// sizes as they hold here.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn admits(&self, sizes: Sizes, bounds: &Bounds) -> Result<Sizes, String> {
        let own = Sizes::of(*self, bounds).ok_or("nothing fits into the memory budget")?;
        let bytes = self.array_bytes(sizes.rows, sizes.string_bytes);
        if bytes > self.array_bytes_max() {
            return Err(format!("its arrays would take {} MiB here", bytes >> 20));
        }
        bounds.hold(&sizes)?;
        // A slice of the module's own length must fit into its rows.
        let needed = own.rows.saturating_mul(sizes.slice_ms) / own.slice_ms.max(1);
        if sizes.rows < needed.min(own.rows) {
            return Err(format!(
                "it has {} rows, and {needed} are needed",
                sizes.rows
            ));
        }
        let limits = [
            ("cycles for probes", sizes.overload_cycles, OVERLOAD_DEFAULT),
            ("skipped samples", sizes.skipped_max, SKIPPED_MAX),
        ];
        for (what, allows, most) in limits {
            if allows > most {
                return Err(format!("it allows {allows} {what}, more than {most}"));
            }
        }
        // No part of the module: staprun is told.
        let buffer_mb = sizes.buffer_mb.clamp(1, self.buffer_mb_max());
        Ok(Sizes { buffer_mb, ..sizes })
    }

    fn string_bytes(&self, depth: u64) -> u64 {
        let stacks = if self.kernel { 2 } else { 1 };
        // The mark between both, the end of the string; the runtime aligns by 8.
        (depth * stacks * ADDRESS_BYTES + 2).next_multiple_of(8)
    }
}

impl Sizes {
    /// The deepest stacks and the longest slices that fit and are within the bounds; none when nothing does.
    pub(super) fn of(demand: Demand, bounds: &Bounds) -> Option<Self> {
        let memory = demand.array_bytes_max();
        let rows_of = |slice_ms: u64| {
            let samples = (demand.per_second * demand.running * slice_ms).div_ceil(1_000);
            (samples * SPARE).max(64).max(bounds.rows_min)
        };
        let choices = DEPTHS
            .iter()
            .flat_map(|depth| SLICES_MS.iter().map(move |slice| (*depth, *slice)));
        let fits = |(depth, slice_ms): &(u64, u64)| {
            demand.array_bytes(rows_of(*slice_ms), demand.string_bytes(*depth)) <= memory
        };
        let (depth, slice_ms) = choices.into_iter().find(fits)?;
        let rows = rows_of(slice_ms);
        let string_bytes = demand.string_bytes(depth);
        let expected = demand.per_second * demand.running * demand.duration_ms / 1_000;
        let waiting_bytes = match demand.copies {
            true => demand.per_second * COPY_BYTES * COPIES_S,
            false => rows * string_bytes,
        };
        let report_mb = waiting_bytes.div_ceil(1 << 20) + 1;
        let actions = match demand.copies {
            true => COPY_ACTIONS,
            false => rows * ACTIONS_A_ROW + 1_000,
        };
        Some(Self {
            slice_ms,
            rows,
            depth,
            string_bytes,
            actions: actions.max(bounds.actions_min),
            // One in twenty; above one in fifty the result is marked.
            skipped_max: (expected / 20)
                .max(100)
                .max(bounds.skipped_min)
                .min(SKIPPED_MAX),
            overload_cycles: (OVERLOAD_INTERVAL * demand.cpu_pct * BURST / 100)
                .max(rows * REPORT_ROW_CYCLES)
                .min(OVERLOAD_DEFAULT),
            buffer_mb: report_mb.clamp(1, demand.buffer_mb_max()),
        })
    }

    /// What had to be smaller than it could be, in words.
    pub(super) fn smaller(&self) -> Option<String> {
        let whole = (DEPTHS[0], SLICES_MS[0]);
        ((self.depth, self.slice_ms) != whole).then(|| {
            format!(
                "stacks of at most {} frames instead of {}, reports every {} ms instead of {}",
                self.depth, whole.0, self.slice_ms, whole.1
            )
        })
    }

    /// As definitions for `stap -D`.
    pub(super) fn definitions(&self) -> [String; 6] {
        [
            format!("MAXMAPENTRIES={}", self.rows),
            format!("MAXSTRINGLEN={}", self.string_bytes),
            format!("MAXBACKTRACE={}", self.depth),
            format!("MAXACTION={}", self.actions),
            format!("MAXSKIPPED={}", self.skipped_max),
            // The runtime prints it with %lld, and its compiler takes a difference for an error.
            format!("STP_OVERLOAD_THRESHOLD={}LL", self.overload_cycles),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(cpus: u64, running: u64, memory_mb: u64) -> Demand {
        Demand {
            per_second: 99,
            duration_ms: 30_000,
            cpus,
            running,
            kernel: true,
            waits: false,
            copies: false,
            memory_mb,
            cpu_pct: 10,
        }
    }

    #[test]
    fn a_small_machine_gets_deep_stacks_and_long_slices() {
        let sizes = Sizes::of(demand(2, 2, 256), &Bounds::NONE).unwrap();
        assert_eq!((sizes.depth, sizes.slice_ms), (128, 1_000));
        assert!(sizes.string_bytes > 128 * 2 * ADDRESS_BYTES);
        assert!(sizes.rows >= 2 * 99 * 2);
    }

    #[test]
    fn whatever_is_asked_the_arrays_keep_to_their_part_of_the_memory() {
        for cpus in [1, 2, 8, 64, 256] {
            for running in [1, 4, cpus] {
                for memory_mb in [1, 16, 64, 256, 4_096] {
                    let demand = demand(cpus, running, memory_mb);
                    let Some(sizes) = Sizes::of(demand, &Bounds::NONE) else {
                        continue;
                    };
                    let bytes = demand.array_bytes(sizes.rows, sizes.string_bytes);
                    assert!(bytes <= (memory_mb << 20) / 2, "{demand:?} {sizes:?}");
                    // All samples of a slice fit twice, so that the map cannot run over.
                    let samples = 99 * running * sizes.slice_ms / 1_000;
                    assert!(sizes.rows >= 2 * samples, "{demand:?} {sizes:?}");
                    assert!(sizes.overload_cycles <= OVERLOAD_DEFAULT);
                    assert!(
                        sizes.overload_cycles
                            >= (sizes.rows * REPORT_ROW_CYCLES).min(OVERLOAD_DEFAULT)
                    );
                    assert!(sizes.actions >= sizes.rows * ACTIONS_A_ROW);
                }
            }
        }
        assert!(Sizes::of(demand(256, 256, 1), &Bounds::NONE).is_none());
    }

    #[test]
    fn samples_that_are_copied_take_no_array_and_are_never_made_smaller() {
        let demand = Demand {
            copies: true,
            kernel: false,
            ..demand(256, 256, 256)
        };
        let sizes = Sizes::of(demand, &Bounds::NONE).unwrap();
        assert_eq!((sizes.smaller(), sizes.slice_ms), (None, 1_000));
        assert_eq!(demand.admits(sizes, &Bounds::NONE), Ok(sizes));
        // What 256 CPUs may take is a MiB each; two have room for two seconds.
        assert_eq!(sizes.buffer_mb, 1);
        let two = Demand { cpus: 2, ..demand };
        let two = Sizes::of(two, &Bounds::NONE).unwrap();
        assert!(two.buffer_mb << 20 >= 99 * COPY_BYTES * COPIES_S);
    }

    #[test]
    fn many_cpus_make_slices_shorter_before_stacks() {
        let sizes = Sizes::of(demand(64, 64, 1_024), &Bounds::NONE).unwrap();
        assert!(sizes.slice_ms < 1_000, "{sizes:?}");
        // Eight workers on sixty-four CPUs need no more rows than on eight.
        let few = Sizes::of(demand(64, 8, 1_024), &Bounds::NONE).unwrap();
        assert!(few.rows < sizes.rows * 2 && few.slice_ms >= sizes.slice_ms);
    }

    #[test]
    fn bounds_change_the_sizes_and_are_told_where_they_do_not_hold() {
        let demand = demand(2, 2, 256);
        let first = Sizes::of(demand, &Bounds::NONE).unwrap();
        let bounds = Bounds {
            rows_min: first.rows * 2,
            actions_min: first.actions * 4,
            skipped_min: first.skipped_max * 4,
        };
        let then = Sizes::of(demand, &bounds).unwrap();
        let expected = Sizes {
            rows: first.rows * 2,
            actions: first.actions * 4,
            skipped_max: first.skipped_max * 4,
            ..then
        };
        assert_eq!(then, expected);
        assert_eq!(bounds.hold(&then), Ok(()));
        assert!(bounds.hold(&first).unwrap_err().contains("rows"));
        for bounds in [
            Bounds {
                actions_min: first.actions + 1,
                ..Bounds::NONE
            },
            Bounds {
                skipped_min: first.skipped_max + 1,
                ..Bounds::NONE
            },
        ] {
            assert!(bounds.hold(&first).is_err(), "{bounds:?}");
            assert!(demand.admits(first, &bounds).is_err(), "{bounds:?}");
        }
    }

    #[test]
    fn a_file_s_numbers_are_held_against_this_machine() {
        let demand = demand(2, 2, 256);
        let sizes = Sizes::of(demand, &Bounds::NONE).unwrap();
        let admits = |sizes| demand.admits(sizes, &Bounds::NONE);
        assert_eq!(admits(sizes), Ok(sizes));
        let huge = u64::MAX;
        for (words, sizes) in [
            (
                "MiB here",
                Sizes {
                    rows: huge,
                    ..sizes
                },
            ),
            (
                "MiB here",
                Sizes {
                    string_bytes: huge,
                    ..sizes
                },
            ),
            (
                "are needed",
                Sizes {
                    slice_ms: huge,
                    rows: 64,
                    ..sizes
                },
            ),
            (
                "cycles",
                Sizes {
                    overload_cycles: OVERLOAD_DEFAULT + 1,
                    ..sizes
                },
            ),
            (
                "skipped",
                Sizes {
                    skipped_max: huge,
                    ..sizes
                },
            ),
        ] {
            let why = admits(sizes).unwrap_err();
            assert!(why.contains(words), "{words}: {why}");
        }
        let buffer_mb = |asked| {
            admits(Sizes {
                buffer_mb: asked,
                ..sizes
            })
            .unwrap()
            .buffer_mb
        };
        assert_eq!((buffer_mb(0), buffer_mb(4_095)), (1, 16));
    }
}
