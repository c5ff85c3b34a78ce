//! Capture statistics over the wire. In: statistics. Out: messages, and back.
//! Never: a text from a peer without a bound.

use crate::v1;
use model::coverage::{CaptureStats, PLACE_BYTES_MAX, PLACES_MAX, ProcessPlace};
use model::script::{PIECES_MAX, PRINTED_BYTES_MAX, Printed};

impl From<&CaptureStats> for v1::CaptureStats {
    fn from(s: &CaptureStats) -> Self {
        Self {
            samples: s.samples,
            lost: s.lost,
            throttled: s.throttled,
            dropped: s.dropped,
            truncated: s.truncated,
            pruned: s.pruned,
            own_cpu_ns: s.own_cpu_ns,
            pause_p50_ns: s.pause_p50_ns,
            pause_p99_ns: s.pause_p99_ns,
            target_cpu_ns: s.target_cpu_ns,
            processes: s.processes,
            lua_segments: s.lua_segments,
            lua_racy: s.lua_racy,
            lua_failed: s.lua_failed,
            places: s.places.iter().take(PLACES_MAX).map(Into::into).collect(),
            printed: s
                .printed
                .iter()
                .map(|p| v1::Printed {
                    at_ms: p.at_ms,
                    text: p.text.clone(),
                })
                .collect(),
            mode: s.mode.clone(),
            started_mono_ns: s.started_mono_ns,
            stopped_mono_ns: s.stopped_mono_ns,
        }
    }
}

impl From<v1::CaptureStats> for CaptureStats {
    fn from(s: v1::CaptureStats) -> Self {
        Self {
            samples: s.samples,
            lost: s.lost,
            throttled: s.throttled,
            dropped: s.dropped,
            truncated: s.truncated,
            pruned: s.pruned,
            own_cpu_ns: s.own_cpu_ns,
            pause_p50_ns: s.pause_p50_ns,
            pause_p99_ns: s.pause_p99_ns,
            target_cpu_ns: s.target_cpu_ns,
            processes: s.processes,
            lua_segments: s.lua_segments,
            lua_racy: s.lua_racy,
            lua_failed: s.lua_failed,
            printed: printed(s.printed),
            places: s
                .places
                .into_iter()
                .take(PLACES_MAX)
                .map(Into::into)
                .collect(),
            mode: plain(&s.mode, 60),
            started_mono_ns: s.started_mono_ns,
            stopped_mono_ns: s.stopped_mono_ns,
        }
    }
}

impl From<&ProcessPlace> for v1::ProcessPlace {
    fn from(p: &ProcessPlace) -> Self {
        Self {
            pid: p.pid,
            start_ticks: p.start_ticks,
            group: p.group.clone(),
            container: p.container.clone(),
        }
    }
}

impl From<v1::ProcessPlace> for ProcessPlace {
    fn from(p: v1::ProcessPlace) -> Self {
        Self {
            pid: p.pid,
            start_ticks: p.start_ticks,
            group: plain(&p.group, PLACE_BYTES_MAX),
            container: plain(&p.container, PLACE_BYTES_MAX),
        }
    }
}

/// A peer's text without control characters, and no longer than so many characters.
fn plain(text: &str, length_max: usize) -> String {
    let kept = text.chars().filter(|c| !c.is_control());
    kept.take(length_max).collect()
}

/// As much as an honest agent keeps.
fn printed(pieces: Vec<v1::Printed>) -> Vec<Printed> {
    let mut bytes = 0;
    let within = |p: &v1::Printed| {
        bytes += p.text.len();
        // What was no UTF-8 has grown: three bytes for one.
        bytes <= 3 * PRINTED_BYTES_MAX
    };
    let pieces = pieces.into_iter().take(PIECES_MAX).take_while(within);
    let printed = |p: v1::Printed| Printed {
        at_ms: p.at_ms,
        text: p.text,
    };
    pieces.map(printed).collect()
}
