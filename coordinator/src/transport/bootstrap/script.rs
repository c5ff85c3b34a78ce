//! The scripts that run on a host, as one word each for its login shell.
//!
//! In: constants of this program, and arguments whose every character is known. Out: a command line for
//! ssh. Never: a line built from input: an argument with any other character is refused.

/// What the host is, and where an agent can live.
pub const PREPARE: &str = include_str!("prepare.sh");
/// Takes, checks and starts the agent.
pub const START: &str = concat!(include_str!("run.sh"), include_str!("start.sh"));
/// Becomes a channel to an agent that runs already.
pub const JOIN: &str = concat!(include_str!("run.sh"), include_str!("join.sh"));

/// The line that ssh sends: `sh -c 'SCRIPT' fleetflame ARGUMENT…`, none when an argument holds anything
/// but letters, digits and `. _ / + : -`, or nothing at all. A login shell of any kind takes it the same
/// way, since it holds no line break and no quote but the two around the script.
#[must_use]
pub fn command_line(script: &str, arguments: &[&str]) -> Option<String> {
    let lines = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join(" ");
    words(arguments).map(|words| format!("sh -c '{joined}' fleetflame {words}"))
}

/// Arguments joined by blanks, under the same rule.
#[must_use]
pub fn words(arguments: &[&str]) -> Option<String> {
    let harmless = |word: &&str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._/+:-".contains(&b))
    };
    arguments.iter().all(harmless).then(|| arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_one_word_and_no_argument_is_more_than_one() {
        for script in [PREPARE, START, JOIN] {
            assert!(!script.contains('\''));
            let line = command_line(script, &["a", "/x/y"]).unwrap();
            assert_eq!(line.matches('\'').count(), 2);
            // csh takes other exclamation marks for its history, in quotes too.
            let marks = line.matches('!').count();
            let harmless = line.matches("! ").count() + line.matches("!=").count();
            assert_eq!(marks, harmless, "{line}");
            assert!(!line.contains('\n') && line.ends_with("' fleetflame a /x/y"));
        }
        for bad in [
            "", "a b", "$(x)", "a'b", "a;b", "a\nb", "`x`", "~", "*", "ü", "a\\b",
        ] {
            assert_eq!(command_line(START, &["a", bad]), None, "{bad:?}");
        }
    }
}
