//! A run's results, all of them. In: a run directory, its merged profile and its record. Out:
//! pictures, folded stacks and the report in the directory. Never: a result that differs from
//! what `show`, `top` and `flame` make of the same profile.

use super::flame::{DifferenceLook, FlameError, FlameOptions, flame, flame_difference};
use super::html::{Picture, report_html};
use super::overview::{heat_svg, overview_svg};
use super::report::report;
use super::view::{Side, View, ViewBuilder};
use crate::store::{RunDir, RunRecord, StoreError};
use compare::Rests;
use model::profile::{Measure, Profile};
use model::{Coverage, Finding, FindingCode, HostName};
use std::io;

/// Writes `merged.*`, `hosts/HOST.*`, `diff/HOST-vs-rest.svg`, `overview.svg`, `heat.svg`, `report.md` and
/// `report.html`.
///
/// # Errors
/// [`StoreError`] when a file cannot be written; those before it are in place.
pub fn write_all(
    run: &RunDir,
    profile: &Profile,
    record: &RunRecord,
) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    let title = if record.title.is_empty() {
        record.id.to_string()
    } else {
        record.title.clone()
    };
    let (shown, unit) = Measure::shown(&profile.measures);
    let options = |about: &str, coverage: &Coverage| FlameOptions {
        title: format!("{title}: {about}"),
        coverage: coverage.line(),
        unit: unit.clone(),
        ..FlameOptions::default()
    };
    let merged = View::of(profile, |_| true, shown);
    run.write("merged.folded", merged.folded().as_bytes())?;
    let picture = flame(&merged, &options("all hosts", &record.coverage));
    let mut pictures = fleet_pictures(run, profile, record, &title)?;
    let picture = drawn(picture)?;
    run.write("merged.svg", picture.as_bytes())?;
    pictures.push(Picture::new("All hosts", picture));
    drop(merged);

    let (hosts, refused) = hosts_with_samples(profile);
    findings.extend(refused);
    let rests = (hosts.len() > 1).then(|| Rests::of(profile)).flatten();
    for host in &hosts {
        let name = host.as_str();
        let view = View::of(profile, |s| s.host == name, shown);
        run.write(&format!("hosts/{host}.folded"), view.folded().as_bytes())?;
        let picture = flame(&view, &options(name, &only(&record.coverage, name)));
        run.write(&format!("hosts/{host}.svg"), drawn(picture)?.as_bytes())?;
        if hosts.len() > 1 {
            let mut both = ViewBuilder::default();
            both.add(profile, |s| s.host != name, shown, Side::Left);
            both.add(profile, |s| s.host == name, shown, Side::Right);
            let about = format!("{name} against the rest");
            let options = options(&about, &record.coverage);
            let told = rests.as_ref().and_then(|r| r.told(name));
            let look = DifferenceLook {
                left: "the rest".to_owned(),
                right: name.to_owned(),
                scale: super::Difference::Shares,
                told: told.as_ref(),
            };
            let picture = flame_difference(&both.build(), &look, &options);
            let picture = drawn(picture)?;
            run.write(&format!("diff/{host}-vs-rest.svg"), picture.as_bytes())?;
            if pictures.len() < PICTURES_MAX && stands_out(record, name) {
                pictures.push(Picture::new(format!("{name} against the rest"), picture));
            }
        }
    }
    for (host, coverage) in &record.coverage.hosts {
        let printed: String = coverage.stats.printed.iter().map(|p| &*p.text).collect();
        if !printed.is_empty() && HostName::new(host.as_str()).is_ok() {
            run.write(&format!("hosts/{host}.txt"), printed.as_bytes())?;
        }
    }
    run.write("report.md", report(record, profile).as_bytes())?;
    let page = report_html(record, profile, &pictures);
    run.write("report.html", page.as_bytes())?;
    Ok(findings)
}

/// Most pictures of the page: each may have a megabyte.
const PICTURES_MAX: usize = 6;

/// Whether a host is odd; of too few hosts for that, whether it is the first that differs.
fn stands_out(record: &RunRecord, host: &str) -> bool {
    record.ranking.as_ref().is_some_and(|ranking| {
        let few = ranking.spread.is_none();
        let first = ranking
            .entries
            .first()
            .filter(|e| few && e.q <= compare::FALSE_MAX);
        let odd = ranking.entries.iter().filter(|e| e.odd);
        odd.chain(first).any(|e| e.host == host)
    })
}

/// Draws the fleet as a whole: where hosts differ, and who was hot when.
fn fleet_pictures(
    run: &RunDir,
    profile: &Profile,
    record: &RunRecord,
    title: &str,
) -> Result<Vec<Picture>, StoreError> {
    let mut pictures = Vec::new();
    let coverage = record.coverage.line();
    if let Some(ranking) = record.ranking.as_ref().filter(|r| !r.entries.is_empty()) {
        let svg = overview_svg(ranking, &format!("{title}: where hosts differ"), &coverage);
        run.write("overview.svg", svg.as_bytes())?;
        pictures.push(Picture::new("Where hosts differ", svg));
    }
    let heat = compare::heat(profile, |_| true);
    if !heat.rows.is_empty() {
        let svg = heat_svg(&heat, &format!("{title}: who was hot when"), &coverage);
        run.write("heat.svg", svg.as_bytes())?;
        pictures.push(Picture::new("Who was hot when", svg));
    }
    Ok(pictures)
}

/// The hosts that have a sample. A name that cannot be a file name is a finding.
fn hosts_with_samples(profile: &Profile) -> (Vec<HostName>, Vec<Finding>) {
    let mut hosts = Vec::new();
    let mut findings = Vec::new();
    for host in profile.hosts() {
        if profile
            .select(|s| s.host == host)
            .values()
            .all(|v| v[0] == 0)
        {
            continue;
        }
        match HostName::new(host.as_str()) {
            Ok(name) => hosts.push(name),
            Err(bad) => findings.push(Finding::new(FindingCode::HostProtocol, bad.to_string())),
        }
    }
    (hosts, findings)
}

/// The coverage of one host alone.
fn only(coverage: &Coverage, host: &str) -> Coverage {
    let mut one = Coverage::default();
    if let Some(host_coverage) = coverage.hosts.get(host) {
        one.hosts.insert(host.to_owned(), host_coverage.clone());
    }
    let of_host = |f: &&Finding| f.host.as_deref() == Some(host);
    one.findings = coverage.findings.iter().filter(of_host).cloned().collect();
    one
}

fn drawn(picture: Result<super::Flame, FlameError>) -> Result<String, StoreError> {
    picture.map(|p| p.svg).map_err(|error| StoreError::Io {
        what: "draw",
        path: "a flame graph".into(),
        source: io::Error::other(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::record_of;
    use model::profile::{Frame, FrameKind, Measure, Process, Series};
    use std::collections::BTreeMap;

    fn fleet(hosts: &[&str]) -> Profile {
        let mut profile = Profile::new("on-cpu", Measure::on_cpu());
        for (i, host) in (1_u64..).zip(hosts) {
            for (role, weight) in [("nginx: worker", 10), ("nginx: master", 1)] {
                let process = Process {
                    role: role.into(),
                    ..Process::default()
                };
                let series = Series {
                    host: (*host).into(),
                    process,
                    ..Series::default()
                };
                let series = profile.series.intern(&series);
                let main = profile
                    .frames
                    .intern(&Frame::named(FrameKind::User, "main", "nginx"));
                let sys = profile.frames.intern(&Frame::named(
                    FrameKind::Kernel,
                    "do_syscall_64",
                    "vmlinux",
                ));
                profile.add_stack(series, &[main], &[weight * i, 0, 0]);
                profile.add_stack(series, &[main, sys], &[weight, 0, 0]);
            }
        }
        profile
    }

    fn lines(text: &[u8]) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for line in std::str::from_utf8(text).unwrap().lines() {
            let (stack, count) = line.rsplit_once(' ').unwrap();
            *sums.entry(stack.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
        sums
    }

    #[test]
    fn every_file_is_written_and_hosts_add_up_to_merged_stack_by_stack() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let hosts = ["a", "b", "c"];
        let findings = write_all(&run, &fleet(&hosts), &record_of(&hosts)).unwrap();
        assert_eq!(findings, []);
        let merged = run.read("merged.folded").unwrap();
        assert_eq!(
            std::str::from_utf8(&merged).unwrap(),
            "nginx: master;main 6\nnginx: master;main;do_syscall_64_[k] 3\n\
             nginx: worker;main 60\nnginx: worker;main;do_syscall_64_[k] 30\n"
        );
        let mut parts = Vec::new();
        for host in hosts {
            parts.extend(run.read(&format!("hosts/{host}.folded")).unwrap());
            for svg in [
                format!("hosts/{host}.svg"),
                format!("diff/{host}-vs-rest.svg"),
            ] {
                assert!(run.read(&svg).unwrap().starts_with(b"<?xml"), "{svg}");
            }
        }
        assert_eq!(lines(&parts), lines(&merged));
        for (host, samples) in [("a", 10), ("b", 20), ("c", 30)] {
            let own = lines(&run.read(&format!("hosts/{host}.folded")).unwrap());
            assert_eq!(
                own["nginx: worker;main"], samples,
                "{host} has its own stacks"
            );
        }
        assert!(run.read("report.md").unwrap().starts_with(b"# Kong"));
        assert!(
            run.read("report.html")
                .unwrap()
                .starts_with(b"<!doctype html>")
        );
    }

    #[test]
    fn one_host_has_no_difference_and_nothing_has_pictures_that_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("one")).unwrap();
        write_all(&run, &fleet(&["a"]), &record_of(&["a"])).unwrap();
        assert!(!run.path().join("diff").exists());
        let run = RunDir::create(folder.path().join("none")).unwrap();
        write_all(&run, &Profile::default(), &record_of(&["a"])).unwrap();
        let svg = String::from_utf8(run.read("merged.svg").unwrap()).unwrap();
        assert!(svg.contains("no stacks were captured"));
        assert!(run.read("merged.folded").unwrap().is_empty());
    }
}
