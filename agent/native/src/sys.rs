//! System calls that std does not offer. In: numbers and buffers. Out: numbers, errno as
//! `io::Error`. Never: a policy, a retry, an allocation (the sampler threads call these).
#![expect(unsafe_code, reason = "system calls; each block says why it is sound")]

use perf_event_open_sys::bindings::perf_event_attr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `perf_event_open(2)`. `pid` -1 means every task (then `cpu` must be given).
///
/// # Errors
/// What the kernel says; `EINVAL` and `E2BIG` often mean an attribute that it does not know.
pub fn perf_event_open(
    attr: &mut perf_event_attr,
    pid: i32,
    cpu: i32,
    cloexec: bool,
) -> io::Result<OwnedFd> {
    let flags = if cloexec {
        libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC)
    } else {
        0
    };
    // SAFETY: `attr` is a live, initialised perf_event_attr whose `size` field states its size.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_mut(attr),
            libc::c_long::from(pid),
            libc::c_long::from(cpu),
            -1_i64,
            flags,
        )
    })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if !cloexec {
        // SAFETY: fcntl on a descriptor that we own.
        check(libc::c_long::from(unsafe {
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC)
        }))?;
    }
    Ok(fd)
}

/// `PERF_FLAG_FD_CLOEXEC` of include/uapi/linux/perf_event.h (3.14).
const PERF_FLAG_FD_CLOEXEC: u32 = 1 << 3;

/// Starts counting (`PERF_EVENT_IOC_ENABLE`).
///
/// # Errors
/// What the kernel says.
pub fn perf_enable(fd: &OwnedFd) -> io::Result<()> {
    perf_ioctl(fd, perf_event_open_sys::bindings::ENABLE, 0)
}

/// Stops counting (`PERF_EVENT_IOC_DISABLE`).
///
/// # Errors
/// What the kernel says.
pub fn perf_disable(fd: &OwnedFd) -> io::Result<()> {
    perf_ioctl(fd, perf_event_open_sys::bindings::DISABLE, 0)
}

/// Sets the period in nanoseconds of a cpu-clock event and restarts its timer
/// (`PERF_EVENT_IOC_PERIOD`).
///
/// # Errors
/// What the kernel says.
pub fn perf_period(fd: &OwnedFd, mut period: u64) -> io::Result<()> {
    perf_ioctl(
        fd,
        perf_event_open_sys::bindings::PERIOD,
        std::ptr::from_mut(&mut period) as usize,
    )
}

/// Sends the records of `fd` into the ring of `into` (`PERF_EVENT_IOC_SET_OUTPUT`).
///
/// # Errors
/// What the kernel says.
pub fn perf_set_output(fd: &OwnedFd, into: RawFd) -> io::Result<()> {
    let into = usize::try_from(into).map_err(io::Error::other)?;
    perf_ioctl(fd, perf_event_open_sys::bindings::SET_OUTPUT, into)
}

fn perf_ioctl(fd: &OwnedFd, request: u32, argument: usize) -> io::Result<()> {
    // SAFETY: an ioctl on a perf descriptor that we own; `argument` is a number or, for PERIOD, a
    // pointer to a live u64 of the caller.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::c_ulong::from(request), argument) };
    check(libc::c_long::from(result)).map(drop)
}

/// Waits until `fd` is readable or `timeout_ms` went by. Returns whether it hung up.
pub fn poll_readable(fd: RawFd, timeout_ms: i32) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live pollfd.
    unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
    poll.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

/// Size of the steps in which another process's memory is read: one that is not there must not
/// spoil the ones before it, and the kernel gives whole vectors only.
pub const READ_STEP: usize = 4096;
const STEPS_MAX: usize = 16;

/// Copies from `address` of process `pid` into `into`; returns how many bytes from the start
/// could be read. At most 64 KiB a call.
pub fn read_process(pid: u32, address: u64, into: &mut [u8]) -> usize {
    let Ok(pid) = i32::try_from(pid) else {
        return 0;
    };
    let length = into.len().min(READ_STEP * STEPS_MAX - READ_STEP);
    let mut remote = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; STEPS_MAX];
    let mut count = 0;
    let mut at = address;
    let Some(end) = address.checked_add(length as u64) else {
        return 0;
    };
    while at < end && count < STEPS_MAX {
        let step_end = (at | (READ_STEP as u64 - 1)).saturating_add(1).min(end);
        let (Ok(base), Ok(len)) = (usize::try_from(at), usize::try_from(step_end - at)) else {
            return 0;
        };
        remote[count] = libc::iovec {
            iov_base: base as *mut libc::c_void,
            iov_len: len,
        };
        count += 1;
        at = step_end;
    }
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: length,
    };
    // SAFETY: `local` is a live buffer of ours with that length; remote addresses are only ever
    // followed by the kernel in the other process, which checks them.
    let got = unsafe {
        libc::process_vm_readv(
            pid,
            &raw const local,
            1,
            remote.as_ptr(),
            count as libc::c_ulong,
            0,
        )
    };
    usize::try_from(got).unwrap_or(0)
}

/// Addresses that one call of [`read_process_each`] takes.
const PIECES_MAX: usize = 64;

/// Copies `length` bytes from each of these addresses of process `pid`, one behind the other, into
/// `into`; returns how many whole pieces from the first on could be read. At most 64 pieces a call.
pub fn read_process_each(pid: u32, addresses: &[u64], length: usize, into: &mut [u8]) -> usize {
    let Ok(pid) = i32::try_from(pid) else {
        return 0;
    };
    let wanted = addresses.len().min(PIECES_MAX);
    let count = wanted.min(into.len().checked_div(length).unwrap_or(0));
    let mut remote = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; PIECES_MAX];
    for (piece, &address) in remote[..count].iter_mut().zip(addresses) {
        let Ok(base) = usize::try_from(address) else {
            return 0;
        };
        *piece = libc::iovec {
            iov_base: base as *mut libc::c_void,
            iov_len: length,
        };
    }
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: length * count,
    };
    // SAFETY: `local` is a live buffer of ours, at least that long; remote addresses are only ever
    // followed by the kernel in the other process, which checks them.
    let got = unsafe {
        libc::process_vm_readv(
            pid,
            &raw const local,
            1,
            remote.as_ptr(),
            count as libc::c_ulong,
            0,
        )
    };
    usize::try_from(got).unwrap_or(0) / length.max(1)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: one live timespec.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// `CLOCK_MONOTONIC` of this process, in nanoseconds.
#[must_use]
pub fn mono_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_BOOTTIME` of this process, in nanoseconds; start times of processes count from its 0.
#[must_use]
pub fn boot_ns() -> u64 {
    clock_ns(libc::CLOCK_BOOTTIME)
}

/// CPU time of the calling thread, in nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The calling thread's id.
#[must_use]
pub fn thread_id() -> i32 {
    // SAFETY: gettid has no arguments and cannot fail.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    i32::try_from(id).unwrap_or(0)
}

/// Names the calling thread (`PR_SET_NAME`, at most 15 bytes are kept).
pub fn set_thread_name(name: &std::ffi::CStr) {
    // SAFETY: a live, terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Most CPUs that a `cpu_set_t` knows.
pub const CPUS_MAX: usize = 1024;

/// Pins the calling thread to one CPU.
///
/// # Errors
/// `EINVAL` when the CPU is offline or outside our cpuset.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= CPUS_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: cpu_set_t is plain data for which all-zero is the empty set; cpu < CPUS_MAX.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    check(libc::c_long::from(result)).map(drop)
}

/// The CPUs that a task may run on (`sched_getaffinity`); 0 is the calling thread.
#[must_use]
pub fn affinity(tid: u32) -> Vec<usize> {
    let Ok(tid) = i32::try_from(tid) else {
        return Vec::new();
    };
    // SAFETY: all-zero is the empty set, the size is the set's own, indices are < CPUS_MAX.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(tid, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return Vec::new();
        }
        (0..CPUS_MAX)
            .filter(|&cpu| libc::CPU_ISSET(cpu, &set))
            .collect()
    }
}

/// Puts the calling thread at `SCHED_FIFO` priority 1; its children start at normal priority.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` or without a real-time share in the cgroup.
pub fn become_realtime() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: one live sched_param.
    let result = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameter,
        )
    };
    check(libc::c_long::from(result)).map(drop)
}

/// Sets the nice value of the calling thread alone (Linux keeps it per thread).
///
/// # Errors
/// `EACCES` when a value below the present one is not permitted.
pub fn set_nice(nice: i32) -> io::Result<()> {
    set_nice_of(u32::try_from(thread_id()).unwrap_or(0), nice)
}

/// Sets the nice value of one thread; by a process's id, of its first.
///
/// # Errors
/// `EACCES` or `EPERM` when it is not permitted, `ESRCH` when the thread is gone.
pub fn set_nice_of(tid: u32, nice: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, nice) };
    check(libc::c_long::from(result)).map(drop)
}

/// A soft and a hard resource limit.
#[must_use]
pub fn limit(resource: Limit) -> (u64, u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: one live rlimit.
    unsafe { libc::getrlimit(resource.number(), &raw mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

/// Raises the soft limit to `wanted`, and the hard one too where that is permitted. Returns the
/// soft limit then in force.
pub fn raise_limit(resource: Limit, wanted: u64) -> u64 {
    let (soft, hard) = limit(resource);
    if soft >= wanted {
        return soft;
    }
    for (cur, max) in [(wanted, hard.max(wanted)), (wanted.min(hard), hard)] {
        let new = libc::rlimit {
            rlim_cur: cur,
            rlim_max: max,
        };
        // SAFETY: one live rlimit.
        if unsafe { libc::setrlimit(resource.number(), &raw const new) } == 0 {
            return cur;
        }
    }
    soft
}

/// Which resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Locked memory: perf rings count against it.
    Memlock,
    /// Open files.
    Nofile,
}

impl Limit {
    fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Self::Memlock => libc::RLIMIT_MEMLOCK,
            Self::Nofile => libc::RLIMIT_NOFILE,
        }
    }
}

/// Page size in bytes.
#[must_use]
pub fn page_size() -> usize {
    // SAFETY: a number in, a number out.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// `openat2(2)` below `dir`, with `dir` as the root of everything in `path`
/// (`RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, include/uapi/linux/openat2.h, Linux 5.6).
///
/// # Errors
/// `ENOSYS` on older kernels; else what open says.
pub fn open_in_root(dir: &OwnedFd, path: &std::ffi::CStr, flags: i32) -> io::Result<OwnedFd> {
    const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
    const RESOLVE_IN_ROOT: u64 = 0x10;
    let how = OpenHow {
        flags: u64::try_from(flags).unwrap_or(0),
        mode: 0,
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    // SAFETY: a live terminated path and a live open_how whose size is stated.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        )
    })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_our_own_memory_stops_at_what_is_there() {
        let data = vec![7_u8; 9000];
        let mut out = vec![0_u8; 9000];
        let got = read_process(std::process::id(), data.as_ptr() as u64, &mut out);
        assert_eq!(got, 9000);
        assert_eq!(out, data);
        let at = data.as_ptr() as u64;
        let me = std::process::id();
        assert_eq!(
            read_process_each(me, &[at, at + 8, at + 100], 8, &mut out),
            3
        );
        assert_eq!(read_process_each(me, &[at, 16, at], 8, &mut out), 1);
        assert_eq!(read_process_each(me, &[at; 99], 8, &mut out[..20]), 2);
        assert_eq!(read_process(std::process::id(), 16, &mut out), 0);
        assert_eq!(read_process(std::process::id(), u64::MAX - 10, &mut out), 0);
    }
}
