//! The states of a capture and what moves it between them. Pure: instants are arguments.
//! In: instants and events. Out: what to do. Never: I/O.

/// How long an armed capture waits for its start, in nanoseconds.
const ARMED_NS_MAX: u64 = 600_000_000_000;

/// Where a capture stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The engine is getting ready.
    Arming,
    /// Ready; nothing is sampled.
    Armed {
        /// Since when.
        since_ns: u64,
    },
    /// Sampling, or about to at `start_ns`.
    Running {
        /// The ordered start.
        start_ns: u64,
        /// The ordered end.
        end_ns: u64,
    },
    /// Ended; batches wait for their acknowledgement.
    Draining,
}

/// What a look at the clock asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// The ordered time is over.
    End,
    /// The coordinator has been silent for the whole lease.
    LeaseOver,
    /// Armed for far too long.
    NeverStarted,
}

impl State {
    /// What is due at `now_ns`, when the coordinator was last heard at `heard_ns`.
    pub(super) fn due(self, now_ns: u64, heard_ns: u64, lease_ns: u64) -> Due {
        if now_ns.saturating_sub(heard_ns) >= lease_ns {
            return Due::LeaseOver;
        }
        match self {
            State::Running { end_ns, .. } if now_ns >= end_ns => Due::End,
            State::Armed { since_ns } if now_ns.saturating_sub(since_ns) > ARMED_NS_MAX => {
                Due::NeverStarted
            }
            _ => Due::Nothing,
        }
    }

    /// The states after the order to start at `start_ns` for `duration_ns`. Only an armed capture
    /// can start; a start in the past begins now.
    pub(super) fn start(self, now_ns: u64, start_ns: u64, duration_ns: u64) -> Option<State> {
        let State::Armed { .. } = self else {
            return None;
        };
        let latest = now_ns.saturating_add(ARMED_NS_MAX);
        let start_ns = start_ns.clamp(now_ns, latest);
        Some(State::Running {
            start_ns,
            end_ns: start_ns.saturating_add(duration_ns),
        })
    }

    /// Whether the capture ran for as long as it was ordered.
    pub(super) fn complete_at(self, now_ns: u64) -> bool {
        matches!(self, State::Running { end_ns, .. } if now_ns >= end_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: u64 = 4_000_000_000;
    const RUNNING: State = State::Running {
        start_ns: 10,
        end_ns: 100,
    };

    #[test]
    fn the_lease_ends_every_state() {
        for state in [
            State::Arming,
            State::Armed { since_ns: 0 },
            RUNNING,
            State::Draining,
        ] {
            assert_eq!(state.due(LEASE, 0, LEASE), Due::LeaseOver, "{state:?}");
            assert_ne!(state.due(LEASE, 1, LEASE), Due::LeaseOver, "{state:?}");
        }
    }

    #[test]
    fn a_capture_ends_at_its_time_without_being_told() {
        assert_eq!(RUNNING.due(99, 50, LEASE), Due::Nothing);
        assert_eq!(RUNNING.due(100, 50, LEASE), Due::End);
    }

    #[test]
    fn only_an_armed_capture_starts_and_a_late_start_is_now() {
        let armed = State::Armed { since_ns: 0 };
        assert_eq!(
            armed.start(50, 20, 90),
            Some(State::Running {
                start_ns: 50,
                end_ns: 140
            })
        );
        assert_eq!(
            armed.start(50, 70, 90),
            Some(State::Running {
                start_ns: 70,
                end_ns: 160
            })
        );
        for state in [State::Arming, RUNNING, State::Draining] {
            assert_eq!(state.start(50, 70, 90), None);
        }
        assert_eq!(
            armed.due(ARMED_NS_MAX + 1, ARMED_NS_MAX, LEASE),
            Due::NeverStarted
        );
    }
}
