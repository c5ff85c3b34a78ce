//! Inventories: which hosts there are, and what they are like.
//!
//! In: a fleet file, an Ansible inventory (INI or YAML), a plain list; an expression that selects. Out:
//! hosts of a job. Never: a name that is resolved, or a host that is left out without being asked for.

mod ansible;
mod pattern;
mod select;
mod ssh_config;

pub use pattern::{expand_ranges, matches};
pub use select::Selection;
pub use ssh_config::{Line, aliases, parse_line};

use crate::spec::{self, SpecError};
use model::job::{JobHost, Labels};

/// Largest number of hosts of one inventory.
pub const HOSTS_MAX: usize = 10_000;

/// A host and its labels; a label may have several values, as Ansible's groups do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryHost {
    /// Its name and how it is reached.
    pub host: JobHost,
    /// What it is like.
    pub labels: Labels,
}

impl From<JobHost> for InventoryHost {
    /// With the labels that a run keeps of it.
    fn from(host: JobHost) -> Self {
        Self {
            labels: host.labels.clone(),
            host,
        }
    }
}

/// Reads an inventory of any kind; `source` is named in errors.
///
/// A YAML document with `version:` is a fleet file, any other YAML mapping an Ansible inventory; the rest
/// is read as Ansible's INI form, of which a list of destinations, one a line, is the simplest.
///
/// # Errors
/// What is wrong, and where.
pub fn read(bytes: &[u8], source: &str) -> Result<Vec<InventoryHost>, SpecError> {
    let whole = |message: String| SpecError::new(source, None, message);
    let text =
        std::str::from_utf8(bytes).map_err(|_| whole("the file is not UTF-8 text".into()))?;
    let hosts = if is_yaml(text) {
        let tree: serde_json::Value = spec::read_tree(bytes, source)?;
        if tree.get("version").is_some() {
            from_fleet(spec::read_fleet(bytes, source)?)
        } else {
            ansible::from_tree(&tree).map_err(whole)?
        }
    } else {
        ansible::from_ini(text).map_err(|(line, message)| SpecError::new(source, line, message))?
    };
    if hosts.is_empty() {
        return Err(whole("no host is listed".into()));
    }
    Ok(hosts)
}

fn from_fleet(hosts: Vec<spec::LabelledHost>) -> Vec<InventoryHost> {
    let one = |(mut host, labels): spec::LabelledHost| {
        let labels = labels.into_iter();
        host.labels = labels
            .map(|(key, values)| (key, values.into_iter().collect()))
            .collect();
        InventoryHost::from(host)
    };
    hosts.into_iter().map(one).collect()
}

/// Whether the first line that says something is one of YAML: a key with a colon, or the document's mark.
/// In the INI form such a line is a section in brackets or a host, whose name ends in no colon.
fn is_yaml(text: &str) -> bool {
    let first = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    first.is_some_and(|line| {
        line == "---"
            || line.starts_with('{')
            || line.split_once(':').is_some_and(|(key, rest)| {
                !key.starts_with('[')
                    && !key.contains(['=', ' ', '/', '@'])
                    && (rest.is_empty() || rest.starts_with(' '))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::job::Reach;
    use std::collections::BTreeSet;

    #[test]
    fn a_fleet_file_has_hosts_with_labels() {
        let hosts = read(spec::FLEET.as_bytes(), "fleet.yaml").unwrap();
        assert!(hosts.len() >= 3);
        let first = &hosts[0];
        assert!(matches!(first.host.reach, Reach::Ssh(_)));
        assert_eq!(
            first.labels["role"],
            BTreeSet::from(["kong".to_owned()]),
            "{first:?}"
        );
        let wrong = "version: 1\nhosts:\n  - {name: a, ssh: -oProxyCommand=x}\n";
        let error = read(wrong.as_bytes(), "f.yaml").unwrap_err().to_string();
        assert!(
            error.starts_with("f.yaml:3:") && error.contains("ssh destination"),
            "{error}"
        );
    }

    #[test]
    fn a_plain_list_is_an_inventory() {
        let hosts = read(b"# mine\nkong-1\ndeploy@kong-2\nssh://kong-3:2222\n", "-").unwrap();
        let ways: Vec<_> = hosts.iter().map(|h| h.host.reach.clone()).collect();
        let ssh = |text: &str| Reach::Ssh(text.parse().unwrap());
        assert_eq!(
            ways,
            [
                ssh("kong-1"),
                ssh("deploy@kong-2"),
                ssh("ssh://kong-3:2222")
            ]
        );
        assert!(read(b"\n# nothing\n", "-").is_err());
    }
}
