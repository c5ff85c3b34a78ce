//! Findings: each code is documented, and something produces it. In: the model's table, the code,
//! docs/findings.md. Out: codes that only exist on paper, or only in code. Never: a code that
//! nobody can look up at night.

use crate::{report, source, tree};
use model::{FindingCode, Severity};
use std::collections::BTreeMap;

/// Codes that nothing produces yet, and why they are in the table all the same.
const NOT_YET_PRODUCED: &[(FindingCode, &str)] = &[];

/// Sections of docs/findings.md: code and body.
fn sections() -> BTreeMap<String, String> {
    let path = tree::root().join("docs/findings.md");
    let text = std::fs::read_to_string(path).expect("docs/findings.md");
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if line.starts_with("# ") || line.starts_with("## ") {
            current = line
                .strip_prefix("## `")
                .and_then(|l| l.strip_suffix('`'))
                .map(str::to_owned);
        } else if let Some(code) = &current {
            let body = sections.entry(code.clone()).or_default();
            body.push_str(line);
            body.push('\n');
        }
    }
    sections
}

#[test]
fn every_finding_has_its_section_and_every_section_its_finding() {
    let sections = sections();
    let mut wrong = Vec::new();
    for code in FindingCode::ALL {
        let Some(body) = sections.get(code.as_str()) else {
            wrong.push(format!("docs/findings.md has no section ## `{code}`"));
            continue;
        };
        let severity = match code.severity() {
            Severity::Note => "*Note.*",
            Severity::Warning => "*Warning.*",
            Severity::Error => "*Error.*",
        };
        if !body.trim_start().starts_with(severity) {
            wrong.push(format!(
                "docs/findings.md: `{code}` does not begin with {severity}"
            ));
        }
        let lines = body.lines().filter(|l| !l.trim().is_empty()).count();
        if !(3..=14).contains(&lines) {
            wrong.push(format!("docs/findings.md: `{code}` has {lines} lines"));
        }
    }
    for code in sections.keys().filter(|c| FindingCode::parse(c).is_none()) {
        wrong.push(format!(
            "docs/findings.md: `{code}` is no code of model/src/finding.rs"
        ));
    }
    report("sections of docs/findings.md are wrong", &wrong);
}

#[test]
#[expect(clippy::print_stdout, reason = "exceptions are shown with --nocapture")]
fn every_finding_is_produced_somewhere() {
    let code: String = tree::rust()
        .into_iter()
        .filter(|f| f.path != "model/src/finding.rs" && f.path.contains("/src/"))
        .map(|f| source::shipped(&f.text) + "\n")
        .collect();
    let mut missing = Vec::new();
    for finding in FindingCode::ALL {
        let variant = format!("FindingCode::{finding:?}");
        let produced = code.match_indices(&variant).any(|(at, _)| {
            !code[at + variant.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
        });
        let exception = NOT_YET_PRODUCED.iter().find(|e| e.0 == *finding);
        match (produced, exception) {
            (false, None) => missing.push(format!("{variant} ({finding}) is produced nowhere")),
            (false, Some((_, reason))) => println!("not yet produced: {finding}: {reason}"),
            (true, Some(_)) => {
                missing.push(format!("{variant} is produced now: strike the exception"))
            }
            (true, None) => {}
        }
    }
    report("findings are on paper only", &missing);
}
