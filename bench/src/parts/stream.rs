//! A live capture folded as it comes: 40 MB a second through a pipe.
//!
//! In: a pipe that is filled at an even rate. Out: the share of a core. Never: the cost of the one
//! that fills the pipe.

use crate::args;
use crate::inputs::Kind;
use crate::measure::{Cost, Job};
use crate::setting::Setting;
use crate::table::Goal;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

const PART: &str = "stream";
const RATE_BYTES_PER_S: u64 = 40_000_000;
const STEP: Duration = Duration::from_millis(20);
/// A stream that lasts longer than this many times its due was none at that rate.
const LATE_MAX: f64 = 1.5;

/// Measures and reports.
pub fn measure(setting: &mut Setting) -> anyhow::Result<()> {
    let (input, _) = setting.text(Kind::StapDup)?;
    let seconds = if setting.arguments.quick { 2 } else { 10 };
    let what = format!("stap-dup at 40 MB/s for {seconds} s by pipe");
    let ours = setting.fleetflame("ours.folded", args!["fold", "--quiet", "-"])?;
    let script = setting.peers.flamegraph("stackcollapse-stap.pl");
    let theirs = match setting.peer(PART, &what, script) {
        Some(script) => {
            let out = setting.out("theirs.folded");
            Some(Job::to(out).pipe(&setting.peers.perl()?, args![&script]))
        }
        None => None,
    };
    let (mut our_share, mut their_share) = (Vec::new(), Vec::new());
    for round in 1..=setting.arguments.pairs {
        setting.step(format!(
            "{what}: round {round} of {}",
            setting.arguments.pairs
        ));
        let Some(percent) = share(&ours, &input, seconds)? else {
            let why = "the machine is too busy to keep up the rate; run it when nothing else runs";
            setting.report.not_run(PART, &what, why);
            break;
        };
        our_share.push(percent);
        if let Some(theirs) = &theirs {
            their_share.extend(share(theirs, &input, seconds)?);
        }
    }
    let goal = Some(Goal::at_most(8.0).aim(5.0).probe(4.3));
    setting
        .report
        .row(PART, &what, "% of a core", &our_share, &[], goal);
    if !their_share.is_empty() {
        let against = format!("{what}, against stackcollapse-stap.pl");
        setting
            .report
            .row(PART, against, "% of a core", &our_share, &their_share, None);
    }
    Ok(())
}

/// CPU of the reader in percent of the time that the stream should last; none when the rate could
/// not be kept up.
fn share(job: &Job, input: &Path, seconds: u64) -> anyhow::Result<Option<f64>> {
    let mut file = File::open(input)?;
    let began = Instant::now();
    let cost: Cost = job.run_fed(|stdin| {
        let whole = RATE_BYTES_PER_S * seconds;
        let mut sent = 0;
        let mut piece = Vec::new();
        while sent < whole {
            let due = (began.elapsed().as_millis() as u64 * RATE_BYTES_PER_S / 1_000).min(whole);
            piece.clear();
            (&mut file).take(due - sent).read_to_end(&mut piece)?;
            if piece.is_empty() && due > sent {
                file.seek(SeekFrom::Start(0))?;
                continue;
            }
            stdin.write_all(&piece)?;
            sent += piece.len() as u64;
            std::thread::sleep(STEP);
        }
        io::Result::Ok(())
    })?;
    let late = began.elapsed().as_secs_f64() / seconds as f64;
    Ok((late < LATE_MAX).then_some(100.0 * cost.cpu_s / seconds as f64))
}
