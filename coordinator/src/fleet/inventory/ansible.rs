//! Ansible's inventories, INI and YAML: hosts, groups, and the variables that say how a host is reached.
//! Pure.
//!
//! In: text or a tree. Out: hosts, their groups as the label `group`, their plain variables as labels.
//! Never: a template evaluated, a plug-in or script run, or a secret kept: variables with "pass", "secret",
//! "token" or "key" in their names are not even labels.
//!
//! The form is that of Ansible's documentation, "How to build your inventory" (2.17).

use super::{HOSTS_MAX, InventoryHost, expand_ranges};
use model::HostName;
use model::destination::Destination;
use model::job::{JobHost, Reach};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

type Variables = BTreeMap<String, String>;

/// What an inventory says, before groups are followed to their parents.
#[derive(Debug, Default)]
struct Inventory {
    /// In the order of their first mention.
    order: Vec<String>,
    hosts: BTreeMap<String, Variables>,
    groups: BTreeMap<String, Group>,
}

#[derive(Debug, Default)]
struct Group {
    hosts: BTreeSet<String>,
    children: BTreeSet<String>,
    variables: Variables,
}

impl Inventory {
    fn host(&mut self, name: &str, group: &str, variables: Variables) -> Result<(), String> {
        if !self.hosts.contains_key(name) {
            if self.order.len() >= HOSTS_MAX {
                return Err(format!("more than {HOSTS_MAX} hosts"));
            }
            self.order.push(name.to_owned());
        }
        self.hosts
            .entry(name.to_owned())
            .or_default()
            .extend(variables);
        let group = self.groups.entry(group.to_owned()).or_default();
        group.hosts.insert(name.to_owned());
        Ok(())
    }

    /// The groups of a host, and those above them; the nearest first.
    fn groups_of(&self, host: &str) -> Vec<&str> {
        let direct = self
            .groups
            .iter()
            .filter(|(_, group)| group.hosts.contains(host));
        let mut found: Vec<&str> = direct.map(|(name, _)| name.as_str()).collect();
        let mut at = 0;
        // Each group is visited once, so a circle ends.
        while at < found.len() {
            let child = found[at];
            let parents = self
                .groups
                .iter()
                .filter(|(_, group)| group.children.contains(child));
            for (name, _) in parents {
                if !found.contains(&name.as_str()) {
                    found.push(name);
                }
            }
            at += 1;
        }
        found
    }

    fn into_hosts(self) -> Result<Vec<InventoryHost>, String> {
        self.order.iter().map(|name| self.finish(name)).collect()
    }

    fn finish(&self, name: &str) -> Result<InventoryHost, String> {
        let groups = self.groups_of(name);
        let mut variables = Variables::new();
        if let Some(all) = self.groups.get("all") {
            variables.extend(all.variables.clone());
        }
        for group in groups.iter().rev() {
            variables.extend(self.groups[*group].variables.clone());
        }
        variables.extend(self.hosts[name].clone());
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for group in groups
            .iter()
            .filter(|g| !matches!(**g, "all" | "ungrouped"))
        {
            labels
                .entry("group".to_owned())
                .or_default()
                .insert((*group).to_owned());
        }
        // A run keeps groups only: variables may hold what nobody meant to lie there.
        let kept = labels.clone();
        for (key, value) in &variables {
            if !key.starts_with("ansible_") && !is_secret(key) && !value.contains("{{") {
                labels.entry(key.clone()).or_default().insert(value.clone());
            }
        }
        let (host_name, reach) = reach(name, &variables)?;
        Ok(InventoryHost {
            host: JobHost {
                name: host_name,
                reach,
                targets: Vec::new(),
                labels: kept,
            },
            labels,
        })
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "secret", "token", "key"]
        .iter()
        .any(|word| key.contains(word))
}

/// The host's name, and how it is reached.
fn reach(name: &str, variables: &Variables) -> Result<(HostName, Reach), String> {
    let get = |keys: [&str; 2]| keys.iter().find_map(|key| variables.get(*key));
    let bad = |e: &dyn std::fmt::Display| format!("host {name}: {e}");
    let itself: Destination = name.parse().map_err(|e| bad(&e))?;
    let host = get(["ansible_host", "ansible_ssh_host"]);
    let user = get(["ansible_user", "ansible_ssh_user"]);
    let port = get(["ansible_port", "ansible_ssh_port"]);
    if get(["ansible_connection", "connection"]).is_some_and(|way| way == "local") {
        return Ok((itself.name(), Reach::Local));
    }
    let port = match port {
        Some(port) => {
            let number = port.parse().ok();
            Some(number.ok_or_else(|| bad(&format!("{port:?} is no port")))?)
        }
        None => itself.port(),
    };
    let destination = Destination::new(
        user.map(String::as_str).or(itself.user()),
        host.map_or(itself.host(), String::as_str),
        port,
    );
    Ok((itself.name(), Reach::Ssh(destination.map_err(|e| bad(&e))?)))
}

/// Reads the INI form.
///
/// # Errors
/// The line, if it is one line's fault, and what is wrong with it.
pub fn from_ini(text: &str) -> Result<Vec<InventoryHost>, (Option<u64>, String)> {
    let mut inventory = Inventory::default();
    let (mut group, mut kind) = ("ungrouped".to_owned(), "hosts".to_owned());
    for (number, line) in (1_u64..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let at = |e: String| (Some(number), e);
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']'))
            && !section.contains(['[', ' '])
        {
            let (name, of) = section.split_once(':').unwrap_or((section, "hosts"));
            if !matches!(of, "hosts" | "children" | "vars") {
                return Err(at(format!(
                    "[{section}] is no section; [GROUP], [GROUP:children] and [GROUP:vars] are"
                )));
            }
            (group, kind) = (name.to_owned(), of.to_owned());
            inventory.groups.entry(group.clone()).or_default();
            continue;
        }
        let words = words(line).map_err(at)?;
        match kind.as_str() {
            "hosts" => {
                let Some((name, rest)) = words.split_first() else {
                    continue;
                };
                let variables: Variables = rest.iter().filter_map(|w| variable(w)).collect();
                for name in expand_ranges(name).map_err(at)? {
                    inventory
                        .host(&name, &group, variables.clone())
                        .map_err(at)?;
                }
            }
            "children" => {
                let group = inventory.groups.entry(group.clone()).or_default();
                group.children.extend(words.first().cloned());
            }
            _ => {
                let group = inventory.groups.entry(group.clone()).or_default();
                group.variables.extend(variable(line));
            }
        }
    }
    inventory.into_hosts().map_err(|e| (None, e))
}

fn variable(word: &str) -> Option<(String, String)> {
    let (key, value) = word.split_once('=')?;
    let value = value.trim().trim_matches(['"', '\'']);
    Some((key.trim().to_owned(), value.to_owned()))
}

/// Words between blanks, with quotes, up to a comment.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut open) = (None::<String>, None);
    for c in line.chars() {
        match (c, open) {
            (c, Some(quote)) if c == quote => open = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                open = Some(c);
            }
            ('#', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match open {
        Some(_) => Err("a quotation mark is left open".to_owned()),
        None => Ok(words),
    }
}

/// Reads the YAML form.
///
/// # Errors
/// What is wrong, and in which group.
pub fn from_tree(tree: &Value) -> Result<Vec<InventoryHost>, String> {
    let groups = tree
        .as_object()
        .ok_or("groups are needed here, such as all: {hosts: {kong-1: }}")?;
    let mut inventory = Inventory::default();
    for (name, body) in groups {
        add_group(&mut inventory, name, body, 0)?;
    }
    inventory.into_hosts()
}

fn add_group(
    inventory: &mut Inventory,
    name: &str,
    body: &Value,
    depth: usize,
) -> Result<(), String> {
    if depth > 16 {
        return Err(format!("group {name} is nested too deeply"));
    }
    inventory.groups.entry(name.to_owned()).or_default();
    for (key, part) in body.as_object().into_iter().flatten() {
        let entries = part.as_object().into_iter().flatten();
        match key.as_str() {
            "hosts" => {
                for (host, variables) in entries {
                    for host in expand_ranges(host).map_err(|e| format!("group {name}: {e}"))? {
                        inventory.host(&host, name, scalars(variables))?;
                    }
                }
            }
            "children" => {
                for (child, body) in entries {
                    let group = inventory.groups.entry(name.to_owned()).or_default();
                    group.children.insert(child.clone());
                    add_group(inventory, child, body, depth + 1)?;
                }
            }
            "vars" => {
                let group = inventory.groups.entry(name.to_owned()).or_default();
                group.variables.extend(scalars(part));
            }
            other => {
                return Err(format!(
                    "group {name} has {other:?}; hosts, children and vars are known"
                ));
            }
        }
    }
    Ok(())
}

fn scalars(value: &Value) -> Variables {
    let scalar = |(key, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            _ => return None,
        };
        Some((key.clone(), text))
    };
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(scalar)
        .collect()
}

#[cfg(test)]
#[path = "ansible_tests.rs"]
mod tests;
