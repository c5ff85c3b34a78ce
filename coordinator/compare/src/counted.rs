//! From a profile to what statistics take: hosts, blocks, features. In: a profile with its seconds,
//! and what values are divided by. Out: for each host its blocks, and which feature is what. Never: a
//! feature that is left out because it is inconvenient: only what has too few samples to say anything.

use super::Per;
use super::features::{Features, Sums};
use model::profile::{CounterKind, NodeId, Profile, SeriesId, Values};
use model::{Finding, FindingCode};
use statistics::{Host, ratio};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Seconds of a block, where the capture is long enough for six of them.
const BLOCK_SECONDS: u32 = 5;
/// Blocks that a capture should have.
const BLOCKS_WANTED: u32 = 6;
/// Most blocks of a worker: of more than five minutes they are longer, and an hour is no more work.
const BLOCKS_MAX: u32 = 60;
/// What a feature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A place in the call tree, with everything below it.
    Node(NodeId),
    /// A function wherever it stands, with everything it calls.
    Total(String),
    /// A function's own samples.
    Own(String),
}

/// Which features are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Places in the call tree.
    Places,
    /// Functions, their totals and their own.
    Functions,
}

/// What a second without a sample is, between seconds that have some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// It was captured, and the host did nothing.
    Idle,
    /// It is not there: only some seconds were picked.
    Absent,
}

/// Hosts as statistics take them.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Names, in the order of `hosts`.
    pub names: Vec<String>,
    /// Blocks and values. The last feature of each is everything together.
    pub hosts: Vec<Host>,
    /// What the features are; `hosts` have one more, everything.
    pub features: Vec<Feature>,
    /// Of places, the caller of each.
    pub callers: Vec<Option<usize>>,
    /// Hosts without a sample.
    pub without_samples: Vec<String>,
    /// What weakens it.
    pub findings: Vec<Finding>,
}

impl Counted {
    /// The number of the feature that is everything together.
    #[must_use]
    pub fn everything(&self) -> usize {
        self.features.len()
    }
}

/// Counts `profile`. None when it does not carry what is divided.
#[must_use]
pub fn count(profile: &Profile, per: Per, wanted: Wanted, gaps: Gaps) -> Option<Counted> {
    let (measure, worth) = per.measure(profile)?;
    let mut counted = Counted::default();
    let mut hosts: BTreeMap<&str, Vec<SeriesId>> = BTreeMap::new();
    for (number, series) in (0_u32..).zip(profile.series.as_slice()) {
        hosts
            .entry(&series.host)
            .or_default()
            .push(SeriesId(number));
    }
    let features = Features::choose(profile, &hosts, wanted);
    for (name, series) in hosts {
        let cells = Cells::of(profile, &series, name);
        if cells.rows.is_empty() {
            counted.without_samples.push(name.to_owned());
            continue;
        }
        let layout = match Layout::of(profile, name, &cells, per, gaps) {
            Ok(layout) => layout,
            Err(lacks) => {
                let said = format!("{name} has {lacks}");
                let finding = Finding::new(FindingCode::DenominatorMissing, said);
                counted.findings.push(finding.on(name));
                continue;
            }
        };
        let mut host = layout.host;
        let mut sums = Sums::new(profile, &features);
        let (mut samples, mut value) = (0.0, 0.0);
        let mut blocks: Vec<(u32, &Second)> = (cells.rows.iter())
            .map(|c| (layout.block_of[&(c.worker, c.second)], c))
            .collect();
        blocks.sort_by_key(|(block, _)| *block);
        for of_block in blocks.chunk_by(|a, b| a.0 == b.0) {
            for (_, cell) in of_block {
                let weight = cells.weight(cell.second);
                for (node, values) in &cell.rows {
                    let one = values.get(measure).copied().unwrap_or(0) as f64 * worth * weight;
                    samples += values[0] as f64 * weight;
                    value += one;
                    sums.add(*node, one);
                }
            }
            sums.give(of_block[0].0, &mut host, per);
        }
        // Exactly 1 where samples themselves are counted.
        host.sample = ratio(value, samples);
        if host.sample <= 0.0 || host.weight() <= 0.0 {
            counted.without_samples.push(name.to_owned());
            continue;
        }
        if !host.timed {
            counted
                .findings
                .push(Finding::new(FindingCode::NoSeconds, name).on(name));
        }
        counted.names.push(name.to_owned());
        counted.hosts.push(host);
    }
    counted.callers = features.callers;
    counted.features = features.list;
    Some(counted)
}

/// One worker's second.
struct Second {
    worker: usize,
    second: u32,
    rows: Vec<(NodeId, Values)>,
}

/// A host's stacks by worker and second.
struct Cells {
    rows: Vec<Second>,
    workers: usize,
    timed: bool,
    /// For each second how many samples stand for one that was taken: more where some were lost.
    weights: BTreeMap<u32, f64>,
}

impl Cells {
    fn of(profile: &Profile, series: &[SeriesId], host: &str) -> Self {
        let mut workers: BTreeMap<(u32, u64), usize> = BTreeMap::new();
        let mut cells = Self {
            rows: Vec::new(),
            workers: 0,
            timed: true,
            weights: BTreeMap::new(),
        };
        let mut taken: BTreeMap<u32, u64> = BTreeMap::new();
        for id in series {
            let Some(of) = profile.series.get(*id) else {
                continue;
            };
            let next = workers.len();
            let key = (of.process.pid, of.process.start_ticks);
            let worker = *workers.entry(key).or_insert(next);
            let range = profile.cells.range((*id, 0)..=(*id, u32::MAX));
            for ((_, second), cell) in range {
                let rows: Vec<(NodeId, Values)> = cell.rows().map(|(n, v)| (n, *v)).collect();
                if rows.is_empty() {
                    continue;
                }
                let taken = taken.entry(*second).or_default();
                for (_, values) in &rows {
                    *taken = taken.saturating_add(values[0]);
                }
                cells.rows.push(Second {
                    worker,
                    second: *second,
                    rows,
                });
            }
        }
        if cells.rows.is_empty() {
            // Text and totals have no time: one block.
            cells.timed = false;
            for id in series {
                let totals = profile.totals.get(id).into_iter().flatten();
                let mut rows: Vec<(NodeId, Values)> = totals.map(|(n, v)| (*n, *v)).collect();
                rows.retain(|r| r.1.iter().any(|v| *v > 0));
                rows.sort_unstable_by_key(|r| r.0);
                if !rows.is_empty() {
                    cells.rows.push(Second {
                        worker: 0,
                        second: 0,
                        rows,
                    });
                }
            }
        }
        cells.workers = workers.len().max(1);
        cells.weights = lost(profile, host)
            .into_iter()
            .filter_map(|(second, lost)| {
                let taken = *taken.get(&second)? as f64;
                Some((second, 1.0 + ratio(lost as f64, taken)))
            })
            .collect();
        cells
    }

    fn weight(&self, second: u32) -> f64 {
        self.weights.get(&second).copied().unwrap_or(1.0)
    }
}

/// Samples that a host lost in each second: by the kernel, by the agent, by the engine.
fn lost(profile: &Profile, host: &str) -> BTreeMap<u32, u64> {
    let mut lost = BTreeMap::new();
    for ((of, _, second, kind), value) in &profile.counters {
        let counts = matches!(
            kind,
            CounterKind::Lost | CounterKind::Dropped | CounterKind::Skipped
        );
        if of == host && counts {
            let sum: &mut u64 = lost.entry(*second).or_default();
            *sum = sum.saturating_add(*value);
        }
    }
    lost
}

/// Requests that a host completed in each second.
pub(super) fn requests(profile: &Profile, host: &str) -> BTreeMap<u32, u64> {
    let mut requests = BTreeMap::new();
    for ((of, _, second, kind), value) in &profile.counters {
        if of == host && *kind == CounterKind::Requests {
            let sum: &mut u64 = requests.entry(*second).or_default();
            *sum = sum.saturating_add(*value);
        }
    }
    requests
}

/// Which block each worker's second belongs to, and an empty host of such blocks.
struct Layout {
    host: Host,
    block_of: HashMap<(usize, u32), u32>,
}

impl Layout {
    /// In words what the host lacks when there is nothing to divide by.
    fn of(
        profile: &Profile,
        name: &str,
        cells: &Cells,
        per: Per,
        gaps: Gaps,
    ) -> Result<Self, &'static str> {
        if per != Per::Share && !cells.timed {
            return Err("no seconds, by which or by whose requests CPU time is divided");
        }
        let mut seconds: BTreeSet<u32> = cells.rows.iter().map(|c| c.second).collect();
        if per != Per::Share && gaps == Gaps::Idle {
            // A second with requests was captured too, also before the first sample and after the last.
            let served = requests(profile, name);
            seconds.extend(served.iter().filter(|(_, n)| **n > 0).map(|(s, _)| *s));
        }
        let first = seconds.first().copied().unwrap_or(0);
        let last = seconds.last().copied().unwrap_or(0);
        let length = (last - first).saturating_add(1);
        let block = (length / BLOCKS_WANTED).clamp(1, BLOCK_SECONDS);
        let block = block.max(length.div_ceil(BLOCKS_MAX));
        // A rest of less than half a block belongs to the last one.
        let windows = (length.saturating_add(block / 2) / block).max(1);
        let window = |second: u32| ((second - first) / block).min(windows - 1);
        let workers = if per == Per::Share {
            cells.workers as u32
        } else {
            1
        };
        let mut host = Host {
            weights: vec![0.0; (windows * workers) as usize],
            windows: (0..workers).flat_map(|_| 0..windows).collect(),
            timed: cells.timed,
            ..Host::default()
        };
        match per {
            // Samples are added where they are counted.
            Per::Share => {}
            Per::Cpu if gaps == Gaps::Absent => {
                for second in &seconds {
                    host.weights[window(*second) as usize] += 1.0;
                }
            }
            Per::Cpu => {
                host.weights.fill(f64::from(block));
                if let Some(rest) = host.weights.last_mut() {
                    *rest = f64::from(length) - f64::from(windows - 1) * f64::from(block);
                }
            }
            Per::Requests => {
                let mut requests = requests(profile, name);
                if requests.values().all(|n| *n == 0) {
                    return Err("no counter of requests");
                }
                let there = |second: &u32| match gaps {
                    Gaps::Idle => (first..=last).contains(second),
                    Gaps::Absent => seconds.contains(second),
                };
                requests.retain(|second, n| *n > 0 && there(second));
                if requests.is_empty() {
                    return Err("no requests in the seconds that have samples");
                }
                for (second, n) in requests {
                    host.weights[window(second) as usize] += n as f64 / 1_000.0;
                }
            }
        }
        let block_of = cells
            .rows
            .iter()
            .map(|c| {
                let worker = if per == Per::Share {
                    c.worker as u32
                } else {
                    0
                };
                ((c.worker, c.second), worker * windows + window(c.second))
            })
            .collect();
        Ok(Self { host, block_of })
    }
}
