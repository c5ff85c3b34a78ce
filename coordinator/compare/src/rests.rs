//! Each host of a fleet against all the others, for pictures. In: a merged profile with its seconds.
//! Out: for each host what is said of the places in the call tree. Never: the fleet counted anew for
//! each of its hosts: what is elsewhere is the whole without the host.

use super::counted::{Counted, Feature, Gaps, Wanted, count};
use super::sides::{Told, told_of};
use super::{Per, place};
use model::profile::{NodeId, Profile};
use statistics::Rests as Judged;
use std::collections::BTreeMap;

/// A fleet that was counted once.
pub struct Rests {
    names: Vec<String>,
    paths: BTreeMap<Vec<String>, usize>,
    judged: Judged,
}

impl Rests {
    /// Counts all hosts by shares. None when the profile has nothing to count.
    #[must_use]
    pub fn of(profile: &Profile) -> Option<Self> {
        let counted = count(profile, Per::Share, Wanted::Places, Gaps::Idle)?;
        let features = counted.features.len();
        Some(Self {
            paths: paths(profile, &counted),
            judged: Judged::of(&counted.hosts, features, Per::Share.scale()),
            names: counted.names,
        })
    }

    /// What is said of places, by their labels, of this host against all others: the same as
    /// [`super::compared`] says of them. None of a host that was not counted, or is the only one.
    #[must_use]
    pub fn told(&self, host: &str) -> Option<BTreeMap<Vec<String>, Told>> {
        let at = self.names.iter().position(|n| n == host)?;
        if self.names.len() < 2 {
            return None;
        }
        let told = told_of(&self.judged.against(at));
        let paths = self.paths.iter();
        Some(paths.map(|(path, at)| (path.clone(), told[*at])).collect())
    }
}

/// The feature of each place that was counted, by its labels, root first. A chain of single callees
/// is one feature, known by its last: what holds for it holds for all of the chain.
pub(super) fn paths(profile: &Profile, counted: &Counted) -> BTreeMap<Vec<String>, usize> {
    let node = |(at, feature): (usize, &Feature)| match feature {
        Feature::Node(node) => Some((*node, at)),
        _ => None,
    };
    let features = counted.features.iter().enumerate();
    let of: BTreeMap<NodeId, usize> = features.filter_map(node).collect();
    let mut paths = BTreeMap::new();
    for (node, feature) in &of {
        paths.insert(place::path(profile, *node), *feature);
    }
    for (node, feature) in &of {
        let mut path = place::path(profile, *node);
        let mut above = profile.tree.get(*node).map(|n| n.parent);
        while let Some(caller) = above.filter(|c| !of.contains_key(c)) {
            let Some(here) = profile.tree.get(caller) else {
                break; // the root
            };
            path.pop();
            paths.entry(path.clone()).or_insert(*feature);
            above = Some(here.parent);
        }
    }
    paths
}
