//! Reloads of a gateway, told from workers that are replaced one by one. In: when workers of one master
//! started and ended. Out: generations. Never: a guess from titles (a worker that is told to leave may be
//! gone before its title is read).
//!
//! A master keeps the number of its workers. One that ended by itself is replaced after its end; at a
//! reload the new ones are started first, and the old ones told to leave 100 ms later. So a worker that
//! comes where none is missing is a reload.

/// New workers within this time after a reload was noticed belong to it.
const WINDOW_NS: u64 = 5_000_000_000;
/// Start times are cut to clock ticks of 10 ms.
const TICK_NS: u64 = 20_000_000;
/// Places that are kept; a gateway has as many workers as CPUs.
const VACANT_MAX: usize = 4096;

/// The workers of one master since its last reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cycle {
    /// Reloads so far.
    pub generation: u32,
    /// When the last one was noticed; 0 when there was none.
    noticed_ns: u64,
    /// When workers of this generation ended that have no successor yet, at the earliest.
    vacant_ns: Vec<u64>,
}

impl Cycle {
    /// Of a master that is new itself: all its first workers come now, and none is a reload.
    #[must_use]
    pub fn begun(now_ns: u64) -> Self {
        Self {
            noticed_ns: now_ns.max(1),
            ..Self::default()
        }
    }

    /// A worker of `generation` ended, not before this time.
    pub fn ended(&mut self, generation: u32, at_ns: u64) {
        if generation == self.generation && self.vacant_ns.len() < VACANT_MAX {
            self.vacant_ns.push(at_ns);
        }
    }

    /// A worker came that had started at `start_ns`. Whether that is a reload, which begins a generation.
    pub fn came(&mut self, start_ns: u64, now_ns: u64) -> bool {
        // It ran before and was only not chosen: it takes a place, and is no newcomer.
        if now_ns.saturating_sub(start_ns) >= WINDOW_NS {
            self.vacant_ns.pop();
            return false;
        }
        let follows = |ended: &u64| start_ns.saturating_add(TICK_NS) >= *ended;
        if let Some(place) = self.vacant_ns.iter().position(follows) {
            self.vacant_ns.swap_remove(place);
            return false;
        }
        if self.noticed_ns != 0 && now_ns.saturating_sub(self.noticed_ns) < WINDOW_NS {
            return false;
        }
        self.reloaded(now_ns);
        true
    }

    /// All workers were replaced between two looks.
    pub fn reloaded(&mut self, now_ns: u64) {
        self.generation += 1;
        self.noticed_ns = now_ns.max(1);
        self.vacant_ns.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_worker_in_the_place_of_one_that_ended_before_is_no_reload() {
        let mut cycle = Cycle::default();
        cycle.ended(0, 5_003 * MS);
        // It started at 5,004, which reads as 5,000.
        assert!(!cycle.came(5_000 * MS, 5_050 * MS));
        assert_eq!(cycle, Cycle::default(), "the place is taken");
    }

    #[test]
    fn one_that_ran_before_and_is_chosen_now_is_no_reload() {
        let mut cycle = Cycle::default();
        cycle.ended(0, 60_000 * MS);
        assert!(!cycle.came(1_000 * MS, 60_100 * MS));
        assert_eq!(cycle, Cycle::default(), "the place is taken");
    }

    #[test]
    fn the_first_workers_of_a_new_master_are_no_reload() {
        let mut cycle = Cycle::begun(1_000 * MS);
        assert!(!cycle.came(990 * MS, 1_000 * MS));
        assert!(!cycle.came(1_010 * MS, 1_060 * MS));
        assert!(cycle.came(9_000 * MS, 9_050 * MS));
        assert_eq!(cycle.generation, 1);
    }

    #[test]
    fn workers_that_start_beside_the_old_ones_are_one_reload() {
        let mut cycle = Cycle::default();
        assert!(cycle.came(1_000 * MS, 1_020 * MS));
        assert!(!cycle.came(1_000 * MS, 1_060 * MS));
        // The old ones leave, which makes no room in the new generation.
        cycle.ended(0, 1_110 * MS);
        cycle.ended(0, 1_110 * MS);
        assert_eq!(cycle.generation, 1);
        // One of the new ones crashes, and much later there is another reload.
        cycle.ended(1, 60_000 * MS);
        assert!(!cycle.came(60_010 * MS, 60_050 * MS));
        assert!(cycle.came(90_000 * MS, 90_050 * MS));
        assert_eq!(cycle.generation, 2);
    }

    #[test]
    fn the_end_of_an_old_worker_that_is_known_before_the_new_one_s_start_changes_nothing() {
        let mut cycle = Cycle::default();
        cycle.ended(0, 1_115 * MS);
        assert!(cycle.came(1_010 * MS, 1_200 * MS), "it was there before");
    }
}
