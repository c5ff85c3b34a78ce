//! CPU time and run-queue wait of targets, second by second. In: /proc/PID/task/*/schedstat. Out:
//! what each thread name used since the last reading. Never: a reading of more threads at once
//! than the bound (10,000 threads would cost 50 ms of CPU a second).

use crate::proc;
use foldhash::HashMap;
use std::collections::BTreeMap;

/// Threads that are read each second; with more, each process is read every few seconds.
const THREADS_MAX: usize = 2000;

/// What the threads of one name in one process used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The process.
    pub pid: u32,
    /// The threads' name.
    pub thread: String,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Time waiting for a CPU in nanoseconds.
    pub wait_ns: u64,
}

#[derive(Debug, Default)]
struct Known {
    threads: HashMap<u32, (String, u64, u64)>,
    read: bool,
}

/// The readings so far.
#[derive(Debug, Default)]
pub struct CpuMeter {
    processes: HashMap<u32, Known>,
    round: u64,
}

impl CpuMeter {
    /// Reads the threads of `pids`. The first reading of a process is its baseline. `all` reads
    /// every process whatever it costs (at the end).
    pub fn read(&mut self, pids: &[u32], all: bool) -> Vec<Used> {
        self.processes.retain(|pid, _| pids.contains(pid));
        self.round += 1;
        let known: usize = self.processes.values().map(|k| k.threads.len()).sum();
        let turns = (known / THREADS_MAX) as u64 + 1;
        let mut used: BTreeMap<(u32, String), (u64, u64)> = BTreeMap::new();
        for &pid in pids {
            let is_new = !self.processes.contains_key(&pid);
            if !all && !is_new && !(u64::from(pid) + self.round).is_multiple_of(turns) {
                continue;
            }
            let process = self.processes.entry(pid).or_default();
            let mut before = std::mem::take(&mut process.threads);
            for tid in proc::threads(pid) {
                let Some((cpu, wait)) = proc::schedstat(pid, tid) else {
                    continue;
                };
                let (name, cpu_before, wait_before) = match before.remove(&tid) {
                    Some(known) => known,
                    None => {
                        let name = proc::thread_name(pid, tid).unwrap_or_default();
                        // A thread that began since the last reading: all of it counts.
                        if process.read {
                            (name, 0, 0)
                        } else {
                            (name, cpu, wait)
                        }
                    }
                };
                let row = used.entry((pid, name.clone())).or_default();
                row.0 += cpu.saturating_sub(cpu_before);
                row.1 += wait.saturating_sub(wait_before);
                process.threads.insert(tid, (name, cpu, wait));
            }
            process.read = true;
        }
        used.into_iter()
            .filter(|(_, (cpu_ns, wait_ns))| *cpu_ns > 0 || *wait_ns > 0)
            .map(|((pid, thread), (cpu_ns, wait_ns))| Used {
                pid,
                thread,
                cpu_ns,
                wait_ns,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reading_is_the_baseline() {
        let mut meter = CpuMeter::default();
        let me = [std::process::id()];
        assert!(meter.read(&me, true).is_empty());
        let begin = crate::sys::thread_cpu_ns();
        while crate::sys::thread_cpu_ns() - begin < 20_000_000 {
            std::hint::spin_loop();
        }
        let used: u64 = meter.read(&me, true).iter().map(|u| u.cpu_ns).sum();
        assert!((15_000_000..10_000_000_000).contains(&used), "{used}");
    }
}
