//! What a guest holds: a small Debian without services, with SystemTap's loader.
//!
//! In: programs and files of this machine, and what the guest is for. Out: its root as an archive. Never: a
//! program without the libraries that it needs; stap itself, headers, a compiler or debug information: a
//! guest is a gateway, and modules come to it compiled.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::archive::Archive;
use super::kit::Kit;
use super::{AGENT_ADDRESS, DOOR_ADDRESS};
use crate::binaries::Binaries;
use crate::process::Child;
use crate::{gateway, requirements};

const TOOL_DEADLINE: Duration = Duration::from_secs(30);
/// What is linked in Debian since the two were merged.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// The group that may run staprun, as Debian has it.
const STAPUSR: u32 = 156;
/// Accounts: root, the gateway's, and one for each of SystemTap's privileges.
const PASSWD: &str = "root:x:0:0::/home/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n\
    nobody:x:65534:65534::/nonexistent:/bin/sh\nplain:x:1000:1000::/tmp:/bin/sh\n\
    developer:x:1001:1001::/tmp:/bin/sh\nuser:x:1002:1002::/tmp:/bin/sh\nsystem:x:1003:1003::/tmp:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\nplain:x:1000:\ndeveloper:x:1001:\n\
    user:x:1002:\nsystem:x:1003:\nstapusr:x:156:developer,user,system\nstapsys:x:157:system\n\
    stapdev:x:158:developer\n";
/// Where the gateway's files are in a guest.
pub const GATEWAY: &str = "/srv/gateway";
/// Where its gateway listens in a guest.
pub const GATEWAY_ADDRESS: &str = "127.0.0.1:8000";

/// What a guest is for.
#[derive(Clone, Debug, Default)]
pub struct GuestSetup {
    files: Vec<(PathBuf, PathBuf)>,
    gateway: bool,
    compiles: bool,
    pub(super) counting: bool,
    pub(super) one_cpu: bool,
}

impl GuestSetup {
    /// staprun and busybox.
    pub fn bare() -> Self {
        Self::default()
    }

    /// With a program of this machine, at the same path, and its libraries.
    #[must_use]
    pub fn program(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.file(path.clone(), path)
    }

    /// With a file of this machine at a path in the guest.
    #[must_use]
    pub fn file(mut self, here: impl Into<PathBuf>, there: impl Into<PathBuf>) -> Self {
        self.files.push((here.into(), there.into()));
        self
    }

    /// With our agent, without symbols, as /usr/bin/fleetflame-agent.
    pub fn agent(self) -> Result<Self> {
        let agent = stripped(&Binaries::find()?.agent, Kit::find()?)?;
        Ok(self.file(agent, "/usr/bin/fleetflame-agent"))
    }

    /// With nginx and Lua, the harness's configuration of it, and wrk: [`super::Guest::start_gateway`]. Lua is interpreted:
    /// what it compiles has no unwind data that SystemTap could take.
    #[must_use]
    pub fn gateway(mut self) -> Self {
        self.gateway = true;
        self
    }

    /// The same, and Lua is compiled as everywhere.
    #[must_use]
    pub fn gateway_that_compiles(mut self) -> Self {
        self.compiles = true;
        self.gateway()
    }

    /// With a clock that is the number of instructions that its CPUs have run ([`super::INSTRUCTION_NS`] for each): what
    /// happens in it takes the same time whatever else this machine does.
    #[must_use]
    pub fn counting_instructions(mut self) -> Self {
        self.counting = true;
        self
    }

    /// With one CPU instead of two.
    #[must_use]
    pub fn one_cpu(mut self) -> Self {
        self.one_cpu = true;
        self
    }

    /// The guest's root. It is put together anew each time, so nothing of it can be stale.
    pub(super) fn root(&self, kit: &Kit, name: &str) -> Result<Archive> {
        let mut root = Archive::default();
        for part in MERGED {
            root.link(&Path::new("/").join(part), &format!("usr/{part}"));
            root.folder(&Path::new("/usr").join(part));
        }
        for folder in [
            "dev",
            "proc",
            "sys",
            "run",
            "home/root",
            "etc",
            "mnt",
            "var/log",
            "var/lib",
        ] {
            root.folder(&Path::new("/").join(folder));
        }
        root.folder_with_mode(Path::new("/tmp"), 0o1777);
        root.folder_with_mode(Path::new("/var/tmp"), 0o1777);
        let mut programs = vec![
            (
                requirements::command("staprun")?,
                PathBuf::from("/usr/bin/staprun"),
            ),
            (
                PathBuf::from("/usr/lib/systemtap/stapio"),
                PathBuf::from("/usr/lib/systemtap/stapio"),
            ),
            (
                stripped(&Binaries::find()?.lab_door, kit)?,
                PathBuf::from("/usr/lib/lab-door"),
            ),
        ];
        programs.extend(self.files.iter().cloned());
        if self.gateway {
            programs.extend(gateway_files()?);
            for (file, text) in gateway::files(GATEWAY, GATEWAY_ADDRESS, 1) {
                let text = match self.compiles {
                    true => text,
                    false => text.replace("init_by_lua_block {", "init_by_lua_block { jit.off()"),
                };
                root.file(&Path::new(GATEWAY).join(file), 0o644, text);
            }
            root.folder_with_mode(&Path::new(GATEWAY).join("tmp"), 0o777);
            root.folder(Path::new("/var/log/nginx"));
        }
        for (here, there) in &programs {
            add(&mut root, here, there)?;
        }
        for library in libraries(programs.iter().map(|(here, _)| here.as_path()))? {
            add_library(&mut root, &library)?;
        }
        busybox(&mut root)?;
        // As Debian ships it: for root and the group, with root's rights.
        let staprun = fs::read(requirements::command("staprun")?)?;
        root.file_of_group(Path::new("/usr/bin/staprun"), 0o4754, STAPUSR, staprun);
        let mut drivers = String::new();
        for driver in kit.kernel.boot_drivers()? {
            let there = format!(
                "/lab/{}",
                driver.file_name().context("a name")?.to_string_lossy()
            );
            add(&mut root, &driver, Path::new(&there))?;
            drivers.push_str(&format!("{there}\n"));
        }
        root.file(Path::new("/lab/drivers"), 0o644, drivers);
        let modules = format!("/usr/lib/modules/{}/systemtap", kit.kernel.release);
        root.folder(Path::new(&modules));
        root.file(Path::new("/etc/passwd"), 0o644, PASSWD);
        root.file(Path::new("/etc/group"), 0o644, GROUP);
        root.file(
            Path::new("/etc/nsswitch.conf"),
            0o644,
            "passwd: files\ngroup: files\n",
        );
        root.file(
            Path::new("/etc/hosts"),
            0o644,
            format!("127.0.0.1 localhost {name}\n"),
        );
        root.file(Path::new("/etc/hostname"), 0o644, format!("{name}\n"));
        root.file(Path::new("/etc/machine-id"), 0o444, machine_id(name));
        root.file(Path::new("/init"), 0o755, init());
        Ok(root)
    }
}

/// Thirty-two hexadecimal digits, of the guest's own.
fn machine_id(name: &str) -> String {
    format!("{}\n", &blake3::hash(name.as_bytes()).to_hex()[..32])
}

fn init() -> String {
    include_str!("init.sh")
        .replace("@DOOR_ADDRESS@", DOOR_ADDRESS)
        .replace("@AGENT_ADDRESS@", AGENT_ADDRESS)
}

/// nginx with all that the configuration of [`gateway::files`] loads, and wrk.
fn gateway_files() -> Result<Vec<(PathBuf, PathBuf)>> {
    gateway::check_packages()?;
    let mut files = vec![
        (
            requirements::command("nginx")?,
            PathBuf::from("/usr/sbin/nginx"),
        ),
        (requirements::command("wrk")?, PathBuf::from("/usr/bin/wrk")),
    ];
    let same = |path: PathBuf| (path.clone(), path);
    for module in ["ndk_http_module.so", "ngx_http_lua_module.so"] {
        files.push(same(Path::new("/usr/lib/nginx/modules").join(module)));
    }
    files.push(same(lua_json()));
    let mut scripts = Vec::new();
    walk(Path::new("/usr/share/lua/5.1"), &mut scripts)?;
    files.extend(scripts.into_iter().map(same));
    Ok(files)
}

/// The library that Lua's JSON is.
pub(super) fn lua_json() -> PathBuf {
    let arch = std::env::consts::ARCH;
    format!("/usr/lib/{arch}-linux-gnu/lua/5.1/cjson.so").into()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn add(root: &mut Archive, here: &Path, there: &Path) -> Result<()> {
    let content = fs::read(here).with_context(|| format!("reading {}", here.display()))?;
    let mode = fs::metadata(here)?.permissions().mode() & 0o777;
    root.file(&merged(there), mode, content);
    Ok(())
}

/// A library under the name that programs ask for, and under its own: that is what a process has mapped.
fn add_library(root: &mut Archive, library: &Path) -> Result<()> {
    let own = library.canonicalize()?;
    if !root.holds(&own) {
        add(root, &own, &own)?;
    }
    let asked = merged(library);
    if !root.holds(&asked) {
        root.link(&asked, &own.to_string_lossy());
    }
    Ok(())
}

/// `/lib/x` is a link's `/usr/lib/x`.
fn merged(path: &Path) -> PathBuf {
    let is_merged = MERGED
        .iter()
        .any(|part| path.starts_with(Path::new("/").join(part)));
    match path.strip_prefix("/") {
        Ok(rest) if is_merged => Path::new("/usr").join(rest),
        _ => path.to_owned(),
    }
}

/// The shared libraries of programs, the loader among them, as `ldd` finds them.
pub(super) fn libraries<'a>(programs: impl Iterator<Item = &'a Path>) -> Result<BTreeSet<PathBuf>> {
    let mut ldd = Command::new(requirements::command("ldd")?);
    let is_elf = |path: &&Path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
    ldd.args(programs.filter(is_elf));
    // Exit code 1 tells that one of them is static.
    let done = Child::spawn(ldd)?.finish(TOOL_DEADLINE)?;
    ensure!(
        !done.stdout.contains("not found"),
        "libraries are missing: {}",
        done.stdout
    );
    Ok(read_ldd(&done.stdout))
}

/// `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)` for the loader, `PATH:` as a heading.
fn read_ldd(text: &str) -> BTreeSet<PathBuf> {
    text.lines()
        .filter_map(|line| line.trim().split_once(" (0x"))
        .map(|(words, _)| words.rsplit(" => ").next().unwrap_or(words))
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn busybox(root: &mut Archive) -> Result<()> {
    let busybox = requirements::command("busybox")?;
    let mut list = Command::new(&busybox);
    list.arg("--list");
    let done = Child::spawn(list)?.finish(TOOL_DEADLINE)?;
    ensure!(done.status.success(), "busybox --list: {}", done.stderr);
    add(root, &busybox, Path::new("/usr/bin/busybox"))?;
    for applet in done.stdout.lines() {
        let path = Path::new("/usr/bin").join(applet);
        if !root.holds(&path) {
            root.link(&path, "busybox");
        }
    }
    Ok(())
}

/// The program without symbols, made anew when it has changed.
fn stripped(program: &Path, kit: &Kit) -> Result<PathBuf> {
    let folder = kit.folder("stripped")?;
    let hash = blake3::hash(&fs::read(program)?).to_hex();
    let kept = folder.join(&hash[..24]);
    if !kept.is_file() {
        let scratch = tempfile::tempdir_in(&folder)?;
        let output = scratch.path().join("stripped");
        let mut strip = Command::new(requirements::command("strip")?);
        strip.arg("-o").arg(&output).arg(program);
        let done = Child::spawn(strip)?.finish(TOOL_DEADLINE)?;
        ensure!(done.status.success(), "strip: {}", done.stderr);
        fs::rename(output, &kept)?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_taken_from_ldd() {
        let text = "/usr/bin/a:\n\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n/usr/bin/b:\n\tnot a dynamic executable\n";
        let expected = ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(read_ldd(text), BTreeSet::from(expected));
        assert_eq!(merged(Path::new("/lib64/x")), Path::new("/usr/lib64/x"));
        assert_eq!(merged(Path::new("/usr/lib/x")), Path::new("/usr/lib/x"));
        assert_eq!(merged(Path::new("/library/x")), Path::new("/library/x"));
    }
}
