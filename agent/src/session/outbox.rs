//! Batches that were made and not yet acknowledged. Pure.
//!
//! In: encoded batches, acknowledgements, resumptions. Out: what to send next. Never: a batch
//! forgotten before the coordinator has it, or sent twice on one connection.

use std::collections::VecDeque;

/// Batches under way at most; what comes on top waits in the recorder, where it adds up.
const WINDOW_BATCHES: usize = 8;
/// Bytes under way at most.
const WINDOW_BYTES: usize = 4 << 20;

/// One numbered batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) epoch: u32,
    pub(super) seq: u64,
    pub(super) ffz: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    epoch: u32,
    next_seq: u64,
    unacked: VecDeque<Batch>,
    /// How many of `unacked`, from the front, went out on the attached connection.
    sent: usize,
    bytes_made: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            epoch: 1,
            next_seq: 1,
            unacked: VecDeque::new(),
            sent: 0,
            bytes_made: 0,
        }
    }
}

impl Outbox {
    /// Whether another batch may be made.
    pub(super) fn has_room(&self) -> bool {
        let bytes: usize = self.unacked.iter().map(|b| b.ffz.len()).sum();
        self.unacked.len() < WINDOW_BATCHES && bytes < WINDOW_BYTES
    }

    /// Takes a new batch.
    pub(super) fn push(&mut self, ffz: Vec<u8>) {
        self.bytes_made += ffz.len() as u64;
        self.unacked.push_back(Batch {
            epoch: self.epoch,
            seq: self.next_seq,
            ffz,
        });
        self.next_seq += 1;
    }

    /// The next batch for the attached connection.
    pub(super) fn unsent(&self) -> Option<&Batch> {
        self.unacked.get(self.sent)
    }

    /// The batch that `unsent` gave is on its way.
    pub(super) fn mark_sent(&mut self) {
        self.sent = (self.sent + 1).min(self.unacked.len());
    }

    /// Everything up to `seq` of `epoch` is safe.
    pub(super) fn ack(&mut self, epoch: u32, seq: u64) {
        while self
            .unacked
            .front()
            .is_some_and(|b| (b.epoch, b.seq) <= (epoch, seq))
        {
            self.unacked.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// A new connection: everything unacknowledged goes out again.
    pub(super) fn resume(&mut self, epoch: u32, seq: u64) {
        self.ack(epoch, seq);
        self.sent = 0;
    }

    /// Begins a new epoch and gives back what was unacknowledged, to be made again.
    pub(super) fn new_epoch(&mut self) -> Vec<Batch> {
        self.epoch += 1;
        self.next_seq = 1;
        self.sent = 0;
        self.unacked.drain(..).collect()
    }

    /// Batches that are not acknowledged, oldest first.
    pub(super) fn unacked(&self) -> impl Iterator<Item = &Batch> {
        self.unacked.iter()
    }

    /// Whether everything was sent and acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.unacked.is_empty()
    }

    /// Whether everything went out on the attached connection.
    pub(super) fn all_sent(&self) -> bool {
        self.sent == self.unacked.len()
    }

    /// The number of the last batch that was made, with its epoch.
    pub(super) fn last(&self) -> (u32, u64) {
        (self.epoch, self.next_seq - 1)
    }

    /// Bytes of all batches that were made.
    pub(super) fn bytes_made(&self) -> u64 {
        self.bytes_made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send_all(outbox: &mut Outbox) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(batch) = outbox.unsent() {
            sent.push(batch.seq);
            outbox.mark_sent();
        }
        sent
    }

    #[test]
    fn a_resumed_connection_gets_exactly_what_was_not_acknowledged() {
        let mut outbox = Outbox::default();
        for _ in 0..5 {
            outbox.push(vec![0; 10]);
        }
        assert_eq!(send_all(&mut outbox), [1, 2, 3, 4, 5]);
        outbox.ack(1, 2);
        assert_eq!(send_all(&mut outbox), [0_u64; 0]);
        // Batch 3 had arrived, but its acknowledgement was lost.
        outbox.resume(1, 3);
        assert_eq!(send_all(&mut outbox), [4, 5]);
        outbox.push(vec![1]);
        assert_eq!(send_all(&mut outbox), [6]);
        outbox.ack(1, 6);
        assert!(outbox.is_empty() && outbox.all_sent());
    }

    #[test]
    fn a_new_epoch_counts_from_one_and_old_acknowledgements_do_not_touch_it() {
        let mut outbox = Outbox::default();
        outbox.push(vec![1]);
        outbox.push(vec![2]);
        outbox.ack(1, 1);
        let again = outbox.new_epoch();
        assert_eq!(again.iter().map(|b| b.seq).collect::<Vec<_>>(), [2]);
        outbox.push(vec![3]);
        outbox.ack(1, 99);
        assert_eq!(send_all(&mut outbox), [1]);
        assert_eq!(outbox.last(), (2, 1));
    }

    #[test]
    fn the_window_is_bounded() {
        let mut outbox = Outbox::default();
        while outbox.has_room() {
            outbox.push(vec![0; 1 << 20]);
        }
        assert!(outbox.unacked().count() <= WINDOW_BATCHES);
        outbox.ack(1, 2);
        assert!(outbox.has_room());
    }
}
