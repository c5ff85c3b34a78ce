//! Our stacks against those of the real `inferno-collapse-perf --all` (`testdata/perf/README.md`).
//! Each way in which we differ is a rule here, and a row in docs/formats.md.

use super::*;
use crate::profile::{Frame, FrameKind};
use std::collections::BTreeMap;

macro_rules! inputs {
    ($($name:literal),*) => {
        [$((
            $name,
            include_bytes!(concat!("../../../../testdata/perf/", $name, ".txt")).as_slice(),
            include_str!(concat!("../../../../testdata/perf/inferno/", $name, ".collapsed")),
        )),*]
    };
}

const INPUTS: [(&str, &[u8], &str); 12] = inputs![
    "default",
    "pid-tid-cpu",
    "two-events",
    "node",
    "generated",
    "inlined",
    "srcline",
    "no-callchain",
    "no-time",
    "bytes",
    "lost",
    "odd"
];

type Sums = BTreeMap<String, u64>;

/// What inferno wrote, without the comm, which is a series here and no frame.
fn theirs(collapsed: &str) -> Sums {
    let mut sums = Sums::new();
    for line in collapsed.lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        // It leaves a `;` in the comm as it is, and so makes two frames of one thread's name.
        let cut = stack.strip_prefix("timer;1.5:_a;");
        let stack = cut.unwrap_or_else(|| stack.split_once(';').unwrap_or_default().1);
        *sums.entry(stack.to_owned()).or_default() += count.parse::<u64>().unwrap();
    }
    sums
}

/// A frame as inferno writes it. `jit`: it is inlined in code of a JIT compiler.
fn label(frame: &Frame, jit: bool) -> String {
    match (frame.kind, frame.module.as_str()) {
        // Arguments: they tell overloaded functions apart.
        (FrameKind::Inline, _) if jit => {
            format!("{}_[i]", frame.name.split('(').next().unwrap()).replace(';', ":")
        }
        // What the compiler has inlined is marked nowhere else.
        (FrameKind::Inline, _) => frame.name.clone(),
        // The vdso is a library of user space.
        (_, "[vdso]") => format!("{}_[k]", frame.label()),
        // `(FILE (deleted))` is taken for the module `deleted)`.
        (_, "plugin.so") if frame.name.is_empty() => "[unknown] ".to_owned(),
        _ => frame.label(),
    }
}

/// Our stacks, each frame as inferno would write it; none for frames that it does not see.
fn ours(imported: &Imported, measure: usize, seen: impl Fn(&Frame, bool) -> bool) -> Sums {
    let profile = &imported.profile;
    let mut sums = Sums::new();
    for (node, values) in profile.select(|_| true) {
        let mut jit = false;
        let mut labels = Vec::new();
        for id in profile.tree.stack(node) {
            let frame = profile.frames.get(id).unwrap();
            jit = frame.kind == FrameKind::Jit || (jit && frame.kind == FrameKind::Inline);
            if seen(frame, jit) {
                labels.push(label(frame, jit));
            }
        }
        *sums.entry(labels.join(";")).or_default() += values[measure];
    }
    sums
}

#[test]
fn stacks_and_sums_are_those_of_inferno_but_where_it_is_wrong() {
    for (name, text, collapsed) in INPUTS {
        let imported = read(text, |_| ());
        let theirs = theirs(collapsed);
        // Without a time it finds no period and counts samples.
        let measure = usize::from(!["pid-tid-cpu", "no-time"].contains(&name));
        let inlined = |frame: &Frame, jit: bool| jit || frame.kind != FrameKind::Inline;
        let ours = match name {
            "lost" | "odd" => continue, // below
            // Lines of the source hide inlined functions from it.
            "srcline" => ours(&imported, measure, inlined),
            _ => ours(&imported, measure, |_, _| true),
        };
        assert_eq!(ours, theirs, "{name}");
    }
}

/// The sample after a LOST record is lost too, since the record is taken for a sample of another event.
#[test]
fn a_record_of_loss_loses_no_sample() {
    let (_, text, collapsed) = INPUTS[10];
    let (imported, theirs) = (read(text, |_| ()), theirs(collapsed));
    let ours = ours(&imported, 1, |_, _| true);
    assert_eq!(ours.values().sum::<u64>(), 6 * 20_000);
    assert_eq!(theirs.values().sum::<u64>(), 3 * 20_000);
    for (stack, sum) in theirs {
        assert!(ours[&stack] >= sum, "{stack}");
    }
}

#[test]
fn odd_samples_keep_what_inferno_changes() {
    let (_, text, collapsed) = INPUTS[11];
    let imported = read(text, |_| ());
    let theirs = theirs(collapsed);
    let ours = folded(&imported, 0);
    let expected = [
        // A sample without a stack is a sample.
        "[unknown] 1",
        "[unknown];[libc-2.15.so];[plugin.so] 1",
        // As inferno, on one line with its header.
        "alone 1",
        "f 1",
        "last 1",
        "main;f(int, char) 1",
        // A line that is no frame does not end a stack; what the compiler has inlined is marked.
        "main;f@@GLIBC_2.34;mix_[i] 1",
        // A name of nothing but an arrow's target, `_[j]` of a name, and `->` outside of JIT compilers' code.
        "(app);std::shared_ptr<A>::operator->;RegExp:[&<>\\\"\\']_[j];v8::(anonymous namespace)::Invoke(bool);net/http.(*Client).Do 1",
        "[unknown];__vdso_gettimeofday;do_idle_[k]_[k];nf_hook_[k];nft_do_chain_[k];tcp_recvmsg_[k];tcp_sendmsg_[k];h_[j];g_[j]_[j];[jit]_[j];x_[i];y_[i];Ljava/io/PrintStream:::print_[j];La/B:::c(La/d:)V_[i] 1",
    ];
    let mut sorted = expected.to_vec();
    sorted.sort_unstable();
    assert_eq!(ours, sorted);
    for same in ["f", "alone", "last"] {
        assert!(theirs.contains_key(same), "{same}");
    }
    assert_eq!(imported.stats.samples, 9);
    assert_eq!(imported.stats.other_events["page-faults"], 1);
}
