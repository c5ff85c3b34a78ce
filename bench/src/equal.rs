//! Whether two results are the same, and where not. In: files. Out: what was compared, in words, or
//! the first difference. Never: a look at sizes alone.

use anyhow::{Context as _, bail, ensure};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Both files have the same lines, in any order.
pub fn same_lines(ours: &Path, theirs: &Path) -> anyhow::Result<String> {
    let (a, b) = (read(ours)?, read(theirs)?);
    let sorted = |text: &'_ [u8]| -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort_unstable();
        lines
    };
    let (a, b) = (sorted(&a), sorted(&b));
    if let Some((x, y)) = a.iter().zip(&b).find(|(x, y)| x != y) {
        bail!(
            "after sorting, ours has {:?} where theirs has {:?}",
            short(x),
            short(y)
        );
    }
    ensure!(
        a.len() == b.len(),
        "ours has {} lines, theirs {}",
        a.len(),
        b.len()
    );
    Ok(format!(
        "{} lines, the same bytes after sorting",
        a.len() - 1
    ))
}

/// Both folded texts have the same stacks with the same counts, once their frames are named alike.
pub fn same_stacks(
    ours: (&Path, fn(&str) -> String),
    theirs: (&Path, fn(&str) -> String),
    divisor: u64,
) -> anyhow::Result<String> {
    let a = stacks(ours.0, ours.1, 1)?;
    let b = stacks(theirs.0, theirs.1, divisor)?;
    let total = |of: &HashMap<String, u64>| of.values().sum::<u64>();
    let mut different: Vec<(&String, u64, u64)> = Vec::new();
    for (stack, count) in &a {
        let other = b.get(stack).copied().unwrap_or(0);
        if other != *count {
            different.push((stack, *count, other));
        }
    }
    different.extend(
        b.iter()
            .filter(|(s, _)| !a.contains_key(*s))
            .map(|(s, c)| (s, 0, *c)),
    );
    different.sort_unstable();
    if let Some((stack, x, y)) = different.first() {
        bail!(
            "{} of {} stacks differ; first: ours {x}, theirs {y} of {:?}",
            different.len(),
            a.len().max(b.len()),
            short(stack.as_bytes())
        );
    }
    Ok(format!(
        "{} stacks with {} samples, stack by stack",
        a.len(),
        total(&a)
    ))
}

/// Both pictures have the same frames: names with their samples. `group` is the name of a frame
/// that only ours has.
pub fn same_frames(ours: &Path, theirs: &Path, group: Option<&str>) -> anyhow::Result<String> {
    let (mut a, b) = (frames(&read(ours)?)?, frames(&read(theirs)?)?);
    if let Some(group) = group {
        let ours_only = a.keys().find(|(name, _)| name == group).cloned();
        let key = ours_only.with_context(|| format!("ours has no frame {group}"))?;
        a.remove(&key);
    }
    let count = |of: &BTreeMap<(String, u64), usize>| of.values().sum::<usize>();
    let only = |x: &BTreeMap<(String, u64), usize>, y: &BTreeMap<(String, u64), usize>| {
        let mut keys = x.iter().filter(|(k, n)| y.get(*k) != Some(n));
        keys.next()
            .map(|(k, n)| format!("{n} × {} with {}", k.0, k.1))
    };
    if a != b {
        bail!(
            "ours has {} frames, theirs {}; first that differ: ours {:?}, theirs {:?}",
            count(&a),
            count(&b),
            only(&a, &b),
            only(&b, &a)
        );
    }
    Ok(format!(
        "{} frames, each with the same name and samples",
        count(&a)
    ))
}

/// Frames that a picture has, the root included.
pub fn frame_count(svg: &Path) -> anyhow::Result<usize> {
    Ok(frames(&read(svg)?)?.values().sum())
}

/// Names and samples of all frames, from their tooltips: `name (1,234 samples, 5.67%)`.
fn frames(svg: &[u8]) -> anyhow::Result<BTreeMap<(String, u64), usize>> {
    let text = String::from_utf8_lossy(svg);
    let mut found = BTreeMap::new();
    for part in text.split("<title>").skip(1) {
        let tip = part.split("</title>").next().unwrap_or_default();
        let Some((name, about)) = tip.rsplit_once(" (") else {
            continue;
        };
        let count = about.split(" samples").next().unwrap_or_default();
        // Ours says `kernel, ` before the number.
        let count = count
            .rsplit(", ")
            .next()
            .unwrap_or_default()
            .replace(',', "");
        let count = count.parse().with_context(|| format!("tooltip {tip:?}"))?;
        // inferno and the Perl script escape quotes differently.
        let name = name.replace("&quot;", "\"").replace("&#34;", "\"");
        *found.entry((name, count)).or_default() += 1;
    }
    ensure!(!found.is_empty(), "the picture has no frames");
    Ok(found)
}

fn stacks(
    path: &Path,
    frame: fn(&str) -> String,
    divisor: u64,
) -> anyhow::Result<HashMap<String, u64>> {
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut all = HashMap::new();
    for line in text.lines() {
        let (stack, count) = line
            .rsplit_once(' ')
            .with_context(|| format!("no count: {line:?}"))?;
        let count: u64 = count
            .parse()
            .with_context(|| format!("no count: {line:?}"))?;
        let stack: Vec<String> = stack.split(';').map(frame).collect();
        *all.entry(stack.join(";")).or_default() += count / divisor;
    }
    ensure!(!all.is_empty(), "{} has no stacks", path.display());
    Ok(all)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn short(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let head: String = text.chars().take(300).collect();
    if head.len() < text.len() {
        format!("{head}…")
    } else {
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn lines_in_another_order_are_the_same_and_a_missing_one_is_not() {
        let (a, b) = (file("x 1\ny 2\n"), file("y 2\nx 1\n"));
        assert!(
            same_lines(a.path(), b.path())
                .unwrap()
                .starts_with("2 lines")
        );
        for other in ["y 2\n", "x 1\ny 3\n", "x 1\ny 2\ny 2\n"] {
            assert!(same_lines(a.path(), file(other).path()).is_err(), "{other}");
        }
    }

    #[test]
    fn stacks_are_named_alike_and_then_compared_with_their_counts() {
        let kernel = |f: &str| f.trim_end_matches("_[k]").to_owned();
        let plain = |f: &str| f.to_owned();
        let a = file("a;b_[k] 2\na;b 1\n");
        let same = |text: &str| same_stacks((a.path(), kernel), (file(text).path(), plain), 10);
        assert_eq!(
            same("a;b 30\n").unwrap(),
            "1 stacks with 3 samples, stack by stack"
        );
        assert!(same("a;b 20\n").is_err());
        assert!(same("a;b 30\na;c 10\n").is_err());
        assert!(same("").is_err());
    }

    #[test]
    fn frames_are_compared_by_name_and_samples_without_our_group() {
        let ours = file(
            "<title>all (1,234 samples, 100%)</title><title>g (1,234 samples, 100%)</title><title>f(int) (kernel, 1,000 samples, 81%)</title>",
        );
        let theirs = file(
            "<title>all (1,234 samples, 100%)</title><title>f(int) (1,000 samples, 81.04%)</title>",
        );
        let found = same_frames(ours.path(), theirs.path(), Some("g")).unwrap();
        assert!(found.starts_with("2 frames"));
        assert!(same_frames(ours.path(), theirs.path(), None).is_err());
        assert!(same_frames(ours.path(), theirs.path(), Some("h")).is_err());
        assert_eq!(frame_count(ours.path()).unwrap(), 3);
    }
}
