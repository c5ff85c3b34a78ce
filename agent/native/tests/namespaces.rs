//! Targets in namespaces of their own, as containers are.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "test")]

mod support;

use fleetflame_native::{GroupSelector, TargetSelector};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Program, SHARES, alone, capture, compile, config};

/// A container of a kind: its own pid and mount namespace, its program on a tmpfs that is mounted only
/// there. Ends with the test.
struct Container(Child);

impl Container {
    fn start(program: &Path, name: &str) -> Self {
        let script = format!(
            "mount -t tmpfs none /mnt && cp {} /mnt/{name} && exec /mnt/{name} 60 20",
            program.display()
        );
        let child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", &script])
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare");
        Self(child)
    }

    /// The program's number out here, once it runs from the tmpfs.
    fn pid(&self, name: &str) -> u32 {
        let (inside, begin) = (format!("/mnt/{name}"), Instant::now());
        loop {
            let children = format!("/proc/{0}/task/{0}/children", self.0.id());
            let children = std::fs::read_to_string(children).unwrap_or_default();
            let runs = |pid: &&str| {
                let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
                exe.is_ok_and(|exe| exe == Path::new(&inside))
            };
            if let Some(pid) = children.split_ascii_whitespace().find(runs) {
                return pid.parse().unwrap();
            }
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "it did not start"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_target_in_another_pid_and_mount_namespace_gives_the_same_result() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let name = "contained-shares";
    let container = Container::start(&compile(dir.path(), name, SHARES, &["-O2"]), name);
    let pid = container.pid(name);
    assert!(
        !Path::new(&format!("/mnt/{name}")).exists(),
        "its files are not ours"
    );
    let capture = capture(config(vec![TargetSelector::Pid(pid)], 499), 3.0);
    assert!(capture.samples() > 200, "{}", capture.samples());
    let seventy = capture.share(|stack| stack.iter().any(|f| f == "seventy"));
    let thirty = capture.share(|stack| stack.iter().any(|f| f == "thirty"));
    let share = seventy / (seventy + thirty);
    assert!((share - 0.7).abs() < 0.06, "{share}");
    let rooted = capture.summary.rooted as f64 / capture.summary.user_stacks as f64;
    assert!(rooted > 0.99, "{rooted}");
    let unknown = capture.summary.unknown_frames as f64 / capture.summary.user_frames as f64;
    assert!(unknown < 0.01, "{unknown}");
}

/// A control group, named as a manager of containers would. Goes with the test.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let is_hierarchy = |fields: &Vec<&str>| {
            fields[2] == "cgroup2" || (fields[2] == "cgroup" && fields[3].contains("name=systemd"))
        };
        let mut rows = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let mounted = rows
            .find(is_hierarchy)
            .expect("no cgroup hierarchy is mounted");
        let path = Path::new(mounted[1]).join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn add(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_container_is_a_target_by_its_id_and_nothing_else_is() {
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    let shares = compile(dir.path(), "grouped-shares", SHARES, &["-O2"]);
    let id = format!("{:064x}", u128::from(std::process::id()) << 96 | 0xfeed);
    let group = Group::new(&format!("docker-{id}.scope"));
    let (inside, outside) = (
        Program::start(&shares, &["60"]),
        Program::start(&shares, &["60"]),
    );
    group.add(inside.pid());
    let short = GroupSelector::Container(id[..48].to_owned());
    let capture = capture(config(vec![TargetSelector::Group(short)], 199), 2.0);
    assert!(capture.samples() > 50, "{}", capture.samples());
    assert!(capture.stacks.iter().all(|s| s.pid == inside.pid()));
    let windows = &capture.summary.windows;
    assert_eq!(windows.len(), 1, "{windows:?}, and not {}", outside.pid());
    let groups = &windows[0].groups;
    assert_eq!(groups.container(), Some(id.as_str()));
    assert!(groups.path().ends_with(&format!("/docker-{id}.scope")));
}
