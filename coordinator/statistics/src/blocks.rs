//! What was counted on one host, in blocks. In: counts by feature (a frame, or a place in the call
//! tree) and block. Out: sums, ratios, and what is left of each block when its share is taken away.
//! Never: a block of one host beside one of another.

/// What a ratio is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// A part of a whole: never above 1, and what one gains another loses.
    Share,
    /// So much for each unit of something else: requests, seconds.
    Rate,
}

impl Scale {
    /// The variance of a ratio whose truth is `at` if samples came independently of each other: so
    /// much is one worth, so much is the denominator.
    pub(super) fn counting_variance(self, at: f64, sample: f64, weight: f64) -> f64 {
        if weight <= 0.0 {
            return 0.0;
        }
        match self {
            Self::Share => (at * (1.0 - at)).max(0.0) * sample / weight,
            Self::Rate => at * sample / weight,
        }
    }
}

/// One host: its blocks, and what each feature had in them.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The denominator in each block.
    pub weights: Vec<f64>,
    /// Each block's window: blocks of one window happened at the same time, in different workers.
    pub windows: Vec<u32>,
    /// For each feature its value in the blocks where it has one, blocks rising.
    pub values: Vec<Vec<(u32, f64)>>,
    /// What one sample is worth in `values`; 1 where samples are counted.
    pub sample: f64,
    /// Whether the blocks are pieces of time. Without time (text inputs) there is one block, and
    /// noise is what counting alone would make.
    pub timed: bool,
}

/// Part by whole; 0 of nothing.
#[must_use]
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

impl Host {
    /// The whole denominator.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.weights.iter().sum()
    }

    /// A feature's whole value.
    #[must_use]
    pub fn value(&self, feature: usize) -> f64 {
        self.values
            .get(feature)
            .map_or(0.0, |v| v.iter().map(|(_, value)| value).sum())
    }

    /// A feature's samples.
    #[must_use]
    pub fn samples(&self, feature: usize) -> f64 {
        self.value(feature) / self.sample
    }

    /// Blocks that say something about noise; none without time.
    pub(super) fn informative(&self) -> usize {
        if self.timed { self.weights.len() } else { 0 }
    }

    /// What each block has more or less than its part of the feature; they add up to nothing.
    pub(super) fn residuals(&self, feature: usize, into: &mut Vec<f64>) {
        let whole = ratio(self.value(feature), self.weight());
        into.clear();
        into.extend(self.weights.iter().map(|w| -whole * w));
        for (block, value) in self.values.get(feature).into_iter().flatten() {
            if let Some(slot) = into.get_mut(*block as usize) {
                *slot += value;
            }
        }
    }

    /// The variance of the feature's ratio if samples came independently of each other, when its
    /// true ratio is `at`.
    pub(super) fn counting_variance(&self, at: f64, scale: Scale) -> f64 {
        scale.counting_variance(at, self.sample, self.weight())
    }
}
