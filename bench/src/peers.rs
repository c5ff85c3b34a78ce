//! The tools of the field that fleetflame is measured against. In: what the system has, and two
//! things that are built here. Out: paths, or what to install. Never: a peer of another version than
//! the one named, or anything fetched but through cargo.

use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version of inferno that is measured against.
const INFERNO: &str = "0.12.8";
/// Where Debian puts Go sources.
const GO_SOURCES: &str = "/usr/share/gocode";

/// Where the peers are looked for.
#[derive(Debug)]
pub struct Peers {
    folder: PathBuf,
}

impl Peers {
    /// Peers that are built are kept in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// A script of FlameGraph.
    pub fn flamegraph(&self, script: &str) -> anyhow::Result<PathBuf> {
        let folder = std::env::var_os("FLAMEGRAPH_DIR")
            .context("set FLAMEGRAPH_DIR to a checkout of github.com/brendangregg/FlameGraph")?;
        let path = Path::new(&folder).join(script);
        ensure!(path.is_file(), "FLAMEGRAPH_DIR has no {script}");
        self.on_path("perl", "perl")?;
        Ok(path)
    }

    /// Perl, for the scripts of FlameGraph.
    pub fn perl(&self) -> anyhow::Result<PathBuf> {
        self.on_path("perl", "perl")
    }

    /// A program of inferno, built when it is not there yet.
    pub fn inferno(&self, program: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join("bin").join(program);
        if path.is_file() {
            return Ok(path);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = self.folder.join("build");
        let built = said(
            Command::new(cargo)
                .args([
                    "install",
                    "inferno",
                    "--version",
                    INFERNO,
                    "--locked",
                    "--quiet",
                ])
                .arg("--root")
                .arg(&self.folder)
                .env("CARGO_TARGET_DIR", &build),
        );
        let _ = std::fs::remove_dir_all(&build);
        built.with_context(|| format!("cargo install inferno --version {INFERNO} must work"))?;
        ensure!(path.is_file(), "inferno {INFERNO} has no {program}");
        Ok(path)
    }

    /// google/pprof, built from Debian's sources when it is not there yet.
    pub fn pprof(&self) -> anyhow::Result<PathBuf> {
        const NEEDS: &str = "Debian: golang-go golang-github-google-pprof-dev";
        let path = self.folder.join("bin/pprof");
        if path.is_file() {
            return Ok(path);
        }
        let sources = Path::new(GO_SOURCES).join("src/github.com/google/pprof");
        ensure!(sources.is_dir(), "install google/pprof ({NEEDS})");
        let cache = self.folder.join("go-cache");
        let built = said(
            Command::new("go")
                .args(["build", "-o"])
                .arg(std::path::absolute(&path)?)
                .arg("github.com/google/pprof")
                .envs([("GO111MODULE", "off"), ("GOPATH", GO_SOURCES)])
                .env("GOCACHE", std::path::absolute(&cache)?)
                .current_dir(&sources),
        );
        let _ = std::fs::remove_dir_all(&cache);
        built.with_context(|| format!("building google/pprof ({NEEDS})"))?;
        Ok(path)
    }

    /// A program of the system.
    pub fn on_path(&self, program: &str, package: &str) -> anyhow::Result<PathBuf> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders)
            .map(|f| f.join(program))
            .find(|p| p.is_file());
        found.with_context(|| format!("install {program} (Debian: {package})"))
    }

    /// Versions of what is there, for the record.
    pub fn versions(&self) -> String {
        let mut all = vec![format!("inferno {INFERNO}")];
        let first = |command: &mut Command, what: &str| {
            let text = said(command).ok()?;
            let line = text
                .lines()
                .find(|l| !l.trim().is_empty())?
                .trim()
                .to_owned();
            Some(format!("{what}{line}"))
        };
        let perl = "printf '%vd', $^V";
        all.extend(first(Command::new("perl").args(["-e", perl]), "perl "));
        if let Some(folder) = std::env::var_os("FLAMEGRAPH_DIR") {
            let mut git = Command::new("git");
            git.arg("-C")
                .arg(&folder)
                .args(["log", "-1", "--format=%h of %cs"]);
            all.extend(first(&mut git, "FlameGraph "));
        }
        all.extend(first(Command::new("perf").arg("--version"), ""));
        all.extend(first(Command::new("chromium").arg("--version"), ""));
        all.extend(first(
            Command::new("dpkg-query").args([
                "-W",
                "-f",
                "${Version}",
                "golang-github-google-pprof-dev",
            ]),
            "google/pprof ",
        ));
        all.join(", ")
    }
}

/// Runs a command to its end and gives its output.
pub fn said(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        let errors = text(&output.stderr);
        let tail = errors.char_indices().rev().nth(600).map_or(0, |(at, _)| at);
        bail!("{program}: {}: {}", output.status, &errors[tail..]);
    }
    Ok(text(&output.stdout))
}

/// One of fleetflame's own programs, beside this one.
pub fn ours(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(
        path.is_file(),
        "{} is not there: cargo build --release -p fleetflame -p fleetflame-agent",
        path.display()
    );
    Ok(path)
}
