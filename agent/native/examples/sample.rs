//! Samples processes and prints folded stacks: `sample --pid 42 --secs 10`, `--exe nginx`,
//! `--gateway`, `--hz 499`, `--user`. The summary goes to standard error.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a command-line example"
)]

use fleetflame_native::{Armed, NativeConfig, Sampler, TargetSelector, mono_ns};
use model::profile::{CounterKind, Measure, ROOT, Recorder, RecorderLimits};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = NativeConfig {
        host: "here".to_owned(),
        ..NativeConfig::default()
    };
    let mut seconds = 5.0_f64;
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--pid" => config.targets.push(TargetSelector::Pid(value()?.parse()?)),
            "--exe" => config.targets.push(TargetSelector::Exe(value()?)),
            "--cmdline" => config
                .targets
                .push(TargetSelector::Cmdline(value()?.parse()?)),
            "--gateway" => config.targets.push(TargetSelector::Gateway),
            "--secs" => seconds = value()?.parse()?,
            "--hz" => config.sample_hz = value()?.parse()?,
            "--stack" => config.stack_copy_bytes = value()?.parse()?,
            "--user" => config.include_kernel = false,
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    let report = fleetflame_native::check(&config);
    eprintln!("{report:#?}");
    let limits = RecorderLimits::default();
    let recorder = Arc::new(Mutex::new(Recorder::new("here", Measure::on_cpu(), limits)));
    let armed = Sampler::arm(config, recorder.clone());
    let Armed(mut sampler, _) = armed.map_err(|f| format!("{f:?}"))?;
    sampler.start_at(mono_ns());
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let summary = sampler.stop();
    eprintln!("{summary:#?}");
    let segment = match recorder.lock() {
        Ok(mut recorder) => recorder.take(usize::MAX),
        Err(_) => return Err("the recorder is poisoned".into()),
    };
    let sampled: u64 = segment
        .cells
        .iter()
        .flat_map(|c| &c.2.values)
        .map(|v| v[1])
        .sum();
    let real = |kind| -> u64 {
        segment
            .counters
            .iter()
            .filter(|c| c.kind == kind)
            .map(|c| c.value)
            .sum()
    };
    eprintln!(
        "sampled {} ms, schedstat {} ms, run queue {} ms",
        sampled / 1_000_000,
        real(CounterKind::CpuNs) / 1_000_000,
        real(CounterKind::RunQueueNs) / 1_000_000
    );
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    for (_, _, cell) in &segment.cells {
        for (node, values) in cell.rows() {
            let mut labels = Vec::new();
            let mut at = node;
            while at != ROOT {
                let node = segment.nodes[at.0 as usize - segment.base_nodes as usize];
                labels.push(segment.frames[node.frame.0 as usize].label());
                at = node.parent;
            }
            labels.reverse();
            *stacks.entry(labels.join(";")).or_default() += values[0];
        }
    }
    for (stack, count) in stacks {
        println!("{stack} {count}");
    }
    Ok(())
}
