//! A fleet's profile with everything that a profile can have. In: nothing. Out: a file.
//! Never: a frame or a series that other formats would hold too easily.

use std::path::Path;

use anyhow::Result;
use model::format::ffz::encode_profile;
use model::profile::{BuildId, Frame, FrameKind, Measure, Process, Profile, Series};

/// The hosts.
pub const HOSTS: [&str; 3] = ["kong-1", "kong-2", "kong-3"];

/// Kernel, inlined, interpreted, compiled and unnamed code below an nginx worker.
fn frames() -> [Frame; 9] {
    let nginx = BuildId::new(&[0x1f; 20]);
    let file = |name: &str, line, kind, function: &str| Frame {
        file: name.into(),
        line,
        ..Frame::named(kind, function, "")
    };
    [
        Frame {
            build_id: nginx,
            address: 0x4_2000,
            ..Frame::named(FrameKind::User, "main", "nginx")
        },
        Frame {
            build_id: nginx,
            ..Frame::named(FrameKind::User, "ngx_epoll_process_events", "nginx")
        },
        Frame::named(FrameKind::Inline, "ngx_memcpy", ""),
        file("rate-limiting/handler.lua", 42, FrameKind::Lua, "access"),
        file("acl/handler.lua", 42, FrameKind::Lua, "access"),
        file("rate-limiting/handler.lua", 42, FrameKind::Jit, "access"),
        Frame::unnamed(
            FrameKind::User,
            "libc.so.6",
            BuildId::new(&[7; 20]),
            0x9_1a20,
        ),
        Frame::named(FrameKind::Kernel, "do_syscall_64", "vmlinux"),
        Frame::named(FrameKind::Kernel, "nft_do_chain", "nf_tables"),
    ]
}

/// Stacks from the root, by number of frame, with samples; the three `access` must stay apart.
const STACKS: [(&[usize], u64); 8] = [
    (&[0, 1], 3),
    (&[0, 1, 2], 5),
    (&[0, 3], 70),
    (&[0, 4], 11),
    (&[0, 3, 5], 13),
    (&[0, 6], 17),
    (&[0, 1, 7], 19),
    (&[0, 1, 7, 8], 23),
];

/// The profile: host n has n + 1 times the samples of the first, and two threads.
pub fn profile() -> Profile {
    let mut profile = Profile::new("on-cpu", Measure::on_cpu());
    let frames = frames().map(|f| profile.frames.intern(&f));
    for (times, host) in (1_u64..).zip(HOSTS) {
        for worker in 0..2 {
            let series = profile.series.intern(&Series {
                host: host.into(),
                process: Process {
                    pid: 800 + worker,
                    start_ticks: 77,
                    comm: "nginx".into(),
                    role: "nginx: worker".into(),
                    worker: Some(worker),
                    ..Process::default()
                },
                thread: if worker == 0 { "nginx" } else { "aio" }.into(),
                engine: "native".into(),
                event: "cpu-clock".into(),
                period_ns: 10_101_010,
                ..Series::default()
            });
            for (stack, samples) in STACKS {
                let stack: Vec<_> = stack.iter().map(|f| frames[*f]).collect();
                let samples = samples * times;
                profile.add_stack(series, &stack, &[samples, samples * 10_101_010 + 7, 0]);
            }
        }
    }
    profile
}

/// Writes the profile as a file of ours.
pub fn write(file: &Path) -> Result<Profile> {
    let profile = profile();
    std::fs::write(file, encode_profile(&profile)?)?;
    Ok(profile)
}
