//! How noisy ratios are within a host. In: hosts with their blocks. Out: for each feature by how much
//! it varies more than counting alone would make it. Never: a variance from one host's few blocks
//! alone, or one below that of counting.
//!
//! Three things make a ratio of a capture vary more than independent samples would: a feature comes
//! in bursts, a second resembles the one before, and the workers of a host do the same at the same
//! time. The first shows between blocks and is estimated for each feature (from all hosts, and from
//! the host itself); the other two show in sums of neighbouring and of simultaneous blocks, and are
//! estimated as one factor over all features, since one feature's few windows cannot carry it.

use super::blocks::{Host, Scale, ratio};

/// As many blocks as the common noise of all hosts weighs beside a host's own.
const PRIOR_BLOCKS: f64 = 20.0;
/// Features with fewer samples say nothing about neighbouring blocks.
const SAMPLES_MIN: f64 = 20.0;
/// Fewer windows say nothing about neighbours.
const WINDOWS_MIN: usize = 4;
/// Largest factor for neighbours and simultaneous blocks that is believed.
const JOINT_MAX: f64 = 25.0;

/// Noise within hosts, as multiples of what counting alone would make.
#[derive(Clone, Debug, Default)]
pub struct Noise {
    /// For each feature, over all hosts; at least 1.
    pub common: Vec<f64>,
    /// For each host and feature: the host's own, drawn to the common one; at least 1.
    pub own: Vec<Vec<f64>>,
    /// The factor for neighbouring and simultaneous blocks, in all of the above.
    pub joint: f64,
    /// Blocks beyond one a host, which say how well noise is known.
    pub freedom: f64,
}

/// Estimates the noise of `features` features on these hosts.
#[must_use]
pub fn noise(hosts: &[Host], features: usize, scale: Scale) -> Noise {
    let joint = joint(hosts, features);
    let mut found = Noise {
        common: vec![1.0; features],
        own: vec![vec![1.0; features]; hosts.len()],
        joint,
        freedom: hosts
            .iter()
            .map(|h| h.informative().saturating_sub(1) as f64)
            .sum(),
    };
    let mut left = Vec::new();
    for feature in 0..features {
        let mut seen: Vec<(f64, f64)> = Vec::with_capacity(hosts.len());
        for host in hosts {
            let blocks = host.informative() as f64;
            let at = ratio(host.value(feature), host.weight());
            let counting = host.counting_variance(at, scale) * host.weight().powi(2);
            if blocks < 2.0 || counting <= 0.0 {
                seen.push((0.0, 0.0));
                continue;
            }
            host.residuals(feature, &mut left);
            let squares: f64 = left.iter().map(|e| e * e).sum();
            seen.push((squares * blocks / (blocks - 1.0), counting));
        }
        let (squares, counting) = seen
            .iter()
            .fold((0.0, 0.0), |sum, s| (sum.0 + s.0, sum.1 + s.1));
        let common = if counting > 0.0 {
            (squares / counting).max(1.0)
        } else {
            1.0
        };
        found.common[feature] = common * joint;
        for (h, (squares, counting)) in seen.iter().enumerate() {
            let own = if *counting > 0.0 {
                let beyond = (hosts[h].informative() as f64 - 1.0).max(0.0);
                (PRIOR_BLOCKS * common + beyond * squares / counting) / (PRIOR_BLOCKS + beyond)
            } else {
                common
            };
            found.own[h][feature] = own.max(1.0) * joint;
        }
    }
    found
}

/// By how much windows and their neighbours vary more than their blocks, each on its own, would
/// make them; at least 1. Both sums are corrected for the mean that was taken away.
fn joint(hosts: &[Host], features: usize) -> f64 {
    let (mut sum, mut parts) = (0.0, 0.0);
    let mut left = Vec::new();
    for host in hosts.iter().filter(|h| h.timed) {
        let windows = host.windows.iter().max().map_or(0, |w| *w as usize + 1);
        let blocks = host.weights.len();
        if windows < WINDOWS_MIN || blocks < 2 {
            continue;
        }
        let n = windows as f64;
        let correction = (n - 1.0) * (1.0 - 2.0 / n);
        let mut together = vec![0.0; windows];
        for feature in (0..features).filter(|f| host.samples(*f) >= SAMPLES_MIN) {
            host.residuals(feature, &mut left);
            let squares: f64 = left.iter().map(|e| e * e).sum();
            let apart = squares / (blocks as f64 - 1.0) * blocks as f64 / n;
            if apart <= 0.0 {
                continue;
            }
            together.fill(0.0);
            for (e, window) in left.iter().zip(&host.windows) {
                together[*window as usize] += e;
            }
            let own: f64 = together.iter().map(|e| e * e).sum();
            let next: f64 = together.windows(2).map(|e| e[0] * e[1]).sum();
            sum += (own + 2.0 * next) / correction / apart;
            parts += 1.0;
        }
    }
    ratio(sum, parts).clamp(1.0, JOINT_MAX)
}
