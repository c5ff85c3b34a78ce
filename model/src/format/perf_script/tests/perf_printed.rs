//! Properties: whatever is printed as perf prints it is read back, and no count is lost.

use super::*;
use crate::format::import::Import;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a thread may be called. perf prints it as it is.
const COMM: &str = "[a-zA-Z#;:\\[(][a-zA-Z0-9 :;/()\\[\\]#._-]{0,13}[a-zA-Z)\\]]";

#[derive(Clone, Debug)]
struct Made {
    comm: String,
    pid: u32,
    tid: u32,
    time_us: u64,
    period: u64,
    /// Name and module by number, leaf first.
    frames: Vec<(usize, usize)>,
}

/// The fields that a header has (`-F`).
#[derive(Clone, Copy, Debug)]
struct Fields {
    pid: bool,
    cpu: bool,
    period: bool,
    offset: bool,
    indent: &'static str,
}

const NAMES: [(&str, &str); 8] = [
    ("main", "main"),
    ("do_syscall_64", "do_syscall_64"),
    ("[unknown]", ""),
    ("operator new(unsigned long)", "operator new(unsigned long)"),
    (
        "std::function<void (int)>::operator()(int)",
        "std::function<void (int)>::operator()(int)",
    ),
    ("La/b;::c(La/d;)V", "La/b:::c(La/d:)V"),
    (
        "v8::(anonymous namespace)::Invoke",
        "v8::(anonymous namespace)::Invoke",
    ),
    ("RegExp:[&<>\"\\'] ", "RegExp:[&<>\"\\']"),
];
const MODULES: [(&str, &str, &str); 7] = [
    ("/usr/bin/app", "[app]", ""),
    ("[kernel.kallsyms]", "[vmlinux]", "_[k]"),
    ("[nf_tables]", "[nf_tables]", "_[k]"),
    ("[vdso]", "[vdso]", ""),
    ("/opt/a b (x)/plugin.so (deleted)", "[plugin.so]", ""),
    ("/tmp/perf-77.map", "[jit]", "_[j]"),
    ("[unknown]", "[unknown]", ""),
];

impl Made {
    fn print(&self, fields: Fields) -> String {
        let mut text = format!("{} ", self.comm);
        if fields.pid {
            text += &format!("{:>7}/{:<7} ", self.pid, self.tid);
        } else {
            text += &format!("{:>7} ", self.tid);
        }
        if fields.cpu {
            text += "[003] ";
        }
        text += &format!(
            "{:>5}.{:06}: ",
            self.time_us / 1_000_000,
            self.time_us % 1_000_000
        );
        if fields.period {
            text += &format!("{:>10} ", self.period);
        }
        text += "cpu-clock:ppp: \n";
        for (name, module) in &self.frames {
            let offset = if fields.offset && NAMES[*name].0 != "[unknown]" {
                "+0x1f"
            } else {
                ""
            };
            text += &format!(
                "{}{:>16x} {}{offset} ({})\n",
                fields.indent, 0x40_1136, NAMES[*name].0, MODULES[*module].0
            );
        }
        text + "\n"
    }

    fn stack(&self) -> String {
        let labels = self.frames.iter().rev().map(|(name, module)| {
            match (NAMES[*name].1, MODULES[*module]) {
                ("", (_, unnamed, kind)) => format!("{unnamed}{kind}"),
                (name, (_, _, kind)) => format!("{name}{kind}"),
            }
        });
        let stack = labels.collect::<Vec<_>>().join(";");
        if stack.is_empty() {
            "[unknown]".to_owned()
        } else {
            stack
        }
    }
}

fn made() -> impl Strategy<Value = Made> {
    (
        COMM,
        0_u32..4_194_304,
        0_u32..4_194_304,
        0_u64..1 << 40,
        0_u64..1 << 40,
        prop::collection::vec((0..NAMES.len(), 0..MODULES.len()), 0..6),
    )
        .prop_map(|(comm, pid, tid, time_us, period, frames)| Made {
            comm,
            pid,
            tid,
            time_us,
            period,
            frames,
        })
}

fn fields() -> impl Strategy<Value = Fields> {
    (
        any::<(bool, bool, bool, bool)>(),
        prop::sample::select(vec!["\t", "        "]),
    )
        .prop_map(|((pid, cpu, period, offset), indent)| Fields {
            pid,
            cpu,
            period,
            offset,
            indent,
        })
}

/// A comm that looks like the fields behind it is told from them by nothing.
fn is_plain(comm: &str) -> bool {
    let digits = |w: &str| w.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    !comm
        .split(' ')
        .any(|w| w.strip_suffix(':').is_some_and(digits))
}

proptest! {
    #[test]
    fn what_is_printed_as_perf_prints_it_is_read_back(
        samples in prop::collection::vec(made(), 1..30),
        fields in fields(),
        cut in 1_usize..200,
        no_last_line in any::<bool>(),
    ) {
        prop_assume!(samples.iter().all(|s| is_plain(&s.comm)));
        let mut text: String = samples.iter().map(|s| s.print(fields)).collect();
        if no_last_line {
            text.truncate(text.len() - 1);
        }
        let mut import = Import::new(ImportOptions { format: Some(Format::Perf), ..ImportOptions::new("h") });
        for piece in text.as_bytes().chunks(cut) {
            import.feed(piece).unwrap();
        }
        let imported = import.finish().unwrap();
        prop_assert_eq!(imported.stats.foreign.lines(), 0, "{}", text);
        prop_assert_eq!(imported.stats.samples, samples.len() as u64);
        let mut expected: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        for sample in &samples {
            let sums = expected.entry(sample.stack()).or_default();
            sums[0] += 1;
            sums[1] += sample.period;
        }
        let lines = |measure: usize| -> Vec<String> {
            expected.iter().filter(|(_, s)| s[measure] > 0).map(|(stack, s)| format!("{stack} {}", s[measure])).collect()
        };
        prop_assert_eq!(folded(&imported, 0), lines(0));
        prop_assert_eq!(imported.profile.measures.len(), 1 + usize::from(fields.period));
        if fields.period {
            prop_assert_eq!(folded(&imported, 1), lines(1));
        }
        let comms = hear(text.as_bytes());
        for (sample, heard) in samples.iter().zip(comms.samples) {
            prop_assert_eq!(&heard.comm, &sample.comm);
            prop_assert_eq!(heard.ids, (fields.pid.then_some(sample.pid), Some(sample.tid)));
            prop_assert_eq!(heard.time_ns, Some(sample.time_us * 1000));
        }
    }

    #[test]
    fn any_bytes_are_read_and_each_sample_ends(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "a 1 1.5: 1 c: ", "\n", "\n\n", "\t          401136 f (/b)", "  a.c:1", "  a.c:1 (inlined)", "\t          401136 f",
            "a ", "1 ", "1.5: ", "c:", "PERF_RECORD_LOST lost 5", "#", "\r", "(", ")", " [", "]", "+0x1", "\t", "\0", "ff ",
        ]), 0..60),
    ) {
        let text = pieces.concat();
        let ear = hear(text.as_bytes());
        let imported = read(text.as_bytes(), |_| ());
        let others: u64 = imported.stats.other_events.values().sum();
        prop_assert_eq!(imported.stats.samples + others, ear.samples.len() as u64);
        prop_assert_eq!(imported.stats.foreign.lines(), ear.foreign.len() as u64);
    }
}
