//! Findings over the wire. In: findings. Out: messages, and back.
//! Never: more findings or text from a peer than a person would read.

use crate::v1;
use model::{Finding, FindingCode};

/// Most findings that are taken from one message.
const FINDINGS_MAX: usize = 256;

impl From<&Finding> for v1::Finding {
    fn from(f: &Finding) -> Self {
        Self {
            code: f.code.to_string(),
            evidence: f.evidence.clone(),
            remedy: f.remedy.clone(),
        }
    }
}

impl From<v1::Finding> for Finding {
    fn from(f: v1::Finding) -> Self {
        match FindingCode::parse(&f.code) {
            Some(code) => Finding::new(code, f.evidence).with_remedy(f.remedy),
            // A newer agent may know more codes: keep its words.
            None => Finding::new(
                FindingCode::HostProtocol,
                format!("unknown finding {:?}: {} {}", f.code, f.evidence, f.remedy),
            ),
        }
    }
}

pub(super) fn to_wire(findings: &[Finding]) -> Vec<v1::Finding> {
    findings.iter().map(Into::into).collect()
}

/// Findings of a message, at most a person's fill.
#[must_use]
pub fn from_wire(findings: Vec<v1::Finding>) -> Vec<Finding> {
    findings
        .into_iter()
        .take(FINDINGS_MAX)
        .map(Into::into)
        .collect()
}
