//! Progress of a run: bars on a terminal, plain lines elsewhere, JSON lines for machines.
//!
//! In: events of a run. Out: stderr, or JSON lines on stdout. Never: a bar in a log file.

use crate::dispatch::{RunEvent, Watch};
use crate::render::{count, printable};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// More hosts than this get one bar together.
const BARS_MAX: usize = 12;

/// See the module.
pub struct Progress {
    way: Way,
}

enum Way {
    Bars(Bars),
    Lines,
    Json,
    Quiet,
}

struct Bars {
    all: MultiProgress,
    hosts: Mutex<BTreeMap<String, ProgressBar>>,
    together: ProgressBar,
    many: bool,
}

impl Progress {
    /// For a run over `hosts`.
    #[must_use]
    pub fn new(hosts: &[String], json: bool, quiet: bool) -> Self {
        let way = if json {
            Way::Json
        } else if quiet {
            Way::Quiet
        } else if std::io::stderr().is_terminal() {
            Way::Bars(Bars::new(hosts))
        } else {
            Way::Lines
        };
        Self { way }
    }

    /// Removes the bars.
    pub fn finish(&self) {
        if let Way::Bars(bars) = &self.way {
            bars.hosts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .for_each(ProgressBar::finish);
            bars.together.finish_and_clear();
        }
    }
}

impl Bars {
    fn new(hosts: &[String]) -> Self {
        let all = MultiProgress::new();
        let many = hosts.len() > BARS_MAX;
        let style = ProgressStyle::with_template("{prefix:<16} {msg}").ok();
        let bar = |prefix: &str| {
            let bar = all.add(ProgressBar::new_spinner());
            if let Some(style) = &style {
                bar.set_style(style.clone());
            }
            bar.set_prefix(prefix.to_owned());
            bar.set_message("connecting");
            bar
        };
        let bars = if many {
            BTreeMap::new()
        } else {
            hosts.iter().map(|h| (h.clone(), bar(h))).collect()
        };
        let together = all.add(ProgressBar::new(1));
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:<16} [{bar:32}] {pos}/{len} s  {msg}")
        {
            together.set_style(style.progress_chars("=> "));
        }
        together.set_prefix("fleet");
        together.set_message("getting ready");
        Self {
            all,
            hosts: Mutex::new(bars),
            together,
            many,
        }
    }

    fn on(&self, event: &RunEvent) {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let say = |host: &String, message: String| {
            if let Some(bar) = hosts.get(host) {
                bar.set_message(message);
            }
        };
        match event {
            RunEvent::Reaching { host, step } => say(host, step.clone()),
            RunEvent::Sending {
                host,
                sent_bytes,
                total_bytes,
            } => say(host, sending(*sent_bytes, *total_bytes)),
            RunEvent::Reported { host, kernel } => {
                say(host, format!("kernel {}", printable(kernel)))
            }
            RunEvent::Alone { host, probe } => say(host, alone(probe)),
            RunEvent::Armed { host } => say(host, "ready".into()),
            RunEvent::Starting {
                hosts: n,
                duration_ms,
            } => {
                self.together.set_length(duration_ms.div_ceil(1_000));
                self.together.set_message(format!("capturing {n} host(s)"));
                let bar = self.together.clone();
                let seconds = duration_ms.div_ceil(1_000);
                tokio::spawn(async move {
                    for _ in 0..seconds {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        bar.inc(1);
                    }
                    bar.set_message("taking in the rest");
                });
            }
            RunEvent::Progress { host, samples } => {
                say(host, format!("{} samples", count(*samples)))
            }
            RunEvent::Link { host, up: false } => say(host, "link lost, trying again".into()),
            RunEvent::Link { host, up: true } => say(host, "link up again".into()),
            RunEvent::Done {
                host,
                outcome,
                samples,
            } => {
                say(host, format!("{outcome}, {} samples", count(*samples)));
                if self.many {
                    self.together.set_message(format!("{host} {outcome}"));
                }
            }
            RunEvent::Found { finding } => {
                let _ = self.all.println(printable(&finding.to_string()));
            }
        }
    }
}

impl Watch for Progress {
    fn on(&self, event: RunEvent) {
        match &self.way {
            Way::Quiet => {}
            Way::Bars(bars) => bars.on(&event),
            Way::Json => {
                if let Ok(line) = serde_json::to_string(&event) {
                    let _ = writeln!(std::io::stdout().lock(), "{line}");
                }
            }
            Way::Lines => {
                if let Some(line) = line(&event) {
                    let _ = writeln!(std::io::stderr().lock(), "{}", printable(&line));
                }
            }
        }
    }
}

/// The other hosts' turn comes when this one is ready.
fn alone(probe: &str) -> String {
    format!("{probe} is put on every event: tried here first, alone")
}

fn sending(sent_bytes: u64, total_bytes: u64) -> String {
    let pct = (sent_bytes * 100).checked_div(total_bytes).unwrap_or(100);
    format!(
        "sending the agent: {pct} % of {:.1} MB",
        total_bytes as f64 / 1e6
    )
}

/// A plain line for each change of state; none for mere progress.
fn line(event: &RunEvent) -> Option<String> {
    Some(match event {
        RunEvent::Reported { host, kernel } => format!("{host}: connected, kernel {kernel}"),
        RunEvent::Alone { host, probe } => format!("{host}: {}", alone(probe)),
        RunEvent::Armed { host } => format!("{host}: ready"),
        RunEvent::Starting { hosts, duration_ms } => {
            format!(
                "capturing {hosts} host(s) for {} s",
                duration_ms.div_ceil(1_000)
            )
        }
        RunEvent::Link { host, up: false } => format!("{host}: link lost, trying again"),
        RunEvent::Link { host, up: true } => format!("{host}: link up again"),
        RunEvent::Done {
            host,
            outcome,
            samples,
        } => {
            format!("{host}: {outcome}, {} samples", count(*samples))
        }
        RunEvent::Found { finding } => finding.to_string(),
        RunEvent::Sending {
            host,
            sent_bytes,
            total_bytes,
        } => format!("{host}: {}", sending(*sent_bytes, *total_bytes)),
        RunEvent::Reaching { .. } | RunEvent::Progress { .. } => return None,
    })
}
