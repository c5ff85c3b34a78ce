//! Every recording comes to its findings and its verdict; every row of the catalogue of errors has a test.
//!
//! In: agent/testdata/stap. Out: nothing. Never: a recording that no row of its table names.

use super::*;
use FindingCode as Code;
use ReportEnd::{NotAsked, NotKnown};
use Verdict::{Complete, Failed, Partial};

fn recording(name: &str) -> String {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/stap");
    std::fs::read_to_string(format!("{dir}/{name}.stderr")).expect("a recording")
}

/// Rows of a table of the testdata, each in `fields` parts.
fn rows(file: &str, fields: usize) -> Vec<Vec<String>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/stap");
    let text = std::fs::read_to_string(format!("{dir}/{file}")).expect("a table");
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    let rows = lines.map(|line| {
        let row: Vec<String> = line
            .splitn(fields, " |")
            .map(|f| f.trim().to_owned())
            .collect();
        assert_eq!(row.len(), fields, "{line}");
        row
    });
    rows.collect()
}

fn codes(findings: &[Finding]) -> String {
    let words = findings.iter().map(|f| f.code.as_str());
    let words: Vec<&str> = words
        .map(|w| w.strip_prefix("stap-").unwrap_or(w))
        .collect();
    words.join(" ")
}

#[test]
fn every_recording_comes_to_its_findings_and_its_verdict() {
    for row in rows("expected.txt", 6) {
        let name = &row[0];
        let report = if row[2] == "none" { NotAsked } else { NotKnown };
        let ending = Ending {
            code: row[1].parse().ok(),
            report,
            samples: row[3].parse().expect("a number"),
        };
        let (verdict, findings) = conclude(&ending, diagnose(&recording(name)));
        let found = format!("{verdict:?} {}", codes(&findings)).to_lowercase();
        assert_eq!(
            found.trim(),
            format!("{} {}", row[4], row[5]).trim(),
            "{name}: {findings:#?}"
        );
        for finding in &findings {
            assert!(finding.evidence.len() < 1_900, "{name}: {finding}");
            assert!(finding.code != Code::StapWarning, "{name}: {finding}");
        }
    }
}

#[test]
fn no_recording_is_left_out() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/stap");
    let known = rows("expected.txt", 6);
    for file in std::fs::read_dir(dir).expect("testdata") {
        let name = file.expect("a file").file_name();
        let name = name.to_string_lossy();
        if let Some(name) = name.strip_suffix(".stderr") {
            assert!(known.iter().any(|row| row[0] == name), "{name}");
        }
    }
}

#[test]
fn every_row_of_the_catalogue_has_its_finding_in_old_and_new_words() {
    let catalogue = rows("catalogue.txt", 3);
    for row in &catalogue {
        let text = row[2].replace("\\n", "\n");
        let ending = Ending {
            code: Some(0),
            report: NotAsked,
            samples: 0,
        };
        let (_, findings) = conclude(&ending, diagnose(&text));
        assert_eq!(codes(&findings), row[1], "{}: {text}", row[0]);
        assert!(!findings[0].remedy.is_empty());
    }
    // 24 is an end without words, below; 26 is what the host's policy forbids.
    for number in (1..=25).filter(|n| *n != 24) {
        assert!(
            catalogue.iter().any(|row| row[0] == number.to_string()),
            "{number}"
        );
    }
}

#[test]
fn who_was_killed_while_it_loaded_is_told_so_beside_what_its_module_missed() {
    let killed = Ending {
        code: None,
        samples: 0,
        report: ReportEnd::Missing,
    };
    let text = "ERROR: Can't resolve uprobe_get_swbp_addr!\n";
    let (verdict, findings) = conclude(&killed, diagnose(text));
    assert_eq!(verdict, Verdict::Failed);
    let codes: Vec<FindingCode> = findings.iter().map(|f| f.code).collect();
    assert!(codes.contains(&FindingCode::StapKernelUnlike), "{codes:?}");
    let failed = findings
        .iter()
        .find(|f| f.code == FindingCode::StapRunFailed);
    assert_eq!(failed.unwrap().evidence, "SystemTap's program was killed");
}

#[test]
fn a_run_that_did_not_end_by_itself_is_partial_though_its_last_words_are_harmless() {
    // Number 24: the report waits for the target's next event, until our own deadline kills it.
    let text = "WARNING: Time's up. Quitting now...(it may take a while)\n";
    let killed = Ending {
        code: None,
        report: ReportEnd::Missing,
        samples: 40,
    };
    let (verdict, findings) = conclude(&killed, diagnose(text));
    assert_eq!(
        (verdict, codes(&findings).as_str()),
        (Partial, "output-cut run-failed")
    );
}

#[test]
fn rc_0_is_no_proof() {
    let end = |report, samples| Ending {
        code: Some(0),
        report,
        samples,
    };
    let came = |printed, arrived| ReportEnd::Came { printed, arrived };
    for (ending, expected, words) in [
        (end(came(90, 90), 90), Complete, ""),
        (end(came(90, 80), 80), Partial, "output-cut"),
        (end(ReportEnd::Missing, 80), Partial, "output-cut"),
        (end(ReportEnd::Missing, 0), Failed, "output-cut"),
        (end(came(0, 0), 0), Complete, ""),
    ] {
        let (verdict, findings) = conclude(&ending, diagnose(""));
        assert_eq!(
            (verdict, codes(&findings).as_str()),
            (expected, words),
            "{ending:?}"
        );
    }
}

#[test]
fn errors_that_are_only_counted_are_told_too() {
    let text = "WARNING: Number of errors: 3, skipped probes: 0\n";
    let ending = Ending {
        code: Some(0),
        report: NotAsked,
        samples: 0,
    };
    let (verdict, findings) = conclude(&ending, diagnose(text));
    assert_eq!(
        (verdict, codes(&findings).as_str()),
        (Partial, "script-failed")
    );
}

#[test]
fn above_the_bound_skipped_samples_make_a_profile_biased() {
    let said = |skipped: u64| {
        let text = format!("WARNING: Number of errors: 0, skipped probes: {skipped}\n");
        let ending = Ending {
            code: Some(0),
            report: ReportEnd::Came {
                printed: 980,
                arrived: 980,
            },
            samples: 980,
        };
        let (verdict, findings) = conclude(&ending, diagnose(&text));
        (verdict, codes(&findings), findings[0].evidence.clone())
    };
    let (verdict, found, evidence) = said(20);
    assert_eq!((verdict, found.as_str()), (Complete, "skipped"));
    assert!(evidence.contains("20 of 1000 samples were skipped (2.0 %)"));
    let (verdict, found, _) = said(21);
    assert_eq!(
        (verdict, found.as_str()),
        (Verdict::Biased, "biased skipped")
    );
}

#[test]
fn what_was_not_foreseen_is_shown_and_never_taken_for_an_error() {
    let odd = "WARNING: some words of a later version\nand more\nPass 5: starting run.\n";
    let diagnosis = diagnose(odd);
    assert_eq!(codes(&diagnosis.findings), "warning");
    let evidence = &diagnosis.findings[0].evidence;
    assert_eq!(
        evidence,
        "stap: WARNING: some words of a later version · and more"
    );
    let failed = Ending {
        code: Some(1),
        report: NotKnown,
        samples: 0,
    };
    let (verdict, findings) = conclude(&failed, diagnosis);
    assert_eq!(
        (verdict, codes(&findings).as_str()),
        (Partial, "warning run-failed")
    );
}

#[test]
fn the_facts_for_the_ladder_are_read() {
    let facts = diagnose(&recording("field-skipped-too-many")).facts;
    assert_eq!((facts.skipped, facts.errors), (102, 0));
    assert_eq!(
        (facts.staprun_status, facts.failed_pass),
        (Some(1), Some(5))
    );
    let wants: Vec<&str> = facts.wants_unwind.iter().map(String::as_str).collect();
    assert!(
        wants.contains(&"kernel") && wants.contains(&"xfs"),
        "{wants:?}"
    );
    assert!(!wants.iter().any(|w| w.contains("unknown")));
    assert!(facts.causes.contains(&Code::StapSkippedTooMany));
    let lost = diagnose(&recording("flood-transport-failures")).facts;
    assert_eq!(lost.transport_failures, 1_522);
}

#[test]
fn the_code_below_a_compiler_s_error_is_not_what_a_run_said() {
    let text = "/tmp/stapX/ff_src.c:24:7: error: format '%lld' expects another type [-Werror=format=]\n \
                2466 |   _stp_error (\"probe overhead (%lld cycles) exceeded threshold\");\n      | ^~~\n";
    assert_eq!(
        codes(&diagnose(text).findings),
        "stap-kernel-unlike".trim_start_matches("stap-")
    );
}

#[test]
fn colours_and_control_characters_are_no_words() {
    let text = "\u{1b}[01;31m\u{1b}[KERROR:\u{1b}[m\u{1b}[K MAXACTION exceeded near x\u{7}\r\n";
    let found = diagnose(text).findings;
    assert_eq!(found[0].evidence, "stap: ERROR: MAXACTION exceeded near x");
}
