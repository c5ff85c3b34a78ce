//! A ranking as a person would say it. In: entries. Out: a sentence for each. Never: more certainty
//! than the entry has.

use super::{Gap, HostDifference, Per, PlaceGap, Ranking};

/// Callers that are named before a frame: they say where to look; the whole stack is in the record.
const CALLERS: usize = 3;

impl Ranking {
    /// One sentence for each entry, in their order.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let others = self.entries.len().saturating_sub(1);
        let others = match others {
            1 => "the other host".to_owned(),
            n => format!("the other {n} hosts"),
        };
        let say = |entry: &HostDifference| match self.per {
            Per::Share => self.share(entry, &others),
            Per::Cpu | Per::Requests => self.rate(entry, &others),
        };
        self.entries.iter().map(say).collect()
    }

    fn share(&self, entry: &HostDifference, others: &str) -> String {
        let Some(frame) = &entry.frame else {
            return format!("{} is like {others}: no frame differs", entry.host);
        };
        let manner = if entry.odd {
            format!("is unlike {others}:")
        } else if self.spread.is_none() && differs(entry) {
            format!("differs from {others}:")
        } else {
            format!("cannot be told from {others}; what differs most:")
        };
        let place = if entry.path.last() == Some(frame) {
            shortened(&entry.path)
        } else {
            frame.clone()
        };
        let known = match entry.places.first() {
            Some(place) => format!(
                "{:+.1} ± {:.1} points",
                entry.delta_points,
                half(&place.gap)
            ),
            None => format!("{:+.1} points", entry.delta_points),
        };
        // What changed the other way is the other side of the same coin.
        let sign = entry.delta_points.signum();
        let rest = entry.places.iter().skip(1);
        let also: Vec<String> = rest
            .filter(|p| p.gap.delta.signum() == sign)
            .map(also)
            .collect();
        format!(
            "{} {manner} {place} is in {:.1} % of its samples, {:.1} % elsewhere ({known}){}",
            entry.host,
            entry.host_share * 100.0,
            entry.rest_share * 100.0,
            also.concat()
        )
    }

    fn rate(&self, entry: &HostDifference, others: &str) -> String {
        let per = match self.per {
            Per::Requests => "per 1,000 requests",
            Per::Share | Per::Cpu => "per second",
        };
        let Some(whole) = &entry.whole else {
            return format!("{} cannot be told from {others}", entry.host);
        };
        let tells = whole.tells() && (entry.odd || (self.spread.is_none() && differs(entry)));
        let first = entry.places.first();
        if tells {
            let part = first.map_or(String::new(), |place| {
                let part = (place.gap.delta / whole.delta * 100.0).clamp(-999.0, 999.0);
                let place = (shortened(&place.path), ways(place));
                format!("; {part:.0} % of it under {}{}", place.0, place.1)
            });
            return format!(
                "{} spends {} {per} than {others}{part}",
                entry.host,
                more(whole)
            );
        }
        match first.filter(|_| entry.odd) {
            Some(place) => format!(
                "{} spends {} {per} than {others} under {}; in all it cannot be told from them ({:+.1} ± {:.1})",
                entry.host,
                more(&place.gap),
                shortened(&place.path),
                whole.delta,
                half(whole)
            ),
            None => format!(
                "{} cannot be told from {others}: {:+.1} ± {:.1} CPU-ms {per}",
                entry.host,
                whole.delta,
                half(whole)
            ),
        }
    }
}

/// Of fewer than four hosts, whether noise within hosts does not explain the difference.
fn differs(entry: &HostDifference) -> bool {
    entry.q <= super::FALSE_MAX
}

fn also(place: &PlaceGap) -> String {
    format!(
        "; {} {:+.1} ± {:.1}",
        shortened(&place.path),
        place.gap.delta,
        half(&place.gap)
    )
}

/// `11.3 ± 1.9 CPU-ms more`.
fn more(gap: &Gap) -> String {
    let word = if gap.delta < 0.0 { "less" } else { "more" };
    let (size, half) = (gap.delta.abs(), half(gap));
    if size < 1.0 {
        format!("{size:.3} ± {half:.3} CPU-ms {word}")
    } else {
        format!("{size:.1} ± {half:.1} CPU-ms {word}")
    }
}

/// Half of an interval's width.
fn half(gap: &Gap) -> f64 {
    (gap.high - gap.low) / 2.0
}

/// ` (2 ways)` of a function that several ways lead to.
fn ways(place: &PlaceGap) -> String {
    match place.ways {
        0 | 1 => String::new(),
        ways => format!(" ({ways} ways)"),
    }
}

/// The last frames of a stack.
fn shortened(path: &[String]) -> String {
    path[path.len().saturating_sub(CALLERS)..].join(" → ")
}
