//! `--select`: which hosts of an inventory. Pure.
//!
//! ```text
//! role=kong,dc in (bj,sh),name!=kong-7,10%
//! TERM = KEY=VALUE | KEY!=VALUE | KEY in (A,B) | KEY not in (A,B) | KEY | !KEY | N | N%
//! ```
//! In: an expression, hosts with labels. Out: the hosts that fit every term; then N of them, or N percent.
//! Never: another choice the next time: a count takes the same hosts of the same inventory again.

use super::InventoryHost;
use super::pattern::matches;

/// A parsed expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    terms: Vec<Term>,
    amount: Option<Amount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// Some value of the label fits some pattern; the opposite when `not`.
    Values {
        key: String,
        patterns: Vec<String>,
        not: bool,
    },
    /// The label is there; is not, when `not`.
    Has { key: String, not: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amount {
    Hosts(usize),
    Percent(usize),
}

impl std::str::FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut selection = Self::default();
        for part in terms(text)? {
            match amount(part)? {
                Some(_) if selection.amount.is_some() => {
                    return Err(format!("{text:?} has two amounts; give one of N and N%"));
                }
                Some(amount) => selection.amount = Some(amount),
                None => selection.terms.push(term(part)?),
            }
        }
        Ok(selection)
    }
}

impl Selection {
    /// The hosts that are meant, in the inventory's order.
    #[must_use]
    pub fn apply(&self, hosts: Vec<InventoryHost>) -> Vec<InventoryHost> {
        let fits = |host: &InventoryHost| self.terms.iter().all(|term| term.fits(host));
        let hosts: Vec<InventoryHost> = hosts.into_iter().filter(fits).collect();
        let wanted = match self.amount {
            None => return hosts,
            Some(Amount::Hosts(n)) => n,
            // Rounded up: some percent of a few hosts are never none.
            Some(Amount::Percent(percent)) => (hosts.len() * percent).div_ceil(100),
        };
        // By the hash of the name: spread over racks and numbers, and the same the next time.
        let rank =
            |host: &InventoryHost| *blake3::hash(host.host.name.as_str().as_bytes()).as_bytes();
        let mut ranks: Vec<_> = hosts.iter().map(rank).collect();
        ranks.sort_unstable();
        ranks.truncate(wanted);
        let chosen = |host: &InventoryHost| ranks.binary_search(&rank(host)).is_ok();
        hosts.into_iter().filter(chosen).collect()
    }
}

impl Term {
    fn fits(&self, host: &InventoryHost) -> bool {
        match self {
            Self::Values { key, patterns, not } => {
                let any = |value: &str| patterns.iter().any(|pattern| matches(pattern, value));
                let fits = match key.as_str() {
                    "name" => any(host.host.name.as_str()),
                    key => host
                        .labels
                        .get(key)
                        .is_some_and(|values| values.iter().any(|value| any(value))),
                };
                fits != *not
            }
            Self::Has { key, not } => host.labels.contains_key(key) != *not,
        }
    }
}

/// The parts between commas that stand in no parentheses.
fn terms(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let (mut depth, mut begin) = (0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| format!("{text:?} closes a parenthesis that is not open"))?;
            }
            ',' if depth == 0 => {
                parts.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    if depth != 0 {
        return Err(format!("{text:?} leaves a parenthesis open"));
    }
    parts.push(text[begin..].trim());
    match parts.iter().any(|part| part.is_empty()) {
        true => Err(format!("{text:?} has an empty part; {HOW}")),
        false => Ok(parts),
    }
}

const HOW: &str = "write role=kong, dc!=bj, dc in (bj,sh), name=kong-*, canary, !canary, 3 or 10%, with commas between";

fn amount(part: &str) -> Result<Option<Amount>, String> {
    let digits = part.strip_suffix('%').unwrap_or(part);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let number: usize = digits
        .parse()
        .map_err(|_| format!("{part:?} is too large a number"))?;
    match part.ends_with('%') {
        true if (1..=100).contains(&number) => Ok(Some(Amount::Percent(number))),
        false if number > 0 => Ok(Some(Amount::Hosts(number))),
        _ => Err(format!(
            "{part:?} selects nothing; use 1 to 100 percent, or 1 host or more"
        )),
    }
}

fn term(part: &str) -> Result<Term, String> {
    let bad = || format!("{part:?} is no part of a selection; {HOW}");
    let key = |text: &str| -> Result<String, String> {
        let text = text.trim();
        let good = !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_alphanumeric() || "._-/".contains(c));
        good.then(|| text.to_owned()).ok_or_else(bad)
    };
    if let Some((left, list)) = part.strip_suffix(')').and_then(|p| p.split_once('(')) {
        let words: Vec<&str> = left.split_whitespace().collect();
        let (name, not) = match words[..] {
            [name, "in"] => (name, false),
            [name, "not", "in"] | [name, "notin"] => (name, true),
            _ => return Err(bad()),
        };
        let patterns: Vec<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
        if patterns.iter().any(String::is_empty) {
            return Err(bad());
        }
        return Ok(Term::Values {
            key: key(name)?,
            patterns,
            not,
        });
    }
    if let Some((left, value)) = part.split_once('=') {
        let (name, not) = match left.strip_suffix('!') {
            Some(name) => (name, true),
            None => (left, false),
        };
        let value = value.strip_prefix('=').unwrap_or(value).trim();
        if value.is_empty() {
            return Err(bad());
        }
        return Ok(Term::Values {
            key: key(name)?,
            patterns: vec![value.to_owned()],
            not,
        });
    }
    let (name, not) = match part.strip_prefix('!') {
        Some(name) => (name, true),
        None => (part, false),
    };
    Ok(Term::Has {
        key: key(name)?,
        not,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::HostName;
    use model::job::{JobHost, Reach};

    fn host(name: &str, labels: &[(&str, &str)]) -> InventoryHost {
        let mut host = InventoryHost {
            host: JobHost {
                name: HostName::new(name).unwrap(),
                reach: Reach::Local,
                targets: Vec::new(),
                labels: Default::default(),
            },
            labels: Default::default(),
        };
        for (key, value) in labels {
            let values = host.labels.entry((*key).to_owned()).or_default();
            values.insert((*value).to_owned());
        }
        host
    }

    fn fleet() -> Vec<InventoryHost> {
        vec![
            host("kong-1", &[("role", "kong"), ("dc", "bj")]),
            host(
                "kong-2",
                &[("role", "kong"), ("dc", "sh"), ("canary", "yes")],
            ),
            host("kong-3", &[("role", "kong"), ("dc", "gz")]),
            host("db-1", &[("role", "db"), ("role", "cache"), ("dc", "bj")]),
        ]
    }

    fn names(expression: &str) -> Vec<String> {
        let selection: Selection = expression.parse().unwrap();
        let hosts = selection.apply(fleet());
        hosts.iter().map(|h| h.host.name.to_string()).collect()
    }

    #[test]
    fn terms_are_all_needed() {
        assert_eq!(names("role=kong,dc in (bj,sh)"), ["kong-1", "kong-2"]);
        assert_eq!(names("role = kong , dc not in (bj, sh)"), ["kong-3"]);
        assert_eq!(names("role=cache"), ["db-1"]);
        assert_eq!(names("name=kong-*,name!=kong-2"), ["kong-1", "kong-3"]);
        assert_eq!(names("canary"), ["kong-2"]);
        assert_eq!(names("!canary,role==kong"), ["kong-1", "kong-3"]);
        assert!(names("dc=nowhere").is_empty());
    }

    #[test]
    fn an_amount_takes_the_same_hosts_again() {
        assert_eq!(names("role=kong,2").len(), 2);
        assert_eq!(names("role=kong,2"), names("2,role=kong"));
        assert_eq!(names("34%").len(), 2);
        assert_eq!(names("role=kong,1%").len(), 1);
        assert_eq!(names("100%").len(), 4);
        assert_eq!(names("9").len(), 4);
    }

    #[test]
    fn what_is_no_expression_says_what_would_be() {
        for bad in [
            "",
            "role=",
            "=x",
            ",",
            "role=kong,",
            "dc in",
            "dc in ()",
            "dc in (a",
            "a)",
            "0",
            "0%",
            "101%",
            "1,2",
            "a b",
            "dc near (a)",
        ] {
            let error = bad.parse::<Selection>().unwrap_err();
            assert!(!error.is_empty(), "{bad}");
        }
        assert!("dc in (".parse::<Selection>().unwrap_err().contains("open"));
    }
}
