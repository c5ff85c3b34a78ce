//! A part of a profile: some of its series. In: a profile and which series are wanted. Out: a
//! profile of those alone, with the same frames and nodes. Never: a series or a counter of the rest.

use super::{CounterSource, Profile, Series, SeriesId, SeriesTable};

impl Profile {
    /// The series that pass `wanted`, with their values and counters. Counters of a host stay when
    /// the host has a series that is wanted.
    #[must_use]
    pub fn part(mut self, wanted: impl Fn(&Series) -> bool) -> Self {
        let mut series = SeriesTable::default();
        let numbers: Vec<Option<SeriesId>> = self
            .series
            .as_slice()
            .iter()
            .map(|s| wanted(s).then(|| series.intern(s)))
            .collect();
        let number = |id: SeriesId| numbers.get(id.0 as usize).copied().flatten();
        let totals = std::mem::take(&mut self.totals).into_iter();
        self.totals = totals
            .filter_map(|(id, totals)| Some((number(id)?, totals)))
            .collect();
        let cells = std::mem::take(&mut self.cells).into_iter();
        self.cells = cells
            .filter_map(|((id, bin), cell)| Some(((number(id)?, bin), cell)))
            .collect();
        let counters = std::mem::take(&mut self.counters).into_iter();
        let of_host = |host: &str| series.as_slice().iter().any(|s| s.host == host);
        self.counters = counters
            .filter_map(|((host, source, bin, kind), value)| {
                let source = match source {
                    CounterSource::Host if of_host(&host) => CounterSource::Host,
                    CounterSource::Host => return None,
                    CounterSource::Series(id) => CounterSource::Series(number(id)?),
                };
                Some(((host, source, bin, kind), value))
            })
            .collect();
        self.series = series;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{any_rows, profile_from};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parts_add_up_to_the_whole(rows in any_rows()) {
            let whole = profile_from(&rows);
            for host in whole.hosts() {
                let one = whole.clone().part(|s| s.host == host);
                let mut rest = whole.clone().part(|s| s.host != host);
                prop_assert!(one.series.as_slice().iter().all(|s| s.host == host));
                rest.merge(&one).unwrap();
                prop_assert_eq!(rest.canonical(), whole.canonical());
            }
        }
    }
}
