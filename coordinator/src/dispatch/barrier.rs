//! The barrier before the common start. Pure.
//!
//! In: which hosts are ready or out. Out: when to start. Never: a start while a host may still
//! get ready in time.

use super::canary::Stand;
use model::HostName;
use std::collections::BTreeSet;

/// Hosts that were told to arm and have not answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Barrier {
    waiting: BTreeSet<HostName>,
    armed: BTreeSet<HostName>,
}

/// What the barrier says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Somebody is still arming.
    Wait,
    /// Start these; give up on the others.
    Start {
        /// Ready.
        armed: BTreeSet<HostName>,
        /// Not ready in time.
        late: BTreeSet<HostName>,
    },
    /// Nobody is ready, and nobody will be in time.
    Nobody {
        /// Not ready in time.
        late: BTreeSet<HostName>,
    },
}

impl Barrier {
    pub(super) fn expect(&mut self, host: HostName) {
        self.waiting.insert(host);
    }

    pub(super) fn armed(&mut self, host: &HostName) {
        if self.waiting.remove(host) {
            self.armed.insert(host.clone());
        }
    }

    pub(super) fn out(&mut self, host: &HostName) {
        self.waiting.remove(host);
        self.armed.remove(host);
    }

    /// Where a host stands.
    pub(super) fn stand(&self, host: &HostName) -> Stand {
        match (self.waiting.contains(host), self.armed.contains(host)) {
            (true, _) => Stand::Waiting,
            (_, true) => Stand::Armed,
            _ => Stand::Out,
        }
    }

    pub(super) fn verdict(&self, deadline_passed: bool) -> Verdict {
        if !self.waiting.is_empty() && !deadline_passed {
            return Verdict::Wait;
        }
        if self.armed.is_empty() {
            let late = self.waiting.clone();
            return Verdict::Nobody { late };
        }
        Verdict::Start {
            armed: self.armed.clone(),
            late: self.waiting.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_when_everybody_has_answered_or_time_is_up() {
        let host = |n: &str| HostName::new(n).unwrap();
        let mut barrier = Barrier::default();
        ["a", "b", "c"]
            .into_iter()
            .for_each(|n| barrier.expect(host(n)));
        barrier.armed(&host("a"));
        barrier.out(&host("b"));
        assert_eq!(barrier.verdict(false), Verdict::Wait);
        let late = Verdict::Start {
            armed: [host("a")].into(),
            late: [host("c")].into(),
        };
        assert_eq!(barrier.verdict(true), late);
        barrier.armed(&host("c"));
        let both = Verdict::Start {
            armed: [host("a"), host("c")].into(),
            late: BTreeSet::new(),
        };
        assert_eq!(barrier.verdict(false), both);
        barrier.armed(&host("stranger"));
        assert_eq!(barrier.verdict(false), both);
        barrier.out(&host("a"));
        barrier.out(&host("c"));
        let nobody = |late| Verdict::Nobody { late };
        assert_eq!(barrier.verdict(false), nobody(BTreeSet::new()));
        barrier.expect(host("d"));
        assert_eq!(barrier.verdict(true), nobody([host("d")].into()));
    }
}
