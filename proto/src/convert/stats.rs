//! Capture statistics over the wire. In: statistics. Out: messages, and back.
//! Never: a text from a peer without a bound.

use crate::v1;
use model::coverage::{CaptureStats, PLACE_BYTES_MAX, PLACES_MAX, ProcessPlace};

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
