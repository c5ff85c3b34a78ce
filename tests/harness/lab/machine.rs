//! A virtual machine: QEMU with a kernel, a root in memory and two networks.
//!
//! In: a kernel, a root, ports. Out: a running QEMU, what its console says, a cable that can be pulled.
//! Never: a way out for the guest: both networks are closed but for the forwarded ports.
//!
//! The CPU is emulated unless this machine's processor has virtualisation and a guest once booted with it:
//! nested and half-working ones abort, or print nothing for a minute.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::archive::Archive;
use super::image::GuestSetup;
use super::kit::Kit;
use super::{AGENT_ADDRESS, AGENT_PORT, DOOR_ADDRESS, DOOR_PORT};
use crate::namespace::NetNamespace;
use crate::process::Child;
use crate::requirements;

/// Set to `tcg` or `kvm`, this and nothing else is tried.
const ACCELERATOR: &str = "FLEETFLAME_LAB_ACCELERATOR";
/// Real virtualisation boots within 2 s.
const KVM_DEADLINE: Duration = Duration::from_secs(20);
/// 3 to 6 s on a quiet machine.
const BOOT_DEADLINE: Duration = Duration::from_mins(3);
/// Nanoseconds of a guest's clock for each instruction, where it counts them: about as fast as this emulation is, so that
/// deadlines of other machines hold for it.
pub const INSTRUCTION_NS: u64 = 4;
/// What `lab-door` says when it listens.
const READY: &str = "lab: the door is open";
const MONITOR_DEADLINE: Duration = Duration::from_secs(5);
/// Words by which the kernel complains about itself.
const COMPLAINTS: [&str; 7] = [
    "BUG:",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "soft lockup",
    "rcu_sched self-detected stall",
    "WARNING: CPU:",
];

/// A running virtual machine. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    plan: Plan,
    accelerator: Accelerator,
    boot_time: Duration,
}

/// How a machine is started; kept, because it may be started a second time.
#[derive(Debug)]
struct Plan {
    kernel: PathBuf,
    folder: tempfile::TempDir,
    door_port: u16,
    agent_port: u16,
    counting: bool,
    cpus: &'static str,
    verdict: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accelerator {
    Tcg,
    Kvm,
}

impl Machine {
    /// Starts it; [`Self::wait_until_ready`] waits for its boot.
    pub fn start(
        kit: &Kit,
        namespace: &NetNamespace,
        root: &Archive,
        [door_port, agent_port]: [u16; 2],
        setup: &GuestSetup,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("fleetflame-lab-")
            .tempdir()?;
        fs::write(folder.path().join("root.cpio"), root.bytes())?;
        let plan = Plan {
            kernel: kit.kernel.image(),
            folder,
            door_port,
            agent_port,
            counting: setup.counting,
            cpus: if setup.one_cpu { "1" } else { "2" },
            verdict: kit.folder("kvm")?.join(host_kernel()),
        };
        let accelerator = plan.accelerator()?;
        Ok(Self {
            qemu: namespace.spawn(plan.command(accelerator)?)?,
            plan,
            accelerator,
            boot_time: Duration::ZERO,
        })
    }

    /// Waits until the guest's door is open.
    pub fn wait_until_ready(&mut self, namespace: &NetNamespace) -> Result<()> {
        let began = Instant::now();
        if self.accelerator == Accelerator::Kvm {
            if self.qemu.wait_for_stdout(READY, KVM_DEADLINE).is_ok() {
                self.boot_time = began.elapsed();
                return Ok(());
            }
            fs::write(&self.plan.verdict, "kvm does not boot a guest here\n")?;
            // The old one first: it has the ports.
            let emulated = self.plan.command(Accelerator::Tcg)?;
            self.qemu.kill_alone()?;
            self.qemu = namespace.spawn(emulated)?;
            self.accelerator = Accelerator::Tcg;
        }
        self.qemu
            .wait_for_stdout(READY, BOOT_DEADLINE)
            .map_err(|error| {
                anyhow::anyhow!("a guest does not boot: {error:#}\n{}", self.console())
            })?;
        self.boot_time = began.elapsed();
        Ok(())
    }

    /// How long the boot took.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Everything that the console has shown.
    pub fn console(&self) -> String {
        self.qemu.stdout()
    }

    /// Lines of the console in which the kernel complains about itself.
    pub fn complaints(&self) -> Vec<String> {
        let console = self.console();
        let complains = |line: &&str| COMPLAINTS.iter().any(|word| line.contains(word));
        console
            .lines()
            .filter(complains)
            .map(str::to_owned)
            .collect()
    }

    /// Pulls or plugs the cable of the network that agents are reached by.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let mut monitor = UnixStream::connect(self.plan.monitor())?;
        monitor.set_read_timeout(Some(MONITOR_DEADLINE))?;
        read_prompt(&mut monitor)?;
        writeln!(monitor, "set_link agent {}", if up { "on" } else { "off" })?;
        let said = read_prompt(&mut monitor)?;
        ensure!(!said.contains("rror"), "QEMU's monitor says: {said}");
        Ok(())
    }

    /// Ends it as a power cut does.
    pub fn kill(mut self) -> Result<()> {
        self.qemu.kill_alone().map(drop)
    }
}

impl Plan {
    fn monitor(&self) -> PathBuf {
        self.folder.path().join("monitor")
    }

    fn accelerator(&self) -> Result<Accelerator> {
        let forced = std::env::var(ACCELERATOR).ok();
        let failed_before = self.verdict.is_file();
        Ok(match forced.as_deref() {
            Some("tcg") => Accelerator::Tcg,
            Some("kvm") => Accelerator::Kvm,
            Some(other) => anyhow::bail!("{ACCELERATOR}={other}: it is tcg or kvm"),
            // A real CPU counts no instructions for its clock.
            None if self.counting || failed_before || !may_have_kvm() => Accelerator::Tcg,
            None => Accelerator::Kvm,
        })
    }

    fn command(&self, accelerator: Accelerator) -> Result<Command> {
        let mut qemu = Command::new(requirements::command("qemu-system-x86_64")?);
        match accelerator {
            // One thread for both CPUs. With one each, QEMU 7.2 may go on with the old translation of an instruction
            // that the kernel has just patched (a module's load switches static branches): the CPU meets the
            // breakpoint of the patching for ever, and the guest answers nothing any more. One start in some dozens.
            Accelerator::Tcg => qemu.args(["-accel", "tcg,thread=single", "-cpu", "max"]),
            Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
        };
        if self.counting {
            let shift = format!("shift={},sleep=on", INSTRUCTION_NS.ilog2());
            qemu.args(["-icount", &shift]);
        }
        qemu.args([
            "-m",
            "1024",
            "-smp",
            self.cpus,
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
        ])
        .args(["-display", "none", "-serial", "stdio", "-monitor"])
        .arg(format!(
            "unix:{},server=on,wait=off",
            self.monitor().display()
        ))
        .arg("-kernel")
        .arg(&self.kernel)
        .arg("-initrd")
        .arg(self.folder.path().join("root.cpio"))
        // The kernel panics if the timer does not tick while it waits some milliseconds for it: a busy machine's may not.
        .args([
            "-append",
            "console=ttyS0 panic=-1 quiet loglevel=5 no_timer_check rdinit=/init",
        ]);
        let door = forward(self.door_port, DOOR_ADDRESS, DOOR_PORT);
        let agent = forward(self.agent_port, AGENT_ADDRESS, AGENT_PORT);
        for (name, network, forward) in [
            ("door", "10.0.2.0/24", door),
            ("agent", "10.0.3.0/24", agent),
        ] {
            qemu.arg("-netdev")
                .arg(format!(
                    "user,id={name},net={network},restrict=on,{forward}"
                ))
                .arg("-device")
                .arg(format!("virtio-net-pci,netdev={name},romfile="));
        }
        Ok(qemu)
    }
}

fn forward(port: u16, guest: &str, guest_port: u16) -> String {
    format!("hostfwd=tcp:127.0.0.1:{port}-{guest}:{guest_port}")
}

/// Whether the processor has virtualisation and the kernel lets it be used.
fn may_have_kvm() -> bool {
    let has_flag = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.split_ascii_whitespace()
            .any(|flag| flag == "vmx" || flag == "svm")
    });
    has_flag
        && fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
}

/// The verdict on KVM holds for one kernel of this machine.
fn host_kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().replace('/', "_")
}

fn read_prompt(monitor: &mut UnixStream) -> Result<String> {
    let mut said = Vec::new();
    let mut chunk = [0; 512];
    while !said.ends_with(b"(qemu) ") {
        let n = monitor
            .read(&mut chunk)
            .context("QEMU's monitor does not answer")?;
        ensure!(n > 0, "QEMU's monitor is closed");
        said.extend(chunk.get(..n).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}
