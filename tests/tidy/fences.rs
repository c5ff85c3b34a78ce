//! Who may import whom, as ARCHITECTURE.md says. In: code that ships, and manifests. Out: imports
//! that cross a fence. Never: tests held to the fences of what they test.

use crate::{paths, report, source, tree};

/// A fence: in files under `inside`, none of `paths` may be named, but in `doors`.
struct Fence {
    inside: &'static [&'static str],
    paths: &'static [&'static str],
    /// Path prefixes that may.
    doors: &'static [&'static str],
    reason: &'static str,
}

const EVERYWHERE: &[&str] = &["model/", "proto/", "agent/", "coordinator/"];

const FENCES: &[Fence] = &[
    Fence {
        inside: &["model/src/"],
        paths: &[
            "tokio",
            "tonic",
            "prost",
            "std::fs",
            "std::net",
            "std::process",
            "std::thread",
            "Instant",
            "SystemTime",
            "std::time::Instant",
            "std::time::SystemTime",
        ],
        doors: &[],
        reason: "the model holds values: no runtime, wire, file, socket or clock",
    },
    Fence {
        inside: &["model/src/"],
        paths: &[
            "proto",
            "native",
            "fleetflame",
            "fleetflame_agent",
            "fleetflame_proto",
        ],
        doors: &[],
        reason: "the model imports no other crate of ours",
    },
    Fence {
        inside: &["proto/src/"],
        paths: &["native", "fleetflame", "fleetflame_agent"],
        doors: &[],
        reason: "the wire knows the model only",
    },
    Fence {
        inside: &["agent/"],
        paths: &["fleetflame", "inferno"],
        doors: &[],
        reason: "agent and coordinator never import each other",
    },
    Fence {
        inside: &["coordinator/"],
        paths: &["fleetflame_agent", "native", "fleetflame_native"],
        doors: &[],
        reason: "agent and coordinator never import each other",
    },
    Fence {
        inside: EVERYWHERE,
        paths: &["inferno"],
        doors: &["coordinator/src/render/flame"],
        reason: "flame graphs are drawn in coordinator/src/render/flame only",
    },
    Fence {
        inside: EVERYWHERE,
        paths: &["opentelemetry_proto"],
        doors: &["coordinator/src/otlp/"],
        reason: "OTLP changes with its version: its messages stand in coordinator/src/otlp only",
    },
    Fence {
        inside: &["coordinator/"],
        paths: &["addr2line", "object", "gimli"],
        doors: &["coordinator/src/debug_info/"],
        reason: "in the coordinator debug info is read in coordinator/src/debug_info only",
    },
    Fence {
        inside: EVERYWHERE,
        paths: &["serde_yaml", "serde_saphyr"],
        doors: &["coordinator/src/spec/yaml", "agent/src/policy/file.rs"],
        reason: "YAML has two doors: the job spec and the host's policy",
    },
    Fence {
        inside: &["agent/"],
        paths: &["proto", "tonic", "fleetflame_proto"],
        doors: &[
            "agent/src/service.rs",
            "agent/src/listen.rs",
            "agent/src/detached.rs",
            "agent/src/attach.rs",
            "agent/src/main.rs",
        ],
        reason: "in the agent only the service sees the wire",
    },
    Fence {
        inside: &["coordinator/"],
        paths: &["proto", "fleetflame_proto"],
        doors: &["coordinator/src/dispatch/", "coordinator/src/transport/"],
        reason: "in the coordinator only dispatch and transport see the wire",
    },
    Fence {
        inside: &["coordinator/"],
        paths: &["tonic", "hyper", "hyper_util", "http_body_util"],
        doors: &["coordinator/src/push/", "coordinator/src/cli/push.rs"],
        reason: "in the coordinator only push speaks HTTP; the agents' wire is proto's",
    },
    Fence {
        inside: &[
            "coordinator/src/plan",
            "coordinator/src/merge",
            "coordinator/compare/src",
            "coordinator/src/render",
        ],
        paths: &[
            "tokio",
            "std::fs",
            "std::net",
            "std::process",
            "std::time::Instant",
            "std::time::SystemTime",
        ],
        doors: &[],
        reason: "plan, merge, compare and render take values and give values",
    },
    Fence {
        inside: &[
            "agent/",
            "coordinator/",
            "model/",
            "proto/",
            "bench/",
            "tests/",
        ],
        paths: &["unsafe"],
        doors: &[
            "agent/native/src/sys.rs",
            "agent/native/src/ring.rs",
            "tests/harness/link/tun.rs",
        ],
        reason: "unsafe code stands in agent/native/src/{sys,ring}.rs, and in one file of the harness",
    },
];

#[test]
fn every_door_is_used() {
    let mut stale = Vec::new();
    for fence in FENCES {
        for door in fence.doors {
            let used = tree::rust()
                .iter()
                .filter(|f| f.path.starts_with(door))
                .any(|file| {
                    let named = paths::paths(&source::code(&file.text));
                    named
                        .iter()
                        .any(|n| fence.paths.iter().any(|p| begins(&n.path, p)))
                });
            if !used {
                stale.push(format!(
                    "{door}: nothing in it names {}",
                    fence.paths.join(" or ")
                ));
            }
        }
    }
    report("doors in fences lead nowhere", &stale);
}

/// Where children may be started.
const CHILD_DOORS: &[&str] = &[
    "agent/src/process/",
    "coordinator/src/transport/local.rs",
    "coordinator/src/transport/ssh/session.rs",
    "coordinator/src/cli/demo",
    "tests/",
    "bench/",
];

/// Test code: held to its own rules.
fn is_test(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file == "tests.rs"
        || file.ends_with("_tests.rs")
        || file == "tests_support.rs"
        || ["/tests/", "/examples/", "/benches/"]
            .iter()
            .any(|part| path.contains(part))
}

fn begins(path: &str, with: &str) -> bool {
    path.strip_prefix(with)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn nobody_imports_across_a_fence() {
    let mut crossed = Vec::new();
    for file in tree::rust() {
        let is_unit_test = is_test(&file.path) && !file.path.starts_with("tests/");
        let named = paths::paths(&source::shipped(&file.text));
        for fence in FENCES
            .iter()
            .filter(|f| f.inside.iter().any(|i| file.path.starts_with(i)))
        {
            let tests_may = is_unit_test && !fence.paths.contains(&"unsafe");
            if tests_may || fence.doors.iter().any(|d| file.path.starts_with(d)) {
                continue;
            }
            for name in &named {
                if fence.paths.iter().any(|p| begins(&name.path, p)) {
                    crossed.push(format!(
                        "{}:{}: {} ({})",
                        file.path, name.line, name.path, fence.reason
                    ));
                }
            }
        }
    }
    report("imports cross a fence", &crossed);
}

#[test]
fn children_are_started_in_one_room() {
    let mut crossed = Vec::new();
    for file in tree::rust() {
        if is_test(&file.path) || CHILD_DOORS.iter().any(|d| file.path.starts_with(d)) {
            continue;
        }
        for name in paths::paths(&source::shipped(&file.text)) {
            if name.path.ends_with("process::Command") || name.path.contains("process::Command::") {
                crossed.push(format!("{}:{}: {}", file.path, name.line, name.path));
            }
        }
    }
    report(
        "children are started outside of agent/src/process and coordinator/src/transport/local.rs",
        &crossed,
    );
}

/// What a crate of ours may depend on among our crates; tests may depend on all.
const CRATES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("proto", &["model"]),
    ("agent/native", &["model"]),
    ("agent", &["model", "proto", "native"]),
    ("coordinator", &["model", "proto"]),
];

#[test]
fn manifests_keep_to_the_fences() {
    let ours = [
        "model",
        "proto",
        "native",
        "fleetflame",
        "fleetflame-agent",
        "fleetflame-tests",
        "fleetflame-model",
        "fleetflame-proto",
        "fleetflame-native",
    ];
    let mut crossed = Vec::new();
    for (folder, allowed) in CRATES {
        let path = format!("{folder}/Cargo.toml");
        let text = std::fs::read_to_string(tree::root().join(&path)).expect("a manifest");
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            }
            let key = line.split(['.', '=', ' ']).next().unwrap_or("");
            if in_dependencies && ours.contains(&key) && !allowed.contains(&key) {
                crossed.push(format!("{path}: depends on {key}"));
            }
        }
    }
    report("dependencies cross a fence", &crossed);
}
