//! Made-up captures of which the truth is known. In: a seed and what is to be odd. Out: counts by
//! host, worker, second and leaf of a made-up call tree, and the true shares. Never: a line of the
//! code that is tested: no block, no sum up the tree, no random number comes from there.

/// Seconds of a capture.
pub const SECONDS: usize = 60;
/// Busy workers of a host.
pub const WORKERS: usize = 4;
/// Samples that a worker gives in a second when it is busy all the time.
const HZ: u32 = 99;
/// How busy a worker is at load 1, so that at load 2 it is busy all the time.
const BUSY: f64 = 0.5;
/// Relative standard deviation between hosts, of each subtree.
const BETWEEN: f64 = 0.02;
/// Relative standard deviation of a subtree's part from second to second, and of the load.
const WITHIN: f64 = 0.2;
/// Correlation of a second with the one before.
const LAG: f64 = 0.5;
/// Subtrees, and leaves of each.
const SUBTREES: usize = 16;
pub const LEAVES: usize = 3;

/// xoshiro256++, seeded by a multiplicative generator.
pub struct Dice([u64; 4]);

impl Dice {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        let mut x = seed.wrapping_mul(0x5851_f42d_4c95_7f2d) | 1;
        let mut dice = Self([0; 4]);
        for slot in &mut dice.0 {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *slot = x ^ (x >> 29);
        }
        for _ in 0..16 {
            dice.bits();
        }
        dice
    }

    fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.unit()).cos()
    }
}

/// One host's counts.
pub struct Counts {
    /// By worker, second and leaf.
    pub by_second: Vec<Vec<Vec<u32>>>,
    /// The true share of each leaf.
    pub truth: Vec<f64>,
}

/// A fleet.
pub struct Made {
    /// The subtree of each leaf.
    pub subtree_of: Vec<usize>,
    /// The hosts.
    pub hosts: Vec<Counts>,
}

/// Something odd: a subtree of one host has so much more of the whole.
pub struct Odd {
    /// Which host.
    pub host: usize,
    /// Which subtree.
    pub subtree: usize,
    /// Only one leaf of it, by its number within the subtree.
    pub leaf: Option<usize>,
    /// How much more, as a part of the whole.
    pub more: f64,
}

/// Makes a fleet. `odd` chooses, given the subtrees' shares.
pub fn make(
    dice: &mut Dice,
    hosts: usize,
    odd: impl Fn(&mut Dice, &[f64]) -> Option<Odd>,
) -> (Made, Option<Odd>) {
    let subtree_of: Vec<usize> = (0..SUBTREES * LEAVES).map(|leaf| leaf / LEAVES).collect();
    let weights: Vec<f64> = (0..SUBTREES).map(|_| (0.9 * dice.normal()).exp()).collect();
    let base: Vec<f64> = subtree_of
        .iter()
        .map(|s| weights[*s] * (0.3 + dice.unit()))
        .collect();
    let base = to_one(base);
    let sums = by_subtree(&base, &subtree_of);
    let odd = odd(dice, &sums);
    let hosts = (0..hosts)
        .map(|h| {
            let factors: Vec<f64> = (0..SUBTREES)
                .map(|_| 1.0 + BETWEEN * dice.normal())
                .collect();
            let mut truth: Vec<f64> = base
                .iter()
                .zip(&subtree_of)
                .map(|(p, s)| p * factors[*s])
                .collect();
            truth = to_one(truth);
            if let Some(odd) = odd.as_ref().filter(|o| o.host == h) {
                let first = odd.subtree * LEAVES;
                let chosen = odd
                    .leaf
                    .map_or(first..first + LEAVES, |l| first + l..first + l + 1);
                let has: f64 = truth[chosen.clone()].iter().sum();
                let (up, down) = ((has + odd.more) / has, (1.0 - has - odd.more) / (1.0 - has));
                for (leaf, p) in truth.iter_mut().enumerate() {
                    *p *= if chosen.contains(&leaf) { up } else { down };
                }
            }
            // 0.5 to 2, evenly on a scale of ratios.
            let load = (2.0 * dice.unit() - 1.0).exp2();
            Counts {
                by_second: (0..WORKERS)
                    .map(|_| worker(dice, &truth, &subtree_of, load))
                    .collect(),
                truth,
            }
        })
        .collect();
    (Made { subtree_of, hosts }, odd)
}

/// A worker's counts by second and leaf.
fn worker(dice: &mut Dice, truth: &[f64], subtree_of: &[usize], load: f64) -> Vec<Vec<u32>> {
    let sums = by_subtree(truth, subtree_of);
    let mut states: Vec<f64> = (0..=SUBTREES).map(|_| dice.normal()).collect();
    let mut seconds = Vec::with_capacity(SECONDS);
    let mut parts = vec![0.0; truth.len()];
    for _ in 0..SECONDS {
        for state in &mut states {
            *state = LAG * *state + (1.0 - LAG * LAG).sqrt() * dice.normal();
        }
        let wave = |s: usize| WITHIN * states[s].clamp(-3.0, 3.0);
        // What all subtrees together would be too much is taken from each: the mean stays the truth.
        let shift: f64 = sums.iter().enumerate().map(|(s, p)| p * wave(s)).sum();
        let mut sum = 0.0;
        for (part, (p, s)) in parts.iter_mut().zip(truth.iter().zip(subtree_of)) {
            sum += p * (1.0 + wave(*s) - shift);
            *part = sum;
        }
        let busy = (BUSY * load * (1.0 + wave(SUBTREES))).clamp(0.0, 1.0);
        let mut counts = vec![0; truth.len()];
        for _ in 0..HZ {
            if dice.unit() < busy {
                let at = dice.unit() * sum;
                let leaf = parts.partition_point(|p| *p < at);
                counts[leaf.min(truth.len() - 1)] += 1;
            }
        }
        seconds.push(counts);
    }
    seconds
}

/// Sums of leaves by subtree.
pub fn by_subtree(leaves: &[f64], subtree_of: &[usize]) -> Vec<f64> {
    let mut sums = vec![0.0; SUBTREES];
    leaves
        .iter()
        .zip(subtree_of)
        .for_each(|(p, s)| sums[*s] += p);
    sums
}

fn to_one(mut values: Vec<f64>) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|v| *v /= sum);
    values
}
