//! A machine that booted at another time: CLOCK_MONOTONIC and CLOCK_BOOTTIME moved by whole seconds.
//!
//! In: a command. Out: the same command, run in a time namespace of its own.
//! Never: CLOCK_REALTIME (no namespace has it), nor the clocks of the kernel itself: perf records
//! with `use_clockid` keep the machine's clock, which is what a tested program has to cope with.

use std::process::Command;

use anyhow::{Result, bail};

use crate::requirements;

/// How far the clocks that count from boot are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeShift {
    /// Seconds added to CLOCK_MONOTONIC and CLOCK_BOOTTIME. Backwards only as far as the machine is up.
    pub monotonic_s: i64,
}

impl TimeShift {
    /// `command`, to be run with shifted clocks: argv, environment and directory stay as they are.
    ///
    /// The process that is started becomes the program (no process stands between), so its pid is
    /// the program's. Needs Linux 6.1: before, only a forked child entered the new time namespace.
    pub fn wrap(&self, command: Command) -> Result<Command> {
        let unshare = requirements::command("unshare")?;
        let seconds = self.monotonic_s.to_string();
        if kernel_at_least((6, 1)) == Some(false) {
            bail!("a time namespace that is entered on exec needs Linux 6.1 or newer");
        }
        let mut shifted = Command::new(unshare);
        shifted.args([
            "--time",
            "--monotonic",
            &seconds,
            "--boottime",
            &seconds,
            "--",
        ]);
        shifted.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shifted.env(key, value),
                None => shifted.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            shifted.current_dir(dir);
        }
        Ok(shifted)
    }
}

fn kernel_at_least(wanted: (u32, u32)) -> Option<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let found = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some(found >= wanted)
}
