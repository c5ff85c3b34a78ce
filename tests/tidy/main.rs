//! Rules that no compiler checks: who may import whom, how long a file may be, that every finding
//! is documented and produced, that the documents name what is there.
//!
//! In: the checkout's files. Out: every violation, with file, line and the rule's reason.
//! Never: a violation that is let through because it is old; exceptions stand here, with reasons.

mod architecture;
mod fences;
mod files;
mod findings;
mod lock;
mod paths;
mod source;
mod tree;
mod words;

/// Fails with all violations at once, so that one run shows what there is to do.
fn report(rule: &str, violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{} {rule}:\n  {}\n",
        violations.len(),
        violations.join("\n  ")
    );
}
