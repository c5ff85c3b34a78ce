//! How hosts get ready where one of them is tried first.
//!
//! In: how it went there. Out: the other hosts' orders, or why they get none. Never: longer than an agent waits that is ready.

use super::host::HostCommand;
use super::run::Loop;
use super::watch::RunEvent;
use model::{Finding, FindingCode, HostName};
use std::time::Duration;
use tokio::time::Instant;

/// Hosts that are ordered one after the other have this long together, unless one alone may take longer: an agent that is
/// ready waits ten minutes for the start.
const READY_MAX: Duration = Duration::from_mins(8);

impl Loop<'_> {
    /// Orders that waited for one host to bear the same, as far as they may go now: with as much time to get ready as others had.
    pub(super) fn order_next(&mut self, deadline: &mut Instant) {
        let hosts = self.canary.next(|host| self.barrier.stand(host));
        if hosts.is_empty() {
            return;
        }
        let timeout = Duration::from_millis(self.arm_timeout_ms);
        *deadline = (Instant::now() + timeout).min(self.began + READY_MAX.max(timeout));
        if let Some(alone) = self.canary.alone() {
            self.context.watch.on(RunEvent::Alone {
                host: alone.to_string(),
                probe: self.context.job.probe.to_string(),
            });
        }
        hosts.iter().for_each(|name| self.arm(name));
    }

    /// Says the order; one that is repeated is the same capture.
    pub(super) fn arm(&self, name: &HostName) {
        let order = self.hosts.get(name).and_then(|state| state.order.clone());
        if let Some(order) = order {
            self.say(name, HostCommand::Arm(Box::new(order)));
        }
    }

    /// Nothing is begun on other hosts after one that fell silent over it.
    pub(super) fn give_up_on_held(&mut self, why: &str) {
        let Some(alone) = self.canary.alone().cloned() else {
            return;
        };
        let said = format!(
            "not begun: {alone}, where {} was tried first, {why}",
            self.context.job.probe
        );
        for name in self.canary.give_up() {
            self.out(&name, Finding::new(FindingCode::HostHeld, said.clone()));
        }
    }

    /// A host whose capture is over before the common start does not start.
    pub(super) fn ended_early(&mut self, name: &HostName) {
        if self.started {
            return;
        }
        if self.canary.alone() == Some(name) {
            self.give_up_on_held("fell silent");
        }
        self.barrier.out(name);
    }
}
