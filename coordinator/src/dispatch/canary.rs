//! What is put on every event is begun on one host alone. Pure.
//!
//! In: hosts, and where those stand whose turn has come. Out: the hosts whose orders may go now. Never: a second host while the
//! first has not armed, for that includes its look at how many events there are; or another one after a host that fell silent
//! over it.

use model::HostName;
use model::job::{EngineChoice, Probe};
use std::collections::VecDeque;

/// Where a host stands that was told to arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// It has not answered.
    Waiting,
    /// It is ready.
    Armed,
    /// It refused, or is lost.
    Out,
}

/// The host that is tried first, and those whose orders wait for it.
#[derive(Debug, Default)]
pub(super) struct Canary {
    alone: Option<HostName>,
    held: VecDeque<HostName>,
}

/// Whether such a capture costs a host something for each event, however many there are. The native engine and perf
/// bound what they take.
pub(super) fn is_put_on_each_event(engine: EngineChoice, probe: Probe) -> bool {
    let bounds_itself = matches!(engine, EngineChoice::Native | EngineChoice::Perf);
    let fires = matches!(
        probe,
        Probe::OffCpu | Probe::Vfs | Probe::Lock | Probe::Alloc
    );
    fires && !bounds_itself
}

impl Canary {
    /// The order of this host waits for its turn.
    pub(super) fn hold(&mut self, host: HostName) {
        self.held.push_back(host);
    }

    /// The hosts whose turn it is: one, or all when the first one has armed.
    pub(super) fn next(&mut self, stands: impl Fn(&HostName) -> Stand) -> Vec<HostName> {
        match self.alone.as_ref().map(&stands) {
            Some(Stand::Waiting) => return Vec::new(),
            Some(Stand::Armed) => return self.held.drain(..).collect(),
            Some(Stand::Out) | None => {}
        }
        while let Some(host) = self.held.pop_front() {
            if stands(&host) == Stand::Waiting {
                self.alone = Some(host.clone());
                return vec![host];
            }
        }
        Vec::new()
    }

    /// The host that has its order while others have to wait for it.
    pub(super) fn alone(&self) -> Option<&HostName> {
        self.alone.as_ref().filter(|_| !self.held.is_empty())
    }

    /// Whether this host has not got its order yet.
    pub(super) fn holds(&self, host: &HostName) -> bool {
        self.held.contains(host)
    }

    /// Nobody's turn comes any more: of these it has not come.
    pub(super) fn give_up(&mut self) -> Vec<HostName> {
        self.held.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn three() -> Canary {
        let mut canary = Canary::default();
        ["a", "b", "c"]
            .into_iter()
            .for_each(|name| canary.hold(host(name)));
        canary
    }

    /// The hosts whose orders go, where these stand elsewhere than at the beginning.
    fn go(canary: &mut Canary, elsewhere: &[(&str, Stand)]) -> Vec<String> {
        let elsewhere: BTreeMap<HostName, Stand> = elsewhere
            .iter()
            .map(|(name, stand)| (host(name), *stand))
            .collect();
        let stands = |host: &HostName| elsewhere.get(host).copied().unwrap_or(Stand::Waiting);
        let gone = canary.next(stands);
        gone.iter().map(HostName::to_string).collect()
    }

    #[test]
    fn the_others_go_when_the_first_has_armed() {
        let mut canary = three();
        assert_eq!(go(&mut canary, &[]), ["a"]);
        assert_eq!(canary.alone(), Some(&host("a")));
        assert!(canary.holds(&host("b")) && !canary.holds(&host("a")));
        assert!(go(&mut canary, &[]).is_empty());
        assert_eq!(go(&mut canary, &[("a", Stand::Armed)]), ["b", "c"]);
        assert_eq!(canary.alone(), None);
        assert!(go(&mut canary, &[("a", Stand::Armed)]).is_empty());
    }

    #[test]
    fn where_the_first_is_out_the_next_one_goes_alone() {
        let mut canary = three();
        go(&mut canary, &[]);
        // One that was lost before its turn is passed over.
        let out = [("a", Stand::Out), ("b", Stand::Out)];
        assert_eq!(go(&mut canary, &out), ["c"]);
        assert_eq!(canary.alone(), None);
        let out = [("a", Stand::Out), ("b", Stand::Out), ("c", Stand::Out)];
        assert!(go(&mut canary, &out).is_empty());
    }

    #[test]
    fn after_a_silent_one_nobody_goes() {
        let mut canary = three();
        go(&mut canary, &[]);
        assert_eq!(canary.give_up(), [host("b"), host("c")]);
        assert!(go(&mut canary, &[("a", Stand::Out)]).is_empty());
    }

    #[test]
    fn what_bounds_itself_needs_no_canary() {
        for (engine, probe) in [
            (EngineChoice::Stap, Probe::OnCpu),
            (EngineChoice::Stap, Probe::Lua),
            (EngineChoice::Native, Probe::OffCpu),
            (EngineChoice::Perf, Probe::OnCpu),
        ] {
            assert!(!is_put_on_each_event(engine, probe));
        }
        for probe in [Probe::OffCpu, Probe::Vfs, Probe::Lock, Probe::Alloc] {
            assert!(is_put_on_each_event(EngineChoice::Stap, probe));
        }
    }
}
