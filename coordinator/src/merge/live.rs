//! The live merge. In: (host, epoch, seq, ffz). Out: totals, and each host's position.
//! Never: a batch that is half taken: it is decoded and checked whole before anything changes.

use model::format::ffz::{FfzError, Limits, decode_segment};
use model::profile::{IdMap, Keep, Measure, MergeError, Profile, Segment, Values, add_values};
use model::{Finding, FindingCode};
use std::collections::BTreeMap;

/// Most that one host's values may add up to: as nanoseconds, an hour on 2,500 CPUs. A thousand hosts
/// at this bound still add up without an overflow, here and in whatever draws them.
const HOST_TOTAL_MAX: u64 = 1 << 53;

/// What became of a good batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absorbed {
    /// It was added.
    New,
    /// It had been added before and was passed over.
    Duplicate,
}

/// Why a batch was not taken. Nothing has changed then.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AbsorbError {
    /// Batches before it are missing.
    #[error("batch {seq} of epoch {epoch} came, but batch {expected} is next")]
    Gap {
        /// Its epoch.
        epoch: u32,
        /// Its number.
        seq: u64,
        /// The number that is due in that epoch.
        expected: u64,
    },
    /// Batches count from 1.
    #[error("a batch has number 0, but batches count from 1")]
    NumberZero,
    /// It is no good ffz document.
    #[error("the batch is damaged")]
    Damaged(#[source] FfzError),
    /// It is about something else than this run.
    #[error("the batch measures {theirs}, but the run measures {ours}")]
    Head {
        /// The run's probe and measures.
        ours: String,
        /// The batch's.
        theirs: String,
    },
    /// A series in it claims another host.
    #[error("the batch speaks for another host")]
    Host(#[source] MergeError),
    /// It counts what no host can count.
    #[error("with the batch the host's values add up to {total}, more than any host can count")]
    TooMuch {
        /// The largest of the host's totals, saturated.
        total: u64,
    },
    /// Its numbers do not fit what came before.
    #[error("the batch does not fit the ones before it")]
    Inconsistent(#[source] MergeError),
}

impl AbsorbError {
    /// The finding that stands for it.
    #[must_use]
    pub fn finding(&self, host: &str) -> Finding {
        let code = match self {
            Self::Gap { .. } => FindingCode::BatchGap,
            Self::Damaged(_) | Self::Inconsistent(_) => FindingCode::BatchDamaged,
            Self::NumberZero | Self::Head { .. } | Self::Host(_) | Self::TooMuch { .. } => {
                FindingCode::HostProtocol
            }
        };
        let said = match self {
            Self::Damaged(cause) => format!("{self}: {cause}"),
            Self::Host(cause) | Self::Inconsistent(cause) => format!("{self}: {cause}"),
            _ => self.to_string(),
        };
        Finding::new(code, said).on(host)
    }
}

/// One sender: where it stands and what its numbers mean.
#[derive(Clone, Debug)]
struct Sender {
    epoch: u32,
    next_seq: u64,
    map: IdMap,
    /// Over all epochs.
    total: Values,
}

impl Default for Sender {
    fn default() -> Self {
        Self {
            epoch: 0,
            next_seq: 1,
            map: IdMap::default(),
            total: Values::default(),
        }
    }
}

/// The sum of all batches that were taken.
#[derive(Clone, Debug)]
pub struct LiveMerge {
    profile: Profile,
    senders: BTreeMap<String, Sender>,
    keep: Keep,
}

impl LiveMerge {
    /// An empty merge for one probe. It keeps totals only.
    #[must_use]
    pub fn new(probe: &str, measures: Vec<Measure>) -> Self {
        Self::over(Profile::new(probe, measures), Keep::Totals)
    }

    /// A merge that goes on numbering in `profile`'s dictionary.
    pub(crate) fn over(profile: Profile, keep: Keep) -> Self {
        Self {
            profile,
            senders: BTreeMap::new(),
            keep,
        }
    }

    /// Adds the batch `seq` (from 1) of `epoch` that `host` sent.
    ///
    /// A higher epoch begins a new dictionary at batch 1; batches of a lower one were all seen.
    ///
    /// # Errors
    /// [`AbsorbError`]; nothing has changed then, and the same number is still due.
    pub fn absorb(
        &mut self,
        host: &str,
        epoch: u32,
        seq: u64,
        ffz: &[u8],
    ) -> Result<Absorbed, AbsorbError> {
        if self.expect(host, epoch, seq)? == Absorbed::Duplicate {
            return Ok(Absorbed::Duplicate);
        }
        let (head, segment) = decode_segment(ffz, Limits::BATCH).map_err(AbsorbError::Damaged)?;
        if head.probe != self.profile.probe || head.measures != self.profile.measures {
            return Err(AbsorbError::Head {
                ours: words(&self.profile.probe, &self.profile.measures),
                theirs: words(&head.probe, &head.measures),
            });
        }
        let total = self.total_with(host, &segment)?;
        let known = self.senders.get(host).filter(|s| s.epoch == epoch);
        let mut fresh = Sender {
            epoch,
            ..Sender::default()
        };
        let is_known = known.is_some();
        let sender = match self.senders.get_mut(host) {
            Some(sender) if is_known => sender,
            _ => &mut fresh,
        };
        self.profile
            .absorb(&mut sender.map, host, &segment, self.keep)
            .map_err(refusal)?;
        (sender.next_seq, sender.total) = (seq + 1, total);
        if !is_known {
            self.senders.insert(host.to_owned(), fresh);
        }
        Ok(Absorbed::New)
    }

    /// What a host's values add up to with one more batch.
    fn total_with(&self, host: &str, segment: &Segment) -> Result<Values, AbsorbError> {
        let mut total = self
            .senders
            .get(host)
            .map_or_else(Values::default, |s| s.total);
        let rows = segment.cells.iter().flat_map(|(_, _, cell)| &cell.values);
        rows.for_each(|row| add_values(&mut total, row));
        match total.into_iter().max() {
            Some(most) if most > HOST_TOTAL_MAX => Err(AbsorbError::TooMuch { total: most }),
            _ => Ok(total),
        }
    }

    /// Judges a batch by its number alone: whether it is due, was seen, or comes too early.
    ///
    /// # Errors
    /// [`AbsorbError::Gap`] when others must come first.
    pub fn expect(&self, host: &str, epoch: u32, seq: u64) -> Result<Absorbed, AbsorbError> {
        let (current, next_seq) = self.position(host);
        let expected = if epoch > current { 1 } else { next_seq };
        match seq {
            0 => Err(AbsorbError::NumberZero),
            _ if epoch < current || seq < expected => Ok(Absorbed::Duplicate),
            _ if seq > expected || seq == u64::MAX => Err(AbsorbError::Gap {
                epoch,
                seq,
                expected,
            }),
            _ => Ok(Absorbed::New),
        }
    }

    /// The epoch that `host` is in and the number of the batch that is due; (0, 1) before its first.
    #[must_use]
    pub fn position(&self, host: &str) -> (u32, u64) {
        self.senders
            .get(host)
            .map_or((0, 1), |s| (s.epoch, s.next_seq))
    }

    /// The sum so far.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The sum, when nothing more comes.
    #[must_use]
    pub fn into_profile(self) -> Profile {
        self.profile
    }
}

/// Alien hosts are a breach of the protocol; everything else is damage.
fn refusal(error: MergeError) -> AbsorbError {
    match error {
        MergeError::Host { .. } => AbsorbError::Host(error),
        _ => AbsorbError::Inconsistent(error),
    }
}

fn words(probe: &str, measures: &[Measure]) -> String {
    let measures: Vec<String> = measures
        .iter()
        .map(|m| format!("{}/{}", m.name, m.unit))
        .collect();
    format!("{probe} [{}]", measures.join(", "))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use model::format::ffz::{Head, encode_segment};
    use model::profile::{
        CounterKind, CounterSource, Frame, FrameKind, Process, Recorder, RecorderLimits, Segment,
        Series,
    };
    use proptest::prelude::*;

    /// A host that records small stacks and sends them in batches.
    pub(crate) struct Feeder {
        pub(crate) recorder: Recorder,
        pub(crate) host: String,
    }

    impl Feeder {
        pub(crate) fn new(host: &str) -> Self {
            let recorder = Recorder::new(host, Measure::on_cpu(), RecorderLimits::default());
            Self {
                recorder,
                host: host.to_owned(),
            }
        }

        pub(crate) fn add(&mut self, bin: u32, stack: &[&str], samples: u64) {
            let process = Process {
                pid: 100 + bin % 2,
                role: "nginx: worker".into(),
                ..Process::default()
            };
            let series = Series {
                host: self.host.clone(),
                process,
                engine: "native".into(),
                ..Series::default()
            };
            let series = self.recorder.series(&series);
            let frames: Vec<_> = stack
                .iter()
                .map(|f| {
                    self.recorder
                        .frame(&Frame::named(FrameKind::User, *f, "nginx"))
                })
                .collect();
            self.recorder
                .add_stack(series, bin, &frames, &[samples, samples * 10, 0]);
            self.recorder
                .count(CounterSource::Host, bin, CounterKind::Lost, 1);
        }

        pub(crate) fn batch(&mut self) -> Vec<u8> {
            encode(&self.recorder.take(usize::MAX))
        }
    }

    pub(crate) fn encode(segment: &Segment) -> Vec<u8> {
        let head = Head {
            probe: "on-cpu".into(),
            measures: Measure::on_cpu(),
        };
        encode_segment(&head, segment).unwrap()
    }

    fn merge() -> LiveMerge {
        LiveMerge::new("on-cpu", Measure::on_cpu())
    }

    #[test]
    fn each_batch_counts_once_and_a_gap_is_named() {
        let mut a = Feeder::new("a");
        a.add(0, &["main", "work"], 5);
        let first = a.batch();
        a.add(1, &["main", "work"], 2);
        let second = a.batch();
        let mut live = merge();
        assert_eq!(live.position("a"), (0, 1));
        let early = live.absorb("a", 1, 2, &second);
        assert_eq!(
            early,
            Err(AbsorbError::Gap {
                epoch: 1,
                seq: 2,
                expected: 1
            })
        );
        assert_eq!(live.absorb("a", 1, 1, &first), Ok(Absorbed::New));
        assert_eq!(live.absorb("a", 1, 1, &first), Ok(Absorbed::Duplicate));
        assert_eq!(live.absorb("a", 1, 2, &second), Ok(Absorbed::New));
        assert_eq!(live.absorb("a", 0, 9, &second), Ok(Absorbed::Duplicate));
        assert_eq!(live.position("a"), (1, 3));
        assert_eq!(live.profile().grand_total(), [7, 70, 0]);
        assert!(live.profile().cells.is_empty());
        assert_eq!(live.absorb("a", 1, 0, &first), Err(AbsorbError::NumberZero));
    }

    #[test]
    fn a_new_epoch_begins_its_dictionary_anew() {
        let mut a = Feeder::new("a");
        a.add(0, &["main", "work"], 5);
        let first = a.batch();
        a.recorder.restart_dictionary();
        a.add(1, &["main", "other"], 1);
        let again = a.batch();
        let mut live = merge();
        live.absorb("a", 0, 1, &first).unwrap();
        let gap = live.absorb("a", 1, 2, &again);
        assert_eq!(
            gap,
            Err(AbsorbError::Gap {
                epoch: 1,
                seq: 2,
                expected: 1
            })
        );
        assert_eq!(live.absorb("a", 1, 1, &again), Ok(Absorbed::New));
        assert_eq!(
            (live.position("a"), live.profile().grand_total()[0]),
            ((1, 2), 6)
        );
        assert_eq!(live.profile().tree.len(), 4, "main is one node");
    }

    #[test]
    fn more_than_a_host_can_count_is_refused_in_one_batch_or_many_epochs() {
        let batch = |host, samples| {
            let mut feeder = Feeder::new(host);
            feeder.add(0, &["m"], samples);
            feeder.batch()
        };
        let mut merge = merge();
        // The second measure counts ten a sample.
        let third = HOST_TOTAL_MAX / 30;
        for epoch in 1..=3 {
            merge.absorb("a", epoch, 1, &batch("a", third)).unwrap();
        }
        let error = merge.absorb("a", 4, 1, &batch("a", third)).unwrap_err();
        assert_eq!(error.finding("a").code, FindingCode::HostProtocol);
        assert_eq!(merge.profile().grand_total()[0], 3 * third);
        assert_eq!(merge.position("a"), (3, 2));
        let huge = merge.absorb("b", 1, 1, &batch("b", u64::MAX / 10));
        assert!(matches!(huge, Err(AbsorbError::TooMuch { .. })));
    }

    #[test]
    fn a_swapped_host_another_measure_or_damage_changes_nothing() {
        let mut a = Feeder::new("a");
        a.add(0, &["main"], 5);
        let batch = a.batch();
        let mut live = merge();
        let swapped = live.absorb("b", 0, 1, &batch).unwrap_err();
        assert_eq!(swapped.finding("b").code, FindingCode::HostProtocol);
        let mut damaged = batch.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        let error = live.absorb("a", 0, 1, &damaged).unwrap_err();
        assert_eq!(error.finding("a").code, FindingCode::BatchDamaged);
        let mut other = LiveMerge::new("on-cpu", Measure::samples_only());
        let error = other.absorb("a", 0, 1, &batch).unwrap_err();
        assert!(matches!(error, AbsorbError::Head { .. }), "{error}");
        assert_eq!(live.profile().grand_total(), [0; 3]);
        assert_eq!((live.position("a"), live.position("b")), ((0, 1), (0, 1)));
        assert_eq!(live.absorb("a", 0, 1, &batch), Ok(Absorbed::New));
    }

    proptest! {
        #[test]
        fn however_often_and_in_whatever_order_hosts_send_the_sum_is_exact(
            rows in prop::collection::vec((0_usize..3, 0_u32..5, 0_usize..4, 1_u64..50), 1..40),
            order in prop::collection::vec((0_usize..3, any::<bool>()), 0..200),
        ) {
            let mut feeders: Vec<Feeder> = ["a", "b", "c"].map(Feeder::new).into();
            let mut batches: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 3];
            let stacks: [&[&str]; 4] = [&["m"], &["m", "x"], &["m", "x", "y"], &["m", "z"]];
            let mut sum = [0; 3];
            for (host, bin, stack, samples) in rows {
                feeders[host].add(bin, stacks[stack], samples);
                batches[host].push(feeders[host].batch());
                sum[host] += samples;
            }
            let mut live = merge();
            let rest = (0..3).flat_map(|h| std::iter::repeat_n((h, false), 60));
            for (host, again) in order.into_iter().chain(rest) {
                let name = feeders[host].host.clone();
                let due = live.position(&name).1;
                let seq = if again { due.saturating_sub(1).max(1) } else { due };
                if let Some(batch) = batches[host].get(seq as usize - 1) {
                    live.absorb(&name, 0, seq, batch).unwrap();
                }
            }
            for (host, total) in sum.into_iter().enumerate() {
                let name = &feeders[host].host;
                let got: u64 = live.profile().select(|s| s.host == *name).values().map(|v| v[0]).sum();
                prop_assert_eq!(got, total);
            }
        }
    }
}
