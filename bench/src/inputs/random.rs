//! Numbers for made-up inputs. In: a seed. Out: always the same numbers. Never: a number from the
//! operating system.

/// SplitMix64 (Steele, Lea and Flood, 2014): one word of state, every seed is good.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, all as likely.
    pub fn below(&mut self, end: u64) -> u64 {
        ((self.bits() >> 32) * end) >> 32
    }

    /// A number below `end` by a law like Zipf's with exponent 1: low ones are much more likely.
    pub fn rank_below(&mut self, end: u64) -> u64 {
        let part = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = (part * ((end + 1) as f64).ln()).exp() as u64 - 1;
        rank.min(end - 1)
    }
}

/// A number that depends on both and on nothing else.
pub fn mix(a: u64, b: u64) -> u64 {
    Random(a.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ b).bits()
}
