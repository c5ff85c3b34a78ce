//! The hosts that flags name: destinations, patterns of ssh_config, inventories. In: flags, the files that
//! they name, stdin. Out: hosts of a job. Never: a pattern or selection that quietly means nothing.

use super::output::usage;
use crate::fleet::inventory::{self, Line, Selection};
use anyhow::Context as _;
use model::HostName;
use model::destination::Destination;
use model::job::{JobHost, Reach};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// ssh_config files that include each other further than this are not followed; ssh stops at 16.
const INCLUDES_MAX: usize = 16;
/// Largest file of any kind that is read here.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The hosts of one `--ssh` word: `[NAME=]DEST`, or a pattern of names that ssh_config has.
pub fn over_ssh(text: &str, config: Option<&Path>) -> anyhow::Result<Vec<JobHost>> {
    let text = text.trim();
    if text.contains(['*', '?']) {
        return from_ssh_config(text, config);
    }
    let named = text.split_once('=').filter(|(name, _)| !name.contains('@'));
    let (name, destination) = match named {
        Some((name, destination)) => (Some(name), destination),
        None => (None, text),
    };
    let destination: Destination = destination
        .parse()
        .map_err(|e: model::destination::BadDestination| usage(e.to_string()))?;
    let name = match name {
        Some(name) => HostName::new(name).map_err(|e| usage(e.to_string()))?,
        None => destination.name(),
    };
    Ok(vec![host(name, destination)])
}

fn host(name: HostName, destination: Destination) -> JobHost {
    JobHost::new(name, Reach::Ssh(destination))
}

fn from_ssh_config(pattern: &str, config: Option<&Path>) -> anyhow::Result<Vec<JobHost>> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let folder = home.unwrap_or_else(|| PathBuf::from("/")).join(".ssh");
    let path = config.map_or_else(|| folder.join("config"), Path::to_owned);
    let text = read_file(&path)?;
    let mut texts = vec![text];
    let mut at = 0;
    while at < texts.len() && texts.len() < INCLUDES_MAX {
        for line in texts[at].clone().lines() {
            if let Line::Include(files) = inventory::parse_line(line) {
                for file in files.iter().flat_map(|file| included(file, &folder)) {
                    texts.extend(read_file(&file).ok());
                }
            }
        }
        at += 1;
    }
    let mut names: Vec<String> = Vec::new();
    for text in &texts {
        for name in inventory::aliases(text, pattern) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    if names.is_empty() {
        let said = format!("no Host of {} fits {pattern:?}", path.display());
        return Err(usage(said));
    }
    let one = |name: &String| {
        let destination: Destination = name
            .parse()
            .map_err(|e: model::destination::BadDestination| usage(e.to_string()))?;
        Ok(host(destination.name(), destination))
    };
    names.iter().map(one).collect()
}

/// The files of an `Include`: relative ones lie in ~/.ssh; `*` and `?` in the last part are followed.
fn included(file: &str, folder: &Path) -> Vec<PathBuf> {
    let path = match file.strip_prefix("~/") {
        Some(rest) => folder.parent().unwrap_or(folder).join(rest),
        None => folder.join(file),
    };
    let last = path.file_name().and_then(|name| name.to_str());
    let Some(pattern) = last.filter(|last| last.contains(['*', '?'])) else {
        return vec![path];
    };
    let entries = path
        .parent()
        .and_then(|above| std::fs::read_dir(above).ok());
    let fits = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| inventory::matches(pattern, name))
    };
    let found = entries.into_iter().flatten().flatten().filter(fits);
    let mut found: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    found.sort_unstable();
    found
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .with_context(|| format!("failed to read {}", path.display()))?;
    Ok(text)
}

/// The hosts of an inventory (`-` is stdin) that an expression selects.
pub fn from_inventory(file: &Path, select: Option<&str>) -> anyhow::Result<Vec<JobHost>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        let stdin = std::io::stdin().lock();
        stdin
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .context("failed to read stdin")?;
    } else {
        bytes = read_file(file)?.into_bytes();
    }
    let source = match file == Path::new("-") {
        true => "stdin".to_owned(),
        false => file.display().to_string(),
    };
    let hosts = inventory::read(&bytes, &source)?;
    let known = hosts.len();
    let hosts = match select {
        None => hosts,
        Some(expression) => {
            let selection: Selection = expression
                .parse()
                .map_err(|e: String| usage(format!("--select {e}")))?;
            selection.apply(hosts)
        }
    };
    if hosts.is_empty() {
        let expression = select.unwrap_or_default();
        let said = format!("--select {expression:?} fits none of the {known} hosts of {source}");
        return Err(usage(said));
    }
    Ok(hosts.into_iter().map(|h| h.host).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_destination_with_or_without_a_name() {
        let one = |text: &str| over_ssh(text, None).unwrap().remove(0);
        assert_eq!(one("kong-1").name.as_str(), "kong-1");
        let named = one("edge=deploy@10.0.0.1");
        assert_eq!(named.name.as_str(), "edge");
        assert_eq!(named.reach, Reach::Ssh("deploy@10.0.0.1".parse().unwrap()));
        assert!(over_ssh("-oProxyCommand=x", None).is_err());
    }

    #[test]
    fn patterns_mean_the_hosts_of_ssh_config_and_of_what_it_includes() {
        let stage = tempfile::tempdir().unwrap();
        let path = stage.path().join("config");
        let more = stage.path().join("more.d");
        std::fs::create_dir(&more).unwrap();
        std::fs::write(more.join("b.conf"), "Host kong-3\nHost web-1\n").unwrap();
        std::fs::write(more.join("ignored"), "Host kong-9\n").unwrap();
        let text = format!(
            "Include {}/*.conf\nHost kong-1 kong-2\nHost *\n",
            more.display()
        );
        std::fs::write(&path, text).unwrap();
        let hosts = over_ssh("kong-*", Some(&path)).unwrap();
        let names: Vec<&str> = hosts.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["kong-1", "kong-2", "kong-3"]);
        let none = over_ssh("db-*", Some(&path)).unwrap_err().to_string();
        assert!(none.contains("db-*"), "{none}");
    }
}
