//! Stacks that branch as real ones do. In: functions and a seed. Out: lists of function numbers,
//! root first. Never: stacks that share nothing (a merge of those would be too easy or too hard).
//!
//! New stacks are made from old ones by cutting a few frames at the leaf and growing new ones:
//! 1.2 to 1.8 new nodes a stack, as in the example stacks of FlameGraph and inferno.

use super::functions::{Function, TRUNK};
use super::random::{Random, mix};
use std::collections::HashSet;
use std::ops::Range;

/// A stack: numbers of functions, root first.
pub type Stack = Vec<u16>;

/// Distinct stacks.
#[derive(Debug)]
pub struct Pool {
    /// The stacks.
    pub stacks: Vec<Stack>,
    depths: Range<usize>,
}

/// Stacks that a pool grows from.
const FIRST: usize = 64;

impl Pool {
    /// `count` stacks with depths in `depths`.
    pub fn grow(
        random: &mut Random,
        functions: &[Function],
        count: usize,
        depths: Range<usize>,
    ) -> Self {
        let span = (depths.end - depths.start) as u64;
        let mut pool = Self {
            stacks: Vec::with_capacity(count),
            depths,
        };
        for _ in 0..FIRST {
            let mut stack: Stack = (0..TRUNK as u16).collect();
            let depth = pool.depths.start + random.below(span) as usize;
            walk(random, &mut stack, functions, depth);
            pool.stacks.push(stack);
        }
        let mut seen = HashSet::new();
        while pool.stacks.len() < count {
            let from = random.below(pool.stacks.len() as u64) as usize;
            let stack = pool.branch(random, functions, from);
            if seen.insert(stack.clone()) {
                pool.stacks.push(stack);
            }
        }
        pool
    }

    /// A new stack from an old one.
    pub fn branch(&self, random: &mut Random, functions: &[Function], from: usize) -> Stack {
        let mut stack = self.stacks[from].clone();
        let mut cut = 0;
        while random.below(4) != 0 {
            cut += 1;
        }
        let mut add = 1;
        while random.below(9) >= 5 {
            add += 1;
        }
        let shallowest = TRUNK.max(self.depths.start - 1);
        stack.truncate(stack.len().saturating_sub(cut).max(shallowest));
        let depth = (stack.len() + add)
            .min(self.depths.end)
            .max(stack.len() + 1);
        walk(random, &mut stack, functions, depth);
        stack
    }
}

/// Calls on from the last function until the stack has `depth` frames. What a function calls
/// depends on it alone, and some callees are much more likely than others.
fn walk(random: &mut Random, stack: &mut Stack, functions: &[Function], depth: usize) {
    const CALLEES: u64 = 24;
    const OFTEN_CALLED: u64 = 400;
    let trunk = TRUNK as u64;
    while stack.len() < depth {
        let last = u64::from(stack.last().copied().unwrap_or_default());
        let choice = mix(last, random.rank_below(CALLEES));
        let rarely = random.below(5) == 0;
        let callees = if rarely {
            functions.len() as u64 - trunk
        } else {
            OFTEN_CALLED
        };
        stack.push((trunk + choice % callees) as u16);
    }
}
