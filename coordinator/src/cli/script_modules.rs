//! The modules that a script takes in by `@use`, found where `fleetflame-agent expand` finds them. In: a script's text and
//! place, folders. Out: the modules, to be sent with it. Never: a file without a bound, or one twice.

use super::output::usage;
use model::script::{MODULES_MAX, SCRIPT_BYTES_MAX, ScriptModule, is_module_name, used_modules};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// All that `text` uses, and what these use.
///
/// # Errors
/// One cannot be found or read, or all of them are too large.
pub(super) fn of_script(
    path: &Path,
    text: &str,
    include: &[PathBuf],
) -> anyhow::Result<BTreeMap<String, ScriptModule>> {
    let folders = folders(path, include);
    let mut found: BTreeMap<String, ScriptModule> = BTreeMap::new();
    let mut bytes = text.len();
    let mut wanted = used_modules(text);
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let module = read(&folders, &name)?;
        bytes = bytes.saturating_add(module.text.len());
        if bytes > SCRIPT_BYTES_MAX || found.len() >= MODULES_MAX {
            let said = format!(
                "{} and its modules are larger than {} MiB, or more than {MODULES_MAX}",
                path.display(),
                SCRIPT_BYTES_MAX >> 20
            );
            return Err(usage(said));
        }
        wanted.extend(used_modules(&module.text));
        found.insert(name, module);
    }
    Ok(found)
}

/// Where modules are looked for, in this order: the folders that were named, the current one, `tapset` beside the program
/// `stap++`, and `tapset` in the script's folder and the two above it.
fn folders(script: &Path, include: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders = include.to_vec();
    folders.push(PathBuf::from("."));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|folder| folder.join("stap++"))
        .find(|program| program.is_file())
        .and_then(|program| program.canonicalize().ok());
    let script = script.canonicalize().ok();
    let beside = program.iter().filter_map(|program| program.parent());
    let checkout = script.iter().flat_map(|s| s.ancestors().skip(1).take(3));
    let tapsets = beside.chain(checkout).map(|folder| folder.join("tapset"));
    for tapset in tapsets.filter(|folder| folder.is_dir()) {
        if !folders.contains(&tapset) {
            folders.push(tapset);
        }
    }
    folders
}

fn read(folders: &[PathBuf], name: &str) -> anyhow::Result<ScriptModule> {
    let inside = format!("{}.sxx", name.replace('.', "/"));
    let at = |folder: &PathBuf| folder.join(&inside);
    let found = folders.iter().map(at).find(|file| file.is_file());
    let Some(file) = found.filter(|_| is_module_name(name)) else {
        let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        let said = format!(
            "cannot find @use library {name}: {inside} is in none of {}; name its folder by --include",
            looked.join(", ")
        );
        return Err(usage(said));
    };
    let mut bytes = Vec::new();
    let shown = file.display().to_string();
    File::open(&file)
        .and_then(|f| f.take(SCRIPT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| usage(format!("failed to read {shown}: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|_| usage(format!("{shown} is not UTF-8")))?;
    // Findings name it: as short as it is exact.
    let file = match file.strip_prefix(".") {
        Ok(file) => file.display().to_string(),
        Err(_) => shown,
    };
    Ok(ScriptModule { file, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_their_modules_are_found_in_order() {
        let stage = tempfile::tempdir().unwrap();
        let at = |path: &str| stage.path().join(path);
        for folder in ["own/a", "tapset"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for (file, text) in [
            ("s.sxx", "@use a.b\n"),
            ("own/a/b.sxx", "@use c, a.b\n"),
            ("tapset/c.sxx", "global c\n"),
        ] {
            std::fs::write(at(file), text).unwrap();
        }
        let script = at("s.sxx");
        let found = of_script(&script, "@use a.b\n", &[at("own")]).unwrap();
        let names: Vec<(&str, &str)> = found
            .iter()
            .map(|(name, module)| (name.as_str(), module.text.as_str()))
            .collect();
        assert_eq!(names, [("a.b", "@use c, a.b\n"), ("c", "global c\n")]);
        assert!(found["c"].file.ends_with("tapset/c.sxx"));
        let missing = of_script(&script, "@use a.b\n", &[]).unwrap_err();
        assert!(
            missing.to_string().contains("cannot find @use library a.b"),
            "{missing}"
        );
        std::fs::write(at("tapset/c.sxx"), vec![b' '; SCRIPT_BYTES_MAX]).unwrap();
        let large = of_script(&script, "@use c\n", &[]).unwrap_err();
        assert!(large.to_string().contains("larger than 1 MiB"), "{large}");
    }
}
