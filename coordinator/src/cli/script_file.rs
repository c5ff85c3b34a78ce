//! `--probe script:FILE` and `--arg NAME=VALUE`: a script of the user's. In: a flag, a file. Out: what hosts are ordered
//! to run. Never: a file without a bound, or a judgement of its code: hosts have the last word.

use super::output::usage;
use super::{script_modules, script_unit};
use anyhow::Context as _;
use model::job::Probe;
use model::script::{ARGUMENTS_MAX, SCRIPT_BYTES_MAX, Script, StackUnit};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What `--probe` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFlag {
    /// One that every agent knows.
    BuiltIn(Probe),
    /// A script's file.
    Script(PathBuf),
}

impl FromStr for ProbeFlag {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("script", "")) => Err("write script:FILE.sxx".to_owned()),
            Some(("script", file)) => Ok(Self::Script(file.into())),
            _ => match text.parse()? {
                Probe::Script => Err("write script:FILE.sxx".to_owned()),
                probe => Ok(Self::BuiltIn(probe)),
            },
        }
    }
}

/// The script of a file with its modules and the values of its arguments; the unit of its stacks by what it adds up,
/// unless it is said.
///
/// # Errors
/// What cannot be read, or is no `NAME=VALUE`.
pub(super) fn read(
    path: &Path,
    arguments: &[String],
    include: &[PathBuf],
    unit: Option<StackUnit>,
) -> anyhow::Result<Script> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(SCRIPT_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .with_context(|| format!("failed to read {shown}"))?;
    if bytes.len() > SCRIPT_BYTES_MAX {
        let said = format!("{shown} is larger than {} MiB", SCRIPT_BYTES_MAX >> 20);
        return Err(usage(said));
    }
    let text = String::from_utf8(bytes).map_err(|_| usage(format!("{shown} is not UTF-8")))?;
    if arguments.len() > ARGUMENTS_MAX {
        return Err(usage(format!("more than {ARGUMENTS_MAX} --arg")));
    }
    let mut values = BTreeMap::new();
    for pair in arguments {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| usage(format!("--arg {pair}: write NAME=VALUE")))?;
        // The last of a name holds, as in stap++.
        values.insert(name.to_owned(), value.to_owned());
    }
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(Script {
        modules: script_modules::of_script(path, &text, include)?,
        file: name.to_string_lossy().into_owned(),
        stack_unit: unit.unwrap_or_else(|| script_unit::of_script(&text)),
        text,
        arguments: values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_a_file_and_values() {
        let flag = |text: &str| text.parse::<ProbeFlag>();
        assert_eq!(flag("off-cpu"), Ok(ProbeFlag::BuiltIn(Probe::OffCpu)));
        for odd in ["script", "script:", "gdb", "script-x"] {
            assert!(flag(odd).is_err(), "{odd}");
        }
        let stage = tempfile::tempdir().unwrap();
        let path = stage.path().join("a:b.sxx");
        std::fs::write(&path, "probe begin {}").unwrap();
        let parsed = flag(&format!("script:{}", path.display()));
        assert_eq!(parsed, Ok(ProbeFlag::Script(path.clone())));
        let given = ["time=1".to_owned(), "f=a=b".to_owned(), "time=2".to_owned()];
        let script = read(&path, &given, &[], None).unwrap();
        assert_eq!(
            (&*script.file, &*script.text),
            ("a:b.sxx", "probe begin {}")
        );
        let values: Vec<(&str, &str)> = script
            .arguments
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(values, [("f", "a=b"), ("time", "2")]);
        assert!(read(&path, &["time".to_owned()], &[], None).is_err());
        std::fs::write(&path, b"\xff").unwrap();
        assert!(
            read(&path, &[], &[], Some(StackUnit::Ns))
                .unwrap_err()
                .to_string()
                .contains("UTF-8")
        );
        std::fs::write(&path, vec![b' '; SCRIPT_BYTES_MAX + 1]).unwrap();
        assert!(
            read(&path, &[], &[], Some(StackUnit::Ns))
                .unwrap_err()
                .to_string()
                .contains("1 MiB")
        );
    }
}
