//! What a module must know of LuaJIT in the targets: where each VM keeps the coroutine that runs.
//!
//! In: samples of before the start, and those of the capture. Out: words to the module's control file. Never: an address that
//! was not found in the target itself.

use super::capture::Capture;
use crate::engine::task::lock;
use model::{Finding, FindingCode};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long it looks for VMs before the start.
const LOOK_NS: u64 = 2_000_000_000;
/// How often it tells what was found.
const STEP: Duration = Duration::from_millis(100);

impl Capture {
    /// Lets the module show samples of before the start, until the VMs of all targets were found: what is copied from the
    /// first sample on is then as it was. Targets that run no Lua meanwhile are found later.
    pub(super) async fn look(&mut self) {
        if !self.plan.wanted.probe.copies {
            return;
        }
        let tell = |capture: &Self, word: &str| {
            // The module may be gone; that is noticed elsewhere.
            let _ = capture.run.as_ref().map(|run| run.tell(word));
        };
        tell(self, "look");
        let end_ns = self.clock.now_ns() + LOOK_NS;
        while self.clock.now_ns() < end_ns {
            tokio::time::sleep(STEP).await;
            self.tell_vms();
            let found: BTreeSet<u32> = self.told_vms.iter().map(|vm| vm.pid).collect();
            if self.pids.keys().all(|pid| found.contains(pid)) {
                break;
            }
        }
        tell(self, "quiet");
    }

    /// Where VMs of LuaJIT that were found keep what runs.
    pub(super) fn tell_vms(&mut self) {
        let (Some(run), Some(stacks)) = (&self.run, &self.stacks) else {
            return;
        };
        let found = lock(stacks).vms();
        for vm in found.difference(&self.told_vms) {
            // The module may be gone; that is noticed elsewhere.
            let _ = run.tell(&format!("v{} {} {:x}", vm.pid, vm.number, vm.address));
        }
        self.told_vms = found;
    }
}

/// Why nothing is captured where no target runs LuaJIT.
pub(super) fn no_luajit(pids: &[u32]) -> Vec<Finding> {
    let some: Vec<String> = pids.iter().take(4).map(u32::to_string).collect();
    let said = format!(
        "none of the {} target processes ({}…) has an interpreter of LuaJIT for 64 bits mapped",
        pids.len(),
        some.join(", ")
    );
    vec![Finding::new(FindingCode::ProbeUnavailable, said)]
}
