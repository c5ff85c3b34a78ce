//! The command that stap++ would run: stap's argument list.
//!
//! In: options and what they led to. Out: an argument list. Never: a shell's line, but to be read by
//! people ([`shell_words`]).

/// Limits that stap++ sets unless the user does (its own source has them too).
const DEFAULTS: [(&str, &str); 3] = [
    ("MAXACTION", "100000"),
    ("MAXMAPENTRIES", "5000"),
    ("MAXBACKTRACE", "200"),
];

/// Options of stap++ that reach stap, and what was found of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composed {
    /// `-v`.
    pub verbose: bool,
    /// `-d PATH` as the user gave them.
    pub debug_info: Vec<String>,
    /// `--skip-badvars`.
    pub skip_badvars: bool,
    /// `-D NAME=VALUE` as the user gave them.
    pub defines: Vec<String>,
    /// Options of stap itself that the user asked for, from [`Composed::allowed_option`].
    pub passed_on: Vec<String>,
    /// With `--exec`: the program and its libraries.
    pub exec: Option<(String, Vec<String>)>,
    /// With `-x`: the process.
    pub process: Option<u32>,
    /// With `-x` or `--master` and without `--exec`: the program.
    pub program: Option<String>,
    /// With `-x` or `--master`: all libraries known by then.
    pub libraries: Vec<String>,
    /// With `--sample-pid`: all libraries known by then.
    pub sampled: Vec<String>,
    /// The folder of the modules.
    pub module_dir: String,
    /// `-c CMD`.
    pub command: Option<String>,
}

impl Composed {
    /// The argument list, `stap` first. The script comes on standard input.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        let mut argv = vec!["stap".to_owned()];
        let mut push = |words: &[&str]| argv.extend(words.iter().map(|w| (*w).to_owned()));
        if self.verbose {
            push(&["-v"]);
        }
        for path in &self.debug_info {
            push(&["-d", path]);
        }
        if self.skip_badvars {
            push(&["--skip-badvars"]);
        }
        for define in &self.defines {
            push(&[&format!("-D{define}")]);
        }
        for (name, value) in DEFAULTS {
            if !self.defines.iter().any(|d| is_set(d, name)) {
                push(&[&format!("-D{name}={value}")]);
            }
        }
        for option in &self.passed_on {
            push(&[option]);
        }
        if let Some((program, libraries)) = &self.exec {
            push(&["-d", program]);
            libraries.iter().for_each(|path| push(&["-d", path]));
        }
        if let Some(pid) = self.process {
            push(&["-x", &pid.to_string()]);
        }
        for path in self
            .program
            .iter()
            .chain(&self.libraries)
            .chain(&self.sampled)
        {
            push(&["-d", path]);
        }
        push(&["-I", &self.module_dir]);
        if let Some(command) = &self.command {
            push(&["-c", command]);
        }
        push(&["-"]);
        argv
    }

    /// An option of stap that may be passed on, or why not. stap++ passes none on, which is why
    /// people change its source.
    ///
    /// # Errors
    /// Which options are possible, or what the option would do.
    pub fn allowed_option(option: &str) -> Result<&str, String> {
        /// Harmless without a value.
        const PLAIN: [&str; 7] = [
            "-t",
            "-w",
            "-u",
            "--ldd",
            "--all-modules",
            "--suppress-handler-errors",
            "--rlimit-cpu=60",
        ];
        let megabytes = option
            .strip_prefix("-s")
            .and_then(|n| n.parse::<u32>().ok());
        if PLAIN.contains(&option) || megabytes.is_some_and(|n| (1..=64).contains(&n)) {
            return Ok(option);
        }
        Err(match option {
            "-g" => "-g lets a script do anything in the kernel".to_owned(),
            "--suppress-time-limits" => {
                "--suppress-time-limits lets a probe hold a CPU for ever".to_owned()
            }
            _ => format!(
                "{option} is not passed on to stap; {} and -sMB (1 to 64) are",
                PLAIN.join(", ")
            ),
        })
    }
}

/// Whether `-D DEFINE` sets the limit `name`. A name with digits in it or without a value does not,
/// as in stap++.
fn is_set(define: &str, name: &str) -> bool {
    define.split_once('=').is_some_and(|(n, _)| n == name)
}

/// An argument list as one line that a POSIX shell reads back as the same list.
#[must_use]
pub fn shell_words(argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().map(|word| shell_word(word)).collect();
    words.join(" ")
}

fn shell_word(word: &str) -> String {
    let is_plain = !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-./:=+,@%".contains(&b));
    if is_plain {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_in_stapxx_s_order() {
        let composed = Composed {
            verbose: true,
            debug_info: vec!["kernel".into()],
            skip_badvars: true,
            defines: vec!["MAXACTION=7".into(), "STP_NO_OVERLOAD".into()],
            passed_on: vec!["-t".into()],
            exec: Some(("/e".into(), vec!["/l.so".into()])),
            process: Some(9),
            program: None,
            libraries: vec!["/l.so".into(), "/m.so".into()],
            sampled: vec!["/n.so".into()],
            module_dir: "dir".into(),
            command: Some("sleep 1".into()),
        };
        assert_eq!(
            shell_words(&composed.argv()),
            "stap -v -d kernel --skip-badvars -DMAXACTION=7 -DSTP_NO_OVERLOAD \
             -DMAXMAPENTRIES=5000 -DMAXBACKTRACE=200 -t -d /e -d /l.so -x 9 -d /l.so -d /m.so \
             -d /n.so -I dir -c 'sleep 1' -"
        );
    }

    #[test]
    fn words_are_quoted_for_every_shell() {
        assert_eq!(shell_words(&["a".into(), String::new()]), "a ''");
        assert_eq!(shell_words(&["it's $x".into()]), r"'it'\''s $x'");
    }

    #[test]
    fn dangerous_options_are_not_passed_on() {
        for option in ["-t", "-s64", "--ldd"] {
            assert_eq!(Composed::allowed_option(option), Ok(option));
        }
        for option in [
            "-g",
            "-s0",
            "-s4096",
            "--suppress-time-limits",
            "-o/etc/x",
            "--remote=x",
        ] {
            assert!(Composed::allowed_option(option).is_err(), "{option}");
        }
    }
}
