//! Findings for a terminal. In: findings. Out: lines, the gravest first. Never: a finding without
//! its remedy.

use super::table::printable;
use model::Finding;

/// Findings in words: what, where, the tool's own words, and what to do. Equal ones of several
/// hosts are told once.
#[must_use]
pub fn findings_text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for (finding, hosts) in grouped(findings) {
        let weight = finding.severity().word();
        let place = if hosts.is_empty() {
            String::new()
        } else {
            format!("{}: ", hosts.join(", "))
        };
        out.push_str(&format!(
            "{weight:<8}{place}{} [{}]\n",
            finding.code.what(),
            finding.code
        ));
        if !finding.evidence.is_empty() {
            out.push_str(&format!("        seen: {}\n", printable(&finding.evidence)));
        }
        out.push_str(&format!("        do:   {}\n", printable(&finding.remedy)));
    }
    out
}

/// Findings the gravest first; those that differ only in the host stand together.
pub(super) fn grouped(findings: &[Finding]) -> Vec<(&Finding, Vec<&str>)> {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by(|a, b| b.severity().cmp(&a.severity()).then_with(|| a.cmp(b)));
    let mut groups: Vec<(&Finding, Vec<&str>)> = Vec::new();
    for finding in sorted {
        let alike = |g: &Finding| {
            g.code == finding.code && g.evidence == finding.evidence && g.remedy == finding.remedy
        };
        match groups.iter_mut().find(|g| alike(g.0)) {
            Some(group) => group.1.extend(finding.host.as_deref()),
            None => groups.push((finding, finding.host.as_deref().into_iter().collect())),
        }
    }
    groups.iter_mut().for_each(|g| g.1.dedup());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::FindingCode;

    #[test]
    fn the_gravest_come_first_and_hosts_are_joined() {
        let few = |host: &str| Finding::new(FindingCode::FewSamples, "12 samples").on(host);
        let all = [
            few("b"),
            few("a"),
            Finding::new(FindingCode::HostLost, "no word for 4 s").on("c"),
        ];
        let text = findings_text(&all);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("error   c: The host fell silent"),
            "{text}"
        );
        assert!(
            lines[3].starts_with("note    a, b: There are too few samples"),
            "{text}"
        );
        assert_eq!(lines.len(), 6, "{text}");
    }
}
