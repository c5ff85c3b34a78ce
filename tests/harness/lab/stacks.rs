//! Stacks as `print_ustack` and our own scripts print them, read without the product's own reader.
//!
//! In: the standard output of a script, a process's mappings. Out: stacks with their counts. Never: a line
//! that is passed over: what is neither a frame nor a count is an error.

use anyhow::{Context, Result, bail};

/// A stack and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Function names, or addresses where there is none, the innermost first.
    pub frames: Vec<String>,
    /// Samples.
    pub count: u64,
}

/// Reads lines ` 0xADDRESS : NAME+0xOFFSET/0xSIZE [MODULE]`, each stack closed by `<tab>COUNT`.
pub fn read(text: &str) -> Result<Vec<Stack>> {
    let mut stacks = Vec::new();
    let mut frames = Vec::new();
    for line in text.lines() {
        if let Some(count) = line.strip_prefix('\t') {
            stacks.push(Stack {
                frames: std::mem::take(&mut frames),
                count: count
                    .parse()
                    .with_context(|| format!("no count: {line:?}"))?,
            });
        } else if let Some((_, place)) = line.split_once(" : ") {
            let name = place.split([' ', '+']).next().unwrap_or(place);
            frames.push(name.to_owned());
        } else {
            bail!("neither a frame nor a count: {line:?}");
        }
    }
    if !frames.is_empty() {
        bail!("the last stack has no count: {frames:?}");
    }
    Ok(stacks)
}

/// Reads `started`, lines `0xADDRESS 0xADDRESS …<tab>COUNT` and the last one, `samples<tab>COUNT`. Frames are the files
/// that `maps` (`/proc/PID/maps`) has at the addresses, `?` where there is none.
pub fn read_addresses(text: &str, maps: &str) -> Result<Vec<Stack>> {
    let mut stacks = Vec::new();
    let text = text.strip_prefix("started\n").unwrap_or(text);
    // A task without a user stack has a newline for one.
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (addresses, count) = line
            .rsplit_once('\t')
            .with_context(|| format!("a line without a count: {line:?}"))?;
        let frames = addresses
            .split_ascii_whitespace()
            .map(|address| file_at(address, maps).unwrap_or_else(|| "?".to_owned()))
            .collect();
        let count = count
            .trim()
            .parse()
            .with_context(|| format!("no count: {line:?}"))?;
        stacks.push((addresses, Stack { frames, count }));
    }
    let (word, all) = stacks.pop().context("nothing was printed")?;
    let sum: u64 = stacks.iter().map(|(_, stack)| stack.count).sum();
    if word != "samples" || sum != all.count {
        bail!(
            "the output is cut: {sum} samples, and it ends in {word:?} {}",
            all.count
        );
    }
    Ok(stacks.into_iter().map(|(_, stack)| stack).collect())
}

/// The file name of what is mapped at `address`: lines `BEGIN-END FLAGS OFFSET DEVICE INODE PATH`.
fn file_at(address: &str, maps: &str) -> Option<String> {
    let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
    let address = number(address.strip_prefix("0x")?)?;
    let line = maps.lines().find(|line| {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        range.is_some_and(|(begin, end)| {
            number(begin).is_some_and(|begin| begin <= address)
                && number(end).is_some_and(|end| address < end)
        })
    })?;
    line.rsplit_once('/').map(|(_, name)| name.to_owned())
}

/// Samples of all stacks, and of those with a frame of this name.
pub fn share(stacks: &[Stack], name: &str) -> (u64, u64) {
    let with = |stack: &&Stack| stack.frames.iter().any(|frame| frame == name);
    let sum = |stacks: &mut dyn Iterator<Item = &Stack>| stacks.map(|stack| stack.count).sum();
    (
        sum(&mut stacks.iter()),
        sum(&mut stacks.iter().filter(with)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_read_and_shares_taken() {
        let text = " 0x5652 : spin+0xa/0x2c [/w/deep]\n 0x5653 : main+0x80/0xd3 [/w/deep]\n\t12\n \
                    0x7f2a : 0x7f2a [/lib/libc.so.6+0x2724a/0x1d5000]\n\t4\n";
        let stacks = read(text).expect("stacks");
        assert_eq!(stacks[0].frames, ["spin", "main"]);
        assert_eq!(stacks[1].frames, ["0x7f2a"]);
        assert_eq!(share(&stacks, "main"), (16, 12));
        let maps = "1000-2000 r-xp 0 00:02 1    /usr/bin/a\n2000-3000 rw-p 0 00:00 0\n";
        let stacks = read_addresses("started\n0x1fff 0x2000 \t   3\n\n \t1\nsamples\t4\n", maps)
            .expect("stacks");
        assert_eq!(stacks[0].frames, ["a", "?"]);
        assert_eq!(
            stacks[1],
            Stack {
                frames: Vec::new(),
                count: 1
            }
        );
        assert!(read_addresses("0x1\t3\n", maps).is_err());
        assert!(read_addresses("0x1\t3\nsamples\t4\n", maps).is_err());
        assert!(read(" 0x1 : a\n").is_err() && read("ERROR: x\n").is_err());
    }
}
