//! Stacks as `print_ustack` prints them, read without the product's own reader.
//!
//! In: the standard output of a script. Out: stacks with their counts. Never: a line that is passed over:
//! what is neither a frame nor a count is an error.

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
        assert!(read(" 0x1 : a\n").is_err() && read("ERROR: x\n").is_err());
    }
}
