//! Tails of distributions, and many verdicts at once. In: statistics, p-values. Out: p-values,
//! q-values. Never: a p-value below what double precision can tell.

/// ln Γ(x) for x > 0, by Lanczos' series (g = 7, nine terms; relative error below 1e-14).
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let t = x + 7.5;
    let sum = TERMS[1..]
        .iter()
        .zip(1_u8..)
        .fold(TERMS[0], |sum, (term, i)| sum + term / (x + f64::from(i)));
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// The regularised incomplete beta function I_x(a, b), by Lentz' continued fraction.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front =
        (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let guarded = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / guarded(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..300_u16 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guarded(1.0 + even * d);
        c = guarded(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guarded(1.0 + odd * d);
        c = guarded(1.0 + odd / c);
        let step = d * c;
        fraction *= step;
        if (step - 1.0).abs() < 1e-14 {
            break;
        }
    }
    front * fraction
}

/// How probable a value of Student's t at least as far from 0 is, on either side.
pub(super) fn t_two_sided(t: f64, freedom: f64) -> f64 {
    if !t.is_finite() {
        return if t.is_nan() { 1.0 } else { 0.0 };
    }
    let freedom = freedom.max(1.0);
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The t that is exceeded, on either side, with this probability.
pub(super) fn t_beyond(probability: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1_000.0);
    // 45 to 50 halvings.
    while high - low > 1e-12 * high {
        let middle = (low + high) / 2.0;
        if t_two_sided(middle, freedom) > probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The second derivative of ln Γ, the variance of the logarithm of a gamma variable.
pub(super) fn trigamma(x: f64) -> f64 {
    let (mut x, mut sum) = (x.max(1e-3), 0.0);
    while x < 8.0 {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    sum + 1.0 / x + y / 2.0 + y / x * (1.0 / 6.0 - y * (1.0 / 30.0 - y / 42.0))
}

/// How probable these are by chance all together, in whatever way they hang together: a callee and its
/// caller say the same twice, and need not be paid for twice (the Cauchy combination test of Liu and Xie,
/// 2020: a mean of Cauchy variables is one, also of variables that are the same).
pub(super) fn together(p: &[f64]) -> f64 {
    use std::f64::consts::PI;
    let n = p.len() as f64;
    let one = |p: f64| {
        // Many that can say nothing (1) must not outweigh one that does; tiny ones are beyond what tan can
        // tell.
        let p = p.min(0.9);
        if p < 1e-8 {
            1.0 / (PI * p.max(f64::MIN_POSITIVE))
        } else {
            ((0.5 - p) * PI).tan()
        }
    };
    let mean = p.iter().map(|p| one(*p) / n).sum::<f64>();
    if p.is_empty() {
        1.0
    } else if mean > 1e8 {
        1.0 / (PI * mean)
    } else {
        0.5 - mean.atan() / PI
    }
}

/// q-values by Benjamini and Hochberg: the smallest rate of false discoveries at which each of these
/// would be one.
#[must_use]
pub fn false_discoveries(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut q = vec![1.0; p.len()];
    let mut least: f64 = 1.0;
    for (rank, i) in order.iter().enumerate().rev() {
        least = least.min(p[*i] * p.len() as f64 / (rank + 1) as f64);
        q[*i] = least;
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_printed_tables() {
        // Student's t, two-sided: the tables of Fisher and Yates.
        for (t, freedom, p) in [
            (12.706, 1.0, 0.05),
            (2.776, 4.0, 0.05),
            (2.228, 10.0, 0.05),
            (3.169, 10.0, 0.01),
            (4.587, 10.0, 0.001),
            (1.960, 1e7, 0.05),
            (5.3267, 1e9, 1e-7),
        ] {
            let found = t_two_sided(t, freedom);
            assert!((found / p - 1.0).abs() < 2e-3, "{t} {freedom}: {found}");
            assert!((t_beyond(p, freedom) / t - 1.0).abs() < 1e-3);
        }
        assert!((t_two_sided(0.0, 5.0) - 1.0).abs() < 1e-12);
        assert!(t_two_sided(f64::INFINITY, 5.0) < 1e-12);
    }

    #[test]
    fn many_p_values_together_are_neither_less_nor_more_than_they_say() {
        // One alone, and one that is said five times.
        for p in [1e-200, 1e-9, 2e-5, 0.03, 0.5] {
            for times in [1, 5] {
                let found = together(&vec![p; times]);
                assert!((found / p - 1.0).abs() < 1e-6, "{p} {times}: {found}");
            }
        }
        // Among others that say nothing it is as if it were paid for; two of them are worth more.
        let among = |some: &[f64]| {
            let mut p = vec![1.0; 64];
            p[..some.len()].copy_from_slice(some);
            together(&p)
        };
        assert!((among(&[1e-6]) / 64e-6 - 1.0).abs() < 1e-2);
        assert!((among(&[1e-6, 1e-6]) / 32e-6 - 1.0).abs() < 1e-2);
        assert!(among(&[]) > 0.5 && together(&[]) >= 1.0);
        assert!(together(&[0.0, 1.0]) < 1e-300);
    }

    #[test]
    fn trigamma_is_that_of_its_known_values() {
        let pi = std::f64::consts::PI;
        for (x, wanted) in [
            (1.0, pi * pi / 6.0),
            (0.5, pi * pi / 2.0),
            (2.0, pi * pi / 6.0 - 1.0),
        ] {
            assert!((trigamma(x) - wanted).abs() < 1e-9);
        }
    }

    #[test]
    fn q_values_are_those_worked_out_by_hand() {
        let q = false_discoveries(&[0.04, 0.01, 0.9, 0.03]);
        let wanted = [0.04 * 4.0 / 3.0, 0.04, 0.9, 0.04 * 4.0 / 3.0];
        assert!(
            q.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12),
            "{q:?}"
        );
    }
}
