//! The profiles of a made-up fleet. In: how many hosts and stacks, how much they share, a seed. Out:
//! each host as folded text, as ffz with totals, as ffz with seconds: the same stacks and counts.
//! Never: more than one host in memory.

use super::functions::Function;
use super::random::{Random, mix};
use super::stacks::{Pool, Stack};
use super::text::gateway;
use model::profile::{
    Cell, Frame, FrameId, FrameKind, Measure, NodeId, Process, Profile, ROOT, Series, SeriesId,
};
use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;

/// Workers of a host, in ffz with seconds.
pub const WORKERS: u64 = 8;
/// Seconds of the capture, in ffz with seconds.
pub const SECONDS: u64 = 60;
/// The period of a sample at 99 Hz.
const PERIOD_NS: u64 = 10_101_010;

/// Stacks of a host and how often each was sampled.
pub type Counted = Vec<(Stack, u64)>;

/// Hosts that share most of their stacks.
#[derive(Debug)]
pub struct Fleet {
    functions: Vec<Function>,
    shared: Pool,
    stacks: usize,
    seed: u64,
}

impl Fleet {
    /// Hosts with `stacks` stacks each, of which `shared_percent` are the same on all.
    pub fn new(stacks: usize, shared_percent: usize, seed: u64) -> Self {
        let functions = gateway();
        let count = stacks * shared_percent / 100;
        let shared = Pool::grow(&mut Random(seed), &functions, count, 15..40);
        Self {
            functions,
            shared,
            stacks,
            seed,
        }
    }

    /// The stacks of one host.
    pub fn host(&self, host: u64) -> Counted {
        let mut random = Random(mix(self.seed, host + 1));
        let mut all = Counted::with_capacity(self.stacks);
        for (stack, rank) in self.shared.stacks.iter().zip(1..) {
            all.push((stack.clone(), 1 + 20_000 / rank + random.below(3)));
        }
        let count = self.shared.stacks.len();
        let mut seen: HashSet<Stack> = HashSet::new();
        while all.len() < self.stacks {
            let from = random.below(count as u64) as usize;
            let stack = self.shared.branch(&mut random, &self.functions, from);
            if seen.insert(stack.clone()) {
                all.push((stack, 1 + random.below(3)));
            }
        }
        all
    }

    /// What the same host does later: `new_percent` of its stacks are replaced by new ones.
    pub fn tick(&self, before: &Counted, new_percent: usize) -> Counted {
        let mut random = Random(mix(self.seed, 0x71c4));
        let count = before.len() * new_percent / 100;
        let mut seen: HashSet<Stack> = before.iter().map(|s| s.0.clone()).collect();
        let mut after = before.clone();
        for _ in 0..count {
            after.swap_remove(random.below(after.len() as u64) as usize);
        }
        let shared = self.shared.stacks.len() as u64;
        while after.len() < before.len() {
            let from = random.below(shared) as usize;
            let stack = self.shared.branch(&mut random, &self.functions, from);
            if seen.insert(stack.clone()) {
                after.push((stack, 1 + random.below(3)));
            }
        }
        after
    }

    /// The functions that stacks are numbers of.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// As folded text, sorted.
    pub fn folded(&self, stacks: &Counted) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> = stacks
            .iter()
            .map(|(stack, count)| {
                let mut line = Vec::with_capacity(stack.len() * 24);
                for (place, &number) in stack.iter().enumerate() {
                    if place > 0 {
                        line.push(b';');
                    }
                    line.extend_from_slice(self.functions[usize::from(number)].name.as_bytes());
                }
                let _ = writeln!(line, " {count}"); // to memory: does not fail
                line
            })
            .collect();
        lines.sort_unstable();
        lines.concat()
    }

    /// As a profile of one worker without seconds.
    pub fn totals(&self, host: u64, stacks: &Counted) -> Profile {
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        let series = profile.series.intern(&series(host, 0));
        let mut placer = Placer::new(&self.functions);
        let totals = stacks.iter().map(|(stack, count)| {
            let node = placer.place(&mut profile, stack);
            (node, [*count, count * PERIOD_NS, 0])
        });
        let totals: Vec<_> = totals.collect();
        let rows = profile.totals.entry(series).or_default();
        for (node, values) in totals {
            model::profile::add_values(rows.entry(node).or_default(), &values);
        }
        profile
    }

    /// As a profile of [`WORKERS`] workers over [`SECONDS`] seconds, the samples spread at random.
    pub fn with_seconds(&self, host: u64, stacks: &Counted) -> Profile {
        const SLOTS: u64 = WORKERS * SECONDS;
        let mut random = Random(mix(self.seed ^ 0x5eed, host + 1));
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        let workers: Vec<SeriesId> = (0..WORKERS)
            .map(|w| profile.series.intern(&series(host, w)))
            .collect();
        let mut placer = Placer::new(&self.functions);
        let mut rows: Vec<Vec<(NodeId, [u64; 3])>> = vec![Vec::new(); SLOTS as usize];
        for (stack, count) in stacks {
            let node = placer.place(&mut profile, stack);
            let each = count / SLOTS;
            if each > 0 {
                let values = [each, each * PERIOD_NS, 0];
                rows.iter_mut().for_each(|slot| slot.push((node, values)));
            }
            for _ in 0..count % SLOTS {
                rows[random.below(SLOTS) as usize].push((node, [1, PERIOD_NS, 0]));
            }
        }
        for (slot, rows) in rows.into_iter().enumerate() {
            let series = workers[slot % workers.len()];
            let second = (slot / workers.len()) as u32;
            let cell = Cell::from_rows(rows);
            let totals = profile.totals.entry(series).or_default();
            for (node, values) in cell.rows() {
                model::profile::add_values(totals.entry(node).or_default(), values);
            }
            profile.cells.insert((series, second), cell);
        }
        profile
    }
}

/// A worker of a host.
pub fn series(host: u64, worker: u64) -> Series {
    Series {
        host: format!("host{host:03}"),
        process: Process {
            pid: 17_816 + worker as u32,
            start_ticks: 4_242 + worker,
            comm: "nginx".to_owned(),
            role: "nginx: worker".to_owned(),
            worker: Some(worker as u32),
            ..Process::default()
        },
        thread: "nginx".to_owned(),
        engine: "native".to_owned(),
        event: "cpu-clock".to_owned(),
        period_ns: PERIOD_NS,
        ..Series::default()
    }
}

/// The frame of a function. The kernel's are written like all others: folded text of these stacks
/// has no endings, and both must give the same picture.
pub fn frame(function: &Function) -> Frame {
    let module = function.module.rsplit('/').next().unwrap_or_default();
    Frame::named(FrameKind::User, function.name.as_str(), module)
}

/// Puts stacks into a profile's tree.
struct Placer<'a> {
    functions: &'a [Function],
    known: BTreeMap<u16, FrameId>,
}

impl<'a> Placer<'a> {
    fn new(functions: &'a [Function]) -> Self {
        let known = BTreeMap::new();
        Self { functions, known }
    }

    fn place(&mut self, profile: &mut Profile, stack: &Stack) -> NodeId {
        stack.iter().fold(ROOT, |above, number| {
            let frame = *self.known.entry(*number).or_insert_with(|| {
                let function = &self.functions[usize::from(*number)];
                profile.frames.intern(&frame(function))
            });
            profile.tree.intern(above, frame)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_of_a_host_hold_the_same_counts() {
        let fleet = Fleet::new(500, 80, 11);
        let stacks = fleet.host(3);
        assert_eq!(stacks.len(), 500);
        let total: u64 = stacks.iter().map(|s| s.1).sum();
        let folded = String::from_utf8(fleet.folded(&stacks)).unwrap();
        let counts = folded.lines().map(|l| l.rsplit_once(' ').unwrap().1);
        assert_eq!(
            counts.map(|c| c.parse::<u64>().unwrap()).sum::<u64>(),
            total
        );
        let (totals, seconds) = (fleet.totals(3, &stacks), fleet.with_seconds(3, &stacks));
        assert_eq!(totals.grand_total()[0], total);
        assert_eq!(seconds.grand_total()[0], total);
        let cells = seconds.cells.values().flat_map(|c| &c.values);
        assert_eq!(cells.map(|v| v[0]).sum::<u64>(), total);
        assert_eq!(totals.tree.len(), seconds.tree.len());
    }

    #[test]
    fn a_later_tick_has_as_many_stacks_and_the_new_ones_asked_for() {
        let fleet = Fleet::new(500, 80, 11);
        let before = fleet.host(0);
        let known: HashSet<&Stack> = before.iter().map(|s| &s.0).collect();
        let after = fleet.tick(&before, 20);
        assert_eq!(after.len(), 500);
        let new = after.iter().filter(|s| !known.contains(&s.0)).count();
        assert_eq!(new, 100);
    }

    #[test]
    fn hosts_share_what_they_are_told_to_and_differ_by_seed() {
        let fleet = Fleet::new(500, 80, 11);
        let (a, b): (HashSet<Stack>, HashSet<Stack>) = (
            fleet.host(0).into_iter().map(|s| s.0).collect(),
            fleet.host(1).into_iter().map(|s| s.0).collect(),
        );
        let shared = a.intersection(&b).count();
        assert!((390..450).contains(&shared), "{shared}");
        let hash = |seed| {
            let fleet = Fleet::new(500, 80, seed);
            blake3::hash(&fleet.folded(&fleet.host(0))).to_hex()[..16].to_owned()
        };
        assert_eq!(hash(11), "e78d26e399aca604");
        assert_ne!(hash(11), hash(12));
    }
}
