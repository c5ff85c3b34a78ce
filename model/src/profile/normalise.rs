//! Shares: values against a whole. In: counts. Out: parts of 1. Never: a division by nothing
//! (the share of an empty whole is no share, not 0).

/// A part of a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The part's count.
    pub part: u64,
    /// The whole's count; not 0.
    pub whole: u64,
}

impl Share {
    /// Part by whole, 0 to 1.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share needs no more than 52 bits"
    )]
    pub fn ratio(self) -> f64 {
        self.part as f64 / self.whole as f64
    }

    /// In percent.
    #[must_use]
    pub fn percent(self) -> f64 {
        self.ratio() * 100.0
    }
}

/// The share of `part` in `whole`; none when there is no whole.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<Share> {
    (whole > 0).then_some(Share { part, whole })
}
