//! Scripts and their modules on the disk.
//!
//! In: paths. Out: sources. Never: more than [`BYTES_MAX`] bytes of a file, or a wait on a FIFO that
//! was found as a module.

use crate::stapxx::{BYTES_MAX, Source};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What the verbs take a script and its modules from.
#[derive(Debug, clap::Args)]
pub(super) struct Given {
    /// The script; - for standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The script itself, instead of a file
    #[arg(
        short = 'e',
        value_name = "SCRIPT",
        allow_hyphen_values = true,
        conflicts_with = "file"
    )]
    text: Option<String>,
    /// A folder with modules for @use; looked through before . and stap++'s own
    #[arg(short = 'I', value_name = "DIR")]
    include: Vec<PathBuf>,
}

impl Given {
    /// A script's file, and where else its modules may lie.
    pub(super) fn of_file(file: &Path, include: &[PathBuf]) -> Self {
        Self {
            file: Some(file.to_path_buf()),
            text: None,
            include: include.to_vec(),
        }
    }

    /// The script, and where its modules are looked for.
    ///
    /// # Errors
    /// As [`script`].
    pub(super) fn script(&self) -> Result<(Source, ModuleFolders), String> {
        let file = self.file.as_deref();
        let folders = ModuleFolders::new(&self.include, file);
        Ok((script(file, self.text.as_deref())?, folders))
    }
}

/// The script of a command line: a file, standard input (`-`), or text (`-e`).
///
/// # Errors
/// What is missing or cannot be read, in stap++'s words where it has some.
fn script(file: Option<&Path>, text: Option<&str>) -> Result<Source, String> {
    let source = |name: String, bytes| Source { file: name, bytes };
    match (text, file) {
        (Some(text), _) => Ok(source("-e".to_owned(), text.as_bytes().to_vec())),
        (None, None) => Err("No input file specified.".to_owned()),
        (None, Some(path)) => {
            let name = path.display().to_string();
            let read = if name == "-" {
                bounded(io::stdin())
            } else {
                File::open(path).and_then(bounded)
            };
            let bytes =
                read.map_err(|e| format!("Cannot open {name} for reading: {}", plain(&e)))?;
            Ok(source(name, bytes))
        }
    }
}

/// Where modules are looked for.
pub(super) struct ModuleFolders(Vec<PathBuf>);

impl ModuleFolders {
    /// The folders of `-I` in their order, then as stap++: the current one, and `tapset` beside
    /// the program `stap++`; then `tapset` in the script's folder and the two above it, as in a checkout of stap++.
    fn new(include: &[PathBuf], script: Option<&Path>) -> Self {
        let mut folders = include.to_vec();
        folders.push(PathBuf::from("."));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .map(|folder| folder.join("stap++"))
            .find(|program| program.is_file())
            .and_then(|program| program.canonicalize().ok());
        let beside_program = program.as_deref().and_then(Path::parent);
        let of_script = script.and_then(|s| s.canonicalize().ok());
        let checkout = of_script.as_deref().into_iter().flat_map(|script| {
            // Samples of a checkout lie in `samples` or one folder deeper.
            script.ancestors().skip(1).take(3)
        });
        for folder in beside_program.into_iter().chain(checkout) {
            let tapset = folder.join("tapset");
            if tapset.is_dir() && !folders.contains(&tapset) {
                folders.push(tapset);
            }
        }
        Self(folders)
    }

    /// A module by its dotted name.
    pub(super) fn find(&self, name: &str) -> Option<Source> {
        let inside = format!("{}.sxx", name.replace('.', "/"));
        let file = |folder: &PathBuf| join(&folder.display().to_string(), &inside);
        let file = self.0.iter().map(file).find(|f| Path::new(f).is_file())?;
        let bytes = File::open(&file).and_then(bounded).ok()?;
        Some(Source { file, bytes })
    }
}

/// `folder/inside` as Perl's `File::Spec->catfile` writes it, and so stap++ in its messages: without
/// empty parts and `.` in the folder, and with `./` where the folder is the current one.
fn join(folder: &str, inside: &str) -> String {
    let parts: Vec<&str> = folder
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let root = if folder.starts_with('/') { "/" } else { "" };
    match (parts.is_empty(), root) {
        (true, "") => format!("./{inside}"),
        (true, root) => format!("{root}{inside}"),
        (false, root) => format!("{root}{}/{inside}", parts.join("/")),
    }
}

fn bounded(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > BYTES_MAX {
        let said = format!("it is larger than {} MiB", BYTES_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, said));
    }
    Ok(bytes)
}

/// The system's words without Rust's number behind them.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_as_perl_names_them() {
        for (folder, joined) in [
            (".", "./a.sxx"),
            (".//", "./a.sxx"),
            ("/tmp//q/./", "/tmp/q/a.sxx"),
            ("/q/../q/", "/q/../q/a.sxx"),
            ("/", "/a.sxx"),
            ("lib/", "lib/a.sxx"),
            ("./lib", "lib/a.sxx"),
        ] {
            assert_eq!(join(folder, "a.sxx"), joined, "{folder}");
        }
    }

    #[test]
    fn modules_are_found_in_the_order_of_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["x/a", "y/a", "samples/deep", "tapset"] {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        for path in [
            "y/a/b.sxx",
            "x/c.sxx",
            "tapset/c.sxx",
            "tapset/d.sxx",
            "samples/deep/s.sxx",
        ] {
            std::fs::write(at(path), path).unwrap();
        }
        let script = at("samples/deep/s.sxx");
        let folders = ModuleFolders::new(&[at("x"), at("y")], Some(&script));
        let found = |name| {
            folders
                .find(name)
                .map(|s| String::from_utf8(s.bytes).unwrap())
        };
        assert_eq!(found("a.b").as_deref(), Some("y/a/b.sxx"));
        assert_eq!(found("c").as_deref(), Some("x/c.sxx"));
        assert_eq!(found("d").as_deref(), Some("tapset/d.sxx"));
        assert_eq!(found("none"), None);
        assert!(script_text(&script).is_ok());
        assert!(
            script_text(&at("none"))
                .unwrap_err()
                .ends_with("No such file or directory")
        );
    }

    fn script_text(path: &Path) -> Result<Source, String> {
        script(Some(path), None)
    }
}
