//! Targets in namespaces of their own, as containers are.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "test")]

mod support;

use fleetflame_native::TargetSelector;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{SHARES, alone, capture, compile, config};

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
