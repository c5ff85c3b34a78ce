//! The perf event that is opened, and what is dropped from it on older kernels. In: what is
//! wanted. Out: descriptors. Never: a guess at the kernel's version (each step is tried).

use crate::{arch, sys};
use perf_event_open_sys::bindings as perf;
use std::io;
use std::os::fd::OwnedFd;

/// Which tasks an event sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All tasks of one CPU.
    Cpu(usize),
    /// One thread and those that it starts, on one CPU.
    Task(u32, usize),
}

/// Optional parts of the attribute. All are on in the beginning; [`Features::weaker`] drops one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Kernel frames.
    pub kernel: bool,
    /// `attr.inherit_thread` (5.13): events of a thread go over to threads that it starts, and not
    /// to processes, which the scanner finds by itself.
    pub inherit_thread: bool,
    /// `attr.comm_exec` (3.16): tell exec from rename.
    pub comm_exec: bool,
    /// `attr.use_clockid` (4.1): stamp with `CLOCK_MONOTONIC`.
    pub clockid: bool,
    /// `attr.mmap2` (3.12): else `attr.mmap` alone.
    pub mmap2: bool,
    /// `PERF_FLAG_FD_CLOEXEC` (3.14): else `fcntl`.
    pub cloexec: bool,
    /// `attr.exclude_callchain_user` (3.7).
    pub exclude_callchain_user: bool,
}

impl Features {
    /// Everything.
    #[must_use]
    pub fn all(kernel: bool) -> Self {
        Self {
            kernel,
            inherit_thread: true,
            comm_exec: true,
            clockid: true,
            mmap2: true,
            cloexec: true,
            exclude_callchain_user: true,
        }
    }

    /// The next weaker set after the kernel refused this one as unknown to it, and what was
    /// dropped. Newest first.
    #[must_use]
    pub fn weaker(self) -> Option<(Self, &'static str)> {
        Some(if self.inherit_thread {
            (
                Self {
                    inherit_thread: false,
                    ..self
                },
                "inherit_thread (Linux 5.13)",
            )
        } else if self.clockid {
            (
                Self {
                    clockid: false,
                    ..self
                },
                "use_clockid (Linux 4.1)",
            )
        } else if self.comm_exec {
            (
                Self {
                    comm_exec: false,
                    ..self
                },
                "comm_exec (Linux 3.16)",
            )
        } else if self.cloexec {
            (
                Self {
                    cloexec: false,
                    ..self
                },
                "PERF_FLAG_FD_CLOEXEC (Linux 3.14)",
            )
        } else if self.mmap2 {
            (
                Self {
                    mmap2: false,
                    ..self
                },
                "mmap2 (Linux 3.12)",
            )
        } else if self.exclude_callchain_user {
            let dropped = "exclude_callchain_user (Linux 3.7)";
            (
                Self {
                    exclude_callchain_user: false,
                    ..self
                },
                dropped,
            )
        } else {
            return None;
        })
    }
}

/// What makes a sampling event fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The CPU clock, each time that so many nanoseconds went by.
    CpuClock(u64),
    /// Every so manyth time that the thread leaves its CPU; each time there is a switch record.
    Switches(u64),
}

/// What is asked of the sampling event.
#[derive(Clone, Copy, Debug)]
pub struct EventPlan {
    /// When it fires.
    pub trigger: Trigger,
    /// Stack bytes to copy.
    pub stack_copy_bytes: u32,
    /// Optional parts.
    pub features: Features,
}

fn base(features: Features) -> perf::perf_event_attr {
    let mut attr = perf::perf_event_attr {
        type_: perf::PERF_TYPE_SOFTWARE,
        size: u32::try_from(size_of::<perf::perf_event_attr>()).unwrap_or(0),
        ..Default::default()
    };
    attr.set_disabled(1);
    attr.set_sample_id_all(1);
    attr.set_comm(1);
    attr.set_comm_exec(u64::from(features.comm_exec));
    if features.clockid {
        attr.set_use_clockid(1);
        attr.clockid = libc::CLOCK_MONOTONIC;
    }
    attr
}

fn sampling(plan: &EventPlan, scope: Scope) -> perf::perf_event_attr {
    let mut attr = base(plan.features);
    // A software event that must tell its period is sampled each time, whatever its period is
    // (`perf_swevent_event` in kernel/events/core.c). An address takes as many bytes.
    let (config, period, told) = match plan.trigger {
        Trigger::CpuClock(period_ns) => (
            perf::PERF_COUNT_SW_CPU_CLOCK,
            period_ns,
            perf::PERF_SAMPLE_PERIOD,
        ),
        Trigger::Switches(every) => (
            perf::PERF_COUNT_SW_CONTEXT_SWITCHES,
            every,
            perf::PERF_SAMPLE_ADDR,
        ),
    };
    attr.config = u64::from(config);
    attr.__bindgen_anon_1.sample_period = period;
    if matches!(plan.trigger, Trigger::Switches(_)) {
        attr.set_context_switch(1);
    }
    attr.sample_type = [
        perf::PERF_SAMPLE_IP,
        perf::PERF_SAMPLE_TID,
        perf::PERF_SAMPLE_TIME,
        told,
        perf::PERF_SAMPLE_CALLCHAIN,
        perf::PERF_SAMPLE_REGS_USER,
        perf::PERF_SAMPLE_STACK_USER,
    ]
    .iter()
    .fold(0, |sum, &bit| sum | u64::from(bit));
    attr.sample_regs_user = arch::SAMPLED;
    attr.sample_stack_user = plan.stack_copy_bytes;
    attr.__bindgen_anon_2.wakeup_events = 1;
    attr.set_exclude_callchain_user(u64::from(plan.features.exclude_callchain_user));
    attr.set_exclude_kernel(u64::from(!plan.features.kernel));
    attr.set_exclude_hv(u64::from(!plan.features.kernel));
    attr.set_exclude_guest(1);
    attr.set_exclude_idle(1);
    attr.set_mmap(1);
    attr.set_mmap2(u64::from(plan.features.mmap2));
    attr.set_task(1);
    if matches!(scope, Scope::Task(..)) {
        attr.set_inherit(1);
        attr.set_inherit_thread(u64::from(plan.features.inherit_thread));
    }
    attr
}

/// Opens the sampling event, disabled.
///
/// # Errors
/// What the kernel says: `EACCES`/`EPERM` when it is not permitted, `ESRCH` for a thread that is
/// gone, `EINVAL`/`E2BIG` for attributes that it does not know.
pub fn open_sampling(plan: &EventPlan, scope: Scope) -> io::Result<OwnedFd> {
    let mut attr = sampling(plan, scope);
    let (pid, cpu) = match scope {
        Scope::Cpu(cpu) => (-1, cpu),
        Scope::Task(tid, cpu) => (i32::try_from(tid).map_err(io::Error::other)?, cpu),
    };
    let cpu = i32::try_from(cpu).map_err(io::Error::other)?;
    sys::perf_event_open(&mut attr, pid, cpu, plan.features.cloexec)
}

/// Opens an event of the calling thread that never fires, to hold a ring on one CPU (or, without
/// CPU, to hear of its own new name).
///
/// # Errors
/// What the kernel says.
pub fn open_dummy(features: Features, cpu: Option<usize>) -> io::Result<OwnedFd> {
    let mut attr = base(features);
    attr.config = u64::from(perf::PERF_COUNT_SW_DUMMY);
    attr.sample_type = u64::from(perf::PERF_SAMPLE_TID) | u64::from(perf::PERF_SAMPLE_TIME);
    attr.set_exclude_kernel(1);
    attr.set_exclude_hv(1);
    let cpu = match cpu {
        Some(cpu) => i32::try_from(cpu).map_err(io::Error::other)?,
        None => -1,
    };
    sys::perf_event_open(&mut attr, 0, cpu, features.cloexec)
}

/// Whether the error may come from an attribute that this kernel does not know.
#[must_use]
pub fn is_unknown_attribute(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::E2BIG | libc::EOPNOTSUPP)
    )
}

/// Whether the error is a refusal.
#[must_use]
pub fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// Opens with everything and drops features one by one while the kernel does not know them.
/// Returns the descriptor, the features in force and what was dropped.
///
/// # Errors
/// The kernel's last word.
pub fn open_with_ladder(
    mut plan: EventPlan,
    scope: Scope,
) -> io::Result<(OwnedFd, Features, Vec<&'static str>)> {
    // It means nothing to an event of a whole CPU, and must not be missed there.
    plan.features.inherit_thread &= matches!(scope, Scope::Task(..));
    ladder(plan, |plan| open_sampling(plan, scope))
}

fn ladder<T>(
    mut plan: EventPlan,
    mut open: impl FnMut(&EventPlan) -> io::Result<T>,
) -> io::Result<(T, Features, Vec<&'static str>)> {
    let mut dropped = Vec::new();
    loop {
        match open(&plan) {
            Ok(fd) => return Ok((fd, plan.features, dropped)),
            Err(error) if is_unknown_attribute(&error) => match plan.features.weaker() {
                Some((features, what)) => {
                    plan.features = features;
                    dropped.push(what);
                }
                None => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_ends_and_drops_each_feature_once() {
        let mut features = Features::all(true);
        let mut dropped = Vec::new();
        while let Some((weaker, what)) = features.weaker() {
            features = weaker;
            dropped.push(what);
        }
        assert_eq!(dropped.len(), 6);
        assert!(
            features.kernel,
            "a weaker kernel does not cost kernel frames"
        );
        assert!(!features.clockid && !features.mmap2 && !features.cloexec);
    }

    /// Kernels by what they know, newest first: release, then whether it has inherit_thread,
    /// use_clockid, comm_exec, FD_CLOEXEC and mmap2.
    const KERNELS: [(&str, [bool; 5]); 5] = [
        ("6.1", [true; 5]),
        ("5.4", [false, true, true, true, true]),
        ("3.18", [false, false, true, true, true]),
        ("3.14", [false, false, false, true, true]),
        ("3.10", [false; 5]),
    ];

    /// What such a kernel says to an attribute.
    fn kernel(knows: [bool; 5], asked: &Features) -> io::Result<()> {
        let asks = [
            asked.inherit_thread,
            asked.clockid,
            asked.comm_exec,
            asked.cloexec,
            asked.mmap2,
        ];
        if asks.iter().zip(knows).all(|(asks, knows)| knows || !asks) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }

    #[test]
    fn an_old_kernel_gets_what_it_knows_and_each_feature_that_it_lacks_is_named() {
        let plan = EventPlan {
            trigger: Trigger::CpuClock(1),
            stack_copy_bytes: 8,
            features: Features::all(true),
        };
        for (release, knows) in KERNELS {
            let (_, features, dropped) =
                ladder(plan, |plan| kernel(knows, &plan.features)).expect(release);
            assert_eq!(
                [
                    features.inherit_thread,
                    features.clockid,
                    features.comm_exec,
                    features.cloexec,
                    features.mmap2
                ],
                knows,
                "{release}"
            );
            let lacks = knows.iter().filter(|k| !**k).count();
            assert_eq!(dropped.len(), lacks, "{release}: {dropped:?}");
        }
        let refused = ladder(plan, |_| {
            Err::<(), _>(io::Error::from_raw_os_error(libc::EACCES))
        });
        let error = refused.expect_err("a refusal is no old kernel");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }
}
