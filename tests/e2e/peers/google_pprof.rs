//! Google's pprof and Go's runtime, built from Debian's sources.
//!
//! In: a fleet's profile, and what a Go program writes of itself. Out: the same totals for each sample
//! type, host, thread and function on both sides. Never: a total that only our reader sees.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fleetflame_tests::requirements;
use model::format::import::{ImportOptions, import};
use model::profile::{Profile, Values};

use crate::{fleetflame, kept, run, sampled_fleet};

const SOURCES: &str = "/usr/share/gocode";
const PACKAGE: &str = "github.com/google/pprof";

/// Go without network and modules, with a build cache of ours.
fn go() -> Result<Command> {
    let mut go = Command::new(requirements::command("go")?);
    go.env("GOPATH", SOURCES)
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "")
        .env("GOPROXY", "off")
        .env("GOCACHE", kept("go-cache")?)
        .env("CGO_ENABLED", "0");
    Ok(go)
}

/// Builds a package or a file; quick when it is fresh.
fn built(what: &str, name: &str) -> Result<PathBuf> {
    let folder = kept("bin")?;
    let file = folder.join(name);
    // Tests run beside each other: none may see half a program.
    let fresh = folder.join(format!("{name}.{}", std::process::id()));
    let mut go = go()?;
    go.arg("build").arg("-o").arg(&fresh).arg(what);
    run(go)?;
    std::fs::rename(&fresh, &file)?;
    Ok(file)
}

/// Google's pprof, for one folder.
pub struct Pprof<'a> {
    program: PathBuf,
    folder: &'a Path,
}

impl<'a> Pprof<'a> {
    /// Builds it where it is not there yet.
    pub fn new(folder: &'a Path) -> Result<Self> {
        let source = Path::new(SOURCES)
            .join("src")
            .join(PACKAGE)
            .join("pprof.go");
        requirements::file(&source, "golang-github-google-pprof-dev")?;
        let program = built(PACKAGE, "pprof")?;
        Ok(Self { program, folder })
    }

    /// What it prints.
    pub fn says(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.folder)
            .env("PPROF_TMPDIR", self.folder)
            .env("HOME", self.folder)
            .args(arguments);
        Ok(run(command)?.stdout)
    }

    /// The sum that the heading of `-top` says is shown, in the smallest unit.
    fn shown(&self, arguments: &[&str]) -> Result<u64> {
        let said = self.says(&[&["-top", "-unit=nanoseconds"], arguments].concat())?;
        let line = said
            .lines()
            .find_map(|l| l.strip_prefix("Showing nodes accounting for "));
        let number = line.and_then(|l| l.split(',').next());
        let number = number.with_context(|| said.clone())?;
        let number = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        number.parse().with_context(|| said.clone())
    }

    /// The sum of every column of `-raw`.
    pub fn sums(&self, file: &str) -> Result<Vec<u64>> {
        let said = self.says(&["-raw", file])?;
        let samples = said.split("\nSamples:\n").nth(1).context("no samples")?;
        let samples = samples.split("\nLocations").next().unwrap_or_default();
        let types = samples.lines().next().context("no sample types")?;
        let mut sums = vec![0_u64; types.split_whitespace().count()];
        for line in samples.lines().skip(1) {
            let Some((values, _)) = line.split_once(": ").filter(|(v, _)| is_row(v)) else {
                continue; // labels
            };
            for (sum, value) in sums.iter_mut().zip(values.split_whitespace()) {
                *sum += value.parse::<u64>()?;
            }
        }
        Ok(sums)
    }
}

fn is_row(values: &str) -> bool {
    values.bytes().all(|b| b == b' ' || b.is_ascii_digit()) && !values.trim().is_empty()
}

fn read(file: &Path) -> Result<Profile> {
    Ok(import(&std::fs::read(file)?, ImportOptions::new("other"))?.profile)
}

/// The sum of some series.
pub fn total(profile: &Profile, wanted: impl Fn(&model::profile::Series) -> bool) -> Values {
    let rows = profile.select(wanted);
    rows.values().fold(Values::default(), |mut sum, values| {
        model::profile::add_values(&mut sum, values);
        sum
    })
}

#[test]
fn google_s_pprof_finds_the_same_sums_in_ours() -> Result<()> {
    let stage = tempfile::tempdir()?;
    let profile = sampled_fleet::write(&stage.path().join("fleet.ffz"))?;
    fleetflame(
        stage.path(),
        &[
            "export",
            "fleet.ffz",
            "--format",
            "pprof",
            "-o",
            "fleet.pb.gz",
        ],
    )?;
    let pprof = Pprof::new(stage.path())?;
    let [samples, cpu, _] = profile.grand_total();
    assert_eq!(pprof.sums("fleet.pb.gz")?, [samples, cpu]);
    assert_eq!(
        pprof.shown(&["-sample_index=samples", "fleet.pb.gz"])?,
        samples
    );
    assert_eq!(pprof.shown(&["-sample_index=cpu", "fleet.pb.gz"])?, cpu);
    for host in sampled_fleet::HOSTS {
        let focus = format!("-tagfocus=host=^{host}$");
        let [samples, cpu, _] = total(&profile, |s| s.host == host);
        ensure!(samples > 0, "{host} has samples");
        assert_eq!(
            pprof.shown(&[&focus, "-sample_index=samples", "fleet.pb.gz"])?,
            samples
        );
        assert_eq!(
            pprof.shown(&[&focus, "-sample_index=cpu", "fleet.pb.gz"])?,
            cpu
        );
    }
    let aio = total(&profile, |s| s.thread == "aio");
    let focus = [
        "-tagfocus=thread=^aio$",
        "-sample_index=samples",
        "fleet.pb.gz",
    ];
    assert_eq!(pprof.shown(&focus)?, aio[0]);
    let worker = total(&profile, |s| s.process.worker == Some(0));
    let focus = [
        "-tagfocus=worker=^0$",
        "-sample_index=samples",
        "fleet.pb.gz",
    ];
    assert_eq!(pprof.shown(&focus)?, worker[0]);
    Ok(())
}

#[test]
fn google_s_pprof_names_the_same_functions() -> Result<()> {
    let stage = tempfile::tempdir()?;
    sampled_fleet::write(&stage.path().join("fleet.ffz"))?;
    fleetflame(stage.path(), &["export", "fleet.ffz", "-o", "fleet.pb.gz"])?;
    let pprof = Pprof::new(stage.path())?;
    let top = pprof.says(&["-top", "-sample_index=samples", "fleet.pb.gz"])?;
    // flat flat% sum% cum cum% name; six times what one worker of the first host has.
    for (flat, cum, name) in [
        ("840", "996", "rate-limiting/handler.lua:42 access"),
        ("132", "132", "acl/handler.lua:42 access"),
        ("156", "156", "rate-limiting/handler.lua:42 access_[j]"),
        ("204", "204", "[libc.so.6]+0x91a20"),
        ("228", "504", "do_syscall_64"),
        ("276", "276", "nft_do_chain"),
        ("60", "60", "ngx_memcpy (inline)"),
        ("0", "1932", "main"),
    ] {
        let row = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&flat) && words.get(3) == Some(&cum) && line.ends_with(name)
        };
        assert!(
            top.lines().any(|l| row(&l)),
            "{flat} {cum} {name} in\n{top}"
        );
    }
    assert!(top.contains("File: nginx\n"), "{top}");
    let traces = pprof.says(&["-traces", "-sample_index=samples", "fleet.pb.gz"])?;
    let host = |line: &str| line.split_whitespace().eq(["host:", "kong-2"]);
    assert!(traces.lines().any(host), "{traces}");
    let raw = pprof.says(&["-raw", "fleet.pb.gz"])?;
    assert!(raw.contains(&"1f".repeat(20)), "the build-id is in\n{raw}");
    Ok(())
}

#[test]
fn what_google_s_pprof_writes_of_ours_is_ours() -> Result<()> {
    let stage = tempfile::tempdir()?;
    let profile = sampled_fleet::write(&stage.path().join("fleet.ffz"))?;
    fleetflame(stage.path(), &["export", "fleet.ffz", "-o", "fleet.pb.gz"])?;
    let pprof = Pprof::new(stage.path())?;
    pprof.says(&["-proto", "-output=again.pb.gz", "fleet.pb.gz"])?;
    let again = read(&stage.path().join("again.pb.gz"))?;
    let mut wanted = profile.canonical();
    wanted.counters.clear();
    assert_eq!(again.canonical(), wanted);
    // One series of it only, cut out by pprof.
    let focus = [
        "-proto",
        "-tagfocus=host=^kong-2$",
        "-output=two.pb.gz",
        "fleet.pb.gz",
    ];
    pprof.says(&focus)?;
    let two = read(&stage.path().join("two.pb.gz"))?;
    assert_eq!(two.grand_total(), total(&profile, |s| s.host == "kong-2"));
    assert_eq!(two.hosts(), ["kong-2"]);
    // The command line reads both.
    let folded = |file| Ok::<_, anyhow::Error>(fleetflame(stage.path(), &["fold", file])?.stdout);
    assert_eq!(folded("again.pb.gz")?, folded("fleet.ffz")?);
    Ok(())
}

#[test]
fn profiles_of_a_go_program_are_read_with_equal_sums() -> Result<()> {
    let stage = tempfile::tempdir()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/peers/burn.go");
    let source = source.to_str().context("a path that is not UTF-8")?;
    let mut burn = Command::new(built(source, "burn")?);
    burn.current_dir(stage.path())
        .args(["cpu.pb.gz", "heap.pb.gz"]);
    run(burn)?;
    let pprof = Pprof::new(stage.path())?;

    let cpu = read(&stage.path().join("cpu.pb.gz"))?;
    let sums = pprof.sums("cpu.pb.gz")?;
    assert_eq!(cpu.grand_total()[..2], sums[..]);
    assert!(sums[0] > 0, "the program burnt a second: {sums:?}");
    let names: Vec<String> = cpu
        .measures
        .iter()
        .map(|m| format!("{}/{}", m.name, m.unit))
        .collect();
    assert_eq!(names, ["samples/count", "cpu/ns"]);
    let folded = fleetflame(stage.path(), &["fold", "cpu.pb.gz"])?.stdout;
    assert!(folded.contains(";main.burn"), "{folded}");
    let listed = pprof.says(&["-top", "-cum", "-sample_index=samples", "cpu.pb.gz"])?;
    let row = listed
        .lines()
        .find(|l| l.ends_with(" main.burn"))
        .context("main.burn")?;
    let cum: u64 = row.split_whitespace().nth(3).context("cum")?.parse()?;
    let ours: u64 = folded
        .lines()
        .filter(|l| l.contains("main.burn"))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(ours, cum);

    let heap = read(&stage.path().join("heap.pb.gz"))?;
    let sums = pprof.sums("heap.pb.gz")?;
    assert_eq!(heap.grand_total()[..], sums[..3]);
    assert!(sums[1] >= 10 << 20, "twenty MiB are kept: {sums:?}");
    let top = fleetflame(stage.path(), &["top", "heap.pb.gz"])?;
    assert!(
        top.stderr.contains("beyond the first three are left out"),
        "{}",
        top.stderr
    );
    Ok(())
}
