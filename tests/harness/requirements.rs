//! What a test needs of this machine: root, commands, files.
//!
//! In: the names of commands and files. Out: nothing, or an error that names the package to install.
//! Never: a skip. A test that cannot run has failed.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Where the install script stands, as a person would type it at the top of the checkout.
const INSTALL: &str = "deploy/test-packages";

/// Commands and the Debian package that brings each.
const COMMANDS: &[(&str, &str)] = &[
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("busybox", "busybox-static"),
    ("cc", "gcc"),
    ("curl", "curl"),
    ("dpkg-deb", "dpkg"),
    ("gcc", "gcc"),
    ("go", "golang-go"),
    ("ip", "iproute2"),
    ("ldd", "libc-bin"),
    ("make", "make"),
    ("nginx", "nginx"),
    ("nsenter", "util-linux"),
    ("perf", "linux-perf"),
    ("ps", "procps"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setcap", "libcap2-bin"),
    ("setpriv", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("stap", "systemtap"),
    ("staprun", "systemtap-runtime"),
    ("strip", "binutils"),
    ("sudo", "sudo"),
    ("unshare", "util-linux"),
    ("wrk", "wrk"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

/// Fails unless the test runs as root.
pub fn root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this test makes network namespaces and must run as root");
    }
    Ok(())
}

/// The path of `name`, looked for in PATH and the system directories that PATH often lacks.
pub fn command(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            let package = COMMANDS
                .iter()
                .find(|(command, _)| *command == name)
                .map_or(name, |(_, package)| package);
            missing(&format!("command `{name}`"), package)
        })
}

/// Fails unless `path` exists; `package` is what brings it.
pub fn file(path: &Path, package: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    Err(missing(&format!("file {}", path.display()), package))
}

fn missing(what: &str, package: &str) -> anyhow::Error {
    anyhow::anyhow!("{what} is missing: install package `{package}` (or run {INSTALL} as root)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_command_names_its_package() {
        let error = command("no-such-command")
            .expect_err("there is no such command")
            .to_string();
        assert!(error.contains("package `no-such-command`"), "{error}");
        assert!(error.contains(INSTALL), "{error}");
    }

    #[test]
    fn a_missing_file_names_its_package() {
        let error = file(Path::new("/no/such/file.so"), "libfile").expect_err("no such file");
        assert!(error.to_string().contains("package `libfile`"), "{error}");
    }
}
