//! The coordinator's disk fills up in mid-capture: it is said, the hosts are clean, and nothing that
//! was captured is lost once there is room again.
//!
//! In: a run directory on a small file system that only the coordinator sees. Out: exit code 4 and
//! the finding; after that `collect`, to the last sample. Never: a batch acknowledged that is not
//! on the disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use fleetflame_tests::procfs::open_perf_fds;
use fleetflame_tests::{Child, LinkConditions, RealFleet, process::Finished, requirements};
use model::FindingCode;

use crate::written::Written;
use crate::{CAPTURE, SAFE, SECOND, UNDER_WAY, turn, within};

/// A small file system in a mount namespace, which goes with its only process.
struct Disk {
    holder: Child,
    path: PathBuf,
}

impl Disk {
    fn new(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path)?;
        let script = "mount -t tmpfs -o size=4m tmpfs \"$0\"; echo mounted; exec sleep 600";
        let mut command = Command::new(requirements::command("unshare")?);
        command.args(["--mount", "sh", "-ec", script]).arg(&path);
        let mut holder = Child::spawn(command)?;
        holder.wait_for_stdout("mounted", 5 * SECOND)?;
        Ok(Self { holder, path })
    }

    /// `command` where the file system is seen.
    fn inside(&self, command: &Command) -> Result<Command> {
        let mut inside = Command::new(requirements::command("nsenter")?);
        inside.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.pid()));
        inside
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        Ok(inside)
    }

    /// A path on it, as it is seen from outside.
    fn seen(&self, name: &str) -> Result<PathBuf> {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        Ok(root.join(self.path.strip_prefix("/")?).join(name))
    }

    /// Takes all the room that is left.
    fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.seen("ballast")?)?;
        while ballast.write_all(&[0; 4_096]).is_ok() {}
        Ok(())
    }

    /// Gives the room back.
    fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.seen("ballast")?)?)
    }
}

/// The document on the last line.
fn last_line(done: &Finished) -> Result<serde_json::Value> {
    let line = done
        .stdout
        .lines()
        .last()
        .with_context(|| done.stderr.clone())?;
    serde_json::from_str(line).with_context(|| format!("{line}\n{}", done.stderr))
}

#[test]
fn no_room_for_the_profile() -> Result<()> {
    // The few stacks of a small program find room in what is left of the spools' last blocks.
    check("sample_hz: 499", true)
}

#[test]
fn no_room_for_a_batch() -> Result<()> {
    let simulated = "simulated: {seed: 1, processes: 8, stacks: 4096, child: false, arm_ms: 0}";
    check(
        &format!("engine: simulated\nsample_hz: 499\n{simulated}"),
        false,
    )
}

/// `whole`: whether the hosts could deliver everything all the same.
fn check(engine: &str, whole: bool) -> Result<()> {
    let _turn = turn();
    let fleet = RealFleet::start(&["one", "two"], LinkConditions::default())?;
    let disk = Disk::new(fleet.path("disk"))?;
    let job = fleet.job(&format!("duration: 8s\n{engine}"))?;
    let out = disk.path.join("run");
    let capture = fleet.coordinator("capture", &[&job, Path::new("--out"), &out]);
    let network = &fleet.fabric.coordinator;
    let mut coordinator = network.spawn(disk.inside(&capture)?)?;
    coordinator.wait_for_stdout(UNDER_WAY, CAPTURE)?;
    std::thread::sleep(2 * SECOND);
    disk.fill()?;
    let done = coordinator.finish(CAPTURE)?;
    let last = last_line(&done)?;
    assert_eq!(done.status.code(), Some(4), "{last:#}\n{}", done.stderr);
    assert_eq!(last["exit_code"], 4);
    assert!(
        last.to_string().contains(FindingCode::DiskFull.as_str()),
        "{last:#}"
    );
    let told = last["run"]["coverage"]["hosts"].clone();
    let complete = |host: &str| told[host]["outcome"] == "complete";
    assert_eq!(complete("one") && complete("two"), whole, "{told:#}");
    for host in &fleet.hosts {
        let agent = host.agent()?;
        let idle = within(SAFE, || {
            open_perf_fds(agent.pid()) == 0 && agent.family().is_empty()
        });
        assert!(idle.is_some(), "{} samples on", host.name);
    }

    disk.clear()?;
    // A host whose last batches found no room keeps them, once its lease is over.
    std::thread::sleep(SAFE);
    let collect = fleet.coordinator("collect", &[&out]);
    let done = network.spawn(disk.inside(&collect)?)?.finish(CAPTURE)?;
    let last = last_line(&done)?;
    assert_eq!(done.status.code(), Some(3), "{last:#}\n{}", done.stderr);
    let run = Written::read(&disk.seen("run")?)?;
    run.check_sums()?;
    for name in ["one", "two"] {
        let host = run.host(name)?;
        // A host that delivered everything told its end when there was no room to write it down.
        let before = &told[name]["stats"];
        let counted = match before["started_mono_ns"].as_u64() {
            Some(1..) => before["samples"].as_u64(),
            _ => Some(host.stats.samples).filter(|_| host.stats.started_mono_ns > 0),
        };
        println!(
            "{name}: {} samples, the agent counted {counted:?}",
            run.samples(name)
        );
        assert!(run.samples(name) > 0, "{name} has nothing: {last:#}");
        assert_eq!(
            Some(run.samples(name)),
            counted,
            "{name}: {host:?}, {before:#}"
        );
        assert_eq!(host.missing_batches, 0, "{name}: {host:?}");
    }
    Ok(())
}
