//! Capture statistics over the wire. In: statistics. Out: messages, and back.
//! Never: a text from a peer without a bound.

use crate::v1;
use model::coverage::CaptureStats;

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
            mode: s
                .mode
                .chars()
                .filter(|c| !c.is_control())
                .take(60)
                .collect(),
            started_mono_ns: s.started_mono_ns,
            stopped_mono_ns: s.stopped_mono_ns,
        }
    }
}
